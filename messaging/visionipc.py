"""VisionIPC: camera frames as openpilot's own processes pass them on, on one machine.

A server listens on the Unix socket /tmp/[<prefix>_]visionipc_<name> (SOCK_SEQPACKET) and answers
each request with one packet of descriptions, one per buffer, and their file descriptors. Frames
are announced on the msgq endpoint visionipc_<name>_<stream>. Numbers are little endian, laid out as
a 64-bit C compiler does it:

    request       u32 stream; or, of the newest servers, u32 command (0 connect, 1 list), u32 stream
    description   u64 length, mapped length, (pointer), (pointer); i32 (descriptor);
                  u64 width, height, stride, chroma offset, (pointer), (pointer), server, index;
                  u32 stream; what follows differs between releases and is nobody else's business
    announcement  u64 server, u64 index, u32 frame id, u64 start, u64 end (ns), u8 valid

What is in parentheses means nothing in another process. Behind the `length` bytes of a buffer lies
one more word, the id of the frame in it: a reader that finds another id after it has read the
buffer was too late. A camera may write into a buffer for a while before the mark changes; so what
was read counts only within a quarter of a second from when the frame was the newest, too: a server
of eight buffers or more at 20 Hz begins no sooner to use one again.

A server of the older kind ends when a request does not have four bytes, so a client asks in that
form first, and in the other only where that form is not understood at all.
"""

import contextlib
import mmap
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from messaging.bus import Bus
from messaging.closing import Closing
from messaging.errors import BusError, FrameError
from messaging.fence import fence
from messaging.msgq import MsgqPublisher, MsgqSubscriber, MsgqWaiter
from messaging.nv12 import U8, Frame, FrameGeometry, Stream
from messaging.transport import wait_for_subscribers

CAMERAD = "camerad"  # the name under which the cameras of a device are served
BUFFERS = 18  # as many as camerad has

_DESCRIPTION = struct.Struct("<QQ16x4x4xQQQQ16xQQI")
_DESCRIPTION_BYTES = 112  # of the newest release, the padding behind it included
_ANNOUNCEMENT = struct.Struct("<QQI4xQQ?7x")
_NUMBER, _COMMAND = struct.Struct("<I"), struct.Struct("<II")
_CONNECT, _LIST = 0, 1
_ALL_STREAMS = (4, 0xFFFF_FFFF)  # what stood for "which streams are there" in the older releases
_MARK_BYTES = 8
_BEING_WRITTEN = 2**64 - 1  # no frame id: those have 32 bits
_MAX_BUFFERS = 128
_REPLY_BYTES = 64 * 1024
_TIMEOUT_S = 1.0  # of a request: the answer is there at once or not at all
_LOOK_AGAIN_S = 0.1  # between two requests while there is no such stream
_SAFE_S = 0.25  # for reading a picture, see above


def endpoint(stream: Stream, name: str = CAMERAD) -> str:
    """Name of the msgq endpoint on which the frames of a stream are announced."""
    return f"visionipc_{name}_{int(stream)}"


class _Buffer:
    """One mapped buffer. data: (nbytes,) uint8. mark: the word behind it."""

    def __init__(self, descriptor: int, nbytes: int, write: bool) -> None:
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        # the arrays keep the mapping alive; it ends with the last of them
        memory = mmap.mmap(descriptor, nbytes + _MARK_BYTES, access=access)
        self.data = np.frombuffer(memory, np.uint8, count=nbytes)
        self.mark = np.frombuffer(memory, np.uint64, count=1, offset=nbytes)

    def holds(self, frame_id: int, until: float) -> bool:
        """Whether what was read so far was this frame. until: monotonic clock, s; see above."""
        fence()
        # a server that leaves the mark at zero sets none: then time alone tells
        return self.mark[0] in (frame_id, 0) and time.monotonic() < until


class VisionIpcServer(Closing):
    """Serves the cameras of one process, so that it can stand in for camerad.

    geometries: how the pictures of each stream lie in their buffers. buffers: of each stream.
    Raises BusError if somebody serves that name already, FrameError if the memory cannot be had.
    """

    def __init__(
        self, geometries: Mapping[Stream, FrameGeometry], bus: Bus, name: str = CAMERAD,
        buffers: int = BUFFERS,
    ) -> None:  # fmt: skip
        self._server = secrets.randbits(64)
        self._path = bus.vision_socket(name)
        self._geometries = dict(geometries)
        self._counts = dict.fromkeys(geometries, 0)
        self._descriptors: dict[Stream, list[int]] = {}
        self._publishers: dict[Stream, MsgqPublisher] = {}
        self._listener = _listen(self._path)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        try:
            self._buffers = {
                stream: self._allocate(stream, geometry, buffers)
                for stream, geometry in geometries.items()
            }
            for stream in geometries:
                self._publishers[stream] = MsgqPublisher(endpoint(stream, name), bus)
        except (BusError, FrameError):
            self.close()
            raise
        self._thread.start()

    def publish(
        self, stream: Stream, picture: U8, frame_id: int, timestamp_sof: int, timestamp_eof: int,
        *, chroma: U8 | None = None, valid: bool = True,
    ) -> int:  # fmt: skip
        """Copy a picture into the next buffer of a stream and announce it.

        Arguments, result and errors as FrameServer.publish has them.
        """
        geometry = self._geometries[stream]
        luma, chroma = geometry.planes(picture, chroma)
        index = self._counts[stream] % len(self._buffers[stream])
        buffer = self._buffers[stream][index]
        buffer.mark[0] = _BEING_WRITTEN
        fence()
        geometry.fill(buffer.data, luma, chroma)
        fence()
        buffer.mark[0] = frame_id
        whole = time.monotonic_ns()
        self._counts[stream] += 1
        self._publishers[stream].send(_ANNOUNCEMENT.pack(
            self._server, index, frame_id, timestamp_sof, timestamp_eof, valid))  # fmt: skip
        return whole

    def wait_for_readers(self, stream: Stream, timeout: float = 10.0, count: int = 1) -> bool:
        """Wait until `count` clients listen; False if they do not come within `timeout` seconds."""
        return wait_for_subscribers([self._publishers[stream]], timeout, count)

    def new_reader(self, stream: Stream) -> bool:
        """Whether a client came (or came back) since this was last asked."""
        return self._publishers[stream].gained_subscriber()

    def close(self) -> None:
        """Remove the streams. Clients keep the buffers they have mapped."""
        if self._listener.fileno() < 0:
            return
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait of the thread
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        for publisher in self._publishers.values():
            publisher.close()
        for descriptors in self._descriptors.values():
            for descriptor in descriptors:
                os.close(descriptor)

    def _allocate(self, stream: Stream, geometry: FrameGeometry, count: int) -> list[_Buffer]:
        """Buffers in memory without a name: nothing is left of it when we are killed."""
        if not 1 <= count < _MAX_BUFFERS:
            raise FrameError(f"a stream has 1 to {_MAX_BUFFERS - 1} buffers, not {count}")
        descriptors = self._descriptors.setdefault(stream, [])
        try:
            for _ in range(count):
                descriptors.append(os.memfd_create(f"visionbuf_{stream.name}"))
                os.ftruncate(descriptors[-1], geometry.nbytes + _MARK_BYTES)
            return [_Buffer(one, geometry.nbytes, write=True) for one in descriptors]
        except OSError as error:
            raise FrameError(
                f"no room for {count * geometry.nbytes / 1e6:.1f} MB of camera frames "
                f"({error.strerror}); use fewer buffers or make room"
            ) from None

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # the client's loss
                connection.settimeout(_TIMEOUT_S)
                self._answer(connection, connection.recv(_COMMAND.size))

    def _answer(self, connection: socket.socket, request: bytes) -> None:
        """Closing without a word says that there is no such stream."""
        listed = b"".join(_NUMBER.pack(stream) for stream in self._geometries)
        if len(request) == _COMMAND.size:
            command, number = _COMMAND.unpack(request)
            if command == _LIST:
                connection.send(_NUMBER.pack(len(self._geometries)))
                connection.send(listed)
            elif command == _CONNECT:
                self._hand_over(connection, number)
        elif len(request) == _NUMBER.size:
            (number,) = _NUMBER.unpack(request)
            if number in _ALL_STREAMS:
                connection.send(listed)
            else:
                self._hand_over(connection, number)

    def _hand_over(self, connection: socket.socket, number: int) -> None:
        stream = next((stream for stream in self._geometries if stream == number), None)
        if stream is None:
            return
        geometry, descriptors = self._geometries[stream], self._descriptors[stream]
        descriptions = [
            _DESCRIPTION.pack(
                geometry.nbytes, geometry.nbytes + _MARK_BYTES, geometry.width, geometry.height,
                geometry.stride, geometry.uv_offset, self._server, index, number,
            ).ljust(_DESCRIPTION_BYTES, b"\0")
            for index in range(len(descriptors))
        ]  # fmt: skip
        socket.send_fds(connection, [b"".join(descriptions)], descriptors)


class VisionIpcStream(Closing):
    """One stream of a VisionIpcServer, used as a FrameServer is."""

    def __init__(self, server: VisionIpcServer, stream: Stream, geometry: FrameGeometry) -> None:
        self.stream = stream
        self.geometry = geometry
        self._server = server

    def publish(
        self, picture: U8, frame_id: int, timestamp_sof: int, timestamp_eof: int,
        *, chroma: U8 | None = None, barrier: dict[str, int] | None = None, valid: bool = True,
    ) -> int:  # fmt: skip
        """As FrameServer.publish; VisionIPC has no place for the barrier, so it is left out."""
        return self._server.publish(
            self.stream, picture, frame_id, timestamp_sof, timestamp_eof, chroma=chroma, valid=valid
        )

    def wait_for_readers(self, timeout: float = 10.0, count: int = 1) -> bool:
        return self._server.wait_for_readers(self.stream, timeout, count)

    def new_reader(self) -> bool:
        return self._server.new_reader(self.stream)

    def close(self) -> None:
        """Ends the server with all its streams: cameras come and go together."""
        self._server.close()


@dataclass(frozen=True)
class _Announced:
    """What is announced of a frame; the fields are those of the module's text."""

    server: int
    index: int
    frame_id: int
    timestamp_sof: int
    timestamp_eof: int
    valid: bool


class VisionIpcClient(Closing):
    """Receives the frames of one camera of camerad, or of who stands in for it.

    It may be made before its server and outlives it.

    lost: frames missed so far, by their ids. restarts: how often another server took over.
    malformed: announcements that could not be understood.
    """

    intrinsics = None  # VisionIPC does not tell them

    def __init__(self, stream: Stream, bus: Bus, name: str = CAMERAD) -> None:
        self.stream = Stream(stream)
        self.lost = 0
        self.restarts = 0
        self.malformed = 0
        self._path = bus.vision_socket(name)
        self._server: int | None = None
        self._geometry: FrameGeometry | None = None
        self._buffers: list[_Buffer] = []
        self._expected: int | None = None  # id of the next frame
        self._look_again = 0.0  # monotonic clock, s
        self._heard = MsgqSubscriber(endpoint(self.stream, name), bus, conflate=False)
        self._waiter = MsgqWaiter([self._heard])

    @property
    def geometry(self) -> FrameGeometry:
        """Raises FrameError before the client is connected."""
        if self._geometry is None:
            raise FrameError(f"not connected to stream {self.stream.name}: call connect() first")
        return self._geometry

    def connect(self, timeout: float = 10.0) -> bool:
        """Wait until the stream exists; False if it does not within `timeout` seconds.

        Raises FrameError if what serves it is none we understand.
        """
        deadline = time.monotonic() + timeout
        while not self._buffers:
            now = time.monotonic()
            if now >= self._look_again and self._fetch_buffers():
                break
            if now >= deadline:
                return False
            time.sleep(max(0.0, min(self._look_again, deadline) - now))
        return True

    def receive(
        self, timeout_ms: float = 100, newest: bool = True, in_place: bool = False
    ) -> Frame | None:
        """The next frame; None if none comes within `timeout_ms`.

        newest: skip all but the newest one. in_place: as FrameClient.receive has it.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        while (heard := self._hear(deadline)) is not None:
            until = time.monotonic() + _SAFE_S  # before the question whether there is a later one
            while newest and (later := self._hear(0.0)) is not None:
                heard = later
            frame = self._fetch(heard, until, in_place)
            if frame is not None:
                return frame
        return None

    def close(self) -> None:
        self._heard.close()
        self._buffers = []

    def _hear(self, deadline: float) -> _Announced | None:
        """The next announcement; None if there is none until `deadline` (monotonic clock, s)."""
        while True:
            self._waiter.wait(deadline - time.monotonic())
            data = self._heard.receive()
            if data is not None and len(data) == _ANNOUNCEMENT.size:
                return _Announced(*_ANNOUNCEMENT.unpack(data))
            if data is not None:
                self.malformed += 1
            elif time.monotonic() >= deadline:  # otherwise it was only a new writer in the ring
                return None

    def _fetch(self, heard: _Announced, until: float, in_place: bool) -> Frame | None:
        """The frame, None if it is no longer there."""
        if heard.server != self._server and not self._fetch_buffers():
            return None
        if heard.server != self._server or heard.index >= len(self._buffers):
            return None  # of a server that has gone since
        buffer = self._buffers[heard.index]
        lost = 0 if self._expected is None else max(0, heard.frame_id - self._expected)
        there = Frame(
            buffer.data[: self.geometry.used_nbytes], self.geometry, self.stream, heard.frame_id,
            heard.timestamp_sof, heard.timestamp_eof, heard.valid, lost=lost,
            still_there=partial(buffer.holds, heard.frame_id, until),
        )  # fmt: skip
        frame = there.taken(in_place)
        if frame is None:
            return None
        self.lost += lost
        self._expected = heard.frame_id + 1
        return frame

    def _fetch_buffers(self) -> bool:
        """Have the server hand over its buffers; False if there is none or it lacks the stream.

        Raises FrameError for an answer that makes no sense.
        """
        self._look_again = time.monotonic() + _LOOK_AGAIN_S
        try:
            data, descriptors = self._ask(_NUMBER.pack(self.stream))
            if not data and not any(self._ask(_NUMBER.pack(one))[0] for one in _ALL_STREAMS):
                data, descriptors = self._ask(_COMMAND.pack(_CONNECT, self.stream))
        except OSError:
            return False
        try:
            return bool(data) and self._take_buffers(data, descriptors)
        except (FrameError, OSError, OverflowError, ValueError, struct.error) as error:
            raise FrameError(f"cannot use the camera server at {self._path}: {error}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _ask(self, request: bytes) -> tuple[bytes, list[int]]:
        """What the server answers; nothing if it does not like the request. Raises OSError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(self._path))
            connection.send(request)
            data, descriptors, _, _ = socket.recv_fds(connection, _REPLY_BYTES, _MAX_BUFFERS)
            return data, descriptors

    def _take_buffers(self, data: bytes, descriptors: list[int]) -> bool:
        size = len(data) // max(1, len(descriptors))
        if size < _DESCRIPTION.size or size * len(descriptors) != len(data):
            raise FrameError(f"{len(data)} bytes cannot describe {len(descriptors)} buffers")
        described = [_DESCRIPTION.unpack_from(data, at) for at in range(0, len(data), size)]
        nbytes, _, width, height, stride, uv_offset, server, _, _ = described[0]
        self._geometry = FrameGeometry(width, height, stride, uv_offset, nbytes)
        self._buffers = [_Buffer(one, nbytes, write=False) for one in descriptors]
        if server != self._server:
            self.restarts += self._server is not None
            self._expected = None  # the ids of another server say nothing about these
        self._server = server
        return True


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in the place of one that a killed server left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise BusError(f"{path} already has a camera server; stop it first")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise BusError(f"cannot serve cameras at {path}: {error.strerror}") from None
    listener.listen()
    return listener
