"""As many messages as a day holds, at the machine's own pace: `python -m messaging.endurance`.

A second process hears all services. Every simulated second each of them is sent as often as the
table says, each message with its number in it, and everything must arrive. Memory and file
descriptors of both processes are looked at when a tenth is through and again at the end.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from messaging.bus import Bus
from messaging.errors import MessagingError
from messaging.message import decode, new_message, to_bytes
from messaging.options import add_bus_option
from messaging.services import SERVICES
from messaging.transport import Subscriber, publish, subscribe, wait_for_subscribers, waiter

HOURS = 24.0
AHEAD = 200  # messages of a service that may be on their way; ZeroMQ drops beyond a thousand
_START_S = 60.0
_PATIENCE_S = 300.0  # without a message the hearing process says what it has
_WARM_SHARE = 0.1  # of the drive, until buffers have their size
_MAX_GROWTH_KB = 8 * 1024


@dataclass(frozen=True)
class Use:
    """What a process holds: resident memory in kB, open file descriptors."""

    memory_kb: int
    descriptors: int

    @staticmethod
    def now() -> "Use":
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return Use(
            pages * os.sysconf("SC_PAGE_SIZE") // 1024, len(os.listdir("/proc/self/fd"))
        )


@dataclass(frozen=True)
class Growth:
    """Of one process: after the warm-up, and at the end."""

    name: str
    warm: Use
    end: Use

    @property
    def sound(self) -> bool:
        return (
            self.end.descriptors <= self.warm.descriptors
            and self.end.memory_kb - self.warm.memory_kb <= _MAX_GROWTH_KB
        )


@dataclass(frozen=True)
class Result:
    """sent, heard: messages. seconds: it took."""

    sent: int
    heard: int
    seconds: float
    processes: tuple[Growth, Growth]

    @property
    def sound(self) -> bool:
        return self.sent == self.heard and all(one.sound for one in self.processes)


def amounts(hours: float) -> dict[str, int]:
    """Service -> messages in so many hours; services on demand have none."""
    counts = {name: int(hours * 3600 * one.frequency) for name, one in SERVICES.items()}
    return {name: count for name, count in counts.items() if count}


def schedule(counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Service and number of every message, all services evenly through the drive."""
    most = max(counts.values())
    sent = dict.fromkeys(counts, 0)
    for step in range(1, most + 1):
        for name, count in counts.items():
            while sent[name] * most < count * step:
                yield name, sent[name]
                sent[name] += 1


def hear(bus: Bus, counts: dict[str, int], connection: Connection) -> None:
    """The second process: check that each message is the next one, report every AHEAD of them."""
    subscribers: dict[str, Subscriber] = {
        name: subscribe(name, bus, conflate=False) for name in counts
    }
    ready = waiter(subscribers.values())
    connection.send("ready")
    heard = dict.fromkeys(counts, 0)
    total, warm = 0, Use.now()
    warm_at = int(_WARM_SHARE * sum(counts.values()))
    deadline = time.monotonic() + _PATIENCE_S
    while total < sum(counts.values()) and time.monotonic() < deadline:
        ready.wait(_PATIENCE_S)
        for name, subscriber in subscribers.items():
            while (data := subscriber.receive()) is not None:
                if decode(data).logMonoTime != heard[name]:
                    connection.send((total, warm, Use.now()))
                    return
                heard[name] += 1
                total += 1
                if total == warm_at:
                    warm = Use.now()
                if total % AHEAD == 0:
                    connection.send(total)
                deadline = time.monotonic() + _PATIENCE_S
    connection.send((total, warm, Use.now()))


def run(hours: float, bus: Bus, say: Callable[[str], None] | None = None) -> Result:
    """Send everything. Raises MessagingError if the hearing process does not come or goes.

    say: called with a line after every twentieth of it.
    """
    context = multiprocessing.get_context("spawn")
    counts = amounts(hours)
    ours, theirs = context.Pipe()
    publishers = {name: publish(name, bus) for name in counts}
    process = context.Process(target=hear, args=(bus, counts, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_S) or ours.recv() != "ready":
            raise MessagingError("the hearing process did not start in time")
        if not wait_for_subscribers(list(publishers.values()), _START_S, 1):
            raise MessagingError("the hearing process did not subscribe in time")
        bodies = {name: new_message(name) for name in counts}
        sent = confirmed = 0
        warm, start = Use.now(), time.monotonic()
        total = sum(counts.values())
        warm_at, twentieth = int(_WARM_SHARE * total), max(total // 20, 1)
        report: int | tuple[int, Use, Use] = 0
        for name, number in schedule(counts):
            bodies[name].logMonoTime = number
            publishers[name].send(to_bytes(bodies[name]))
            sent += 1
            if sent == warm_at:
                warm = Use.now()
            if say is not None and sent % twentieth == 0:
                minutes = (time.monotonic() - start) / 60
                say(f"{sent:,} of {total:,} messages, {minutes:.1f} min")
            while sent - confirmed > 2 * AHEAD and isinstance(report, int):
                report = ours.recv()
                confirmed = report if isinstance(report, int) else confirmed
            if not isinstance(report, int):
                break
        end = Use.now()
        while isinstance(report, int):
            report = ours.recv()
    except EOFError:
        raise MessagingError("the hearing process ended before its time; see above") from None
    finally:
        process.join(1.0)
        process.kill()
        for publisher in publishers.values():
            publisher.close()
    heard, their_warm, their_end = report
    return Result(sent, heard, time.monotonic() - start, (
        Growth("sender", warm, end), Growth("hearer", their_warm, their_end)))  # fmt: skip


def describe(result: Result) -> str:
    """What `main` prints."""
    lines = [
        f"{result.sent:,} sent, {result.heard:,} heard in order, "
        f"{result.sent / result.seconds:,.0f} per second"
    ]
    for one in result.processes:
        lines.append(
            f"{one.name}  memory {one.warm.memory_kb / 1024:.1f} -> {one.end.memory_kb / 1024:.1f} "
            f"MB, file descriptors {one.warm.descriptors} -> {one.end.descriptors}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0 if everything arrived and nothing grew, 1 if not, 2 if it could not run."""
    parser = argparse.ArgumentParser(prog="python -m messaging.endurance", description=__doc__)
    parser.add_argument("--hours", type=float, default=HOURS, help="of the drive (default 24)")
    add_bus_option(parser, "to send on (default: a namespace of its own)")
    arguments = parser.parse_args(argv)
    try:
        with Bus.at_or_fresh(arguments.bus) as bus:
            result = run(arguments.hours, bus, lambda line: print(line, file=sys.stderr))
    except MessagingError as error:
        print(f"endurance: {error}", file=sys.stderr)
        return 2
    print(describe(result))
    return 0 if result.sound else 1


if __name__ == "__main__":
    sys.exit(main())
