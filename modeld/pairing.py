"""Which wide frame belongs to which main frame, by their start times."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

PAIR_NS = 25_000_000  # frames whose starts are nearer than this belong together
SYNC_NS = 10_000_000  # cameras are meant to start within 2 ms; beyond this something is wrong


class Frame(Protocol):
    """A camera frame as the frame transport delivers it. Times in ns, planes uint8.

    valid: the camera vouches for it. The planes may lie where the camera writes: what was read of
    them counts only if the frame is `intact` afterwards.
    """

    @property
    def luma(self) -> np.ndarray: ...
    @property
    def chroma(self) -> np.ndarray: ...
    @property
    def frame_id(self) -> int: ...
    @property
    def timestamp_sof(self) -> int: ...
    @property
    def timestamp_eof(self) -> int: ...
    @property
    def valid(self) -> bool: ...
    def intact(self) -> bool: ...


class OverwrittenError(Exception):
    """The camera has written a new picture over one that was being read."""


def check_intact(*frames: Frame) -> None:
    """Raises OverwrittenError if what was read of a frame so far need not be its picture."""
    for frame in frames:
        if not frame.intact():
            raise OverwrittenError(
                f"Frame {frame.frame_id} was overwritten by the camera while it was being read; it "
                "counts as lost. The daemon was held up for several frames.")


@dataclass(frozen=True)
class CameraFrame:
    """A camera frame in memory of our own; the fields are those of `Frame`."""

    luma: np.ndarray
    chroma: np.ndarray
    frame_id: int
    timestamp_sof: int
    timestamp_eof: int
    valid: bool = True

    def intact(self) -> bool:
        """True: nobody else writes into it."""
        return True


AnyFrame = TypeVar("AnyFrame", bound=Frame)
Receive = Callable[[], AnyFrame | None]


class Pairer:
    """Receives frames so that both cameras stay together. None from `receive` means too late."""

    def __init__(self) -> None:
        self._last_extra_sof: int | None = None

    def next(
        self, main: Receive[AnyFrame], extra: Receive[AnyFrame] | None,
    ) -> tuple[AnyFrame, AnyFrame] | None:
        """The next main frame and the extra frame of the same time; None if one did not come.

        Without an extra stream the main frame serves as both.
        """
        frame = main()
        while frame and self._older_than_last_pair(frame):
            frame = main()
        if frame is None or extra is None:
            return None if frame is None else (frame, frame)
        other = extra()
        while other and frame.timestamp_sof >= other.timestamp_sof + PAIR_NS:
            other = extra()
        if other is None:
            self._last_extra_sof = None
            return None
        self._last_extra_sof = other.timestamp_sof
        return frame, other

    def _older_than_last_pair(self, frame: Frame) -> bool:
        last = self._last_extra_sof
        if last is None or frame.timestamp_sof >= last + PAIR_NS:
            return False
        # Far older is no late frame but a camera that was started anew, with a clock of its own.
        return last - frame.timestamp_sof < 1_000_000_000
