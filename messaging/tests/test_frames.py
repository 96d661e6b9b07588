"""Frames in shared memory: geometry, torn reads, late readers, restarts."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from messaging import (
    Bus,
    BusError,
    Frame,
    FrameClient,
    FrameError,
    FrameGeometry,
    FrameServer,
    Stream,
)
from messaging.announcement import Announcement
from messaging.frames import endpoint
from messaging.nv12 import U8
from messaging.ring import FrameRing, RingDescription

SOON = 30.0  # s; far more than needed, machines may be busy
SMALL = FrameGeometry.padded(64, 32)


def picture(value: int, geometry: FrameGeometry = SMALL) -> U8:
    return np.full(geometry.nbytes, value % 256, np.uint8)


def connected(server: FrameServer, bus: Bus) -> FrameClient:
    client = FrameClient(server.stream, bus)
    assert client.connect(SOON)
    assert server.wait_for_readers(SOON)
    return client


def publish(server: FrameServer, first: int, count: int) -> None:
    for frame_id in range(first, first + count):
        server.publish(picture(frame_id), frame_id, 1000 * frame_id, 1000 * frame_id + 10)


@pytest.mark.parametrize(
    ("width", "height", "stride", "uv_offset", "nbytes"),
    [
        (1928, 1208, 2048, 2_490_368, 4_804_608),
        (1344, 760, 1408, 1_081_344, 2_428_928),
        (1164, 874, 1280, 1_146_880, 2_527_232),
    ],
)
def test_camera_buffers(width: int, height: int, stride: int, uv_offset: int, nbytes: int) -> None:
    expected = FrameGeometry(width, height, stride, uv_offset, nbytes)
    assert FrameGeometry.padded(width, height) == expected


def test_planes_are_views_at_the_right_bytes() -> None:
    geometry = FrameGeometry(width=4, height=2, stride=6, uv_offset=16, nbytes=24)
    data = np.arange(24, dtype=np.uint8)
    assert geometry.luma(data).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert geometry.chroma(data).tolist() == [[[16, 17], [18, 19]]]
    geometry.chroma(data)[0, 1, 0] = 99
    assert data[18] == 99
    assert FrameGeometry.tight(4, 2) == FrameGeometry(4, 2, 4, 8, 12)


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (0, 2), (-2, 2)])
def test_odd_sizes_are_refused(size: tuple[int, int]) -> None:
    for make in (FrameGeometry.tight, FrameGeometry.padded):
        with pytest.raises(FrameError, match="width and height must be even and positive"):
            make(*size)


@pytest.mark.parametrize("change", [{"stride": 63}, {"uv_offset": 64 * 32 - 1}, {"nbytes": 100}])
def test_planes_must_fit(change: dict[str, int]) -> None:
    with pytest.raises(FrameError, match="overlap or leave the buffer"):
        dataclasses.replace(FrameGeometry.tight(64, 32), **change)


def test_frame_arrives_whole(bus: Bus) -> None:
    generator = np.random.default_rng(0)
    luma = generator.integers(0, 256, (32, 64), np.uint8)
    chroma = generator.integers(0, 256, (16, 32, 2), np.uint8)
    with (
        FrameServer(Stream.WIDE_ROAD, SMALL, (567.0, 32.0, 16.0), bus=bus) as server,
        connected(server, bus) as client,
    ):
        assert client.geometry == SMALL
        assert client.intrinsics == (567.0, 32.0, 16.0)
        barrier = {"carState": 123}
        server.publish(luma, 7, 100, 200, chroma=chroma, barrier=barrier, valid=False)
        frame = client.receive(SOON * 1000)
        assert frame is not None
        assert np.array_equal(frame.luma, luma)
        assert np.array_equal(frame.chroma, chroma)
        assert (frame.stream, frame.frame_id) == (Stream.WIDE_ROAD, 7)
        assert (frame.timestamp_sof, frame.timestamp_eof) == (100, 200)
        assert (frame.barrier, frame.valid, frame.lost) == (barrier, False, 0)
        frame.luma[:] = 0  # the copy is the reader's own
        # the same picture as one buffer without gaps
        tight = np.concatenate([luma.ravel(), chroma.ravel()])
        server.publish(tight, 8, 300, 400)
        again = client.receive(SOON * 1000)
        assert again is not None
        assert np.array_equal(again.luma, luma)
        assert np.array_equal(again.chroma, chroma)
        assert (again.barrier, again.valid) == (None, True)
        assert client.receive(0) is None


def test_pictures_of_the_wrong_size_are_refused(bus: Bus) -> None:
    with FrameServer(Stream.CABIN, SMALL, bus=bus) as server:
        with pytest.raises(
            FrameError, match=r"picture has shape \(5,\).*uint8 \(\d+,\) or \(3072,"
        ):
            server.publish(np.zeros(5, np.uint8), 0, 0, 0)
        with pytest.raises(FrameError, match="do not fit this stream"):
            server.publish(
                np.zeros((32, 64), np.uint8), 0, 0, 0, chroma=np.zeros((16, 64), np.uint8)
            )
        with pytest.raises(FrameError, match="float32"):
            server.publish(np.zeros(SMALL.nbytes, np.float32), 0, 0, 0)
        with pytest.raises(FrameError, match="frame id 4294967296 does not fit into 32 bits"):
            server.publish(picture(0), 2**32, 0, 0)


@pytest.mark.parametrize("intrinsics", [
    (0.0, 1.0, 1.0), (-9.0, 1.0, 1.0), (float("nan"), 1.0, 1.0), (9.0, float("inf"), 1.0),
    (1e30, 1.0, 1.0)])
def test_intrinsics_that_cannot_be(bus: Bus, intrinsics: tuple[float, float, float]) -> None:
    with pytest.raises(FrameError, match="a camera cannot have focal length"):
        FrameServer(Stream.CABIN, SMALL, intrinsics, bus=bus)
    FrameServer(Stream.CABIN, SMALL, bus=bus).close()  # the stream is free again


class Inbox:
    """In place of a client's subscriber: what is in it has arrived, nothing else does."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def wait(self, timeout_s: float) -> None: ...

    def receive(self) -> bytes | None:
        return self.waiting.pop(0) if self.waiting else None

    def close(self) -> None: ...


@dataclasses.dataclass
class Pair:
    """A server and a client without sockets between them."""

    server: FrameServer
    client: FrameClient
    inbox: Inbox

    def publish(self, first: int, count: int = 1) -> None:
        publish(self.server, first, count)


@pytest.fixture
def pair(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    with (
        FrameServer(Stream.NARROW_ROAD, SMALL, bus=bus, buffers=3) as server,
        FrameClient(Stream.NARROW_ROAD, bus) as client,
    ):
        assert client.connect(SOON)
        inbox = Inbox()
        client._heard.close()
        monkeypatch.setattr(client, "_heard", inbox)
        monkeypatch.setattr(client, "_waiter", inbox)
        monkeypatch.setattr(server._publisher, "send", inbox.waiting.append)
        yield Pair(server, client, inbox)


def test_late_reader_gets_the_newest_frame(pair: Pair) -> None:
    pair.publish(0)
    first = pair.client.receive(0)
    assert first is not None
    assert (first.frame_id, first.lost) == (0, 0)
    pair.publish(1, 20)
    frame = pair.client.receive(0)
    assert frame is not None
    assert (frame.frame_id, frame.lost, pair.client.lost) == (20, 19, 19)
    assert (frame.luma == 20).all()
    assert pair.client.receive(0) is None
    pair.publish(21)
    following = pair.client.receive(0)
    assert following is not None
    assert (following.frame_id, following.lost, pair.client.lost) == (21, 0, 19)


def test_frames_in_order_as_long_as_the_server_holds_them(pair: Pair) -> None:
    pair.publish(0, 3)
    frames = [pair.client.receive(0, newest=False) for _ in range(4)]
    assert [f and (f.frame_id, f.lost) for f in frames] == [(0, 0), (1, 0), (2, 0), None]
    pair.publish(3, 10)  # three buffers: 10, 11 and 12 are left
    frames = [pair.client.receive(0, newest=False) for _ in range(4)]
    assert [f and (f.frame_id, f.lost) for f in frames] == [(10, 7), (11, 0), (12, 0), None]
    assert all((frame.luma == frame.frame_id).all() for frame in frames if frame)
    assert pair.client.lost == 7


def test_a_picture_that_is_being_written_is_not_read(pair: Pair) -> None:
    pair.publish(0, 2)
    counters = pair.server._ring.counters
    counters[1] = 2 * 4 + 1  # the server has begun frame 4 in the slot of frame 1
    assert pair.client.receive(0) is None
    counters[1] = 2 * 4 + 2
    assert pair.client._ring is not None
    assert pair.client._ring.holds(4)
    assert not pair.client._ring.holds(1)


def test_a_picture_overwritten_while_it_is_copied_is_thrown_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Frame.taken
    interruptions = [lambda: pair.publish(3), lambda: None]

    def interrupted(frame: Frame, in_place: bool) -> Frame | None:
        interruptions.pop(0)()
        return taken(frame, in_place)

    pair.publish(0)
    monkeypatch.setattr(Frame, "taken", interrupted)
    # frame 3 takes the slot of frame 0 before the copy is made; the reader goes on to frame 3
    pair.server._count = 3
    frame = pair.client.receive(0)
    assert interruptions == []
    assert frame is not None
    assert (frame.frame_id, frame.lost) == (3, 3)
    assert (frame.luma == 3).all()


def test_a_picture_read_where_it_lies_tells_when_it_was_overwritten(pair: Pair) -> None:
    pair.publish(0)
    frame = pair.client.receive(0, in_place=True)
    assert frame is not None and (frame.luma == 0).all() and frame.intact()
    with pytest.raises(ValueError, match="read-only"):
        frame.luma[0] = 1
    pair.publish(1, 2)  # three buffers: the slot of frame 0 is the next one
    assert frame.intact()
    assert pair.client._ring is not None and pair.server._ring is not None
    with pair.server._ring.writing(3) as buffer:
        buffer[:10] = 3
        assert (frame.luma[0, :10] == 3).all()  # nothing was copied
        assert not frame.intact()
    assert not frame.intact()
    assert frame.taken(in_place=False) is None


def test_malformed_announcements_are_counted(pair: Pair) -> None:
    good = Announcement(1, 2, 3, 4, 5, True, {"carState": 6})
    assert Announcement.from_bytes(good.to_bytes()) == good
    assert good.to_bytes() == (
        b'{"barrier":{"carState":6},"count":2,"frame_id":3,"server":1,'
        b'"timestamp_eof":5,"timestamp_sof":4,"valid":true}'
    )
    for changed in (
        {"count": -1},
        {"count": 1.5},
        {"frame_id": "3"},
        {"frame_id": 2**32},
        {"valid": 1},
        {"barrier": [1]},
        {"barrier": {"carState": None}},
        {"server": True},
        {"extra": 1},
    ):
        pair.inbox.waiting.append(json.dumps(vars(good) | changed).encode())
    pair.inbox.waiting += [b"", b"\xff", b"[]", b"[" * 100_000, b'{"server":1}']
    pair.publish(0)
    frame = pair.client.receive(0)
    assert frame is not None
    assert frame.frame_id == 0
    assert pair.client.malformed == 14


def test_client_before_server(bus: Bus) -> None:
    with FrameClient(Stream.CABIN, bus) as client:
        assert not client.connect(0.0)
        assert client.receive(0) is None
        with pytest.raises(FrameError, match="not connected to stream CABIN"):
            client.geometry  # noqa: B018
        with FrameServer(Stream.CABIN, SMALL, bus=bus) as server:
            assert client.connect(SOON)
            find_each_other(server, client)
            publish(server, 5, 1)
            frame = client.receive(SOON * 1000)
            assert frame is not None
            assert frame.frame_id == 5


def find_each_other(server: FrameServer, client: FrameClient) -> None:
    """A client subscribes anew, after its server came back, while it looks for frames."""
    deadline = time.monotonic() + SOON
    while not server.wait_for_readers(timeout=0.01):
        assert client.receive(10) is None
        assert time.monotonic() < deadline


def test_one_server_per_stream(bus: Bus) -> None:
    with FrameServer(Stream.CABIN, SMALL, bus=bus) as server:
        with pytest.raises(BusError, match="frames_1 already has a publisher"):
            FrameServer(Stream.CABIN, SMALL, bus=bus)
        with connected(server, bus) as client:  # the refused one has harmed nothing
            publish(server, 0, 1)
            assert client.receive(SOON * 1000) is not None
        assert server.new_reader()
        assert not server.new_reader()
    assert not any(path.exists() for path in bus.shared_files(endpoint(Stream.CABIN)))


SERVE = """
import sys
import numpy as np
from messaging import Bus, FrameGeometry, FrameServer, Stream
geometry = FrameGeometry.padded(int(sys.argv[2]), 32)
server = FrameServer(Stream.WIDE_ROAD, geometry, bus=Bus(sys.argv[1]))
print("ready", flush=True)
for frame_id in map(int, sys.stdin):
    server.publish(np.full(geometry.nbytes, frame_id, np.uint8), frame_id, frame_id, frame_id)
"""


class ServerProcess:
    def __init__(self, bus: Bus, width: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, bus.namespace, str(width)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def publish(self, frame_id: int) -> None:
        assert self.process.stdin is not None
        print(frame_id, file=self.process.stdin, flush=True)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def test_killed_server_is_replaced(bus: Bus) -> None:
    first = ServerProcess(bus, 64)
    with FrameClient(Stream.WIDE_ROAD, bus) as client:
        assert client.connect(SOON)
        assert client.geometry.width == 64
        receive_from(first, client, 7)
        first.kill()
        assert client.receive(0) is None

        # the next one even has another size
        second = ServerProcess(bus, 128)
        frame = receive_from(second, client, 9)
        assert frame.luma.shape == (32, 128)
        assert client.geometry.width == 128
        assert client.restarts == 1
        second.kill()
    with FrameClient(Stream.WIDE_ROAD, bus) as late:
        assert not late.connect(0.0)  # what a killed server left behind is no stream


def receive_from(server: ServerProcess, client: FrameClient, frame_id: int) -> Frame:
    """Publish until the client hears it: it may still be on its way to the server."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        server.publish(frame_id)
        frame = client.receive(50)
        if frame is not None:
            assert frame.frame_id == frame_id
            assert (frame.luma == frame_id).all()
            return frame
    raise AssertionError("no frame came")


def description(server: int = 5) -> RingDescription:
    return RingDescription(server, os.getpid(), 2, SMALL, None)


def test_files_that_are_no_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    assert FrameRing.open([path]) is None

    good = description().to_bytes()
    size = description().file_bytes
    for content, length, reason in [
        (b"", 0, "only 0 bytes long"),
        (bytes(size), size, "does not begin like shared memory"),
        (good, size - 1, "announces"),
        (good[:8] + b"\x09" + good[9:], size, "has version 9"),
        (good[:12] + b"\xff" + good[13:], size, "2 to 64 buffers, not 255"),
        (good[:64] + b"\xff" * 8 + good[72:], size, "announces"),  # nbytes
        (good[:32] + bytes(8) + good[40:], size, "0 x 32 pixels"),
        (good[:72] + b"\1" + good[73:], size, "cannot have focal length 0.0"),
    ]:
        path.write_bytes(content)
        os.truncate(path, length)
        with pytest.raises(FrameError, match=f"cannot read camera frames from .*{reason}"):
            FrameRing.open([path])

    path.write_bytes(good)
    os.truncate(path, size)
    ring = FrameRing.open([path])
    assert ring is not None
    assert ring.description == description()
    assert FrameRing.open([path], server=6) is None
    assert not ring.holds(0)  # nothing was written yet


def test_what_others_put_into_shared_memory_is_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = FrameRing.create([tmp_path / "ring"], description())
    assert FrameRing.open([ring.path]) is not None
    monkeypatch.setattr(os, "getuid", lambda: ring.path.stat().st_uid + 1)
    assert FrameRing.open([ring.path]) is None


def test_ring_goes_where_there_is_room(tmp_path: Path) -> None:
    places = [tmp_path / "missing" / "ring", tmp_path / "ring"]
    ring = FrameRing.create(places, description())
    assert ring.path == places[1]
    assert places[1].stat().st_mode & 0o777 == 0o600
    with ring.writing(0) as buffer:
        buffer[:] = 1
    reader = FrameRing.open(places)
    assert reader is not None
    assert reader.holds(0)
    assert (reader.view(0) == 1).all()
    # a newer ring of the same name is not ours to remove
    FrameRing.create(places, description(server=6))
    ring.unlink()
    assert places[1].exists()
    with pytest.raises(FrameError, match=r"no room for .* MB of camera frames.*No such file"):
        FrameRing.create(places[:1], description())
