"""What is watched over several frames: forward collision, confidence, dropped frames."""
from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from modeld import constants as c


class CollisionWatch:
    """Predicts hard braking from the last five brake probabilities at the 2 s horizon."""

    def __init__(self) -> None:
        self._brake_3 = np.zeros(len(c.FCW_BRAKE_3), np.float32)
        self._brake_5 = np.zeros(len(c.FCW_BRAKE_5), np.float32)

    def update(self, brake_3: float, brake_5: float) -> bool:
        """Probabilities of braking with 3 and 5 m/s2 within 2 s -> hard brake predicted."""
        self._brake_3 = np.append(self._brake_3[1:], np.float32(brake_3))
        self._brake_5 = np.append(self._brake_5[1:], np.float32(brake_5))
        sure = (self._brake_5 > np.array(c.FCW_BRAKE_5, np.float32)).all()
        return bool(sure and (self._brake_3 > np.array(c.FCW_BRAKE_3, np.float32)).all())


def disengage_per_slice(
    brake: ArrayLike, gas: ArrayLike, steer: ArrayLike,
) -> np.ndarray:
    """Cumulative probabilities at 2, 4, 6, 8, 10 s -> independent ones per 2 s slice, (5,).

    The driver disengages in some way with p = 1 - (1-brake)(1-gas)(1-steer); the share of a slice
    is what it adds, given that nothing happened before it.
    """
    calm = (1.0 - np.asarray(brake)) * (1 - np.asarray(gas)) * (1 - np.asarray(steer))
    before = calm[:-1]
    # Once a disengagement is certain nothing can be added; the ratio would be 0 / 0.
    added = np.divide(before - calm[1:], before, out=np.zeros_like(before), where=before > 0)
    return np.concatenate([1 - calm[:1], added])


class ConfidenceWatch:
    """Green, yellow or red: what five successive looks, 2 s apart, said about the same slice."""

    def __init__(self) -> None:
        self._looks = np.zeros((c.CONFIDENCE_STEPS, c.CONFIDENCE_STEPS))

    def update(self, frame_id: int, slices: np.ndarray) -> str:
        """frame_id: of the main frame; every 40th is looked at. slices: `disengage_per_slice`."""
        if frame_id % c.CONFIDENCE_EVERY == 0:
            self._looks = np.concatenate([self._looks[1:], slices[None]])
        score = np.fliplr(self._looks).diagonal().mean()
        if score < c.CONFIDENCE_GREEN:
            return "green"
        return "yellow" if score < c.CONFIDENCE_YELLOW else "red"


class DropFilter:
    """Share of frames that were lost, over about 10 s."""

    _ALPHA = c.DT_MDL / (10.0 + c.DT_MDL)
    _SETTLE = 10  # updates at start that count as without loss

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0

    def update(self, dropped: int) -> float:
        """Frames lost just before this one -> percent of frames lost."""
        self._count += 1
        if self._count <= self._SETTLE:
            return 0.0
        self._mean += self._ALPHA * (min(dropped, 10) - self._mean)
        return 100 * self._mean / (1 + self._mean)
