"""Stills of a drive: which frames, what is written beside them, and pictures that show the plan."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from messaging import LogWriter, new_message
from selfdrive_tests.drives import Overrides, open_drive
from selfdrive_tests.overlay import PATH_COLOR
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.stills import (
    CAPTION,
    COLUMNS,
    Pose,
    caption,
    draw_stills,
    pose_charts,
    read_poses,
    sheet,
    spread,
)
from selfdrive_tests.video import VideoWriter

WIDTH, HEIGHT = 256, 128


def straight_plan(frame_id: int) -> Plan:
    """Straight ahead at 20 m/s, no lines."""
    position = np.column_stack([np.linspace(0, 100, 33), np.zeros((33, 2))])
    return Plan(frame_id, True, 0.0, 0.0, position, (), (), (), (), 0.0012, 0.0, False, "")


@pytest.mark.parametrize(("count", "wanted", "expected"), [
    (8, 4, [1, 3, 5, 7]), (3, 24, [0, 1, 2]), (1200, 1, [600]), (0, 5, [])])
def test_stills_are_spread_over_the_drive(count: int, wanted: int, expected: list[int]) -> None:
    assert spread(count, wanted) == expected


def test_a_caption_tells_what_the_model_says() -> None:
    record = FrameRecord(30, 20.0, None, straight_plan(30))
    assert caption(record, Pose(19.84, 0.0)) == "1.5 s   19.8 m/s   +0.0012 1/m"
    assert caption(FrameRecord(30, 20.0, None, None), None) == "1.5 s   no plan"


def test_a_sheet_has_all_pictures_in_rows() -> None:
    tiles = [np.full((20, 30, 3), i, np.uint8) for i in range(COLUMNS + 2)]
    paper = sheet(tiles)
    assert paper.shape == (2 * 26, COLUMNS * 36, 3)
    assert (paper[26:46, 36:66] == COLUMNS + 1).all()


def test_every_still_shows_its_frame_and_the_plan(tmp_path: Path) -> None:
    """Frame i is grey of its own shade; the path is drawn in the lower half alone."""
    video = tmp_path / "video.mp4"
    with VideoWriter(video, WIDTH, HEIGHT, 20) as writer:
        for shade in range(0, 200, 20):
            writer.write(np.full((HEIGHT, WIDTH, 3), shade, np.uint8))
    drive = open_drive(video, Overrides(view="wide-model"))
    records = [FrameRecord(i, 20.0, None, straight_plan(i)) for i in (2, 7)]
    paper = draw_stills(drive, records, {2: Pose(19.0, 0.1)}, "a model", tmp_path)
    names = sorted(path.name for path in tmp_path.glob("still_*.png"))
    assert names == ["still_000002.png", "still_000007.png"]
    for name, record in zip(names, records, strict=True):
        picture = np.asarray(Image.open(tmp_path / name)).astype(int)
        height, width, _ = picture.shape
        assert abs(picture[height - 4, 4] - 20 * record.frame_id).max() < 8
        path = picture[height - 20, width // 2]
        assert path[1] - path[0] > 60  # green: the colour of the path
        assert abs(picture[height // 3, width // 2] - 20 * record.frame_id).max() < 8
    assert PATH_COLOR[1] > PATH_COLOR[0]
    assert paper.shape[0] == 200 + CAPTION + 6


def test_poses_are_those_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "rlog.zst"
    with LogWriter(log) as writer:
        for frame_id, speed in ((4, 10.0), (5, 11.0)):
            message = new_message("cameraOdometry", valid=True)
            message.cameraOdometry.frameId = frame_id
            message.cameraOdometry.trans = [speed, 0.0, 0.0]
            message.cameraOdometry.rot = [0.0, 0.0, 0.25]
            writer.write(message)
        writer.write(new_message("cameraOdometry", valid=False))
    poses = read_poses(log)
    assert poses == {4: Pose(10.0, 0.25), 5: Pose(11.0, 0.25)}
    assert pose_charts(poses).shape[2] == 3
