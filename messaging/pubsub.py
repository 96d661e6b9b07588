"""Publishers and subscribers: `PubMaster` sends on services, `SubMaster` keeps the newest of each.

How messages travel is the transport's business, see transport.py.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from messaging.bus import Bus
from messaging.closing import Closing
from messaging.errors import BusError, MessageError
from messaging.frequency import FrequencyTracker
from messaging.message import decode, event_member, new_message, peek, to_bytes
from messaging.services import SERVICES, canonical
from messaging.transport import Publisher, publish, subscribe, wait_for_subscribers, waiter

log = logging.getLogger(__name__)

V = TypeVar("V")


class PubMaster(Closing):
    """Sends messages on `services`.

    Raises UnknownServiceError for an unknown service, BusError if one already has a publisher.
    """

    def __init__(self, services: Iterable[str], bus: Bus | None = None) -> None:
        self.bus = bus or Bus()
        self._publishers: dict[str, Publisher] = {}
        # under the name as given: over TCP an old name is a port of its own
        names = {canonical(name): name for name in services}
        try:
            for service, name in names.items():
                self._publishers[service] = publish(name, self.bus)
        except BusError:
            self.close()
            raise

    def send(self, service: str, message: Any) -> None:
        """Send a builder of an Event, or its bytes.

        Raises BusError for a service this PubMaster was not made for.
        """
        publisher = self._publishers.get(canonical(service))
        if publisher is None:
            own = ", ".join(self._publishers)
            raise BusError(f"{service} is not among the services of this PubMaster: {own}")
        publisher.send(to_bytes(message))

    def wait_for_subscribers(
        self, services: Iterable[str] | None = None, timeout: float = 10.0, count: int = 1
    ) -> bool:
        """Wait until each of `services` (default: all) has `count` subscribers.

        timeout: seconds. Gives False if they did not come in time.
        """
        names = self._publishers if services is None else map(canonical, services)
        return wait_for_subscribers([self._publishers[name] for name in names], timeout, count)

    def new_subscribers(self) -> set[str]:
        """Services that gained a subscriber since this was last asked.

        A restarted subscriber knows nothing of what was sent before: this is how to notice it.
        """
        return {name for name, one in self._publishers.items() if one.gained_subscriber()}

    def close(self) -> None:
        """Let go of every endpoint. Messages on their way are delivered first."""
        for publisher in self._publishers.values():
            publisher.close()


class ByService(dict[str, V]):
    """A value per service, found under its newest name and its old ones."""

    def __missing__(self, name: str) -> V:
        newest = canonical(name)
        if newest not in self:
            raise KeyError(f"not subscribed to {name}; subscribed: {', '.join(self)}")
        return self[newest]


class SubMaster(Closing):
    """The newest message of each of `services`, and whether they come as they should.

    poll: the one service `update` waits for; None: any of them.
    frequency: how often update is called, Hz; not together with poll. None: as often as the
        fastest service that is waited for.
    ignore_alive, ignore_avg_freq, ignore_valid: services that all_alive, all_freq_ok and all_valid
        leave out.
    conflate: whether an update takes only the newest message of a service. False: it takes all
        of them one by one, so that the frequency counts each.

    One value per service (old names work as keys):
        sm[s]           newest content; before the first message all defaults
        updated         a message arrived in the last update
        seen            a message ever arrived
        recv_time       s, monotonic clock, of the newest one
        recv_frame      number of the update it arrived in (updates count from 0)
        logMonoTime     ns, its Event.logMonoTime
        alive           it is younger than ten periods
        valid           its Event.valid
        freq_ok         messages arrive as often as they should, see frequency.py
        malformed       messages thrown away because they could not be decoded
    Services on demand are always alive and freq_ok, and valid until a message says otherwise. With
    the environment variable SIMULATION=1 a service is alive once seen, and freq_ok always.

    Raises UnknownServiceError for an unknown service.
    """

    def __init__(
        self,
        services: Iterable[str],
        poll: str | None = None,
        frequency: float | None = None,
        ignore_alive: Iterable[str] = (),
        ignore_avg_freq: Iterable[str] = (),
        ignore_valid: Iterable[str] = (),
        bus: Bus | None = None,
        clock: Callable[[], float] = time.monotonic,
        conflate: bool = True,
    ) -> None:
        if poll is not None and frequency is not None:
            raise ValueError("poll and frequency exclude each other: one of them sets the rate")
        bus = bus or Bus()
        names = {canonical(name): name for name in services}
        self.services = list(names)
        self.frame = -1
        self._clock = clock
        self._conflate = conflate
        self._simulation = os.environ.get("SIMULATION") == "1"
        self._ignore_alive = set(map(canonical, ignore_alive))
        self._ignore_avg_freq = set(map(canonical, ignore_avg_freq))
        self._ignore_valid = set(map(canonical, ignore_valid))

        polled = self.services if poll is None else [canonical(poll)]
        if not set(polled) <= set(self.services):
            raise ValueError(f"cannot poll {poll}: it is not among the services")
        rate = frequency or max((SERVICES[s].frequency for s in polled), default=0.0)

        self.updated: ByService[bool] = self._each(False)
        self.seen: ByService[bool] = self._each(False)
        self.alive = ByService({s: SERVICES[s].on_demand for s in self.services})
        self.freq_ok = ByService({s: SERVICES[s].on_demand for s in self.services})
        self.valid = ByService({s: SERVICES[s].on_demand for s in self.services})
        self.recv_time: ByService[float] = self._each(0.0)
        self.recv_frame: ByService[int] = self._each(0)
        self.logMonoTime: ByService[int] = self._each(0)  # named as the field is
        self.malformed: ByService[int] = self._each(0)
        self.data: ByService[Any] = ByService(
            {s: getattr(new_message(s).as_reader(), s) for s in self.services}
        )
        self._trackers = {
            s: FrequencyTracker(SERVICES[s].frequency, rate, polled=s in polled)
            for s in self.services
            if not SERVICES[s].on_demand
        }
        self._subscribers = {s: subscribe(n, bus, conflate=conflate) for s, n in names.items()}
        self._polled = waiter(self._subscribers[service] for service in polled)

    def _each(self, value: V) -> ByService[V]:
        return ByService(dict.fromkeys(self.services, value))

    def __getitem__(self, service: str) -> Any:
        return self.data[service]

    def update(self, timeout_ms: float = 100) -> None:
        """Wait for the polled services, then take the newest message of every service."""
        self._begin_update()
        self._polled.wait(timeout_ms / 1000)
        self._receive_all()
        self._judge()

    def wait_for(self, barrier: Mapping[str, int], timeout_s: float) -> bool:
        """One update that lasts until the messages of `barrier` are here.

        barrier: service -> logMonoTime (ns) that its newest message must have reached. Services
            this SubMaster does not have are left out.
        Gives False if that takes longer than `timeout_s`.
        """
        wanted = {event_member(name): time_ns for name, time_ns in barrier.items()}
        wanted = {s: time_ns for s, time_ns in wanted.items() if s in self._subscribers}
        deadline = time.monotonic() + timeout_s
        self._begin_update()
        while True:
            self._receive_all()
            missing = [s for s, time_ns in wanted.items() if self.logMonoTime[s] < time_ns]
            remaining = deadline - time.monotonic()
            if not missing or remaining <= 0:
                break
            waiter(self._subscribers[service] for service in missing).wait(remaining)
        self._judge()
        return not missing

    def all_alive(self, services: Iterable[str] | None = None) -> bool:
        return all(self.alive[s] for s in self._listed(services) if s not in self._ignore_alive)

    def all_freq_ok(self, services: Iterable[str] | None = None) -> bool:
        """Whether all services above 0.99 Hz come as often as they should."""
        ignored = self._ignore_alive | self._ignore_avg_freq
        return all(
            self.freq_ok[s]
            for s in self._listed(services)
            if s not in ignored and SERVICES[s].frequency > 0.99
        )

    def all_valid(self, services: Iterable[str] | None = None) -> bool:
        return all(self.valid[s] for s in self._listed(services) if s not in self._ignore_valid)

    def all_checks(self, services: Iterable[str] | None = None) -> bool:
        listed = self._listed(services)
        return self.all_alive(listed) and self.all_freq_ok(listed) and self.all_valid(listed)

    def close(self) -> None:
        for subscriber in self._subscribers.values():
            subscriber.close()

    def _listed(self, services: Iterable[str] | None) -> list[str]:
        return self.services if services is None else [canonical(name) for name in services]

    def _begin_update(self) -> None:
        self.frame += 1
        for service in self.services:
            self.updated[service] = False

    def _receive_all(self) -> None:
        for service, subscriber in self._subscribers.items():
            data = subscriber.receive()
            while data is not None:
                self._take(service, data)
                data = None if self._conflate else subscriber.receive()

    def _take(self, service: str, data: bytes) -> None:
        try:
            member = peek(data).member
            if member != service:
                raise MessageError(f"it is a message of {member or 'an unknown service'}")
            event = decode(data)
        except MessageError as error:
            if self.malformed[service] == 0:
                log.warning("a message on %s is thrown away: %s", service, error)
            self.malformed[service] += 1
            return
        now = self._clock()
        self.updated[service] = self.seen[service] = True
        self.recv_time[service] = now
        self.recv_frame[service] = self.frame
        self.logMonoTime[service] = event.logMonoTime
        self.valid[service] = event.valid
        self.data[service] = getattr(event, service)
        if service in self._trackers:
            self._trackers[service].record(now)

    def _judge(self) -> None:
        now = self._clock()
        for service, tracker in self._trackers.items():
            seen, period = self.seen[service], 1 / SERVICES[service].frequency
            fresh = seen and now - self.recv_time[service] < 10 * period
            self.alive[service] = fresh or (seen and self._simulation)
            self.freq_ok[service] = tracker.ok or self._simulation
