"""Whatever comes in from outside: every decoder gives a result or its own error, nothing else.

The decoders run in processes of their own, as an assertion of a C++ library would end this one.
"""

import os
import random
import resource
import socket
import subprocess
import sys
import time

import pytest

from messaging import Bus, PubMaster, SubMaster, new_message
from messaging.message import MAX_MESSAGE_BYTES
from messaging.transport import subscribe

SOON = 300.0  # s; far more than needed, machines may be busy

FUZZ = """
import random, sys
import capnp
from messaging import LogReader, MessagingError, decode, new_message, peek, to_bytes
from messaging.announcement import Announcement
from messaging.plain import to_json
from messaging.ring import RingDescription
from messaging.nv12 import FrameGeometry

what, kind, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
generator = random.Random(seed)


def samples():
    model = new_message("modelV2", valid=True)
    model.modelV2.position.x = [1.5] * 33
    model.modelV2.init("leadsV3", 3)
    model.modelV2.init("laneLines", 4)
    model.modelV2.rawPredictions = bytes(100)
    can = new_message("can", 20)
    for frame in can.can:
        frame.dat = bytes(8)
    text = new_message("logMessage")
    text.logMessage = "a line of the log"
    onroad = new_message("onroadEvents", 2)
    init = new_message("initData")
    init.initData.version = "1.0"
    init.initData.params.init("entries", 2)
    messages = [to_bytes(m) for m in (model, can, text, onroad, init)]
    if what in ("message", "echo"):
        return messages
    if what == "log":
        return [b"".join(messages)]
    if what == "announcement":
        return [Announcement(1, 2, 3, 4, 5, True, {"carState": 6}).to_bytes()]
    geometry = FrameGeometry.tight(64, 32)
    return [RingDescription(1, 2, 4, geometry, (1.0, 2.0, 3.0)).to_bytes().ljust(200, b"\\0")]


SAMPLES = samples()


def random_bytes():
    return generator.randbytes(generator.choice((0, 1, 7, 8, 16, 64, 200, 1000)))


def mutated():
    data = bytearray(generator.choice(SAMPLES))
    for _ in range(generator.randint(1, 8)):
        place = generator.randrange(len(data))
        action = generator.randrange(5)
        if action == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif action == 1:
            data[place] = generator.randrange(256)
        elif action == 2:  # a whole word: pointers
            place = place // 8 * 8
            data[place : place + 8] = generator.randbytes(len(data[place : place + 8]))
        elif action == 3:  # one word in place of another: loops of pointers
            other = generator.randrange(len(data)) // 8 * 8
            place = place // 8 * 8
            if len(data) >= max(place, other) + 8:
                data[place : place + 8] = data[other : other + 8]
        else:
            del data[len(data) - generator.randrange(min(9, len(data))) :]
        if not data:
            break
    return bytes(data)


def read(data):
    if what == "message":
        try:
            peek(data)
        except MessagingError:
            pass
        event = decode(data)
        event.logMonoTime
    elif what == "echo":
        to_json(decode(data))
    elif what == "log":
        list(LogReader(data))
        list(LogReader(data, services=["can"]).raw())
    elif what == "announcement":
        Announcement.from_bytes(data)
    else:
        RingDescription.from_bytes(data)


make = {"random": random_bytes, "mutated": mutated}[kind]
refused = 0
for _ in range(count):
    data = make()
    try:
        read(data)
    except MessagingError:
        refused += 1
    except BaseException:
        print("culprit:", data.hex())
        raise
print(refused, "refused")
"""


def fuzz(what: str, kind: str, seed: int, count: int) -> int:
    """How many of `count` inputs were refused."""
    result = subprocess.run(
        [sys.executable, "-c", FUZZ, what, kind, str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return int(result.stdout.split()[-2])


@pytest.mark.parametrize("what", ["message", "echo", "announcement", "ring header"])
@pytest.mark.parametrize("kind", ["random", "mutated"])
def test_no_input_does_harm(what: str, kind: str) -> None:
    refused = fuzz(what, kind, 1, 10_000)
    assert refused > (9_000 if kind == "random" else 1_000)


@pytest.mark.parametrize("kind", ["random", "mutated"])
def test_no_log_does_harm(kind: str) -> None:
    assert fuzz("log", kind, 1, 10_000) == 0  # damage of a log is reported, not raised


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("conflate", [False, True])
def test_subscriber_that_never_reads_costs_little(bus: Bus, conflate: bool) -> None:
    with PubMaster(["customReservedRawData0"], bus) as publisher:
        sleeper = subscribe("customReservedRawData0", bus, conflate=conflate)
        assert publisher.wait_for_subscribers(timeout=SOON)
        message = new_message("customReservedRawData0")
        message.customReservedRawData0 = bytes(2000)
        data = message.to_bytes()
        before = resident_bytes()
        for _ in range(50_000):  # 100 MB
            publisher.send("customReservedRawData0", data)
        grown = resident_bytes() - before
        assert grown < 20e6  # a thousand on either side wait, the others are dropped
        # and whoever reads is served
        with SubMaster(["customReservedRawData0"], bus=bus) as reader:
            assert publisher.wait_for_subscribers(timeout=SOON, count=2)
            message = new_message("customReservedRawData0")
            publisher.send("customReservedRawData0", message)
            assert reader.wait_for({"customReservedRawData0": message.logMonoTime}, SOON)
        sleeper.close()


def test_coming_and_going_leaves_nothing_open(bus: Bus) -> None:
    def come_and_go() -> int:
        with PubMaster(["carState", "can"], bus), SubMaster(["carState", "can"], bus=bus):
            pass
        return len(os.listdir("/proc/self/fd"))

    first = [come_and_go() for _ in range(3)]
    deadline = time.monotonic() + SOON
    # sockets of subscribers are closed by a thread of ZeroMQ, a moment later
    while max(come_and_go() for _ in range(20)) > max(first) + 5:
        assert time.monotonic() < deadline


def test_subscribers_that_come_and_go_cost_a_publisher_nothing(bus: Bus) -> None:
    """Nobody asks this publisher who is there, as nobody asks a daemon's."""
    with PubMaster(["carState"], bus) as publisher:
        socket = publisher._publishers["carState"].socket  # type: ignore[attr-defined]
        with SubMaster(["carState"], bus=bus):
            assert socket.poll(1000 * SOON)  # libzmq keeps this until it is asked for it
        deadline = time.monotonic() + SOON
        while socket.poll(0):
            publisher.send("carState", new_message("carState"))
            assert time.monotonic() < deadline


def test_strangers_at_the_sockets(bus: Bus) -> None:
    """What they say is no ZeroMQ at all."""
    with PubMaster(["carState"], bus) as publisher:
        strangers = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for number, stranger in enumerate(strangers):
            stranger.connect(str(bus.directory / "carState"))
            stranger.send(random.Random(number).randbytes(500))
        with SubMaster(["carState"], bus=bus) as receiver:
            hear_something(publisher, receiver)
        for stranger in strangers:
            stranger.close()


def test_a_publisher_of_huge_messages_is_cut_off(bus: Bus) -> None:
    """Not even its size is allocated; everybody else is heard."""
    with (
        PubMaster(["carState", "modelV2"], bus) as publisher,
        SubMaster(["carState", "modelV2"], bus=bus) as receiver,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        publisher.send("modelV2", bytes(MAX_MESSAGE_BYTES + 1))
        deadline = time.monotonic() + SOON
        while publisher.wait_for_subscribers(["modelV2"], timeout=0.01):
            assert time.monotonic() < deadline
        hear_something(publisher, receiver)
        assert not any(receiver.malformed.values())


def hear_something(publisher: PubMaster, receiver: SubMaster) -> None:
    message = new_message("carState")
    deadline = time.monotonic() + SOON
    while receiver.logMonoTime["carState"] != message.logMonoTime:
        publisher.send("carState", message)
        receiver.update(10)
        assert time.monotonic() < deadline


READER = """
import sys
from messaging import Bus, SubMaster
with SubMaster(["carState"], bus=Bus(sys.argv[1])) as receiver:
    while not receiver.seen["carState"]:
        receiver.update(100)
    print(receiver["carState"].vEgo, flush=True)
    sys.stdin.read()
"""


def test_killed_subscriber_is_forgotten_and_replaced(bus: Bus) -> None:
    with PubMaster(["carState"], bus) as publisher:
        for speed in (1.0, 2.0):
            reader = subprocess.Popen(
                [sys.executable, "-c", READER, bus.namespace],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert publisher.wait_for_subscribers(timeout=SOON)
            message = new_message("carState")
            message.carState.vEgo = speed
            publisher.send("carState", message)
            assert reader.stdout is not None
            assert reader.stdout.readline() == f"{speed}\n"
            reader.kill()
            reader.communicate()
            deadline = time.monotonic() + SOON
            while publisher.wait_for_subscribers(timeout=0):
                publisher.send("carState", message)
                assert time.monotonic() < deadline
