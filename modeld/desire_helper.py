"""Lane changes: when the driver has asked for one, and for how long the model is told."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeld import constants as c

MIN_SPEED = 20 * 0.44704  # m/s, 20 mph
MAX_FRAMES = 10 * c.MODEL_RATE_HZ
_MIN_FRAMES = c.MODEL_RATE_HZ // 2
_DONE_PROBABILITY = 0.02

OFF, PRE, STARTING = "off", "preLaneChange", "laneChangeStarting"
NONE, LEFT, RIGHT = "none", "left", "right"


@dataclass(frozen=True)
class Driver:
    """What the driver and the car say. Speed in m/s; torque positive to the left."""

    v_ego: float = 0.0
    left_blinker: bool = False
    right_blinker: bool = False
    steering_pressed: bool = False
    steering_torque: float = 0.0
    left_blindspot: bool = False
    right_blindspot: bool = False
    lateral_active: bool = False

    @property
    def one_blinker(self) -> bool:
        return self.left_blinker != self.right_blinker


@dataclass(frozen=True)
class LaneChange:
    """State and direction as the log spells them; frames since the change started."""

    state: str = OFF
    direction: str = NONE
    frames: int = 0
    blinker_before: bool = False

    def desire(self) -> np.ndarray:
        """One-hot wish (8,) float32; a lane change only while it is being made."""
        index = c.DESIRE_NONE
        if self.state == STARTING:
            left = self.direction == LEFT
            index = c.DESIRE_LANE_CHANGE_LEFT if left else c.DESIRE_LANE_CHANGE_RIGHT
        wish = np.zeros(c.DESIRE_LEN, np.float32)
        wish[index] = 1
        return wish


def _nudged(driver: Driver, direction: str) -> bool:
    """The driver turns the wheel to the side of the blinker, and nobody is there."""
    if direction == LEFT:
        return driver.steering_pressed and driver.steering_torque > 0 and not driver.left_blindspot
    return driver.steering_pressed and driver.steering_torque < 0 and not driver.right_blindspot


def update(change: LaneChange, driver: Driver, probability: float) -> LaneChange:
    """One frame (0.05 s) on. probability: that the model predicts a lane change, left or right."""
    blinker = driver.one_blinker
    too_slow = driver.v_ego < MIN_SPEED
    if not driver.lateral_active or change.frames > MAX_FRAMES:
        return LaneChange(blinker_before=blinker)
    if change.state == OFF:
        if blinker and not change.blinker_before and not too_slow:
            return LaneChange(PRE, LEFT if driver.left_blinker else RIGHT, 0, blinker)
        return LaneChange(blinker_before=blinker)
    if change.state == PRE:
        # The driver may change his mind about the side.
        direction = LEFT if driver.left_blinker else RIGHT
        if not blinker or too_slow:
            return LaneChange(blinker_before=blinker)
        state = STARTING if _nudged(driver, direction) else PRE
        return LaneChange(state, direction, 0, blinker)
    frames = change.frames + 1
    if probability < _DONE_PROBABILITY and frames >= _MIN_FRAMES:
        if blinker:
            return LaneChange(PRE, LEFT if driver.left_blinker else RIGHT, 0, blinker)
        return LaneChange(blinker_before=blinker)
    return LaneChange(STARTING, change.direction, frames, blinker)
