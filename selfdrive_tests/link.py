"""The replay's side of the bus: sends inputs and frames, hears everything the daemon says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from messaging import (
    Bus,
    FrameGeometry,
    FrameServer,
    MessageError,
    PubMaster,
    Stream,
    decode,
    to_bytes,
)
from selfdrive_tests.drives import Camera, Drive
from selfdrive_tests.inputs import LOGGED
from selfdrive_tests.video import Picture

OUTPUTS = ("modelV2", "drivingModelData", "cameraOdometry")
# What every driving daemon subscribes to; it is ready for frames when it hears all of these.
REQUIRED = frozenset(LOGGED) - {"carParams"} | {"narrowRoadCameraState"}


@dataclass(frozen=True)
class Answer:
    """A message of the daemon, and the frame it speaks of."""

    service: str
    frame_id: int
    event: Any


class Link:
    """Publisher, frame servers and receiver of one replay; a context manager."""

    def __init__(self, bus: Bus, drive: Drive) -> None:
        self._publisher = PubMaster(
            [*LOGGED, "narrowRoadCameraState", "wideRoadCameraState"], bus=bus
        )
        # The wide stream is first, so that a daemon that sees the narrow one finds both.
        self._servers: dict[Stream, FrameServer] = {}
        if drive.wide_camera is not None:
            self._servers[Stream.WIDE_ROAD] = _server(Stream.WIDE_ROAD, drive.wide_camera, bus)
        self._servers[Stream.NARROW_ROAD] = _server(Stream.NARROW_ROAD, drive.camera, bus)
        self._receiver = AnswerSocket(bus)
        self._newest: dict[str, bytes] = {}
        self._times: dict[str, int] = {}

    def send(self, service: str, event: Any) -> None:
        """Publish a message, and keep it for subscribers that come later."""
        data = to_bytes(event)
        self._newest[service] = data
        self._times[service] = event.logMonoTime
        self._publisher.send(service, data)

    def barrier(self) -> dict[str, int]:
        """Service -> time of the newest message sent, for the services every daemon hears."""
        return {service: time for service, time in self._times.items() if service in REQUIRED}

    def send_frame(
        self,
        stream: Stream,
        picture: Picture,
        frame_id: int,
        sof_ns: int,
        eof_ns: int,
        barrier: dict[str, int] | None,
    ) -> None:
        """Publish a picture; sof_ns and eof_ns are start and end of the frame."""
        self._servers[stream].publish(
            picture.luma, frame_id, sof_ns, eof_ns, chroma=picture.chroma, barrier=barrier
        )

    @property
    def required(self) -> set[str]:
        """Everything a daemon must listen to before the first frame: services and streams."""
        return set(REQUIRED) | {stream.name for stream in self._servers}

    def welcome(self) -> set[str]:
        """Names of services and streams that gained a listener since this was last asked.

        These listeners know nothing of what was sent before: they get the newest message of each.
        """
        gained = self._publisher.new_subscribers()
        for service in sorted(gained & self._newest.keys()):
            self._publisher.send(service, self._newest[service])
        return gained | {s.name for s, server in self._servers.items() if server.new_reader()}

    def heard(self) -> bool:
        """Whether all the daemon's publishers are connected to this side."""
        return self._receiver.connected()

    def receive(self, timeout_ms: int) -> Iterator[Answer]:
        """Answers that are there; waits up to `timeout_ms` for the first."""
        return self._receiver.receive(timeout_ms)

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._receiver.close()
        for server in self._servers.values():
            server.close()
        self._publisher.close()


def _server(stream: Stream, camera: Camera, bus: Bus) -> FrameServer:
    geometry = FrameGeometry.padded(camera.width, camera.height)
    return FrameServer(stream, geometry, (camera.focal_px, *camera.center_px), bus=bus)


class AnswerSocket:
    """Receives every message of the daemon; a SubMaster would keep the newest only."""

    def __init__(self, bus: Bus) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
        self._socket.subscribe(b"")
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(events)
        self._connected: set[bytes] = set()
        for service in OUTPUTS:
            self._socket.connect(bus.endpoint(service, bind=False))

    def connected(self) -> bool:
        """Whether all publishers are there and will send to this receiver from now on."""
        while self._monitor.poll(0):
            message = recv_monitor_message(self._monitor)
            if message["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected.add(message["endpoint"])
            else:
                self._connected.discard(message["endpoint"])
        return len(self._connected) == len(OUTPUTS)

    def receive(self, timeout_ms: int) -> Iterator[Answer]:
        """Messages in order of arrival; waits up to `timeout_ms` for the first.

        A message that cannot be decoded is left out: its frame counts as not answered.
        """
        if not self._socket.poll(timeout_ms):
            return
        while True:
            try:
                event = decode(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            except MessageError:
                continue
            service = event.which()
            if service in OUTPUTS:
                yield Answer(service, getattr(event, service).frameId, event)

    def close(self) -> None:
        """Disconnect."""
        self._socket.disable_monitor()
        self._socket.close(linger=0)
