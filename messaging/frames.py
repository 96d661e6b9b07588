"""Camera frames between processes: pictures in shared memory, announced on the bus.

A `FrameServer` writes pictures into a ring of buffers and announces each one; a `FrameClient` hears
the announcement and copies the picture, or reads it where it lies. A client that is late gets the
newest frame and the number of those it missed, and can always tell a picture that was overwritten
while it was read.
"""

import os
import secrets
import time
from functools import partial

from messaging.announcement import Announcement
from messaging.bus import Bus
from messaging.closing import Closing
from messaging.errors import FrameError
from messaging.nv12 import U8, Frame, FrameGeometry, Stream
from messaging.ring import FrameRing, Intrinsics, RingDescription
from messaging.transport import wait_for_subscribers
from messaging.zeromq import ZmqPublisher, ZmqSubscriber, ZmqWaiter

_LOOK_AGAIN_S = 0.02  # nothing tells us when a stream begins to exist

__all__ = ["Frame", "FrameClient", "FrameGeometry", "FrameServer", "Stream"]


def endpoint(stream: Stream) -> str:
    """Name of the stream on the bus and of its shared memory."""
    return f"frames_{int(stream)}"


class FrameServer(Closing):
    """Publishes the frames of one camera on this machine.

    geometry: how the pictures lie in shared memory.
    intrinsics: focal length and centre (x, y) of the picture, pixels; None if unknown.
    buffers: pictures kept; a reader that is later than that many frames loses some.

    Raises BusError if the stream already has a server, FrameError if the memory cannot be had. A
    server that was killed is replaced by the next one; its readers follow.
    """

    def __init__(
        self,
        stream: Stream,
        geometry: FrameGeometry,
        intrinsics: Intrinsics | None = None,
        buffers: int = 8,
        bus: Bus | None = None,
    ) -> None:
        self.stream = Stream(stream)
        self.geometry = geometry
        self._count = 0
        self._server = secrets.randbits(63)
        bus = bus or Bus()
        name = endpoint(self.stream)
        self._publisher = ZmqPublisher(name, bus, local=True)  # reserves the stream
        try:
            description = RingDescription(self._server, os.getpid(), buffers, geometry, intrinsics)
            self._ring = FrameRing.create(bus.shared_files(name), description)
        except FrameError:
            self._publisher.close()
            raise

    def publish(
        self,
        picture: U8,
        frame_id: int,
        timestamp_sof: int,
        timestamp_eof: int,
        *,
        chroma: U8 | None = None,
        barrier: dict[str, int] | None = None,
        valid: bool = True,
    ) -> int:
        """Copy a picture into the next buffer and announce it.

        Gives the time (ns, monotonic clock) at which the picture was whole.

        picture, chroma: the planes, (height, width) and (height / 2, width / 2, 2); or, without
            chroma, a whole NV12 buffer (1-D) of this server's geometry or without gaps.
        timestamp_sof, timestamp_eof: ns. barrier: see Frame.
        Raises FrameError if the picture does not have the size of this stream.
        """
        luma, chroma = self.geometry.planes(picture, chroma)
        with self._ring.writing(self._count) as buffer:
            self.geometry.fill(buffer, luma, chroma)
        whole = time.monotonic_ns()
        announcement = Announcement(
            server=self._server,
            count=self._count,
            frame_id=int(frame_id),  # numpy's integers are not JSON's
            timestamp_sof=int(timestamp_sof),
            timestamp_eof=int(timestamp_eof),
            valid=bool(valid),
            barrier=barrier,
        )
        self._publisher.send(announcement.to_bytes())
        self._count += 1
        return whole

    def wait_for_readers(self, timeout: float = 10.0, count: int = 1) -> bool:
        """Wait until `count` clients listen; False if they do not come within `timeout` seconds."""
        return wait_for_subscribers([self._publisher], timeout, count)

    def new_reader(self) -> bool:
        """Whether a client came (or came back) since this was last asked."""
        return self._publisher.gained_subscriber()

    def close(self) -> None:
        """Remove the stream."""
        self._ring.unlink()
        self._publisher.close()


class FrameClient(Closing):
    """Receives the frames of one camera on this machine.

    It may be made before its server and outlives it: when another server takes over the stream, the
    client follows.

    lost: frames missed so far. restarts: how often another server took over.
    malformed: announcements that could not be understood.
    """

    def __init__(self, stream: Stream, bus: Bus | None = None) -> None:
        self.stream = Stream(stream)
        self.lost = 0
        self.restarts = 0
        self.malformed = 0
        bus = bus or Bus()
        name = endpoint(self.stream)
        self._places = bus.shared_files(name)
        self._ring: FrameRing | None = None
        self._expected: int | None = None  # count of the next frame; None before we heard of any
        self._heard = ZmqSubscriber(name, bus, conflate=False, local=True)
        self._waiter = ZmqWaiter([self._heard])

    @property
    def geometry(self) -> FrameGeometry:
        """Raises FrameError before the client is connected."""
        return self._connected_ring().description.geometry

    @property
    def intrinsics(self) -> Intrinsics | None:
        """Focal length and centre (x, y), pixels; None if the server does not know them.

        Raises FrameError before the client is connected.
        """
        return self._connected_ring().description.intrinsics

    def connect(self, timeout: float = 10.0) -> bool:
        """Wait until the stream exists; False if it does not within `timeout` seconds.

        Raises FrameError if its shared memory is none we can read.
        """
        deadline = time.monotonic() + timeout
        while self._ring is None:
            self._ring = FrameRing.open(self._places)
            if self._ring is None and time.monotonic() >= deadline:
                return False
            if self._ring is None:
                time.sleep(_LOOK_AGAIN_S)
        return True

    def receive(
        self, timeout_ms: float = 100, newest: bool = True, in_place: bool = False
    ) -> Frame | None:
        """The next frame; None if none comes within `timeout_ms`.

        newest: skip all but the newest one. Otherwise frames come in order, as long as the server
            still holds them.
        in_place: do not copy the picture. Whoever reads it must ask `Frame.intact` afterwards, and
            forget what was read if it is not.
        Raises FrameError if the shared memory is none we can read.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            heard = self._hear(deadline)
            if heard is None:
                return None
            while newest and (later := self._hear(0.0)) is not None:
                heard = later
            frame = self._fetch(heard, in_place)
            if frame is not None:
                return frame

    def close(self) -> None:
        self._heard.close()
        self._ring = None

    def _connected_ring(self) -> FrameRing:
        if self._ring is None:
            raise FrameError(f"not connected to stream {self.stream.name}: call connect() first")
        return self._ring

    def _hear(self, deadline: float) -> Announcement | None:
        """The next announcement; None if there is none until `deadline` (monotonic clock, s)."""
        while True:
            self._waiter.wait(deadline - time.monotonic())
            data = self._heard.receive()
            if data is None:
                return None
            try:
                announced = Announcement.from_bytes(data)
            except FrameError:
                self.malformed += 1
                continue
            if self._expected is None:
                self._expected = announced.count
            return announced

    def _follow(self, server: int) -> bool:
        """Open the ring of `server`; False if its place is taken by another one or nobody."""
        if self._ring is not None and self._ring.description.server == server:
            return True
        ring = FrameRing.open(self._places, server)
        if ring is None:
            return False
        if self._ring is not None:
            self.restarts += 1
            self._expected = 0  # frames of the new server that we missed count as lost
        self._ring = ring
        return True

    def _fetch(self, announced: Announcement, in_place: bool) -> Frame | None:
        """The frame, None if it is no longer there."""
        if not self._follow(announced.server):
            return None
        ring = self._connected_ring()
        lost = announced.count - (self._expected or 0)
        there = Frame(
            data=ring.view(announced.count),
            geometry=ring.description.geometry,
            stream=self.stream,
            frame_id=announced.frame_id,
            timestamp_sof=announced.timestamp_sof,
            timestamp_eof=announced.timestamp_eof,
            valid=announced.valid,
            barrier=announced.barrier,
            lost=lost,
            still_there=partial(ring.holds, announced.count),
        )
        frame = there.taken(in_place)
        if frame is None:
            return None
        self.lost += lost
        self._expected = announced.count + 1
        return frame
