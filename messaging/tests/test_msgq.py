"""msgq rings: the bytes in the file, readers that are overrun or evicted, whole processes."""

import random
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from messaging import Bus, BusError, PubMaster, SubMaster, new_message
from messaging.msgq import HEADER_BYTES, MsgqPublisher, MsgqSubscriber, MsgqWaiter

SOON = 120.0  # s; far more than needed, machines may be busy
NAME = "carState"  # a ring of 250 KiB
RING = 250 * 1024

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm")


def words(bus: Bus) -> list[int]:
    content = bus.msgq_ring(NAME).read_bytes()[:HEADER_BYTES]
    return list(struct.unpack(f"<{HEADER_BYTES // 8}Q", content))


def patch(bus: Bus, offset: int, data: bytes) -> None:
    with open(bus.msgq_ring(NAME), "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENPILOT_PREFIX", raising=False)
    assert Bus.at("msgq").msgq_ring("modelV2") == Path("/dev/shm/msgq_modelV2")
    assert Bus.at("msgq") == Bus.msgq("") != Bus.msgq("x")
    monkeypatch.setenv("OPENPILOT_PREFIX", "abc")
    assert Bus.at("msgq") == Bus.at("msgq:abc") == Bus.msgq()
    with pytest.raises(BusError, match="'a/b' cannot name a bus"):
        Bus.msgq("a/b")


def test_layout_of_the_file(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    path = msgq.msgq_ring(NAME)
    assert str(path) == f"/dev/shm/msgq_{msgq.msgq_prefix}/{NAME}"
    assert path.stat().st_size == 8 * (3 + 45) + RING
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    publisher.send(b"twelve bytes")
    publisher.send(b"x")
    header = words(msgq)
    assert header[0] == 1
    assert header[1] == 8 + 16 + 8 + 8  # lengths, and contents padded to whole words
    assert header[3] == 0
    assert header[3 + 15] == 1
    assert header[3 + 30] & 0xFFFF_FFFF == threading.get_native_id()
    assert header[2] & 0xFFFF_FFFF == threading.get_native_id()
    data = path.read_bytes()[HEADER_BYTES:]
    assert data[:40] == (
        struct.pack("<q", 12) + b"twelve bytes" + bytes(4) + struct.pack("<q", 1) + b"x" + bytes(7)
    )
    assert reader.receive() == b"twelve bytes"
    assert words(msgq)[3] == 24
    assert [reader.receive(), reader.receive()] == [b"x", None]
    reader.close()
    publisher.close()


def test_wrap_mark_and_cycles(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    third = RING // 3 // 8 * 8 - 8
    with pytest.raises(BusError, match=f"1 to {third} are possible"):
        publisher.send(bytes(third + 1))
    with pytest.raises(BusError, match="a message of 0 bytes on carState cannot travel"):
        publisher.send(b"")
    for fill in b"abcd":
        publisher.send(bytes([fill]) * third)
        assert reader.receive() == bytes([fill]) * third
    # the fourth had no room: it went to the start, in the next cycle
    assert words(msgq)[1] == 1 << 32 | third + 8
    data = msgq.msgq_ring(NAME).read_bytes()[HEADER_BYTES:]
    assert struct.unpack_from("<q", data, 3 * (third + 8)) == (-1,)
    assert words(msgq)[3] == words(msgq)[1]
    assert (reader.overruns, reader.malformed) == (0, 0)
    reader.close()
    publisher.close()


def test_reader_written_by_hand(msgq: Bus) -> None:
    """A ring as another program leaves it: in its second cycle, just before the end."""
    offset = RING - 64
    header = [0] * 48
    header[1], header[2] = 1 << 32 | offset, 77
    path = msgq.msgq_ring(NAME)
    path.write_bytes(struct.pack("<48Q", *header) + bytes(RING))
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    assert reader.receive() is None
    message = struct.pack("<q", 3) + b"one" + bytes(5)
    patch(msgq, HEADER_BYTES, message)
    patch(msgq, HEADER_BYTES + offset, message.replace(b"one", b"two") + struct.pack("<q", -1))
    patch(msgq, 8, struct.pack("<Q", 2 << 32 | 16))
    assert [reader.receive() for _ in range(3)] == [b"two", b"one", None]
    # a foreign writer says that we were overrun
    patch(msgq, 8 * 18, struct.pack("<Q", 0))
    patch(msgq, 8, struct.pack("<Q", 2 << 32 | 32))
    assert reader.receive() is None
    assert reader.overruns == 1
    assert words(msgq)[3] == 2 << 32 | 32
    assert words(msgq)[18] == 1
    reader.close()


def test_overrun_reader_goes_to_the_write_pointer(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    for index in range(300):
        publisher.send(struct.pack("<I", index) + bytes(1000))
    assert words(msgq)[18] == 0  # warned
    assert reader.receive() is None
    assert reader.overruns == 1
    publisher.send(b"new")
    assert reader.receive() == b"new"
    reader.close()
    publisher.close()


@pytest.mark.parametrize("length", [1, 100, 997, 5000])
def test_a_reader_that_is_almost_a_lap_behind_loses_nothing(msgq: Bus, length: int) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    fit = (RING - 16) // ((length + 7) // 8 * 8 + 8) - 2
    sent = received = 0
    for _ in range(5):
        for _ in range(fit):
            publisher.send((b"%d " % sent).ljust(length, b"."))
            sent += 1
        while (data := reader.receive()) is not None:
            assert data == (b"%d " % received).ljust(length, b".")
            received += 1
    assert (received, reader.overruns) == (sent, 0)
    reader.close()
    publisher.close()


def test_conflate(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=True)
    for _ in range(3):
        for index in range(150):
            publisher.send(b"%d" % index + bytes(1000))
        assert reader.receive() == b"149" + bytes(1000)
        assert reader.receive() is None
    reader.close()
    publisher.close()


def test_sixteenth_reader_evicts_all(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    readers = [MsgqSubscriber(NAME, msgq, conflate=False) for _ in range(15)]
    publisher.take_notice()
    assert words(msgq)[0] == 15
    last = MsgqSubscriber(NAME, msgq, conflate=False)
    assert words(msgq)[0] == 1
    for reader in readers[:14]:  # they notice, and come back
        assert reader.receive() is None
    publisher.send(b"hello")
    for reader in [last, *readers[:14]]:
        assert reader.receive() == b"hello"
    last.close()
    newcomer = MsgqSubscriber(NAME, msgq, conflate=False)  # takes the column that is free
    assert words(msgq)[0] == 15
    for reader in [*readers, newcomer]:
        reader.close()
    publisher.close()


def test_newer_publisher_wins(msgq: Bus) -> None:
    old = PubMaster([NAME], msgq)
    receiver = SubMaster([NAME], bus=msgq)
    old.send(NAME, new_message(NAME))
    receiver.update(0)
    assert receiver.seen[NAME]
    new = PubMaster([NAME], msgq)
    with pytest.raises(BusError, match="another publisher of carState has taken over"):
        old.send(NAME, new_message(NAME))
    receiver.update(0)  # registers anew
    assert new.wait_for_subscribers(timeout=SOON)
    assert new.new_subscribers() == {NAME}
    message = new_message(NAME)
    new.send(NAME, message)
    assert receiver.wait_for({NAME: message.logMonoTime}, SOON)
    for master in (old, new, receiver):
        master.close()


def test_nobody_is_hurt_by_a_wake_up(msgq: Bus) -> None:
    """A uid of a thread that does not expect SIGUSR2: a signal would end its process."""
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import signal, sys; "
         "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2}); "
         "signal.signal(signal.SIGUSR2, signal.SIG_DFL); "
         "print('ready', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert bystander.stdout is not None
    bystander.stdout.readline()
    publisher = MsgqPublisher(NAME, msgq)
    patch(msgq, 0, struct.pack("<Q", 1))
    patch(msgq, 8 * 33, struct.pack("<Q", 5 << 32 | bystander.pid))
    publisher.send(b"x")
    bystander.communicate()
    assert bystander.returncode == 0
    publisher.close()


@pytest.mark.parametrize("seed", range(20))
def test_rings_full_of_nonsense(msgq: Bus, seed: int) -> None:
    """No crash, no hang, and the next sound message comes through."""
    generator = random.Random(seed)
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=seed % 2 == 0)
    for _ in range(500):
        publisher.send(generator.randbytes(generator.randint(1, 3000)))
        place = generator.choice((8, 8 * 3, 8 * 18, 0, HEADER_BYTES + generator.randrange(RING)))
        value = generator.choice((generator.randbytes(8), struct.pack("<q", -1), bytes(8)))
        patch(msgq, place, value)
        for _ in range(3):
            reader.receive()
    MsgqPublisher(NAME, msgq).close()
    publisher.close()
    publisher = MsgqPublisher(NAME, msgq)
    deadline = time.monotonic() + SOON
    while True:
        publisher.send(b"sound")
        if reader.receive() == b"sound":
            break
        assert time.monotonic() < deadline
    reader.close()
    publisher.close()


WRITER = """
import random, struct, sys, time, zlib
from messaging import Bus
from messaging.msgq import MsgqPublisher
publisher = MsgqPublisher("carState", Bus.msgq(sys.argv[1]))
while publisher.subscribers < 2:
    publisher.take_notice()
    publisher.wait_for_notice(1)
generator = random.Random(3)
noise = generator.randbytes(4096)
for index in range(int(sys.argv[2])):
    body = struct.pack("<I", index) + noise[: generator.randrange(600)]
    publisher.send(struct.pack("<I", zlib.crc32(body)) + body)
while publisher.subscribers:  # one that was overrun jumps ahead, perhaps behind the first "end"
    publisher.send(b"end")
    time.sleep(0.01)
    publisher.take_notice()
"""

READ = """
import struct, sys, time, zlib
from messaging import Bus
from messaging.msgq import MsgqSubscriber, MsgqWaiter
reader = MsgqSubscriber("carState", Bus.msgq(sys.argv[1]), conflate=False)
waiter = MsgqWaiter([reader])
received = 0
last = -1
while True:
    waiter.wait(1)
    data = reader.receive()
    if data is None:
        continue
    if data == b"end":
        break
    checksum, index = struct.unpack_from("<II", data)
    assert checksum == zlib.crc32(data[4:]), "torn"
    assert index > last, "out of order"
    if reader.overruns == 0:
        assert index == last + 1, "lost without notice"
    received, last = received + 1, index
    if sys.argv[2] == "slow" and index % 2000 == 0:
        time.sleep(0.05)
reader.close()
print(received, reader.overruns, reader.malformed)
"""


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["100k", "1M"]
)
def test_a_writer_and_two_readers(msgq: Bus, count: int) -> None:
    """A reader that keeps up as well as it can and one that falls behind on purpose."""
    prefix = str(msgq.msgq_prefix)
    readers = [
        subprocess.Popen([sys.executable, "-c", READ, prefix, speed],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for speed in ("fast", "slow")
    ]  # fmt: skip
    writer = subprocess.run(
        [sys.executable, "-c", WRITER, prefix, str(count)], timeout=SOON * count / 1e5, check=False
    )
    assert writer.returncode == 0
    for reader in readers:
        try:
            output, errors = reader.communicate(timeout=SOON)
        finally:
            reader.kill()
        assert reader.returncode == 0, errors
        received, overruns, malformed = map(int, output.split())
        assert malformed == 0
        assert 0 < received <= count
        assert overruns or received == count


def test_a_reader_is_woken(msgq: Bus) -> None:
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber(NAME, msgq, conflate=False)
    waiter = MsgqWaiter([reader])
    waiter.wait(0)
    thread = threading.Thread(target=lambda: publisher.send(b"now"))
    thread.start()
    waiter.wait(SOON)
    assert reader.receive() == b"now"
    thread.join()
    # and the signal itself arrived: it was sent to this thread and nobody else took it
    publisher.send(b"again")
    assert signal.sigtimedwait({signal.SIGUSR2}, SOON) is not None
    reader.close()
    publisher.close()


ECHO = """
import sys
from messaging import Bus
from messaging.msgq import MsgqPublisher, MsgqSubscriber, MsgqWaiter
bus = Bus.msgq(sys.argv[1])
publisher = MsgqPublisher("can", bus)
reader = MsgqSubscriber("carState", bus, conflate=False)
waiter = MsgqWaiter([reader])
while True:
    waiter.wait(1)
    data = reader.receive()
    if data == b"end":
        break
    if data is not None:
        publisher.send(data)
"""


def test_processes_wake_each_other(msgq: Bus) -> None:
    """Signals arrive across processes: far more of them than the 5 ms looks would explain."""
    echo = subprocess.Popen([sys.executable, "-c", ECHO, str(msgq.msgq_prefix)])
    publisher = MsgqPublisher(NAME, msgq)
    reader = MsgqSubscriber("can", msgq, conflate=False)
    signals = 0
    try:
        while reader.receive() is None:
            publisher.send(b"hello")
            time.sleep(0.05)
        deadline = time.monotonic() + SOON
        while signals < 20:
            publisher.send(b"ping")
            signals += signal.sigtimedwait({signal.SIGUSR2}, 1) is not None
            assert time.monotonic() < deadline
        publisher.send(b"end")
        assert echo.wait(SOON) == 0
    finally:
        echo.kill()
        echo.wait()
    reader.close()
    publisher.close()


def test_masters_behave_as_over_zeromq(msgq: Bus) -> None:
    with (
        PubMaster(["carState", "modelV2"], msgq) as publisher,
        SubMaster(["carState", "modelV2"], poll="modelV2", bus=msgq) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        for speed in range(3):
            message = new_message("carState", valid=True)
            message.carState.vEgo = speed
            publisher.send("carState", message)
        publisher.send("modelV2", new_message("modelV2"))
        receiver.update(SOON * 1000)
        assert receiver["carState"].vEgo == 2
        assert receiver.updated == {"carState": True, "modelV2": True}
        receiver.update(0)
        assert receiver.updated == {"carState": False, "modelV2": False}
