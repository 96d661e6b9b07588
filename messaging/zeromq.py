"""ZeroMQ as a transport: one XPUB socket and any number of SUB sockets per endpoint.

Single-part messages, no topic: the endpoint is the service.
"""

import math
import os
import weakref
from collections.abc import Iterable
from typing import Any

import zmq

from messaging.bus import Bus
from messaging.errors import BusError
from messaging.message import MAX_MESSAGE_BYTES

_LINGER_MS = 500  # how long close() waits for what is still on its way to subscribers
_RECONNECT_MS = 10  # first attempt after a publisher went away
_RECONNECT_MAX_MS = 100
_NOTICE_BYTES = 1024  # longest a subscriber may say; it needs a byte and the handshake
_NOTICE_EVERY = 10  # messages: notices that nobody takes would pile up in the socket for ever
_MOST_SKIPPED = 1000  # older messages at once, so that a flood cannot hold its receiver for ever
_SUBSCRIBE, _UNSUBSCRIBE = b"\x01", b"\x00"  # what an XPUB socket receives from its subscribers


class ZmqPublisher:
    """The sending end of one endpoint. It knows how many subscribers have really arrived.

    local: stay on this machine even if the bus is TCP.
    Raises BusError if the endpoint already has a publisher.
    """

    def __init__(self, name: str, bus: Bus, *, local: bool = False) -> None:
        self.name = name
        self.subscribers = 0
        self._gained = False
        self._sent = 0
        self._lock = bus.lock(name) if local or bus.host is None else None
        # a context of its own: terminating it is the only way to know that the socket is gone
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # report every single subscriber
        self.socket.setsockopt(zmq.MAXMSGSIZE, _NOTICE_BYTES)
        # also when nobody calls close(): a context that is collected first would wait for ever
        self._release = weakref.finalize(self, _release, self._context, self.socket, self._lock)
        address = bus.local_endpoint(name) if local else bus.endpoint(name, bind=True)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise BusError(f"cannot publish {name}: {error}; is there another publisher?") from None

    def send(self, data: bytes) -> None:
        """Send to everybody who is subscribed now; a subscriber that is far behind misses it."""
        self.socket.send(data)
        self._sent += 1
        if self._sent % _NOTICE_EVERY == 0:
            self.take_notice()

    def take_notice(self) -> None:
        """Count the subscribers that came and went since the last call."""
        while True:
            try:
                notice = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if notice[:1] == _SUBSCRIBE:
                self.subscribers += 1
                self._gained = True
            elif notice[:1] == _UNSUBSCRIBE:
                self.subscribers -= 1

    def wait_for_notice(self, timeout_s: float) -> None:
        self.socket.poll(math.ceil(timeout_s * 1000))

    def gained_subscriber(self) -> bool:
        """Whether a subscriber arrived since this was last asked."""
        self.take_notice()
        gained, self._gained = self._gained, False
        return gained

    def close(self) -> None:
        """Send what is on its way, remove the socket, then free the endpoint."""
        self._release()


def _release(context: zmq.Context[Any], socket: zmq.Socket[bytes], lock: int | None) -> None:
    socket.close()
    context.term()
    if lock is not None:
        os.close(lock)


class ZmqSubscriber:
    """Receives from the endpoint `name`, now or when its publisher appears.

    conflate: receive only the newest of the messages that wait. local: stay on this machine even
        if the bus is TCP.
    """

    def __init__(self, name: str, bus: Bus, *, conflate: bool, local: bool = False) -> None:
        self.name = name
        self._conflate = conflate
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)  # who sends more is cut off
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.socket.connect(bus.local_endpoint(name) if local else bus.endpoint(name, bind=False))

    def receive(self) -> bytes | None:
        """The next message, or the newest if this conflates; None if there is none now."""
        data = None
        # not zmq.CONFLATE: its queue of one can keep a message back until the next one comes,
        # and does so with one message in some ten thousand (libzmq 4.3.5)
        for _ in range(_MOST_SKIPPED if self._conflate else 1):
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
        return data

    def close(self) -> None:
        self.socket.close()


class ZmqWaiter:
    """Waits until one of some subscribers has a message."""

    def __init__(self, subscribers: Iterable[ZmqSubscriber]) -> None:
        self._poller = zmq.Poller()
        for subscriber in subscribers:
            self._poller.register(subscriber.socket, zmq.POLLIN)

    def wait(self, timeout_s: float) -> None:
        self._poller.poll(max(0, math.ceil(timeout_s * 1000)))
