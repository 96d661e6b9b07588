"""Which wide frame belongs to which main frame, by their start times."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

PAIR_NS = 25_000_000  # frames whose starts are nearer than this belong together
SYNC_NS = 10_000_000  # cameras are meant to start within 2 ms; beyond this something is wrong


class Frame(Protocol):
    """A camera frame as the frame transport delivers it. Times in ns, planes uint8.

    valid: the camera vouches for it.
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
