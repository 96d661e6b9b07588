"""What a transport of the bus offers, and which one a bus uses: ZeroMQ sockets or msgq rings."""

import time
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from messaging.bus import Bus
from messaging.msgq import MsgqPublisher, MsgqSubscriber, MsgqWaiter
from messaging.zeromq import ZmqPublisher, ZmqSubscriber, ZmqWaiter


class Publisher(Protocol):
    """The sending end of one endpoint."""

    name: str
    subscribers: int  # as of the last take_notice()

    def send(self, data: bytes) -> None: ...
    def take_notice(self) -> None: ...
    def wait_for_notice(self, timeout_s: float) -> None: ...
    def gained_subscriber(self) -> bool: ...
    def close(self) -> None: ...


class Subscriber(Protocol):
    """A receiving end of one endpoint."""

    name: str

    def receive(self) -> bytes | None: ...
    def close(self) -> None: ...


class Waiter(Protocol):
    """Waits until one of some subscribers has a message, or `timeout_s` is over."""

    def wait(self, timeout_s: float) -> None: ...


def publish(name: str, bus: Bus) -> Publisher:
    """The sending end of endpoint `name`.

    Raises BusError if it already has a publisher (msgq: the older one then fails to send).
    """
    return ZmqPublisher(name, bus) if bus.msgq_prefix is None else MsgqPublisher(name, bus)


def subscribe(name: str, bus: Bus, *, conflate: bool) -> Subscriber:
    """A receiving end of endpoint `name`, now or when its publisher appears.

    conflate: keep only the newest message.
    """
    if bus.msgq_prefix is None:
        return ZmqSubscriber(name, bus, conflate=conflate)
    return MsgqSubscriber(name, bus, conflate=conflate)


def waiter(subscribers: Iterable[Subscriber]) -> Waiter:
    """Waits for any of `subscribers`, which are on one bus."""
    subscribers = list(subscribers)
    if subscribers and isinstance(subscribers[0], MsgqSubscriber):
        return MsgqWaiter(cast(list[MsgqSubscriber], subscribers))
    return ZmqWaiter(cast(list[ZmqSubscriber], subscribers))


def wait_for_subscribers(publishers: Sequence[Publisher], timeout: float, count: int) -> bool:
    """Wait until each publisher has `count` subscribers; False if that takes over `timeout` s."""
    deadline = time.monotonic() + timeout
    for publisher in publishers:
        publisher.take_notice()
        while publisher.subscribers < count:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            publisher.wait_for_notice(remaining)
            publisher.take_notice()
    return True
