"""From plan to action: the curvature and acceleration the car shall follow now.

The output describes the world when the picture was taken; what is commanded takes effect later. So
the plan is read at an action time: actuator delay, smoothing, one frame, and since 2026 the readout
of the picture. The rules changed with the releases; `RULES` has one row per era (see `contract`).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import numpy as np

from modeld import constants as c

MIN_CURVATURE_SPEED = 0.3  # m/s; at or below it the curvature is held
_STOP_SPEED_NOW, _STOP_ACCELERATION = 0.3, 0.1
_STOP_PLAN_SPEED = 0.05  # m/s


@dataclass(frozen=True)
class Rules:
    """How an era turns a plan into an action; times in seconds.

    min_stable: action times below it are interpolated from the plan at it. stop_by_plan: stop if
    the plan stands still now and a second later, else if the car nearly stands and would not start.
    use_curvature_output: take the model's own `desired_curvature`.
    """

    lateral_smooth: float
    longitudinal_smooth: float
    readout: float
    min_stable: float
    stop_by_plan: bool
    use_curvature_output: bool = False


RULES = {
    "direct": Rules(0.0, 0.0, 0.0, 0.0, stop_by_plan=True, use_curvature_output=True),
    "0.9": Rules(0.0, 0.0, 0.0, 0.0, stop_by_plan=True),
    "0.10": Rules(0.1, 0.3, 0.0, 0.0, stop_by_plan=True),
    "0.11": Rules(0.0, 0.3, 0.025, 0.3, stop_by_plan=False),
}


@dataclass(frozen=True)
class Action:
    """What the car shall do: curvature 1/m (positive to the right), acceleration m/s2, stop."""

    curvature: float = 0.0
    acceleration: float = 0.0
    should_stop: bool = False


def action_times(rules: Rules, lateral_delay: float, longitudinal_delay: float) -> np.ndarray:
    """Lateral and longitudinal action time (2,) float32 in seconds."""
    common = c.DT_MDL + rules.readout
    return np.array([lateral_delay + rules.lateral_smooth + common,
                     longitudinal_delay + rules.longitudinal_smooth + common], np.float32)


def smooth(value: float, previous: float, tau: float) -> float:
    """First-order low-pass per frame with time constant tau in seconds; 0 means none."""
    alpha = 1 - exp(-c.DT_MDL / tau) if tau > 0 else 1.0
    return alpha * value + (1 - alpha) * previous


def _at(time: float, values: np.ndarray, min_stable: float) -> float:
    """`values` (33,) over T_IDXS at a time; early times on a line from the start to min_stable."""
    if time < min_stable:
        start, stable = float(values[0]), float(np.interp(min_stable, c.T_IDXS, values))
        return start + time / min_stable * (stable - start)
    return float(np.interp(time, c.T_IDXS, values))


def acceleration_from_plan(plan: np.ndarray, time: float, min_stable: float) -> float:
    """Constant-jerk acceleration (m/s2) that reaches the planned speed at `time`.

    plan (33, 15). v_t = v0 + (a0 + a) / 2 * t, solved for a.
    """
    speed, acceleration = plan[:, c.VELOCITY][:, 0], plan[:, c.ACCELERATION][:, 0]
    start = float(speed[0])
    return 2 * (_at(time, speed, min_stable) - start) / time - float(acceleration[0])


def curvature_from_plan(plan: np.ndarray, v_ego: float, time: float, min_stable: float) -> float:
    """Curvature (1/m) that reaches the planned heading at `time`, from the yaw rate now.

    plan (33, 15), v_ego m/s; speeds below 1 m/s count as 1.
    """
    yaw, yaw_rate = plan[:, c.ORIENTATION][:, 2], plan[:, c.ORIENTATION_RATE][:, 2]
    speed = max(v_ego, 1.0)
    return 2 * _at(time, yaw, min_stable) / (speed * time) - float(yaw_rate[0]) / speed


def _stops_by_plan(plan: np.ndarray, time: float) -> bool:
    speeds = np.interp([time, time + 1], c.T_IDXS, plan[:, c.VELOCITY][:, 0])
    return bool((speeds < _STOP_PLAN_SPEED).all())


def next_action(
    parsed: Mapping[str, np.ndarray], previous: Action, rules: Rules, v_ego: float,
    times: np.ndarray,
) -> Action:
    """The action of this frame.

    parsed: output of `parser.parse`. v_ego: m/s, not negative. times: of `action_times`. Models
    with an `action` output give lateral acceleration and acceleration themselves.
    """
    lateral_time, longitudinal_time = map(float, times)
    plan = parsed["plan"]
    if "action" in parsed:
        curvature = float(parsed["action"][0]) / max(1.0, v_ego) ** 2
        acceleration = float(parsed["action"][1])
    else:
        acceleration = acceleration_from_plan(plan, longitudinal_time, rules.min_stable)
        if rules.use_curvature_output:
            curvature = float(parsed["desired_curvature"][0])
        else:
            curvature = curvature_from_plan(plan, v_ego, lateral_time, rules.min_stable)
    if rules.stop_by_plan:
        should_stop = _stops_by_plan(plan, longitudinal_time)
    else:
        should_stop = v_ego < _STOP_SPEED_NOW and acceleration < _STOP_ACCELERATION
    if v_ego > MIN_CURVATURE_SPEED:
        curvature = smooth(curvature, previous.curvature, rules.lateral_smooth)
    else:
        curvature = previous.curvature
    acceleration = smooth(acceleration, previous.acceleration, rules.longitudinal_smooth)
    return Action(curvature, acceleration, should_stop)
