"""The road cameras on the bus: which exist, which is the main one, frames that belong together."""
from __future__ import annotations

import logging

from messaging import Bus, Frame, Stream, frame_receiver
from modeld.cameras import Intrinsics
from modeld.pairing import SYNC_NS, Pairer

log = logging.getLogger("modeld")

RECEIVE_MS = 100
PATIENCE = 10  # waits in vain, one after the other, before a camera counts as silent
_GRACE_S = 0.25  # for the second camera to appear when the first is there


class Eye:
    """One camera stream and how long it has kept us waiting."""

    def __init__(self, stream: Stream, bus: Bus, newest: bool) -> None:
        self.stream = stream
        self.client = frame_receiver(stream, bus)
        self._newest = newest
        self._misses = 0

    @property
    def silent(self) -> bool:
        """Whether it exists but does not deliver."""
        return self._misses >= PATIENCE

    @property
    def intrinsics(self) -> Intrinsics | None:
        """As the stream itself gives them."""
        given = self.client.intrinsics
        return None if given is None else Intrinsics(*given)

    def present(self, timeout_s: float = 0.0) -> bool:
        """Whether the stream exists and is not silent; a silent one is listened to again."""
        if self.silent:
            self.receive(1000 * timeout_s)
        return not self.silent and self.client.connect(timeout_s)

    def receive(self, timeout_ms: float = RECEIVE_MS) -> Frame | None:
        """The next frame, None if it does not come in time."""
        frame = self.client.receive(timeout_ms, newest=self._newest, in_place=True)
        self._misses = 0 if frame else self._misses + 1
        return frame


class Cameras:
    """The narrow and the wide road camera.

    The narrow one is the main camera, and the wide one, if it exists, the extra one; a wide camera
    alone is the main one. In lock-step every frame counts and the cameras stay as they were found;
    otherwise the main camera's newest frame is taken and a silent camera is done without.
    """

    def __init__(self, bus: Bus, lockstep: bool) -> None:
        self.main: Eye | None = None
        self.extra: Eye | None = None
        self._bus = bus
        self._lockstep = lockstep
        self._narrow = Eye(Stream.NARROW_ROAD, bus, newest=not lockstep)
        self._wide = Eye(Stream.WIDE_ROAD, bus, newest=False)
        self._pairer = Pairer()
        self._waiting_said = False
        self._apart_said = False

    def receive(self) -> tuple[Frame, Frame] | None:
        """A main frame and the extra one of its time (the main one again if there is none)."""
        if self.main is None or not self._lockstep:
            self._assign()
        if self.main is None:
            return None
        extra = self.extra.receive if self.extra else None
        pair = self._pairer.next(self.main.receive, extra)
        if pair:
            self._check_together(*pair)
        return pair

    def close(self) -> None:
        """Leave the streams."""
        self._narrow.client.close()
        self._wide.client.close()

    def _assign(self) -> None:
        """Give the cameras that are there their roles."""
        first = self.main is None
        narrow = self._narrow.present(RECEIVE_MS / 1000 if first else 0)
        wide = self._wide.present(0)
        if first and narrow != wide:
            wide = wide or self._wide.present(_GRACE_S)
            narrow = narrow or self._narrow.present(_GRACE_S)
        main = self._narrow if narrow else self._wide if wide else None
        extra = self._wide if narrow and wide else None
        if main is None:
            self._say_waiting()
        elif (main, extra) != (self.main, self.extra):
            also = f", extra {extra.stream.name}" if extra else ""
            log.info("cameras: main %s%s", main.stream.name, also)
            self._waiting_said = False
            self._pairer = Pairer()
        self.main, self.extra = main, extra

    def _say_waiting(self) -> None:
        if self._waiting_said:
            return
        self._waiting_said = True
        log.warning(
            "Waiting for a camera: no frames from %s or %s on bus '%s'. Start a camera there: "
            "camerad, python -m modeld.webcam, or drive-replay.",
            self._narrow.stream.name, self._wide.stream.name, self._bus.address)

    def _check_together(self, main: Frame, extra: Frame) -> None:
        apart = abs(main.timestamp_sof - extra.timestamp_sof)
        if apart > SYNC_NS and not self._apart_said:
            self._apart_said = True
            log.error("The cameras are not in step: frames %d and %d start %.1f ms apart; they are "
                      "used nevertheless.", main.frame_id, extra.frame_id, apart / 1e6)
