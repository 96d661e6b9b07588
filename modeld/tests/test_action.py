"""From plan to action against motions with a closed form."""
from __future__ import annotations

import math

import numpy as np
import pytest

from modeld.action import RULES, Action, action_times, next_action, smooth
from modeld.constants import T_IDXS

T = T_IDXS.astype(np.float64)


def plan(speed: np.ndarray, acceleration: np.ndarray, yaw: np.ndarray, rate: float) -> np.ndarray:
    made = np.zeros((33, 15))
    made[:, 3], made[:, 6], made[:, 11] = speed, acceleration, yaw
    made[:, 14] = rate
    return made


def braking(v0: float = 20.0, a0: float = -1.0, curvature: float = 0.01) -> np.ndarray:
    return plan(v0 + a0 * T, np.full(33, a0), curvature * v0 * T, curvature * v0)


TIMES = np.array([0.4, 0.5], np.float32)


def test_alpha() -> None:
    assert smooth(1, 0, 0.3) == pytest.approx(0.15352, abs=1e-5)
    assert smooth(1, 0, 0.1) == pytest.approx(0.39347, abs=1e-5)
    assert smooth(3, 1, 0.0) == 3


@pytest.mark.parametrize(("era", "lateral", "longitudinal"), [
    ("0.11", 0.2 + 0.0 + 0.05 + 0.025, 0.15 + 0.3 + 0.05 + 0.025),
    ("0.10", 0.2 + 0.1 + 0.05, 0.15 + 0.3 + 0.05), ("0.9", 0.2 + 0.05, 0.15 + 0.05)])
def test_action_times(era: str, lateral: float, longitudinal: float) -> None:
    times = action_times(RULES[era], 0.2, 0.15)
    np.testing.assert_allclose(times, [lateral, longitudinal], rtol=1e-6)
    assert times.dtype == np.float32


def test_constant_motion_gives_itself() -> None:
    made = next_action({"plan": braking()}, Action(), RULES["0.9"], 20.0, TIMES)
    assert made.acceleration == pytest.approx(-1.0)
    assert made.curvature == pytest.approx(0.01)
    assert not made.should_stop


def test_constant_jerk() -> None:
    # a = 1 + 2 t: the acceleration at the action time is 1 + 2 t.
    speed = 10 + T + T ** 2
    times = np.array([0.4, T[16]], np.float32)  # 2.5 s is a grid point: no interpolation error
    made = next_action({"plan": plan(speed, 1 + 2 * T, 0 * T, 0.0)}, Action(), RULES["0.9"],
                       10.0, times)
    assert made.acceleration == pytest.approx(1 + 2 * 2.5)


def test_turning_that_starts_now() -> None:
    # Yaw 0.05 t^2 at 10 m/s: at t the heading is reached with curvature 2 psi / (v t).
    made = next_action({"plan": plan(np.full(33, 10.0), 0 * T, 0.05 * T ** 2, 0.02)}, Action(),
                       RULES["0.9"], 10.0, np.array([2.5, 0.5], np.float32))
    assert made.curvature == pytest.approx(2 * 0.05 * 2.5 ** 2 / (10 * 2.5) - 0.02 / 10)


def test_slow_speed_counts_as_one() -> None:
    made = next_action({"plan": plan(0 * T, 0 * T, 0.1 * T, 0.1)}, Action(), RULES["0.9"],
                       0.5, TIMES)
    assert made.curvature == pytest.approx(2 * 0.1 * 0.4 / (1 * 0.4) - 0.1)


def test_early_action_times_are_stabilised() -> None:
    speed = 10 + T ** 2
    times = np.array([0.15, 0.15], np.float32)
    made = next_action({"plan": plan(speed, 0 * T, T ** 2, 0.0)}, Action(),
                       RULES["0.11"], 10.0, times)
    at_limit = np.interp(0.3, T, T ** 2)
    acceleration = 2 * (0.15 / 0.3 * at_limit) / 0.15
    alpha = 1 - math.exp(-0.05 / 0.3)
    assert made.acceleration == pytest.approx(alpha * acceleration, rel=1e-6)
    assert made.curvature == pytest.approx(2 * (0.15 / 0.3 * at_limit) / (10 * 0.15), rel=1e-6)


def test_smoothing_starts_from_the_previous_action() -> None:
    previous = Action(curvature=0.02, acceleration=1.0)
    made = next_action({"plan": braking()}, previous, RULES["0.10"], 20.0, TIMES)
    assert made.curvature == pytest.approx(0.39347 * 0.01 + 0.60653 * 0.02, abs=1e-6)
    assert made.acceleration == pytest.approx(0.15352 * -1 + 0.84648 * 1, abs=1e-4)


@pytest.mark.parametrize("speed", [0.0, 0.3])
def test_curvature_is_held_at_low_speed(speed: float) -> None:
    previous = Action(curvature=0.07)
    made = next_action({"plan": braking()}, previous, RULES["0.11"], speed, TIMES)
    assert made.curvature == 0.07


def test_models_that_give_an_action() -> None:
    parsed = {"plan": braking(), "action": np.array([2.0, -0.5, 9.0, 9.0], np.float32)}
    rules = RULES["0.9"]
    assert next_action(parsed, Action(), rules, 20.0, TIMES).curvature == pytest.approx(2 / 400)
    assert next_action(parsed, Action(), rules, 0.5, TIMES).curvature == pytest.approx(2.0)
    assert next_action(parsed, Action(), rules, 20.0, TIMES).acceleration == pytest.approx(-0.5)


def test_curvature_output_is_used_directly() -> None:
    parsed = {"plan": braking(), "desired_curvature": np.array([0.033], np.float32)}
    assert next_action(parsed, Action(), RULES["direct"], 20, TIMES).curvature == pytest.approx(
        0.033)
    assert next_action(parsed, Action(), RULES["0.10"], 20, TIMES).curvature != pytest.approx(0.033)


def test_stop_by_plan() -> None:
    standing = plan(np.full(33, 0.04), 0 * T, 0 * T, 0.0)
    starting = plan(0.04 + 0.1 * T, 0.1 + 0 * T, 0 * T, 0.0)
    assert next_action({"plan": standing}, Action(), RULES["0.10"], 5.0, TIMES).should_stop
    assert not next_action({"plan": starting}, Action(), RULES["0.10"], 0.0, TIMES).should_stop


def test_stop_by_speed() -> None:
    slow = braking(0.2, 0.09)
    assert next_action({"plan": slow}, Action(), RULES["0.11"], 0.29, TIMES).should_stop
    assert not next_action({"plan": slow}, Action(), RULES["0.11"], 0.31, TIMES).should_stop
    # Not smoothed: a plan that wants to go is believed at once.
    going = braking(0.2, 0.11)
    assert not next_action({"plan": going}, Action(), RULES["0.11"], 0.29, TIMES).should_stop
