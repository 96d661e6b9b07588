"""Which way camera frames take on a bus: our own rings, or VisionIPC on openpilot's own bus."""

from collections.abc import Mapping
from typing import Protocol

from messaging.bus import Bus
from messaging.frames import FrameClient, FrameServer
from messaging.nv12 import U8, Frame, FrameGeometry, Stream
from messaging.ring import Intrinsics
from messaging.visionipc import VisionIpcClient, VisionIpcServer, VisionIpcStream


class FrameSender(Protocol):
    """The sending end of one camera; FrameServer says what the methods do."""

    geometry: FrameGeometry

    def publish(
        self, picture: U8, frame_id: int, timestamp_sof: int, timestamp_eof: int,
        *, chroma: U8 | None = None, barrier: dict[str, int] | None = None, valid: bool = True,
    ) -> int: ...  # fmt: skip
    def wait_for_readers(self, timeout: float = 10.0, count: int = 1) -> bool: ...
    def new_reader(self) -> bool: ...
    def close(self) -> None: ...


class FrameReceiver(Protocol):
    """A receiving end of one camera; FrameClient says what the methods do."""

    lost: int
    restarts: int
    malformed: int

    @property
    def geometry(self) -> FrameGeometry: ...
    @property
    def intrinsics(self) -> Intrinsics | None: ...
    def connect(self, timeout: float = 10.0) -> bool: ...
    def receive(
        self, timeout_ms: float = 100, newest: bool = True, in_place: bool = False
    ) -> Frame | None: ...
    def close(self) -> None: ...


def frame_senders(
    geometries: Mapping[Stream, FrameGeometry], bus: Bus,
    intrinsics: Mapping[Stream, Intrinsics] | None = None,
) -> dict[Stream, FrameSender]:  # fmt: skip
    """A sender for each camera of this process, all of them there at once.

    intrinsics: see FrameServer. On msgq they are not told, and no barriers either.
    Raises BusError if a stream already has a server, FrameError if the memory cannot be had.
    """
    if bus.msgq_prefix is not None:
        server = VisionIpcServer(geometries, bus)
        return {
            stream: VisionIpcStream(server, stream, geometry)
            for stream, geometry in geometries.items()
        }
    return {
        stream: FrameServer(stream, geometry, (intrinsics or {}).get(stream), bus=bus)
        for stream, geometry in geometries.items()
    }


def frame_receiver(stream: Stream, bus: Bus) -> FrameReceiver:
    """A receiver of one camera, now or when its server appears."""
    if bus.msgq_prefix is not None:
        return VisionIpcClient(stream, bus)
    return FrameClient(stream, bus)
