"""`drive-replay stills`: pictures spread over a drive with the plan on each, to be judged singly.

The drive goes through the daemon as in any replay; of what came out, some frames are drawn, each as
a picture of its own and all together on one sheet. A chart shows how fast the model takes the car
to move and to turn (its `pose`, which no log tells it).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from messaging import LogReader
from selfdrive_tests.chart import Chart, Curve, charts
from selfdrive_tests.drives import RATE_HZ, Drive, DriveError
from selfdrive_tests.overlay import RGB, Panel, draw, font
from selfdrive_tests.pictures import picture_size, without_wide
from selfdrive_tests.plans import FrameRecord
from selfdrive_tests.results import read_records
from selfdrive_tests.runner import FAULTS, run_source
from selfdrive_tests.segments import find_sources
from selfdrive_tests.video import save_still

COLUMNS = 6
TILE_WIDTH, CAPTION = 400, 20  # pixels of the sheet
PAPER, INK = (245, 246, 248), (28, 36, 48)
BLUE: RGB = (37, 99, 184)
SHEET, CHART = "sheet.png", "pose.png"


@dataclass(frozen=True)
class Pose:
    """The camera's motion as the model sees it: speed m/s, yaw rate rad/s to the right."""

    speed: float
    yaw_rate: float


def read_poses(log: Path) -> dict[int, Pose]:
    """cameraOdometry by frame id; models that do not say it give none."""
    poses = {}
    for event in LogReader(log):
        if event.which() == "cameraOdometry":
            said = event.cameraOdometry
            if len(said.trans) == 3 and len(said.rot) == 3:
                poses[said.frameId] = Pose(said.trans[0], said.rot[2])
    return poses


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of the numbers below count, or all if they are fewer, in the middle of equal parts.
    """
    wanted = min(wanted, count)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def draw_stills(drive: Drive, records: Sequence[FrameRecord], poses: Mapping[int, Pose],
                model: str, folder: Path) -> np.ndarray:
    """Write one picture per record; gives the sheet with all of them, (height, width, 3) uint8.

    records: by ascending frames of the drive, which is decoded up to the last one.
    """
    width, height = picture_size(drive.camera)
    small = TILE_WIDTH, round(TILE_WIDTH * height / width / 2) * 2
    by_id = {record.frame_id: record for record in records}
    first, last = min(by_id), max(by_id)
    tiles = []
    for frame in without_wide(drive).frames(first, last + 1 - first):
        record = by_id.get(frame.index)
        if record is None:
            continue
        mounting = record.calibration or drive.calibration
        pose = poses.get(frame.index)
        speed = record.speed if pose is None else pose.speed
        panel = Panel(frame.index, frame.index / RATE_HZ, speed, model)
        drawn = draw(frame.narrow.rgb(width, height), record.plan,
                     drive.camera.scaled(width, height), mounting, panel)
        save_still(folder / f"still_{frame.index:06d}.png", drawn)
        tile = draw(frame.narrow.rgb(*small), record.plan, drive.camera.scaled(*small), mounting,
                    None)
        tiles.append(captioned(tile, caption(record, pose)))
    return sheet(tiles)


def caption(record: FrameRecord, pose: Pose | None) -> str:
    """A frame's time, and what the model says about it."""
    parts = [f"{record.frame_id / RATE_HZ:.1f} s"]
    if pose is not None:
        parts.append(f"{pose.speed:.1f} m/s")
    if record.plan is None:
        return "   ".join([*parts, "no plan"])
    lead = next((lead for lead in record.plan.leads if lead.probability >= 0.5), None)
    parts.append(f"{record.plan.curvature:+.4f} 1/m")
    return "   ".join([*parts, *([f"lead {lead.x:.0f} m"] if lead else [])])


def captioned(tile: np.ndarray, text: str) -> np.ndarray:
    """The picture above a strip with a text."""
    strip = Image.new("RGB", (tile.shape[1], CAPTION), PAPER)
    ImageDraw.Draw(strip).text((6, CAPTION / 2), text, INK, font(12), "lm")
    return np.concatenate([tile, np.asarray(strip)])


def sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one size side by side, COLUMNS in a row."""
    height, width, _ = tiles[0].shape
    rows = -(-len(tiles) // COLUMNS)
    paper = np.full((rows * (height + 6), min(len(tiles), COLUMNS) * (width + 6), 3), PAPER,
                    np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // COLUMNS * (height + 6), i % COLUMNS * (width + 6)
        paper[y : y + height, x : x + width] = tile
    return paper


def pose_charts(poses: Mapping[int, Pose]) -> np.ndarray:
    """Speed and yaw rate over the drive, (height, width, 3) uint8."""
    seconds = np.array([*poses]) / RATE_HZ
    speed = np.array([pose.speed for pose in poses.values()])
    turn = np.degrees([pose.yaw_rate for pose in poses.values()])
    top = max(10.0, 1.1 * float(speed.max(initial=0)))
    side = max(2.0, 1.1 * float(np.abs(turn).max(initial=0)))
    return charts([
        Chart("Speed as the model sees it, m/s", "s", [Curve(seconds, speed, BLUE)], (0.0, top)),
        Chart("Yaw rate as the model sees it, degrees/s, positive to the right", "s",
              [Curve(seconds, turn, BLUE)], (-side, side))])


def main(arguments: Sequence[str]) -> int:
    """The command; gives the exit code: 0, 1 the replay broke off, 2 wrong input."""
    from selfdrive_tests.__main__ import fetch_all, make_job, overrides_of, parser, progress

    top = parser()
    top.prog = "drive-replay stills"
    top.description = "Draw the plan on pictures spread over a drive."
    top.epilog = None
    top.add_argument("-n", "--count", type=int, default=24, help="of pictures (default: 24)")
    options = top.parse_args([*arguments, "--no-video"])
    if options.count < 1:
        top.error("-n must be at least 1")
    try:
        fetch_all(options)
        found = find_sources(options.drive)
        if found.several:
            raise DriveError(f"{options.drive} has several segments; stills are of one.")
        (source,) = found.sources
        job = make_job(options, shlex.join(["drive-replay", "stills", *arguments]))
        outcome = run_source(source, overrides_of(options), job, options.out, progress)
        if outcome.error:
            raise DriveError(outcome.error)
        drive = source.open(overrides_of(options), job.process)
        write(drive, dict(outcome.files)["log"], str(options.model), options.count, options.out)
    except FAULTS as error:
        print(f"drive-replay stills: {error}", file=sys.stderr)
        return 2
    return 0


def write(drive: Drive, log: Path, model: str, count: int, out: Path) -> None:
    """Stills, sheet and chart of a replay's log to a folder."""
    records, poses = read_records(log), read_poses(log)
    if not records:
        raise DriveError(f"{log} has no frames to draw.")
    folder = out / "stills"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("still_*.png"):
        old.unlink()
    chosen = [records[i] for i in spread(len(records), count)]
    save_still(out / SHEET, draw_stills(drive, chosen, poses, Path(model).stem, folder))
    print(f"  {'stills':<18}{folder}")
    print(f"  {'sheet':<18}{out / SHEET}")
    if poses:
        save_still(out / CHART, pose_charts(poses))
        print(f"  {'speed, yaw rate':<18}{out / CHART}")
