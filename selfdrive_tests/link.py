"""The replay's side of the bus: sends inputs and frames, hears everything the process says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from messaging import Bus, FrameGeometry, MessageError, PubMaster, Stream, decode, to_bytes
from messaging.closing import Closing
from messaging.frame_transport import frame_senders
from messaging.transport import subscribe, waiter
from selfdrive_tests.drives import Camera
from selfdrive_tests.processes import ProcessConfig
from selfdrive_tests.video import Picture


@dataclass(frozen=True)
class Answer:
    """A message of the process, and the frame it speaks of; None if it does not say."""

    service: str
    frame_id: int | None
    event: Any


class Link(Closing):
    """Publisher, frame servers and receivers of one replay; a context manager."""

    def __init__(self, bus: Bus, config: ProcessConfig, cameras: Mapping[Stream, Camera]) -> None:
        self._required = config.required
        self._publisher = PubMaster(config.subscribes, bus=bus)
        self._servers = frame_senders(
            {s: FrameGeometry.padded(c.width, c.height) for s, c in cameras.items()},
            bus,
            {s: (c.focal_px, *c.center_px) for s, c in cameras.items()},
        )
        self._outputs = config.publishes
        self._receivers = {s: subscribe(s, bus, conflate=False) for s in config.publishes}
        self._waiter = waiter(self._receivers.values())
        self._newest: dict[str, bytes] = {}
        self._times: dict[str, int] = {}

    def send(self, service: str, event: Any) -> None:
        """Publish a message, and keep it for subscribers that come later."""
        data = to_bytes(event)
        self._newest[service] = data
        self._times[service] = event.logMonoTime
        self._publisher.send(service, data)

    def barrier(self) -> dict[str, int]:
        """Service -> time of the newest message sent, for the services the process must hear."""
        return {name: time for name, time in self._times.items() if name in self._required}

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
        """Everything the process must listen to before the first frame: services and streams."""
        return set(self._required) | {stream.name for stream in self._servers}

    def welcome(self) -> set[str]:
        """Names of services and streams that gained a listener since this was last asked.

        These listeners know nothing of what was sent before: they get the newest message of each.
        """
        gained = self._publisher.new_subscribers()
        for service in sorted(gained & self._newest.keys()):
            self._publisher.send(service, self._newest[service])
        return gained | {s.name for s, server in self._servers.items() if server.new_reader()}

    def receive(self, timeout_ms: int) -> Iterator[Answer]:
        """Answers that are there; waits up to `timeout_ms` for the first.

        A message that cannot be decoded is left out: its frame counts as not answered.
        """
        self._waiter.wait(timeout_ms / 1000)
        for service, receiver in self._receivers.items():
            while (data := receiver.receive()) is not None:
                try:
                    event = decode(data)
                except MessageError:
                    continue
                if event.which() == service:
                    yield Answer(service, frame_id_of(getattr(event, service)), event)

    def close(self) -> None:
        """Leave the bus and take the streams down."""
        for receiver in self._receivers.values():
            receiver.close()
        for server in self._servers.values():
            server.close()
        self._publisher.close()


def frame_id_of(content: Any) -> int | None:
    """The frame that a message speaks of; None if messages of its kind do not say."""
    known = hasattr(content, "schema") and "frameId" in content.schema.fieldnames
    return int(content.frameId) if known else None
