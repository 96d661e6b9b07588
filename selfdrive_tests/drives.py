"""Recorded drives: a video file, or a folder with drive.toml, opened as frames, camera and log.

A drive's clock starts with its first frame and ticks at 20 Hz. Tick n shows the newest picture
whose time is not later than n * 50 ms: a video of a higher rate loses pictures, one of a lower
rate repeats them, and none shows the future.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from selfdrive_tests.video import Picture, VideoError, VideoReader, open_video

RATE_HZ = 20
TICK_NS = 1_000_000_000 // RATE_HZ

# A video that says it has 20 Hz may round its times to whole milliseconds.
TIME_SLACK_S = 0.002

DEFAULT_HEIGHT_M = 1.22

# The model's two views of the road, 512 x 256: focal length and centre in pixels.
VIEW_WIDTH = 512
VIEWS = {"model": (910.0, (256.0, 47.6)), "wide-model": (455.0, (256.0, 151.8))}


class DriveError(Exception):
    """A drive cannot be opened; the text says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: image size, focal length and principal point, all in pixels."""

    width: int
    height: int
    focal_px: float
    center_px: tuple[float, float]

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera with its image resized; pixel centres lie at whole numbers."""
        across, down = width / self.width, height / self.height
        cx, cy = self.center_px
        center = ((cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5)
        return Camera(width, height, self.focal_px * across, center)


NO_CAMERA = Camera(0, 0, 0.0, (0.0, 0.0))


@dataclass(frozen=True)
class Calibration:
    """How the device is mounted.

    rpy_rad: roll, pitch, yaw of the device against the calibrated frame (x forward, y right,
    z down). height_m: of the camera above the road.
    """

    rpy_rad: tuple[float, float, float]
    height_m: float = DEFAULT_HEIGHT_M


@dataclass(frozen=True)
class Overrides:
    """What the command line says about a drive; None leaves it to the drive."""

    view: str | None = None
    focal_length_px: float | None = None
    center_px: tuple[float, float] | None = None
    rpy_rad: tuple[float, float, float] | None = None
    height_m: float | None = None


@dataclass(frozen=True)
class DriveFrame:
    """What the cameras show at one tick. Both pictures belong to the same instant."""

    index: int
    narrow: Picture
    wide: Picture | None


@dataclass(frozen=True)
class Shown:
    """Which pictures (counted in their videos) are shown as which frame of the drive."""

    index: int
    narrow: int
    wide: int | None


@dataclass
class Drive:
    """A drive that was found complete; nothing is decoded before frames() is called.

    video: None for a log alone, which does for processes that look at no camera.
    calibration: as the sidecar or the command line has it; the log may hold another. None: unknown.
    calibration_given: the command line has it, so the log's is not to be used.
    problem: filled by frames() if a video breaks off.
    shown: what a log says about the pictures, by ascending frames and pictures; None: they are
    sampled by their times. label: a name that is not the path's.
    """

    path: Path
    view: str
    video: VideoReader | None
    camera: Camera
    wide_video: VideoReader | None = None
    wide_camera: Camera | None = None
    calibration: Calibration | None = None
    calibration_given: bool = False
    log: Path | None = None
    notes: list[str] = field(default_factory=list)
    problem: str | None = None
    shown: tuple[Shown, ...] | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """File or folder name without suffix."""
        if self.label:
            return self.label
        return self.path.stem if self.path.is_file() else self.path.name

    @property
    def ticks(self) -> int | None:
        """Frames of the whole drive, gaps included, as far as log or video headers tell."""
        if self.shown is not None:
            return self.shown[-1].index + 1 if self.shown else 0
        seconds = [reader.seconds for reader in (self.video, self.wide_video) if reader]
        return round(min(seconds) * RATE_HZ) if seconds and all(seconds) else None

    def expected(self, start: int, count: int | None) -> int | None:
        """Number of frames that frames(start, count) gives, as far as log or headers tell."""
        if self.shown is not None:
            there: int | None = sum(entry.index >= start for entry in self.shown)
        else:
            there = None if self.ticks is None else max(self.ticks - start, 0)
        return min((n for n in (there, count) if n is not None), default=None)

    def frames(self, start: int = 0, count: int | None = None) -> Iterator[DriveFrame]:
        """Frames from tick `start` on, at most `count`. The shorter video ends the drive."""
        self.problem = None
        if self.shown is not None:
            yield from islice(self._scheduled(self.shown, start), count)
            return
        assert self.video is not None
        narrow = resample(self.video.pictures())
        stop = None if count is None else start + count
        if self.wide_video is None:
            frames = (DriveFrame(index, picture, None) for index, picture in enumerate(narrow))
        else:
            wide = resample(self.wide_video.pictures())
            pairs = enumerate(zip(narrow, wide, strict=False))
            frames = (DriveFrame(index, main, extra) for index, (main, extra) in pairs)
        yield from islice(frames, start, stop)
        readers = (self.video, self.wide_video)
        self.problem = next((r.problem for r in readers if r and r.problem), None)

    def _scheduled(self, shown: Sequence[Shown], start: int) -> Iterator[DriveFrame]:
        """Frames from `start` on, with the pictures that belong to them."""
        todo = [entry for entry in shown if entry.index >= start]
        done = 0
        assert self.video is not None
        narrow = pick(self.video.pictures(), (entry.narrow for entry in todo))
        wide: Iterator[Picture | None] = repeat(None)
        if self.wide_video is not None:
            numbers = (entry.wide for entry in todo if entry.wide is not None)
            wide = pick(self.wide_video.pictures(), numbers)
        for entry, main, extra in zip(todo, narrow, wide, strict=False):
            done += 1
            yield DriveFrame(entry.index, main, extra)
        readers = (self.video, self.wide_video)
        self.problem = next((r.problem for r in readers if r and r.problem), None)
        if self.problem is None and done < len(todo):
            self.problem = (
                f"A video ends early: the log speaks of {len(todo)} frames, {done} are there."
            )


def pick(pictures: Iterator[Picture], numbers: Iterable[int]) -> Iterator[Picture]:
    """The pictures with these ascending numbers, until the video ends."""
    for number in numbers:
        picture = next((one for one in pictures if one.index == number), None)
        if picture is None:
            return
        yield picture


def resample(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """One picture per 50 ms tick: the newest whose time is not later."""
    tick = 0
    shown: Picture | None = None
    for picture in pictures:
        while shown is not None and tick / RATE_HZ + TIME_SLACK_S < picture.seconds:
            yield shown
            tick += 1
        shown = picture
    if shown is not None and tick / RATE_HZ <= shown.seconds + TIME_SLACK_S:
        yield shown


def open_drive(path: Path, overrides: Overrides | None = None) -> Drive:
    """Open a video file, or a folder with drive.toml.

    Raises DriveError with one clear text if anything is missing or does not fit together.
    """
    overrides = overrides or Overrides()
    try:
        if path.is_dir():
            return _open_folder(path, overrides)
        return _open_file(path, overrides)
    except VideoError as error:
        raise DriveError(str(error)) from error


def _open_file(path: Path, overrides: Overrides) -> Drive:
    video = open_video(path)
    if overrides.view is None and overrides.focal_length_px is None:
        raise DriveError(
            f"{path} is a video without a description of its camera. Add --view model if its "
            "pictures already are the model's view, else --focal-length PIXELS, "
            "--center X,Y and, for plans that count as valid, --rpy ROLL,PITCH,YAW."
        )
    return assemble(path, video, overrides, camera=None, calibration=None)


def _open_folder(path: Path, overrides: Overrides) -> Drive:
    file = path / "drive.toml"
    sidecar = read_sidecar(file)
    wide_video = open_video(path / sidecar.wide_video) if sidecar.wide_video else None
    log = path / sidecar.log if sidecar.log else None
    if log is not None and not log.is_file():
        raise DriveError(f"{file}: the log {sidecar.log} is not in the folder.")
    if overrides.view is None:
        overrides = replace(overrides, view=sidecar.view)
    video = open_video(path / sidecar.video)
    drive = assemble(path, video, overrides, sidecar.camera, sidecar.calibration)
    drive.log = log
    if wide_video is not None and sidecar.wide_camera is not None:
        drive.wide_video = wide_video
        drive.wide_camera = pinhole(wide_video, *sidecar.wide_camera)
        drive.notes += wide_video.notes
    return drive


def assemble(
    path: Path,
    video: VideoReader,
    overrides: Overrides,
    camera: tuple[float, tuple[float, float]] | None,
    calibration: Calibration | None,
) -> Drive:
    """A drive by what is known of its camera and what the command line says; the latter wins.

    Raises DriveError if that is not enough.
    """
    view = overrides.view or "camera"
    if view in VIEWS:
        return _model_view(path, video, view, overrides)
    focal, center = camera or (None, None)
    focal = focal if overrides.focal_length_px is None else overrides.focal_length_px
    center = center if overrides.center_px is None else overrides.center_px
    if focal is None:
        raise DriveError(f"{path}: the camera's focal length is missing. Add --focal-length.")
    notes = list(video.notes)
    if center is None:
        center = ((video.width - 1) / 2, (video.height - 1) / 2)
        notes.append("No camera centre was given: the middle of the picture is taken.")
    height = overrides.height_m
    if overrides.rpy_rad is not None:
        calibration = Calibration(overrides.rpy_rad, height or DEFAULT_HEIGHT_M)
    elif calibration is not None and height is not None:
        calibration = replace(calibration, height_m=height)
    given = overrides.rpy_rad is not None
    drive_camera = pinhole(video, focal, center)
    return Drive(
        path,
        view,
        video,
        drive_camera,
        calibration=calibration,
        calibration_given=given,
        notes=notes,
    )


def _model_view(path: Path, video: VideoReader, view: str, overrides: Overrides) -> Drive:
    """A video that already is a model view: camera and mounting are known by definition."""
    extra = (overrides.focal_length_px, overrides.center_px, overrides.rpy_rad)
    if any(value is not None for value in extra):
        raise DriveError(
            f"{path}: with view {view!r} the camera is known already. Leave out --focal-length, "
            "--center and --rpy, or take --view camera."
        )
    focal, (cx, cy) = VIEWS[view]
    scale = video.width / VIEW_WIDTH
    camera = pinhole(video, focal * scale, (cx * scale, cy * scale))
    height = DEFAULT_HEIGHT_M if overrides.height_m is None else overrides.height_m
    calibration = Calibration((0.0, 0.0, 0.0), height)
    notes = list(video.notes)
    if video.width != 2 * video.height:
        notes.append(
            f"A model view is twice as wide as high; this video is {video.width} x "
            f"{video.height}, so its pictures are probably not what the model should see."
        )
    return Drive(
        path,
        view,
        video,
        camera,
        calibration=calibration,
        calibration_given=True,
        notes=notes,
    )


def pinhole(video: VideoReader, focal: float, center: tuple[float, float]) -> Camera:
    """The camera of a video; focal length and centre in its pixels."""
    return Camera(video.width, video.height, focal, center)


@dataclass(frozen=True)
class Sidecar:
    """What drive.toml says, checked. Cameras are (focal length, (x, y) of the centre) in pixels."""

    video: str
    view: str
    wide_video: str | None
    log: str | None
    camera: tuple[float, tuple[float, float]] | None
    wide_camera: tuple[float, tuple[float, float]] | None
    calibration: Calibration | None


# Every key a table of drive.toml may have; "" is the file's top level.
SIDECAR_KEYS = {
    "": {"video", "wide_video", "log", "view", "camera", "wide_camera", "calibration"},
    "camera": {"focal_length_px", "center_px"},
    "wide_camera": {"focal_length_px", "center_px"},
    "calibration": {"rpy_rad", "height_m"},
}


def read_sidecar(file: Path) -> Sidecar:
    """Read and check drive.toml.

    Raises DriveError: no such file, no TOML, unknown or missing keys, values of the wrong kind.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DriveError(
            f"{file.parent} is no drive folder: it has no drive.toml. Write one, or give a video."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DriveError(f"{file} cannot be read: {error}.") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DriveError(f"{file} is not valid TOML: {error}.") from error
    _check_keys(file, "", table)
    video = _text(file, table, "video")
    if video is None:
        raise DriveError(f'{file}: the key video is missing, e.g. video = "video.mp4".')
    view = _text(file, table, "view") or "camera"
    if view not in ("camera", *VIEWS):
        allowed = ", ".join(f'"{name}"' for name in ("camera", *VIEWS))
        raise DriveError(f'{file}: view = "{view}" is unknown. It must be one of {allowed}.')
    wide_video = _text(file, table, "wide_video")
    camera = _camera_table(file, table, "camera")
    wide_camera = _camera_table(file, table, "wide_camera")
    if view == "camera" and camera is None:
        raise DriveError(f'{file}: with view = "camera" a table [camera] is needed.')
    if view != "camera" and (camera or "calibration" in table):
        raise DriveError(
            f'{file}: with view = "{view}" camera and calibration are known. '
            "Remove [camera] and [calibration]."
        )
    if (wide_video is None) != (wide_camera is None):
        raise DriveError(f"{file}: wide_video and [wide_camera] belong together.")
    calibration = _calibration_table(file, table)
    log = _text(file, table, "log")
    return Sidecar(video, view, wide_video, log, camera, wide_camera, calibration)


def _check_keys(file: Path, name: str, table: dict[str, Any]) -> None:
    unknown = sorted(set(table) - SIDECAR_KEYS[name])
    if unknown:
        where = f"the table [{name}]" if name else "it"
        known = ", ".join(sorted(SIDECAR_KEYS[name]))
        plural = "s" if len(unknown) > 1 else ""
        raise DriveError(
            f"{file}: {where} has unknown key{plural} {', '.join(unknown)}. Known are {known}."
        )


def _text(file: Path, table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise DriveError(f'{file}: {key} must be a text in quotes, e.g. {key} = "...".')
    return value


def _subtable(file: Path, table: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DriveError(f"{file}: {name} must be a table, [{name}].")
    _check_keys(file, name, value)
    return value


def _camera_table(
    file: Path, table: dict[str, Any], name: str
) -> tuple[float, tuple[float, float]] | None:
    values = _subtable(file, table, name)
    if values is None:
        return None
    focal = _numbers(file, values, name, "focal_length_px", 1)
    x, y = _numbers(file, values, name, "center_px", 2)
    if focal[0] <= 0:
        raise DriveError(f"{file}: focal_length_px in [{name}] must be above 0.")
    return focal[0], (x, y)


def _calibration_table(file: Path, table: dict[str, Any]) -> Calibration | None:
    values = _subtable(file, table, "calibration")
    if values is None:
        return None
    roll, pitch, yaw = _numbers(file, values, "calibration", "rpy_rad", 3)
    height = DEFAULT_HEIGHT_M
    if "height_m" in values:
        height = _numbers(file, values, "calibration", "height_m", 1)[0]
    if height <= 0:
        raise DriveError(f"{file}: height_m in [calibration] must be above 0.")
    return Calibration((roll, pitch, yaw), height)


def _numbers(file: Path, table: dict[str, Any], name: str, key: str, count: int) -> list[float]:
    """The value of a key as `count` finite numbers; one number needs no brackets."""
    value = table.get(key)
    values = [value] if count == 1 else value
    if isinstance(values, list) and len(values) == count:
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == count and all(math.isfinite(number) for number in numbers):
            return [float(number) for number in numbers]
    what = "a number" if count == 1 else f"a list of {count} numbers"
    raise DriveError(f"{file}: {key} in [{name}] must be {what}.")
