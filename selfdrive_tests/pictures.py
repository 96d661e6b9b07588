"""Draws a replay's plans on the drive's pictures: one video, and a few stills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdrive_tests.drives import RATE_HZ, Camera, Drive
from selfdrive_tests.overlay import Panel, draw
from selfdrive_tests.plans import FrameRecord
from selfdrive_tests.report import Still
from selfdrive_tests.video import VideoWriter, save_still

# Small pictures are enlarged so that lines and text can be seen, large ones reduced.
MIN_WIDTH, MAX_WIDTH = 768, 1280
STILLS = 6

# Plans that mean nothing are drawn faintly: they cross the whole picture.
FAINT = 0.35


@dataclass(frozen=True)
class Pictures:
    """What was written. note: a remark on the video's format, or ""."""

    video: Path
    stills: list[Still]
    note: str


def picture_size(camera: Camera) -> tuple[int, int]:
    """Width and height of the drawn pictures, both even."""
    width = min(max(camera.width, MIN_WIDTH), MAX_WIDTH) & ~1
    return width, round(camera.height * width / camera.width / 2) * 2


def still_numbers(count: int) -> set[int]:
    """Which of `count` frames become stills: spread evenly, in the middle of equal parts."""
    return {(2 * i + 1) * count // (2 * STILLS) for i in range(STILLS)} if count else set()


def render(
    drive: Drive,
    records: Sequence[FrameRecord],
    video: Path,
    model: str,
    warning: str,
    on_frame: Callable[[int], object] = lambda _: None,
) -> Pictures:
    """Draw every replayed frame. The folder `stills` beside the video gets PNG files.

    records: consecutive frames. on_frame(1) is called after each.
    """
    width, height = picture_size(drive.camera)
    camera = drive.camera.scaled(width, height)
    stills: list[Still] = []
    wanted = still_numbers(len(records))
    folder = video.parent / "stills"
    folder.mkdir(exist_ok=True)
    with VideoWriter(video, width, height, RATE_HZ) as writer:
        frames = drive.frames(records[0].frame_id, len(records))
        for number, (frame, record) in enumerate(zip(frames, records, strict=True)):
            seconds = record.frame_id / RATE_HZ
            panel = Panel(record.frame_id, seconds, record.speed, model, warning)
            rgb = frame.narrow.rgb(width, height)
            mounting = record.calibration or drive.calibration
            drawn = draw(rgb, record.plan, camera, mounting, panel, FAINT if warning else 1.0)
            writer.write(drawn)
            if number in wanted:
                save_still(folder / f"frame_{record.frame_id:06d}.png", drawn)
                stills.append(Still(drawn, f"frame {record.frame_id}, {seconds:.2f} s"))
            on_frame(1)
    return Pictures(video, stills, writer.note)
