"""Measures the bus beside plain pyzmq and multiprocessing pipes: `python -m messaging.bench`.

A second process sends back what it gets (latency: half of the way there and back) and counts what
arrives of messages sent in batches, each when the one before has been counted (messages per second;
what does not arrive is shown as lost: a SubMaster keeps only the newest, so of a batch most is).
"""

import argparse
import multiprocessing
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import zmq

from messaging.bus import Bus
from messaging.message import new_message, to_bytes
from messaging.pubsub import PubMaster, SubMaster
from messaging.transport import publish, subscribe, waiter

# Two endpoints, there and back: services that carry plain bytes.
_THERE, _BACK = "customReservedRawData0", "ubloxRaw"
_WAIT_S = 0.2  # until an answer is asked for once more
_COMMANDS = _HELLO, _END, _QUIT = b"hello", b"end", b"quit"
_COUNT = struct.Struct("<Q")  # messages that arrived since the last answer
# ZeroMQ queues 1000 messages and looks once in a millisecond how many of them have been taken out:
# more in that time it would drop.
_BATCH, _PAUSE_S = 400, 0.002


class Link(Protocol):
    """One end of a way there and back."""

    def send(self, data: bytes) -> None: ...
    def receive(self, timeout_s: float) -> bytes | None: ...
    def close(self) -> None: ...


class BusLink:
    """Endpoints of the bus, every message in order."""

    def __init__(self, bus: Bus, outgoing: str, incoming: str) -> None:
        self._publisher = publish(outgoing, bus)
        self._subscriber = subscribe(incoming, bus, conflate=False)
        self._waiter = waiter([self._subscriber])
        self.send = self._publisher.send

    def receive(self, timeout_s: float) -> bytes | None:
        data = self._subscriber.receive()
        if data is None:
            self._waiter.wait(timeout_s)
            data = self._subscriber.receive()
        return data

    def close(self) -> None:
        self._publisher.close()
        self._subscriber.close()


class PlainLink:
    """pyzmq alone: PUB and SUB as its manual shows them."""

    def __init__(self, folder: str, outgoing: str, incoming: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._publisher = self._context.socket(zmq.PUB)
        self._publisher.bind(f"ipc://{folder}/{outgoing}")
        self._subscriber = self._context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._subscriber.connect(f"ipc://{folder}/{incoming}")

    def send(self, data: bytes) -> None:
        self._publisher.send(data)

    def receive(self, timeout_s: float) -> bytes | None:
        if not self._subscriber.poll(int(timeout_s * 1000)):
            return None
        data: bytes = self._subscriber.recv()
        return data

    def close(self) -> None:
        self._context.destroy(linger=0)


class PipeLink:
    """multiprocessing.Pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.send = connection.send_bytes
        self.close = connection.close

    def receive(self, timeout_s: float) -> bytes | None:
        return self._connection.recv_bytes() if self._connection.poll(timeout_s) else None


class MasterLink:
    """PubMaster and SubMaster: each message is checked and decoded, only the newest is kept."""

    def __init__(self, bus: Bus, outgoing: str, incoming: str) -> None:
        self._publisher = PubMaster([outgoing], bus)
        self._subscriber = SubMaster([incoming], bus=bus)
        self._outgoing, self._incoming = outgoing, incoming

    def send(self, data: bytes) -> None:
        message = new_message(self._outgoing)
        setattr(message, self._outgoing, data)
        self._publisher.send(self._outgoing, message)

    def receive(self, timeout_s: float) -> bytes | None:
        self._subscriber.update(timeout_s * 1000)
        if not self._subscriber.updated[self._incoming]:
            return None
        data: bytes = self._subscriber[self._incoming]
        return data

    def close(self) -> None:
        self._publisher.close()
        self._subscriber.close()


MakeLink = Callable[..., Link]


def _answer(make: MakeLink, *arguments: Any) -> None:
    """The second process: send everything back, but only count what begins with a zero byte."""
    link = make(*arguments)
    count = 0
    while (data := link.receive(_WAIT_S)) != _QUIT:
        if data is None:
            continue
        if data[:1] == b"\0":
            count += 1
        elif data == _END:
            link.send(_COUNT.pack(count))
            count = 0
        else:
            link.send(data)
    link.close()


@dataclass(frozen=True)
class Result:
    """Of one transport. Latencies in microseconds, one way."""

    name: str
    per_second: float
    lost: float
    median_us: float
    p99_us: float


def _ask(link: Link, question: bytes) -> bytes:
    """Ask until there is an answer: a subscriber may not have arrived yet, or be far behind."""
    link.send(question)
    while (answer := link.receive(_WAIT_S)) is None:
        link.send(question)
    return answer


def _measure(link: Link, name: str, size: int, messages: int, rounds: int) -> Result:
    _ask(link, _HELLO)
    while link.receive(_WAIT_S) is not None:  # answers to questions asked twice
        pass
    ping = b"p" * size
    ways = []
    for _ in range(rounds):
        start = time.perf_counter()
        link.send(ping)
        while link.receive(_WAIT_S) is None:
            pass
        ways.append((time.perf_counter() - start) / 2 * 1e6)
    counted = bytes(size)
    arrived, sent, seconds = 0, 0, 0.0
    while sent < messages:
        start = time.perf_counter()
        for _ in range(_BATCH):
            link.send(counted)
        arrived += _COUNT.unpack(_ask(link, _END))[0]
        seconds += time.perf_counter() - start
        sent += _BATCH
        time.sleep(_PAUSE_S)
    link.send(_QUIT)
    ways.sort()
    return Result(
        name,
        arrived / seconds,
        1 - arrived / sent,
        statistics.median(ways),
        ways[int(0.99 * len(ways))],
    )


def compare(size: int, messages: int, rounds: int) -> list[Result]:
    """Every transport in turn. size: bytes of a message."""
    context = multiprocessing.get_context("spawn")
    results = []
    with (
        Bus.at_or_fresh(None) as local,
        tempfile.TemporaryDirectory(prefix="bench") as folder,
    ):
        rings = Bus.msgq(local.namespace)
        ours, theirs = context.Pipe()
        pairs: list[tuple[str, MakeLink, tuple[Any, ...], tuple[Any, ...]]] = [
            ("pipe", PipeLink, (ours,), (theirs,)),
            ("pyzmq", PlainLink, (folder, _THERE, _BACK), (folder, _BACK, _THERE)),
            ("bus", BusLink, (local, _THERE, _BACK), (local, _BACK, _THERE)),
            ("bus, masters", MasterLink, (local, _THERE, _BACK), (local, _BACK, _THERE)),
            ("msgq", BusLink, (rings, _THERE, _BACK), (rings, _BACK, _THERE)),
            ("msgq, masters", MasterLink, (rings, _THERE, _BACK), (rings, _BACK, _THERE)),
        ]
        for name, make, own, other in pairs:
            link = make(*own)
            process = context.Process(target=_answer, args=(make, *other), daemon=True)
            process.start()
            results.append(_measure(link, name, size, messages, rounds))
            process.join()
            link.close()
        rings.remove()
    return results


def table(results: Sequence[Result]) -> str:
    """One line per transport, with its ratios to plain pyzmq."""
    peer = next(result for result in results if result.name == "pyzmq")
    lines = [
        f"{'transport':16}{'messages/s':>12}{'lost':>7}{'/ pyzmq':>9}"
        f"{'median us':>11}{'p99 us':>9}{'/ pyzmq':>9}"
    ]
    for one in results:
        lines.append(
            f"{one.name:16}{one.per_second:12,.0f}{one.lost:7.0%}"
            f"{one.per_second / peer.per_second:9.2f}{one.median_us:11.1f}{one.p99_us:9.1f}"
            f"{one.median_us / peer.median_us:9.2f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m messaging.bench", description=__doc__)
    parser.add_argument("--size", type=int, default=len(to_bytes(new_message("carState"))),
                        help="bytes of a message (default: an empty carState)")
    parser.add_argument("--messages", type=int, default=50_000, help="for messages/s")
    parser.add_argument("--rounds", type=int, default=2_000, help="for latency")
    arguments = parser.parse_args(argv)
    results = compare(arguments.size, arguments.messages, arguments.rounds)
    print(f"messages of {arguments.size} bytes, from one process to another")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
