"""Segments and routes as comma's devices write them: which files, which pictures, which camera.

A route is a number of folders ROUTE--N (or a folder ROUTE with folders N), one per minute, each
with a log (rlog or qlog, .zst, .bz2 or plain) and videos (fcamera.hevc, ecamera.hevc, qcamera.ts).
Which picture of a video belongs to which camera frame is in the log: EncodeIndex.segmentId.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from messaging import LogFileError, LogReader, Stream, enumerant
from modeld.cameras import AR_OX, NEO, OS, Device, UnknownCamera, lookup
from modeld.cameras import CABIN as CABIN_CAMERAS
from selfdrive_tests.drives import (
    NO_CAMERA,
    Drive,
    DriveError,
    Overrides,
    Shown,
    assemble,
    open_drive,
    pinhole,
    read_sidecar,
)
from selfdrive_tests.processes import MODELD, ProcessConfig
from selfdrive_tests.video import VideoError, VideoReader, open_video

LOGS = tuple(f"{kind}{end}" for kind in ("rlog", "qlog") for end in (".zst", ".bz2", ""))
NARROW, WIDE, PREVIEW, CABIN = "fcamera.hevc", "ecamera.hevc", "qcamera.ts", "dcamera.hevc"
SIDECAR = "drive.toml"
# Two cameras' pictures belong together if they were begun within half a frame.
PAIR_NS = 25_000_000
# Devices by the size of the narrow camera's picture, for videos without a log.
BY_SIZE = {(d.narrow.width, d.narrow.height): d for d in (AR_OX, OS, NEO)}
GAPS_NAMED = 3


@dataclass(frozen=True)
class Source:
    """Something to replay: a drive of our own (files None), or a segment with what it has.

    narrow, wide, cabin: videos of the cameras.
    """

    name: str
    path: Path
    log: Path | None = None
    narrow: Path | None = None
    wide: Path | None = None
    cabin: Path | None = None
    own: bool = False

    def open(self, overrides: Overrides, config: ProcessConfig = MODELD) -> Drive:
        """What the process needs of it. Raises DriveError."""
        if config.stream is None:
            return open_log(self, config)
        if self.own:
            return open_drive(self.path, overrides)
        if config.stream is Stream.CABIN:
            cabin = replace(self, narrow=self.cabin, wide=None)
            return open_segment(cabin, overrides, CABIN_CAMERA)
        return open_segment(self, overrides)


@dataclass
class Sources:
    """What a path stands for. several: a route or a folder of drives, even if only one is there."""

    sources: list[Source]
    several: bool = False
    notes: list[str] = field(default_factory=list)


def find_sources(path: Path) -> Sources:
    """What there is to replay at a path: a drive, a segment, a route, or a folder of these.

    A route may be given without its folder, as PLACE/ROUTE for folders PLACE/ROUTE--N. Raises
    DriveError if there is nothing, or segments of more than one route.
    """
    if path.is_file() or (path / SIDECAR).exists():
        return Sources([Source(path.name, path, own=True)])
    if path.is_dir():
        segment = _segment(path, path.name)
        if segment.log or segment.narrow or segment.cabin:
            return Sources([segment])
        return _folder(path)
    if path.parent.is_dir():
        named = [child for child in path.parent.iterdir() if _route(child.name) == path.name]
        if named:
            return _route_sources(named)
    # Not there, or a video that is not: opening it says so.
    return Sources([Source(path.name, path, own=True)])


def _route(name: str) -> str | None:
    """The route in the name of a segment's folder, "" for a bare number."""
    match = re.fullmatch(r"(?:(.+)--)?(\d+)", name)
    return (match[1] or "") if match else None


def _folder(path: Path) -> Sources:
    children = sorted(child for child in path.iterdir() if child.is_dir())
    drives = [child for child in children if (child / SIDECAR).exists()]
    if drives:
        return Sources([Source(child.name, child, own=True) for child in drives], several=True)
    segments = [child for child in children if _route(child.name) is not None]
    if not segments:
        # The usual case: a folder that was meant as a drive.
        return Sources([Source(path.name, path, own=True)])
    routes = sorted({_route(child.name) or "" for child in segments})
    if len(routes) > 1:
        shown = ", ".join(str(path / route) for route in routes[:3])
        raise DriveError(
            f"{path} holds segments of {len(routes)} routes. Name one of them: {shown}"
            + (", ..." if len(routes) > 3 else ".")
        )
    return _route_sources(segments)


def _route_sources(folders: Sequence[Path]) -> Sources:
    """Segments in the order of their numbers; those that are not there are noted."""
    numbers = {int(folder.name.split("--")[-1]): folder for folder in folders}
    sources = []
    for number in sorted(numbers):
        folder = numbers[number]
        name = folder.name if "--" in folder.name else f"{folder.parent.name}--{number}"
        sources.append(_segment(folder, name))
    missing = sorted(set(range(max(numbers))) - numbers.keys())
    notes = [f"Segments that are not there: {spans(missing)}."] if missing else []
    return Sources(sources, several=True, notes=notes)


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: 0, 3 to 5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in parts)


def _segment(folder: Path, name: str) -> Source:
    log = next((folder / log for log in LOGS if (folder / log).is_file()), None)
    videos = {video: folder / video for video in (NARROW, WIDE, PREVIEW, CABIN)}
    present = {video: path for video, path in videos.items() if path.is_file()}
    wide = present.get(WIDE) if NARROW in present else None
    narrow = present.get(NARROW) or present.get(PREVIEW)
    return Source(name, folder, log, narrow, wide, present.get(CABIN))


@dataclass(frozen=True)
class Encoded:
    """An entry of an encoder's index. picture: its place in the video; sof_ns: start of frame."""

    frame_id: int
    picture: int
    sof_ns: int


@dataclass
class LogFacts:
    """What a segment's log says about its pictures. indices: by service, by ascending picture."""

    device: str = "unknown"
    sensor: str = "unknown"
    indices: dict[str, list[Encoded]] = field(default_factory=dict)
    problem: str | None = None


INDICES = ("narrowRoadEncodeIdx", "wideRoadEncodeIdx", "qNarrowRoadEncodeIdx", "cabinEncodeIdx")


def read_facts(log: Path) -> LogFacts:
    """Device, sensor and encoder indices of a log. Raises LogFileError if it cannot be read."""
    facts = LogFacts()
    reader = LogReader(log)
    for event in reader:
        kind = event.which()
        if kind in INDICES:
            index = getattr(event, kind)
            sof = index.timestampSof or event.logMonoTime
            entries = facts.indices.setdefault(kind, [])
            entry = Encoded(index.frameId, index.segmentId, sof)
            # A restarted encoder repeats itself: only what goes on counts.
            if not entries or (
                entry.picture > entries[-1].picture and entry.frame_id > entries[-1].frame_id
            ):
                entries.append(entry)
        elif kind == "initData" and facts.device == "unknown":
            facts.device = str(enumerant(event.initData.deviceType))
        elif kind == "deviceState" and facts.device == "unknown":
            facts.device = str(enumerant(event.deviceState.deviceType))
        elif kind == "narrowRoadCameraState":
            facts.sensor = str(enumerant(event.narrowRoadCameraState.sensor))
    facts.problem = reader.problem
    return facts


@dataclass(frozen=True)
class MainCamera:
    """What is replayed as the main camera. files: of its videos, the best first."""

    files: tuple[str, ...]
    index: str


ROAD_CAMERA = MainCamera((NARROW, PREVIEW), INDICES[0])
CABIN_CAMERA = MainCamera((CABIN,), "cabinEncodeIdx")


def open_log(source: Source, config: ProcessConfig) -> Drive:
    """A log alone, for a process that looks at no camera. Raises DriveError."""
    sidecar = source.path / SIDECAR
    if source.own and sidecar.exists() and (name := read_sidecar(sidecar).log):
        source = replace(source, log=source.path / name)
    log = source.path if source.own and source.path.is_file() else source.log
    if log is None:
        raise DriveError(
            f"{source.path} has no log, and {config.name} is triggered by {config.trigger}, which "
            "only a log can have."
        )
    return Drive(source.path, "none", None, NO_CAMERA, log=log, label=source.name)


def open_segment(
    source: Source, overrides: Overrides, main: MainCamera = ROAD_CAMERA
) -> Drive:
    """Open a segment as a drive. Raises DriveError."""
    if source.narrow is None:
        has = "a log but no video" if source.log else "neither log nor video"
        raise DriveError(
            f"{source.path} has {has}: {' or '.join(main.files)} is needed to replay it. "
            "Download or copy it into the folder."
        )
    try:
        video = open_video(source.narrow)
        wide_video = open_video(source.wide) if source.wide else None
        facts = read_facts(source.log) if source.log else LogFacts()
    except (VideoError, LogFileError) as error:
        raise DriveError(str(error)) from error
    camera = None
    if main is CABIN_CAMERA:
        device = None
        known = CABIN_CAMERAS.get(video.width)
        if known is not None:
            cabin = known.at_size(video.width, video.height)
            camera = (cabin.focal_px, (cabin.cx, cabin.cy))
    else:
        device = _device(source, facts, video, overrides)
    if device is not None:
        narrow = device.narrow.at_size(video.width, video.height)
        camera = (narrow.focal_px, (narrow.cx, narrow.cy))
    drive = assemble(source.path, video, overrides, camera, None)
    drive.label, drive.log = source.name, source.log
    if wide_video is not None and device is not None and device.wide is not None:
        wide = device.wide.at_size(wide_video.width, wide_video.height)
        drive.wide_video = wide_video
        drive.wide_camera = pinhole(wide_video, wide.focal_px, (wide.cx, wide.cy))
    drive.notes += _file_notes(source, facts)
    is_preview = source.narrow.name == PREVIEW
    index = facts.indices.get("qNarrowRoadEncodeIdx" if is_preview else main.index)
    index = index or facts.indices.get(main.index)
    if index:
        wide_index = facts.indices.get(INDICES[1], []) if drive.wide_video else None
        drive.shown, notes = schedule(index, wide_index)
        drive.notes += notes
    elif source.log:
        drive.notes.append(
            f"{source.log.name} has no index of pictures: they are taken as 20 a second."
        )
    return drive


def _device(
    source: Source, facts: LogFacts, video: VideoReader, overrides: Overrides
) -> Device | None:
    """The device, by the log, else by the picture's size; None if the user describes the camera.

    Raises DriveError if nobody knows.
    """
    try:
        return lookup(facts.device, facts.sensor)
    except UnknownCamera:
        device = BY_SIZE.get((video.width, video.height))
    if device is None and overrides.focal_length_px is None and overrides.view is None:
        raise DriveError(
            f"{source.path}: the camera is not known (device {facts.device}, sensor "
            f"{facts.sensor}, pictures of {video.width} x {video.height}). Add --focal-length."
        )
    return device


def _file_notes(source: Source, facts: LogFacts) -> list[str]:
    assert source.narrow is not None
    notes = []
    if source.narrow.name == PREVIEW:
        notes.append(f"{NARROW} is not there: the small {PREVIEW} is replayed instead.")
    if source.log is None:
        notes.append("The segment has no log: frames are taken as 20 a second.")
    elif source.log.name.startswith("qlog"):
        notes.append(f"rlog is not there: {source.log.name} holds only a part of the messages.")
    return notes


def schedule(
    narrow: Sequence[Encoded], wide: Sequence[Encoded] | None
) -> tuple[tuple[Shown, ...], list[str]]:
    """Which pictures are shown as which frame, and notes on what is missing.

    Frame 0 is the segment's first picture; a frame that the camera lost leaves a gap in the
    numbers. wide: None without a wide camera; a frame without its wide picture is left out.
    """
    offset = narrow[0].frame_id - narrow[0].picture
    shown, alone = [], 0
    wide_pictures = iter(wide or ())
    other = next(wide_pictures, None)
    for entry in narrow:
        partner = None
        if wide is not None:
            while other is not None and other.sof_ns < entry.sof_ns - PAIR_NS:
                other = next(wide_pictures, None)
            if other is None or other.sof_ns > entry.sof_ns + PAIR_NS:
                alone += 1
                continue
            partner = other.picture
        shown.append(Shown(entry.frame_id - offset, entry.picture, partner))
    notes = _gap_notes([entry.frame_id - offset for entry in narrow])
    if alone:
        notes.append(f"{alone} frames have no picture of the wide camera and are left out.")
    return tuple(shown), notes


def _gap_notes(frames: Sequence[int]) -> list[str]:
    """What the camera lost, by the gaps in its frame ids."""
    lost = sorted(set(range(frames[0], frames[-1] + 1)) - set(frames))
    if not lost:
        return []
    parts = spans(lost).split(", ")
    more = f" and {len(parts) - GAPS_NAMED} more gaps" if len(parts) > GAPS_NAMED else ""
    count = "1 frame" if len(lost) == 1 else f"{len(lost)} frames"
    return [f"The camera lost {count}: {', '.join(parts[:GAPS_NAMED])}{more}."]
