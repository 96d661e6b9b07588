"""What the `bus` command does: print messages, measure their rates, record, play and forward them.

Each function works until it is done or its `Stop` is requested.
"""

import fnmatch
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from messaging.aliases import EVENT_ALIASES
from messaging.bus import Bus
from messaging.errors import BusError, LogFileError, MessageError
from messaging.logfile import LogReader, LogWriter
from messaging.message import decode, event_member, peek
from messaging.plain import to_json, to_text
from messaging.segments import SegmentWriter
from messaging.services import SERVICES, canonical
from messaging.transport import Publisher, Subscriber, publish, subscribe, waiter

log = logging.getLogger(__name__)

# Messages that tell the car to do something, or a person that it did: not played unless asked for.
NOT_PLAYED = frozenset({"bookmarkButton", "uiDebug", "userBookmark"})

_LOOK_UP_S = 0.1  # longest sleep: how long a request to stop may wait
_AT_ONCE = 50  # messages taken from one service before the others get their turn
_FLUSH_S = 1.0  # what a recorder loses at most when the power goes
_JUMP_NS = 1_000_000_000  # a gap in a log that is skipped, not waited for


class Stop:
    """A request to stop, made by a signal and seen between two messages."""

    def __init__(self, seconds: float | None = None) -> None:
        self.signal = 0
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds

    def on_signals(self) -> None:
        """SIGINT and SIGTERM request it; only in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    @property
    def requested(self) -> bool:
        return self.signal != 0 or time.monotonic() >= self._deadline

    def sleep_until(self, moment: float) -> None:
        """Sleep to `moment` (s, monotonic clock), or until the request."""
        while not self.requested and (remaining := moment - time.monotonic()) > 0:
            time.sleep(min(remaining, _LOOK_UP_S))


def select_services(patterns: Iterable[str]) -> list[str]:
    """The services that patterns mean: whole names, old ones too, or with * ? [] (fnmatch).

    A name is kept as given, as over TCP an old name has a port of its own. No patterns: all.
    Raises UnknownServiceError for a name, BusError for a pattern that means nothing.
    """
    patterns = list(patterns) or ["*"]
    selected: dict[str, str] = {}
    for pattern in patterns:
        if not set(pattern) & set("*?["):
            selected.setdefault(canonical(pattern), pattern)
            continue
        names = [name for name in (*SERVICES, *EVENT_ALIASES) if fnmatch.fnmatchcase(name, pattern)]
        services = [name for name in map(_newest, names) if name in SERVICES]
        if not services:
            raise BusError(f"no service matches {pattern!r}; see messaging/services.py")
        for name in services:
            selected.setdefault(name, name)
    return list(selected.values())


def _newest(name: str) -> str:
    return EVENT_ALIASES.get(name, name)


class Listener:
    """Every message of some services, in the order of arrival per service."""

    def __init__(self, services: Sequence[str], bus: Bus) -> None:
        self._subscribers: dict[str, Subscriber] = {}
        for name in services:
            self._subscribers[canonical(name)] = subscribe(name, bus, conflate=False)
        self._waiter = waiter(self._subscribers.values())

    def messages(
        self, stop: Stop, between: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[str, bytes]]:
        """Service and bytes of each message until `stop`.

        between: called between two rounds through the services, at least every 0.1 s.
        """
        while not stop.requested:
            self._waiter.wait(_LOOK_UP_S)
            for service, subscriber in self._subscribers.items():
                for _ in range(_AT_ONCE):
                    data = subscriber.receive()
                    if data is None:
                        break
                    yield service, data
            between()

    def close(self) -> None:
        for subscriber in self._subscribers.values():
            subscriber.close()


def echo(
    services: Sequence[str],
    bus: Bus,
    stop: Stop,
    *,
    count: int | None = None,
    as_json: bool = False,
    out: TextIO = sys.stdout,
) -> int:
    """Print messages; gives how many. count: stop after so many."""
    write = to_json if as_json else to_text
    printed = 0
    listener = Listener(services, bus)
    for service, data in listener.messages(stop):
        if printed == count:
            break
        try:
            text = write(decode(data))
        except MessageError as error:
            print(f"bus: a message on {service} cannot be read: {error}", file=sys.stderr)
            continue
        print(text, file=out, flush=True)
        printed += 1
        if printed == count:
            break
    listener.close()
    return printed


@dataclass
class Rate:
    """How often the messages of a service came within a time."""

    service: str
    messages: int = 0
    nbytes: int = 0
    not_valid: int = 0
    malformed: int = 0
    longest_gap_s: float = 0.0
    _last: float | None = None

    def record(self, data: bytes, now: float) -> None:
        """Count a message that arrived at `now`, s."""
        self.messages += 1
        self.nbytes += len(data)
        try:
            self.not_valid += not peek(data).valid
        except MessageError:
            self.malformed += 1
        if self._last is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last)
        self._last = now

    def line(self, seconds: float) -> str:
        """A line of the table that HEADING begins."""
        expected = SERVICES[self.service].frequency
        return (
            f"{self.service:32}{self.messages / seconds:9.2f}{expected:9g}"
            f"{self.longest_gap_s * 1e3:12.1f}{self.nbytes / seconds / 1e3:10.1f}"
            f"{self.not_valid:11}{self.malformed:11}"
        )


HEADING = (
    f"{'service':32}{'Hz':>9}{'table Hz':>9}{'max gap ms':>12}{'kB/s':>10}"
    f"{'not valid':>11}{'malformed':>11}"
)


def measure_rates(
    services: Sequence[str],
    bus: Bus,
    stop: Stop,
    *,
    interval_s: float = 1.0,
    out: TextIO = sys.stdout,
) -> dict[str, int]:
    """Print the rates of the services that are heard, every `interval_s` and once at the end.

    Gives the messages of each service.
    """
    total: dict[str, int] = {}
    rates: dict[str, Rate] = {}
    start = time.monotonic()

    def report(at_end: bool = False) -> None:
        nonlocal start
        seconds = time.monotonic() - start
        if seconds < interval_s and not at_end:
            return
        lines = [rate.line(seconds) for rate in rates.values()] or ["nothing heard"]
        print("\n".join([HEADING, *lines, ""]), file=out, flush=True)
        for service, rate in rates.items():
            rates[service] = Rate(service, _last=rate._last)  # the gap goes on
        start = time.monotonic()

    listener = Listener(services, bus)
    for service, data in listener.messages(stop, between=report):
        rates.setdefault(service, Rate(service)).record(data, time.monotonic())
        total[service] = total.get(service, 0) + 1
    listener.close()
    report(at_end=True)
    return total


@dataclass
class Recording:
    """What `record` did: messages written, and those left out because they were none."""

    messages: int = 0
    malformed: int = 0


def record(
    services: Sequence[str],
    bus: Bus,
    stop: Stop,
    writer: LogWriter | SegmentWriter,
    *,
    started: Callable[[], None] = lambda: None,
) -> Recording:
    """Write every message of `services` until `stop`. The caller closes the writer.

    Raises LogFileError if the disk takes no more.
    """
    result = Recording()
    flush_at = time.monotonic() + _FLUSH_S

    def flush_now_and_then() -> None:
        nonlocal flush_at
        if time.monotonic() >= flush_at:
            writer.flush()
            flush_at = time.monotonic() + _FLUSH_S

    listener = Listener(services, bus)
    started()
    try:
        for _, data in listener.messages(stop, between=flush_now_and_then):
            try:
                writer.write(data)
                result.messages += 1
            except MessageError:
                result.malformed += 1
    finally:
        listener.close()
    return result


class Pace:
    """When the messages of a log are due, by the monotonic clock."""

    def __init__(self, speed: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._speed = speed
        self._clock = clock
        self._origin: tuple[int, float] | None = None  # time in the log (ns), by the clock (s)
        self._last = 0

    def due(self, log_time: int) -> float:
        """When the message stamped `log_time` (ns) is due; call it for one after the other.

        Time that jumps by more than a second, forwards or backwards, is not waited for.
        """
        if self._origin is None or abs(log_time - self._last) > _JUMP_NS:
            self._origin = log_time, self._clock()
        self._last = log_time
        origin, start = self._origin
        return start + (log_time - origin) / 1e9 / self._speed


def played_members(
    allow: Sequence[str] = (), block: Sequence[str] = (), everything: bool = False
) -> frozenset[str]:
    """The services that `play` sends. Errors as select_services.

    allow: only these (default: all but NOT_PLAYED). block: not these.
    """
    members = frozenset(map(canonical, select_services(allow)))
    if not (allow or everything):
        members -= NOT_PLAYED
    return members - frozenset(map(canonical, select_services(block)) if block else ())


def play(
    paths: Sequence[str],
    bus: Bus,
    stop: Stop,
    *,
    members: frozenset[str],
    speed: float = 1.0,
    start_s: float = 0.0,
    wait_s: float = 0.0,
    kind: str = "rlog",
) -> int:
    """Send the messages of logs again, byte for byte, in file order and at the log's own pace.

    members: services to send. speed: 2.0 is twice as fast; inf does not wait at all.
    start_s: leave out so many seconds from the start. wait_s: wait at most so long for somebody to
    listen. Gives the number of messages sent.

    Raises LogFileError for a log that cannot be read, BusError if a service has a publisher.
    """
    if not speed > 0:
        raise BusError(f"the speed must be above 0, not {speed}")
    reader = LogReader(paths, services=members, kind=kind)
    # one publisher for all that the first file holds, before the clock starts: subscribers need
    # a moment to find each
    first_file = LogReader(reader.paths[:1], services=members) if reader.paths else reader
    present = dict.fromkeys(seen.member or "" for seen, _ in first_file.raw())
    if not present and first_file.problem:
        raise LogFileError(f"{reader.paths[0]} holds no message that could be played")
    publishers = _publishers(present, bus)
    sent = 0
    try:
        _wait_for_anybody(publishers.values(), wait_s, stop)
        pace = Pace(speed)
        begin: int | None = None
        for seen, data in reader.raw():
            begin = seen.logMonoTime if begin is None else begin
            if seen.logMonoTime - begin < start_s * 1e9:
                continue
            stop.sleep_until(pace.due(seen.logMonoTime))
            if stop.requested:
                break
            service = seen.member or ""
            if service not in publishers:
                publishers.update(_publishers([service], bus))
            publishers[service].send(data)
            sent += 1
    finally:
        for publisher in publishers.values():
            publisher.close()
    return sent


def _publishers(services: Iterable[str], bus: Bus) -> dict[str, Publisher]:
    opened: dict[str, Publisher] = {}
    try:
        for service in services:
            opened[service] = publish(service, bus)
    except BusError:
        for publisher in opened.values():
            publisher.close()
        raise
    return opened


def _wait_for_anybody(publishers: Iterable[Publisher], wait_s: float, stop: Stop) -> None:
    publishers = list(publishers)
    deadline = time.monotonic() + wait_s
    while not stop.requested and time.monotonic() < deadline:
        for publisher in publishers:
            publisher.take_notice()
        if any(publisher.subscribers for publisher in publishers):
            return
        time.sleep(0.01)


def bridge(
    services: Sequence[str],
    origin: Bus,
    target: Bus,
    stop: Stop,
    *,
    started: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Forward the messages of `services` from one bus to another, byte for byte.

    What is no message of its service is left out. Gives the messages forwarded per service.
    Raises BusError if both are one bus, or if a service has a publisher on the target.
    """
    if origin == target:
        raise BusError("both ends of the bridge are the same bus")
    listener = Listener(services, origin)
    publishers = _publishers(services, target)
    by_service = {canonical(name): publisher for name, publisher in publishers.items()}
    forwarded: dict[str, int] = {}
    refused: set[str] = set()
    started()
    try:
        for service, data in listener.messages(stop):
            if _is_message_of(service, data):
                by_service[service].send(data)
                forwarded[service] = forwarded.get(service, 0) + 1
            elif service not in refused:
                refused.add(service)
                log.warning("what came on %s is no message of it and is left out", service)
    finally:
        listener.close()
        for publisher in publishers.values():
            publisher.close()
    return forwarded


def _is_message_of(service: str, data: bytes) -> bool:
    try:
        return peek(data).member == event_member(service)
    except MessageError:
        return False
