"""Draws a replay's plans on the drive's pictures: one video, and a few stills."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from selfdrive_tests.ahead import read_ahead
from selfdrive_tests.compare import BadMoment
from selfdrive_tests.drives import RATE_HZ, Camera, Drive
from selfdrive_tests.overlay import Panel, draw
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.report import Still
from selfdrive_tests.video import VideoWriter, save_still

# Small pictures are enlarged so that lines and text can be seen, large ones reduced to the page.
MIN_WIDTH, MAX_WIDTH = 768, 964
STILLS = 6
TRUTH_NAME = "truth of the rendered road"

# Plans that mean nothing are drawn faintly: they cross the whole picture.
FAINT = 0.35
# Two plans in one picture: each must be seen through the other.
BOTH = 0.7


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


def without_wide(drive: Drive) -> Drive:
    """The drive by its narrow camera alone: plans are drawn on that one's pictures."""
    return replace(drive, wide_video=None, wide_camera=None)


def with_pictures(
    drive: Drive, records: Iterable[FrameRecord], width: int, height: int
) -> Iterator[tuple[FrameRecord, np.ndarray]]:
    """Records as they come, each with its picture, (height, width, 3), which is made ahead."""
    records = iter(records)
    first = next(records, None)
    if first is None:
        return
    frames = without_wide(drive).frames(first.frame_id)
    with closing(read_ahead(frame.narrow.rgb(width, height) for frame in frames)) as pictures:
        yield from zip(chain([first], records), pictures, strict=False)


def moment_stills(
    drive: Drive,
    records: Sequence[FrameRecord],
    moments: Sequence[BadMoment],
    others: Mapping[int, Plan],
    model: str,
) -> dict[int, Still]:
    """One picture per moment, by frame id: the plan, and the other plan of the same frame.

    others: by frame id. The drive is decoded up to the last moment.
    """
    wanted = {moment.frame_id for moment in moments}
    if not wanted:
        return {}
    by_id = {record.frame_id: record for record in records}
    width, height = picture_size(drive.camera)
    camera = drive.camera.scaled(width, height)
    stills = {}
    first = min(wanted)
    for frame in without_wide(drive).frames(first, max(wanted) + 1 - first):
        if frame.index in wanted:
            record = by_id[frame.index]
            seconds = frame.index / RATE_HZ
            panel = Panel(frame.index, seconds, record.speed, model)
            mounting = record.calibration or drive.calibration
            rgb, other = frame.narrow.rgb(width, height), others.get(frame.index)
            drawn = draw(rgb, record.plan, camera, mounting, panel, BOTH, other)
            stills[frame.index] = Still(drawn, f"frame {frame.index}, {seconds:.2f} s")
    return stills


def render(
    drive: Drive,
    records: Iterable[FrameRecord],
    count: int,
    video: Path,
    model: str,
    warning: str,
    on_frame: Callable[[int], object] = lambda _: None,
    truth: Mapping[int, Plan] | None = None,
) -> Pictures:
    """Draw every replayed frame. The folder `stills` beside the video gets PNG files.

    records: consecutive frames of the drive, `count` as far as is known beforehand; stills are
    spread over so many. on_frame(1) is called after each.
    truth: frame id -> the true plan; with it every still is followed by one that shows it.
    """
    width, height = picture_size(drive.camera)
    camera = drive.camera.scaled(width, height)
    stills: list[Still] = []
    wanted = still_numbers(count)
    folder = video.parent / "stills"
    folder.mkdir(exist_ok=True)

    def drawn_frames() -> Iterator[np.ndarray]:
        shown = with_pictures(drive, records, width, height)
        for number, (record, rgb) in enumerate(shown):
            seconds = record.frame_id / RATE_HZ
            panel = Panel(record.frame_id, seconds, record.speed, model, warning)
            mounting = record.calibration or drive.calibration
            drawn = draw(rgb, record.plan, camera, mounting, panel, FAINT if warning else 1.0)
            yield drawn
            if number not in wanted:
                continue
            save_still(folder / f"frame_{record.frame_id:06d}.png", drawn)
            caption = f"frame {record.frame_id}, {seconds:.2f} s"
            stills.append(Still(drawn, caption))
            perfect = (truth or {}).get(record.frame_id)
            if perfect is not None:
                panel = Panel(record.frame_id, seconds, record.speed, TRUTH_NAME)
                drawn = draw(rgb, perfect, camera, mounting, panel)
                save_still(folder / f"frame_{record.frame_id:06d}_truth.png", drawn)
                stills.append(Still(drawn, f"{caption}: {TRUTH_NAME}"))

    # Decoding, drawing and encoding go on at the same time, each in a thread.
    with VideoWriter(video, width, height, RATE_HZ) as writer:
        for drawn in read_ahead(drawn_frames()):
            writer.write(drawn)
            on_frame(1)
    return Pictures(video, stills, writer.note)
