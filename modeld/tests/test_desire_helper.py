"""The lane change state machine, transition by transition."""
from __future__ import annotations

from dataclasses import replace

import pytest

from modeld.desire_helper import MIN_SPEED, Driver, LaneChange, update

DRIVING = Driver(v_ego=25.0, lateral_active=True)
LEFT = replace(DRIVING, left_blinker=True)
RIGHT = replace(DRIVING, right_blinker=True)
NUDGE_LEFT = replace(LEFT, steering_pressed=True, steering_torque=1.0)


def after(*drivers: Driver, probability: float = 0.5) -> LaneChange:
    change = LaneChange()
    for driver in drivers:
        change = update(change, driver, probability)
    return change


def test_minimum_speed_is_20_mph() -> None:
    assert pytest.approx(8.94, abs=0.001) == MIN_SPEED


def test_blinker_then_nudge_starts() -> None:
    waiting = after(DRIVING, LEFT)
    assert (waiting.state, waiting.direction) == ("preLaneChange", "left")
    assert waiting.desire().argmax() == 0
    changing = after(DRIVING, LEFT, NUDGE_LEFT)
    assert (changing.state, changing.direction) == ("laneChangeStarting", "left")
    assert changing.desire().argmax() == 3
    nudge_right = replace(RIGHT, steering_pressed=True, steering_torque=-1.0)
    assert after(DRIVING, RIGHT, nudge_right).desire().argmax() == 4


@pytest.mark.parametrize("driver", [
    replace(NUDGE_LEFT, steering_torque=-1.0), replace(NUDGE_LEFT, steering_pressed=False),
    replace(NUDGE_LEFT, left_blindspot=True)])
def test_no_start_without_a_free_and_wanted_side(driver: Driver) -> None:
    assert after(LEFT, driver).state == "preLaneChange"


def test_blind_spot_of_the_other_side_does_not_matter() -> None:
    assert after(LEFT, replace(NUDGE_LEFT, right_blindspot=True)).state == "laneChangeStarting"


@pytest.mark.parametrize("driver", [
    replace(LEFT, v_ego=8.9), replace(LEFT, lateral_active=False),
    replace(LEFT, right_blinker=True)])
def test_no_lane_change_begins(driver: Driver) -> None:
    assert after(DRIVING, driver).state == "off"


def test_blinker_must_be_newly_on() -> None:
    slow = replace(LEFT, v_ego=5.0)
    assert after(slow, LEFT).state == "off"  # was on before the car was fast enough
    assert after(slow, DRIVING, LEFT).state == "preLaneChange"


@pytest.mark.parametrize("driver", [DRIVING, replace(LEFT, v_ego=8.0)])
def test_waiting_ends(driver: Driver) -> None:
    assert after(LEFT, driver) == LaneChange(blinker_before=driver.one_blinker)


def test_change_of_mind_about_the_side() -> None:
    assert after(LEFT, RIGHT).direction == "right"


def test_end_of_a_lane_change() -> None:
    change = after(LEFT, NUDGE_LEFT)
    for _ in range(9):  # 0.45 s: too early to be over
        change = update(change, DRIVING, 0.0)
    assert change.state == "laneChangeStarting"
    unsure = update(change, DRIVING, 0.03)
    assert unsure.state == "laneChangeStarting"
    assert update(change, DRIVING, 0.01).state == "off"
    assert update(change, LEFT, 0.01).state == "preLaneChange"


def test_gives_up_after_ten_seconds() -> None:
    change = after(LEFT, NUDGE_LEFT)
    frames = 0
    while change.state == "laneChangeStarting":
        change = update(change, LEFT, 0.9)
        frames += 1
    assert 200 <= frames <= 203
    assert change.desire().argmax() == 0


def test_lateral_control_off_ends_everything() -> None:
    assert after(LEFT, NUDGE_LEFT, replace(NUDGE_LEFT, lateral_active=False)).state == "off"
