"""Where endpoints are, and that nobody else is there."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging import (
    Bus,
    BusError,
    FrameGeometry,
    FrameServer,
    PubMaster,
    Stream,
    SubMaster,
    new_message,
    tcp_port,
)
from messaging.message import MAX_MESSAGE_BYTES


def test_default_namespace_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYDRIVE_NAMESPACE", raising=False)
    assert Bus().namespace == "default"
    monkeypatch.setenv("TINYDRIVE_NAMESPACE", "garage")
    assert Bus().namespace == "garage"
    assert Bus("street").namespace == "street"


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Paths of sockets have few bytes, and those that pytest makes grow long."""
    with tempfile.TemporaryDirectory(prefix="bus") as name:
        yield Path(name)


def test_directory_is_private(monkeypatch: pytest.MonkeyPatch, short_directory: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))
    bus = Bus.fresh()
    assert bus.endpoint("carState", bind=True) == f"ipc://{bus.directory}/carState"
    assert short_directory in bus.directory.parents
    for path in (bus.directory, bus.directory.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert bus.endpoint("liveCalibration", bind=False).endswith("/extrinsicsCalibration")
    bus.remove()
    assert not bus.directory.exists()


def test_without_home_and_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    bus = Bus.fresh()
    assert bus.directory.parent == Path(tempfile.gettempdir()) / f"tinydrive-{os.getuid()}"
    with PubMaster(["carState"], bus):
        assert (bus.directory / "carState").is_socket()
    bus.remove()


def test_directory_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tinydrive").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BusError, match="is not a directory of this user"):
        Bus("x").endpoint("carState", bind=True)


def test_long_paths_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(BusError, match="the system allows 107; use a shorter namespace"):
        Bus("n" * 60).endpoint("carState", bind=True)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "@"])
def test_names_that_are_no_directories(name: str) -> None:
    with pytest.raises(BusError, match="cannot name a bus"):
        Bus(name)


def test_tcp_endpoints() -> None:
    assert Bus(host="10.0.0.2").endpoint("modelV2", bind=False) == "tcp://10.0.0.2:58537"
    assert Bus(host="*").endpoint("modelV2", bind=True) == "tcp://*:58537"
    assert Bus(host="*").endpoint("modelV2", bind=False) == "tcp://127.0.0.1:58537"
    # an old name is an old port
    assert Bus(host="*").endpoint("liveDelay", bind=True) == f"tcp://*:{tcp_port('liveDelay')}"


def test_messages_over_tcp(bus: Bus) -> None:
    tcp = Bus(bus.namespace, host="127.0.0.1")
    with (
        PubMaster(["testJoystick"], tcp) as publisher,
        SubMaster(["testJoystick"], bus=tcp) as subscriber,
    ):
        with pytest.raises(BusError, match="cannot publish testJoystick: Address already in use"):
            PubMaster(["testJoystick"], tcp)
        assert publisher.wait_for_subscribers(timeout=30)
        message = new_message("testJoystick")
        message.testJoystick.axes = [0.5]
        publisher.send("testJoystick", message)
        assert subscriber.wait_for({"testJoystick": message.logMonoTime}, 30)
        assert list(subscriber["testJoystick"].axes) == [0.5]


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)  # of ZeroMQ, 64 bytes


@pytest.mark.parametrize(("said", "comes_back"), [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", True), (b"SSH-2.0-OpenSSH_9.2\r\n", True), (b"", True),
    (GREETING + b"\x00\x05junk!", False)])
def test_somebody_else_at_the_port_of_a_publisher(bus: Bus, said: bytes, comes_back: bool) -> None:
    tcp = Bus(bus.namespace, host="127.0.0.1")
    with (
        socket.create_server(("127.0.0.1", tcp_port("testJoystick"))) as stranger,
        SubMaster(["testJoystick"], bus=tcp) as subscriber,
    ):
        stranger.settimeout(30)
        connection, _ = stranger.accept()
        with connection:
            connection.settimeout(30)
            connection.sendall(said)
            if not comes_back:  # it goes as soon as it has understood
                while connection.recv(100):
                    pass
        stranger.close()
        with PubMaster(["testJoystick"], tcp) as publisher:
            assert finds(subscriber, publisher, 30 if comes_back else 0.5) == comes_back


def finds(subscriber: SubMaster, publisher: PubMaster, timeout_s: float) -> bool:
    """Whether a subscriber that looks for messages comes to a publisher."""
    deadline = time.monotonic() + timeout_s
    while not publisher.wait_for_subscribers(timeout=0):
        if time.monotonic() > deadline:
            return False
        subscriber.update(10)
    return True


def test_a_subscriber_over_tcp_gives_a_publisher_of_huge_messages_up(bus: Bus) -> None:
    tcp = Bus(bus.namespace, host="127.0.0.1")
    with SubMaster(["testJoystick"], bus=tcp) as subscriber:
        with PubMaster(["testJoystick"], tcp) as publisher:
            assert finds(subscriber, publisher, 30)
            publisher.send("testJoystick", bytes(MAX_MESSAGE_BYTES + 1))
            deadline = time.monotonic() + 30
            while publisher.wait_for_subscribers(timeout=0.01):
                assert time.monotonic() < deadline
        with PubMaster(["testJoystick"], tcp) as publisher:
            assert not finds(subscriber, publisher, 0.5)


def test_second_publisher_is_refused(bus: Bus) -> None:
    with PubMaster(["carState"], bus):
        with pytest.raises(BusError, match=f"carState already has a publisher.*{os.getpid()}"):
            PubMaster(["modelV2", "carState"], bus)
        # what the refused one had reserved is free again
        PubMaster(["modelV2"], bus).close()
    PubMaster(["carState"], bus).close()


HOLD = """
import sys
from messaging import Bus, PubMaster
publisher = PubMaster(["carState"], Bus(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_killed_publisher_is_replaced(bus: Bus) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, bus.namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    with pytest.raises(BusError, match=f"process {holder.pid}"):
        PubMaster(["carState"], bus)

    with SubMaster(["carState"], bus=bus) as subscriber:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        assert (bus.directory / "carState").is_socket()  # nobody tidied up
        with PubMaster(["carState"], bus) as publisher:
            # the subscriber finds the new one by itself, as long as it looks for messages
            deadline = time.monotonic() + 30
            while not publisher.wait_for_subscribers(timeout=0.01):
                subscriber.update(10)
                assert time.monotonic() < deadline
            message = new_message("carState")
            publisher.send("carState", message)
            assert subscriber.wait_for({"carState": message.logMonoTime}, 30)


def test_what_killed_processes_left_is_removed(bus: Bus) -> None:
    code = (
        "import os, signal\nfrom messaging import *\nbus = Bus.fresh()\n"
        "server = FrameServer(Stream.CABIN, FrameGeometry.tight(64, 32), bus=bus)\n"
        "print(bus.namespace, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Bus(done.stdout.strip())
    alive = FrameServer(Stream.CABIN, FrameGeometry.tight(64, 32), bus=bus)
    assert left.directory.exists()
    assert any(path.exists() for path in left.shared_files("frames_1"))
    Bus.fresh()
    assert not left.directory.exists()
    assert not any(path.exists() for path in left.shared_files("frames_1"))
    assert any(path.exists() for path in bus.shared_files("frames_1"))
    alive.close()
