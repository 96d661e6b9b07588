"""A camera made of pictures: publishes frames and camera states as a device's cameras do.

`CameraSource` publishes what it is given, `paced` keeps a sequence at 20 Hz. Video files and drive
folders are read by selfdrive_tests, which publishes them in step with the daemon or at 20 Hz.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from messaging import Bus, FrameGeometry, PubMaster, Stream, frame_senders, new_message

Item = TypeVar("Item")
STATE_SERVICE = {Stream.NARROW_ROAD: "narrowRoadCameraState",
                 Stream.WIDE_ROAD: "wideRoadCameraState", Stream.CABIN: "cabinCameraState"}


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
        geometries = {stream: FrameGeometry.padded(*size) for stream, size in sizes.items()}
        self.servers = frame_senders(geometries, bus, intrinsics)

    def wait_for_readers(self, timeout_s: float) -> bool:
        """Wait until somebody reads every stream and listens to every camera state."""
        return self._master.wait_for_subscribers(timeout=timeout_s) and all(
            server.wait_for_readers(timeout_s) for server in self.servers.values())

    def publish(self, frame: SourceFrame, barrier: Mapping[str, int] | None = None) -> int:
        """Publish the camera states, then the pictures of the streams that have one, main last.

        barrier: service -> logMonoTime of messages that must be seen before these pictures; the
        camera states are added to it. Gives the time (ns, monotonic clock) at which the last
        picture was whole in shared memory.
        """
        seen, whole = dict(barrier or {}), 0
        for stream in frame.pictures:
            service = STATE_SERVICE[stream]
            message = camera_state(service, frame, self._sensor)
            seen[service] = message.logMonoTime
            self._master.send(service, message)
        for stream in sorted(frame.pictures, key=lambda stream: stream is Stream.NARROW_ROAD):
            picture = frame.pictures[stream]
            whole = self.servers[stream].publish(
                picture.luma, frame.frame_id, frame.timestamp_sof, frame.timestamp_eof,
                chroma=picture.chroma, barrier=seen)
        return whole

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
