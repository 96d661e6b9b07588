"""A camera made of pictures: publishes frames and camera states as a device's cameras do.

`open_video` decodes files (needs the `replay` extra), `CameraSource` publishes what it is given,
`paced` keeps a sequence at 20 Hz. Replays leave `paced` out and publish when the daemon is ready.
"""
from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from messaging import Bus, FrameGeometry, FrameServer, PubMaster, Stream, new_message

Item = TypeVar("Item")
STATE_SERVICE = {Stream.NARROW_ROAD: "narrowRoadCameraState",
                 Stream.WIDE_ROAD: "wideRoadCameraState"}


class VideoError(ValueError):
    """A video that cannot be opened, or that ends before its time."""


class _CutError(Exception):
    """The file ends within a frame."""


@dataclass(frozen=True)
class Picture:
    """NV12: luma (H, W) uint8, chroma (H/2, W/2, 2) uint8 with U first. H and W are even."""

    luma: np.ndarray
    chroma: np.ndarray


@dataclass(frozen=True)
class SourceFrame:
    """Pictures taken at one time. frame_id from 0; start and end of the exposure in ns."""

    frame_id: int
    timestamp_sof: int
    timestamp_eof: int
    pictures: Mapping[Stream, Picture]


class CameraSource:
    """Publishes pictures in shared memory and announces them with camera states.

    sizes: stream -> (width, height). intrinsics: stream -> (focal length, cx, cy) in pixels, where
    known. sensor: as in the log schema, for readers that look intrinsics up.
    """

    def __init__(
        self, bus: Bus, sizes: Mapping[Stream, tuple[int, int]],
        intrinsics: Mapping[Stream, tuple[float, float, float]] | None = None,
        sensor: str = "unknown",
    ) -> None:
        self._sensor = sensor
        self._master = PubMaster([STATE_SERVICE[stream] for stream in sizes], bus=bus)
        self.servers = {
            stream: FrameServer(stream, FrameGeometry.padded(*size), bus=bus,
                                intrinsics=(intrinsics or {}).get(stream))
            for stream, size in sizes.items()}

    def wait_for_readers(self, timeout_s: float) -> bool:
        """Wait until somebody reads every stream and listens to every camera state."""
        return self._master.wait_for_subscribers(timeout=timeout_s) and all(
            server.wait_for_readers(timeout_s) for server in self.servers.values())

    def publish(self, frame: SourceFrame, barrier: Mapping[str, int] | None = None) -> None:
        """Publish the camera states, then the pictures of every stream, the main one last.

        barrier: service -> logMonoTime of messages that must be seen before these pictures; the
        camera states are added to it.
        """
        seen = dict(barrier or {})
        for stream in self.servers:
            service = STATE_SERVICE[stream]
            message = camera_state(service, frame, self._sensor)
            seen[service] = message.logMonoTime
            self._master.send(service, message)
        for stream in sorted(self.servers, key=lambda stream: stream is Stream.NARROW_ROAD):
            picture = frame.pictures[stream]
            self.servers[stream].publish(
                picture.luma, frame.frame_id, frame.timestamp_sof, frame.timestamp_eof,
                chroma=picture.chroma, barrier=seen)

    def close(self) -> None:
        """Take the streams down."""
        for server in self.servers.values():
            server.close()
        self._master.close()


def camera_state(service: str, frame: SourceFrame, sensor: str) -> Any:
    """The camera state message that announces a frame."""
    message = new_message(service, valid=True)
    state = getattr(message, service)
    state.frameId = frame.frame_id
    state.timestampSof = frame.timestamp_sof
    state.timestampEof = frame.timestamp_eof
    state.sensor = sensor
    return message


def paced(
    items: Iterable[Item], rate_hz: float = 20.0,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Item]:
    """The items at a steady rate; an item that comes late does not delay those behind it."""
    start = clock()
    for number, item in enumerate(items):
        wait = start + number / rate_hz - clock()
        if wait > 0:
            sleep(wait)
        yield item


class Video:
    """A video file: size, frame rate and pictures. Open it with `open_video`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._av = _require_av()
        try:
            self._container = self._av.open(str(path))
        except (self._av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{path} cannot be opened as a video: {_reason(error)}. "
                             "It may be cut off, or something else.") from None
        if not self._container.streams.video:
            raise VideoError(f"{path} holds no video stream.")
        self._stream = self._container.streams.video[0]
        # Not by frames: then it would be left to chance what becomes of a damaged one.
        self._stream.thread_type = "SLICE"
        # Odd sizes lose their last row or column: chroma has half the resolution.
        self.width = self._stream.codec_context.width & ~1
        self.height = self._stream.codec_context.height & ~1
        self.rate: Fraction | None = self._stream.average_rate
        self._period = 1 / (self.rate or Fraction(20))
        self._time_base: Fraction = self._stream.time_base
        # What the file says of its length, 0 if nothing: mp4 has a count, Matroska a time.
        self.announced_frames: int = self._stream.frames
        self._announced_seconds = _seconds(self._stream.metadata.get("DURATION", ""))

    def __iter__(self) -> Iterator[Picture]:
        """The pictures in order of display.

        Raises VideoError where the file is damaged or ends early, after the pictures before that
        place were delivered; the message names the frame.
        """
        count, shown_until = 0, Fraction(0)
        try:
            for frame in self._frames():
                if frame.is_corrupt:
                    raise self._damaged(count, "it is damaged")
                yield _nv12(frame, self.width, self.height)
                count += 1
                shown_until = (frame.pts or 0) * self._time_base + self._period
        except self._av.error.FFmpegError as error:
            raise self._damaged(count, _reason(error)) from None
        except _CutError:
            raise self._damaged(count, "the data ends in the middle of it") from None
        if count < self.announced_frames:
            raise self._damaged(count, f"the file announces {self.announced_frames} frames")
        if shown_until + self._period / 2 < self._announced_seconds:
            raise self._damaged(
                count, f"the file announces {float(self._announced_seconds):.2f} seconds")

    def _frames(self) -> Iterator[Any]:
        """Decoded frames. Raises _CutError behind the last whole one of a file that is cut."""
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                yield from self._stream.codec_context.decode(None)  # what it still holds back
                raise _CutError
            yield from packet.decode()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _damaged(self, count: int, reason: str) -> VideoError:
        return VideoError(f"{self.path} ends at frame {count}: {reason}. "
                          f"The {count} frames before it were read.")


def open_video(path: str | Path) -> Video:
    """Open a video file to iterate over its pictures. Raises VideoError if that is impossible."""
    return Video(Path(path))


def _require_av() -> Any:
    try:
        import av
    except ImportError:
        raise VideoError("Videos need the package 'av': pip install 'tinydrive[replay]'.") from None
    return av


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _seconds(text: str) -> Fraction:
    """Matroska's DURATION, "HH:MM:SS.fraction"; 0 for anything else."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    if match is None:
        return Fraction(0)
    hours, minutes, seconds = map(Fraction, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _nv12(frame: Any, width: int, height: int) -> Picture:
    """A decoded frame as NV12. 4:2:0 frames are copied as they are, others converted."""
    if frame.format.name not in ("yuv420p", "yuvj420p", "nv12"):
        frame = frame.reformat(format="yuv420p")
    planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
    luma = planes[0][:height, :width].copy()
    if len(planes) == 2:
        chroma = planes[1][:height // 2, :width].reshape(height // 2, width // 2, 2).copy()
    else:
        u, v = (plane[:height // 2, :width // 2] for plane in planes[1:])
        chroma = np.stack([u, v], axis=-1)
    return Picture(luma, chroma)
