"""The video that is drawn beside a replay: as if drawn alone, and gone with a replay that fails."""

import os
import signal
from pathlib import Path

import pytest

from drivesim import render_drive
from selfdrive_tests.drawing import Drawing, Order
from selfdrive_tests.drives import Drive, DriveError, open_drive
from selfdrive_tests.pictures import render
from selfdrive_tests.plans import FrameRecord

RECORDS = [FrameRecord(index, 20.0, None, None) for index in range(8)]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Half a second of two cameras."""
    folder = tmp_path_factory.mktemp("drives") / "road"
    render_drive(folder, seconds=0.5, seed=0, width=160, height=96, wide=True, progress=False)
    return open_drive(folder)


def order(road: Drive, folder: Path) -> Order:
    folder.mkdir()
    return Order(road, len(RECORDS), folder / "plan.mp4", "toy", "")


def test_bytes_are_those_of_a_video_drawn_alone(road: Drive, tmp_path: Path) -> None:
    alone = order(road, tmp_path / "alone")
    expected = render(road, RECORDS, len(RECORDS), alone.video, "toy", "")
    beside = order(road, tmp_path / "beside")
    shown: list[int] = []
    with Drawing(beside) as drawing:
        for record in RECORDS:
            drawing.add(record)
        pictures = drawing.finish(shown.append)
    assert beside.video.read_bytes() == alone.video.read_bytes()
    assert sum(shown) == len(RECORDS)
    assert [still.caption for still in pictures.stills] == [s.caption for s in expected.stills]
    for one, other in zip(pictures.stills, expected.stills, strict=True):
        assert (one.rgb == other.rgb).all()


def test_a_replay_that_fails_leaves_no_half_video(road: Drive, tmp_path: Path) -> None:
    given_up = order(road, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), Drawing(given_up) as drawing:
        drawing.add(RECORDS[0])
        raise KeyboardInterrupt
    assert not given_up.video.exists()


def test_a_drawing_process_that_is_killed_is_named(road: Drive, tmp_path: Path) -> None:
    with Drawing(order(road, tmp_path / "out")) as drawing:
        os.kill(drawing.pid, signal.SIGKILL)
        for record in RECORDS:
            drawing.add(record)
        with pytest.raises(DriveError, match=r"plan\.mp4 ended before its time\. .*--no-video"):
            drawing.finish(lambda _: None)


def test_a_folder_that_cannot_be_written_is_an_oserror(road: Drive, tmp_path: Path) -> None:
    missing = Order(road, len(RECORDS), tmp_path / "nowhere" / "plan.mp4", "toy", "")
    with Drawing(missing) as drawing, pytest.raises(FileNotFoundError):
        drawing.add(RECORDS[0])
        drawing.finish(lambda _: None)
