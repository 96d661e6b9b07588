"""VisionIPC, against the structures of openpilot's C++ headers written out with ctypes."""

import ctypes
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from messaging import (
    Bus,
    BusError,
    FrameClient,
    FrameError,
    FrameGeometry,
    FrameServer,
    Stream,
    frame_receiver,
    frame_senders,
    visionipc,
)
from messaging.msgq import MsgqPublisher, MsgqSubscriber
from messaging.visionipc import (
    _ANNOUNCEMENT,
    _DESCRIPTION,
    VisionIpcClient,
    VisionIpcServer,
    _Announced,
)

SOON = 30.0  # s; far more than needed, machines may be busy
GEOMETRY = FrameGeometry.padded(64, 32)
BOTH = {Stream.NARROW_ROAD: GEOMETRY, Stream.WIDE_ROAD: FrameGeometry.tight(96, 64)}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="VisionIPC here needs Linux")


class VisionBuf(ctypes.Structure):
    """The description of a buffer since OpenCL was taken out of it (2026)."""

    _fields_ = (
        ("len", ctypes.c_size_t), ("mmap_len", ctypes.c_size_t), ("addr", ctypes.c_void_p),
        ("frame_id", ctypes.c_void_p), ("fd", ctypes.c_int), ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t), ("stride", ctypes.c_size_t), ("uv_offset", ctypes.c_size_t),
        ("y", ctypes.c_void_p), ("uv", ctypes.c_void_p), ("server_id", ctypes.c_uint64),
        ("idx", ctypes.c_size_t), ("type", ctypes.c_uint32), ("handle", ctypes.c_int),
    )  # fmt: skip


class OldVisionBuf(ctypes.Structure):
    """The one before: two OpenCL handles stand before that of the ion memory."""

    _fields_ = (
        *VisionBuf._fields_[:-1], ("buf_cl", ctypes.c_void_p), ("copy_q", ctypes.c_void_p),
        ("handle", ctypes.c_int),
    )  # fmt: skip


class Extra(ctypes.Structure):
    _fields_ = (("frame_id", ctypes.c_uint32), ("timestamp_sof", ctypes.c_uint64),
                ("timestamp_eof", ctypes.c_uint64), ("valid", ctypes.c_bool))  # fmt: skip


class Packet(ctypes.Structure):
    _fields_ = (("server_id", ctypes.c_uint64), ("idx", ctypes.c_size_t), ("extra", Extra))


def picture(value: int, geometry: FrameGeometry = GEOMETRY) -> np.ndarray:
    return np.full(geometry.nbytes, value % 256, np.uint8)


def connected(server: VisionIpcServer, bus: Bus, stream: Stream) -> VisionIpcClient:
    client = VisionIpcClient(stream, bus)
    assert client.connect(SOON)
    assert server.wait_for_readers(stream, SOON)
    return client


def ask(bus: Bus, request: bytes) -> tuple[list[bytes], list[int]]:
    """What any client may ask: all packets of the answer, and the descriptors in the first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(SOON)
        connection.connect(str(bus.vision_socket("camerad")))
        connection.send(request)
        first, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 128)
        packets = [first]
        while packets[-1]:
            packets.append(connection.recv(1 << 16))
        return packets[:-1], list(descriptors)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENPILOT_PREFIX", raising=False)
    assert Bus.at("msgq").vision_socket("camerad") == Path("/tmp/visionipc_camerad")
    assert Bus.at("msgq:ab").vision_socket("camerad") == Path("/tmp/ab_visionipc_camerad")


def test_frames_arrive(msgq: Bus) -> None:
    with VisionIpcServer(BOTH, msgq) as server:
        narrow = connected(server, msgq, Stream.NARROW_ROAD)
        wide = connected(server, msgq, Stream.WIDE_ROAD)
        assert narrow.geometry == GEOMETRY
        assert wide.geometry == BOTH[Stream.WIDE_ROAD]
        server.publish(Stream.NARROW_ROAD, picture(3), 7, 1000, 2000)
        luma, chroma = np.full((64, 96), 4, np.uint8), np.full((32, 48, 2), 5, np.uint8)
        server.publish(Stream.WIDE_ROAD, luma, 8, 3000, 4000, chroma=chroma, valid=False)
        first, second = narrow.receive(1000 * SOON), wide.receive(1000 * SOON)
        assert first is not None and second is not None
        assert (first.frame_id, first.timestamp_sof, first.timestamp_eof) == (7, 1000, 2000)
        assert first.valid and not second.valid
        assert (first.luma == 3).all() and (second.luma == 4).all() and (second.chroma == 5).all()
        assert narrow.receive(0) is None
        narrow.close()
        wide.close()


def test_openpilots_own_client_understands_the_server(msgq: Bus) -> None:
    with VisionIpcServer(BOTH, msgq, buffers=3) as server:
        for request in ((4).to_bytes(4, "little"), b"\xff\xff\xff\xff"):
            assert ask(msgq, request)[0] == [bytes([0, 0, 0, 0, 2, 0, 0, 0])]
        listed, _ = ask(msgq, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # the newest: the number first
        assert listed == [bytes([2, 0, 0, 0]), bytes([0, 0, 0, 0, 2, 0, 0, 0])]
        assert ask(msgq, bytes([1, 0, 0, 0])) == ([], [])  # there is no cabin camera
        assert ask(msgq, bytes([0, 0, 0, 0, 1, 0, 0, 0])) == ([], [])
        assert ask(msgq, b"three") == ([], [])
        announced = MsgqSubscriber("visionipc_camerad_0", msgq, conflate=False)
        for request in (bytes(4), bytes(8)):
            (reply,), descriptors = ask(msgq, request)
            assert len(reply) == 3 * ctypes.sizeof(VisionBuf)
            buffers = (VisionBuf * 3).from_buffer_copy(reply)
            one = buffers[1]
            assert (one.width, one.height, one.stride, one.uv_offset, one.len, one.idx) == (
                64, 32, 128, 4096, GEOMETRY.nbytes, 1)  # fmt: skip
            assert one.mmap_len == one.len + 8
            for frame_id in (20, 21, 22):
                server.publish(Stream.NARROW_ROAD, picture(frame_id), frame_id, 5, 6)
                packet = Packet.from_buffer_copy(announced.receive() or b"")
                assert packet.server_id == one.server_id
                assert (packet.extra.frame_id, packet.extra.valid) == (frame_id, True)
                assert (packet.extra.timestamp_sof, packet.extra.timestamp_eof) == (5, 6)
                content = os.pread(descriptors[packet.idx], one.mmap_len, 0)
                assert content[0] == frame_id
                assert int.from_bytes(content[one.len:], "little") == frame_id
            for descriptor in descriptors:
                os.close(descriptor)
        announced.close()


class Camerad:
    """A camera server as openpilot has it. request: bytes it expects; it "ends" for any other."""

    def __init__(self, bus: Bus, request: int, kind: type[ctypes.Structure]) -> None:
        self.ended = False
        self.request = request
        self.kind = kind
        self.descriptor = os.memfd_create("camerad")
        os.ftruncate(self.descriptor, GEOMETRY.nbytes + 8)
        self.publisher = MsgqPublisher("visionipc_camerad_0", bus)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(bus.vision_socket("camerad")))
        self.listener.listen(3)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while not self.ended:
            connection, _ = self.listener.accept()
            with connection:
                request = connection.recv(64)
                if len(request) != self.request:
                    self.ended = self.request == 4  # the newer one only closes the connection
                elif int.from_bytes(request[-4:], "little") == 0:
                    described = self.kind(
                        len=GEOMETRY.nbytes, mmap_len=GEOMETRY.nbytes + 8, width=64, height=32,
                        stride=GEOMETRY.stride, uv_offset=GEOMETRY.uv_offset, server_id=99,
                    )  # fmt: skip
                    socket.send_fds(connection, [bytes(described)], [self.descriptor])
                elif int.from_bytes(request, "little") == 4:
                    connection.send(bytes(4))  # there is the narrow camera

    def send(self, frame_id: int, mark: int) -> None:
        os.pwrite(self.descriptor, bytes([frame_id]) * 4096, 0)
        os.pwrite(self.descriptor, mark.to_bytes(8, "little"), GEOMETRY.nbytes)
        packet = Packet(server_id=99, idx=0)
        packet.extra = Extra(frame_id, 10, 20, True)
        self.publisher.send(bytes(packet))


@pytest.mark.parametrize(("request_bytes", "kind"), [
    (4, OldVisionBuf), (4, VisionBuf), (8, VisionBuf)])  # fmt: skip
def test_openpilots_own_server_is_understood(
    msgq: Bus, request_bytes: int, kind: type[ctypes.Structure]
) -> None:
    camerad = Camerad(msgq, request_bytes, kind)
    absent = VisionIpcClient(Stream.WIDE_ROAD, msgq)
    assert not absent.connect(0.0)
    with VisionIpcClient(Stream.NARROW_ROAD, msgq) as client:
        assert client.connect(SOON)
        camerad.send(30, mark=30)
        frame = client.receive(1000 * SOON)
        assert frame is not None
        assert (frame.frame_id, frame.luma[0, 0], frame.timestamp_eof) == (30, 30, 20)
        camerad.send(31, mark=32)  # overwritten by the time it is read
        assert client.receive(50) is None
        camerad.send(33, mark=33)
        frame = client.receive(1000 * SOON)
        assert frame is not None
        assert (frame.frame_id, frame.lost, client.lost) == (33, 2, 2)
        camerad.publisher.send(b"short")
        assert client.receive(20) is None
        assert client.malformed == 1
    assert not camerad.ended


def test_a_late_reader_gets_the_newest_and_counts(msgq: Bus) -> None:
    with VisionIpcServer(BOTH, msgq, buffers=4) as server:
        client = connected(server, msgq, Stream.NARROW_ROAD)
        for frame_id in range(100, 107):
            server.publish(Stream.NARROW_ROAD, picture(frame_id), frame_id, 0, 0)
            if frame_id == 100:
                assert client.receive(1000 * SOON) is not None
        oldest = client.receive(1000 * SOON, newest=False)  # what is not overwritten, in order
        newest = client.receive(1000 * SOON)
        assert oldest is not None and newest is not None
        assert (oldest.frame_id, oldest.lost, newest.frame_id, newest.lost) == (103, 2, 106, 2)
        assert (newest.luma == 106).all()
        client.close()


def test_a_picture_read_where_it_lies_tells_when_it_was_overwritten(
    msgq: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visionipc, "_SAFE_S", SOON)  # machines may be busy
    with VisionIpcServer(BOTH, msgq, buffers=3) as server:
        client = connected(server, msgq, Stream.NARROW_ROAD)
        server.publish(Stream.NARROW_ROAD, picture(0), 7, 1, 2)
        frame = client.receive(1000 * SOON, in_place=True)
        assert frame is not None and (frame.luma == 0).all() and frame.intact()
        for frame_id in (8, 9):
            server.publish(Stream.NARROW_ROAD, picture(1), frame_id, 1, 2)
            assert frame.intact()
        server.publish(Stream.NARROW_ROAD, picture(3), 10, 1, 2)
        assert (frame.luma == 3).all()  # nothing was copied
        assert not frame.intact()
        newest = client.receive(1000 * SOON, in_place=True)
        assert newest is not None and newest.intact()
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + SOON)
        assert not newest.intact()  # by now a camera may be writing, which marks only at the end
        client.close()


def test_a_killed_server_is_replaced(msgq: Bus) -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from messaging import Bus, FrameGeometry, Stream\n"
        "from messaging.visionipc import VisionIpcServer\n"
        f"g = FrameGeometry.padded(64, 32)\ns = VisionIpcServer({{Stream(0): g}}, "
        f"Bus.msgq({msgq.msgq_prefix!r}))\n"
        "s.wait_for_readers(Stream(0), 60)\n"
        "s.publish(Stream(0), np.full(g.nbytes, 9, np.uint8), 500, 1, 2)\ntime.sleep(60)\n"
    )
    client = VisionIpcClient(Stream.NARROW_ROAD, msgq)
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert client.connect(SOON)
        frame = client.receive(1000 * SOON)
        assert frame is not None and frame.frame_id == 500
    finally:
        child.kill()
        child.wait()
    with VisionIpcServer({Stream.NARROW_ROAD: GEOMETRY}, msgq) as server:
        assert client.receive(50) is None  # registers with the new writer
        server.publish(Stream.NARROW_ROAD, picture(1), 0, 1, 2)
        frame = client.receive(1000 * SOON)
        assert frame is not None
        assert (frame.frame_id, frame.lost, client.restarts) == (0, 0, 1)
        with pytest.raises(BusError, match="already has a camera server"):
            VisionIpcServer({Stream.NARROW_ROAD: GEOMETRY}, msgq)
    client.close()
    assert not msgq.vision_socket("camerad").exists()


@pytest.mark.parametrize(("reply", "count"), [
    (b"x" * 50, 1), (bytes(112), 1), (b"\xff" * 112, 1), (bytes(112), 0), (bytes(223), 2),
    (_DESCRIPTION.pack(2**63, 2**63, 64, 32, 64, 2048, 1, 0, 0), 1)])
def test_answers_that_make_no_sense(msgq: Bus, reply: bytes, count: int) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(msgq.vision_socket("camerad")))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(64)
            socket.send_fds(connection, [reply], [1] * count)

    worker = threading.Thread(target=serve)
    worker.start()
    with VisionIpcClient(Stream.NARROW_ROAD, msgq) as client, pytest.raises(
            FrameError, match="cannot use the camera server"):
        client.connect(SOON)
    worker.join(SOON)
    listener.close()


def test_ten_thousand_random_announcements(msgq: Bus) -> None:
    rng = random.Random(1)
    with VisionIpcServer(BOTH, msgq) as server:
        client = connected(server, msgq, Stream.NARROW_ROAD)
        for _ in range(10_000):
            announced = bytearray(rng.randbytes(ctypes.sizeof(Packet)))
            if rng.random() < 0.5:  # of this server, so that the rest is looked at
                announced[:8] = server._server.to_bytes(8, "little")
            if rng.random() < 0.5:
                announced[8:16] = rng.randrange(40).to_bytes(8, "little")
            heard = _Announced(*_ANNOUNCEMENT.unpack(announced))
            client._fetch(heard, time.monotonic() + SOON, in_place=False)
        server.publish(Stream.NARROW_ROAD, picture(3), 7, 1000, 2000)
        frame = client.receive(1000 * SOON)
        assert frame is not None and frame.frame_id == 7
        client.close()


def test_errors_are_sentences(msgq: Bus) -> None:
    huge = FrameGeometry(2, 2, 1 << 60, 1 << 61, 1 << 62)  # no address space is so large
    with pytest.raises(FrameError, match="no room"):
        VisionIpcServer({Stream.NARROW_ROAD: huge}, msgq)
    with pytest.raises(FrameError, match="1 to 127 buffers"):
        VisionIpcServer(BOTH, msgq, buffers=128)
    with pytest.raises(FrameError, match="not connected"):
        _ = VisionIpcClient(Stream.CABIN, msgq).geometry


def test_the_way_of_frames_is_the_buses(msgq: Bus, bus: Bus) -> None:
    senders = frame_senders(BOTH, msgq, {Stream.NARROW_ROAD: (1.0, 2.0, 3.0)})
    receiver = frame_receiver(Stream.NARROW_ROAD, msgq)
    assert receiver.connect(SOON)
    assert receiver.intrinsics is None
    assert senders[Stream.NARROW_ROAD].wait_for_readers(SOON)
    assert senders[Stream.NARROW_ROAD].new_reader()
    senders[Stream.NARROW_ROAD].publish(picture(2), 1, 2, 3, barrier={"carState": 5})
    frame = receiver.receive(1000 * SOON)
    assert frame is not None and frame.barrier is None
    for sender in senders.values():
        sender.close()
    receiver.close()
    plain = frame_senders(BOTH, bus, {Stream.NARROW_ROAD: (1.0, 2.0, 3.0)})
    assert isinstance(plain[Stream.NARROW_ROAD], FrameServer)
    with frame_receiver(Stream.NARROW_ROAD, bus) as local:  # type: ignore[attr-defined]
        assert isinstance(local, FrameClient)
        assert local.connect(SOON)
        assert local.intrinsics == (1.0, 2.0, 3.0)
    for sender in plain.values():
        sender.close()
