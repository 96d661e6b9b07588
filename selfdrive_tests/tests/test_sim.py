"""The closed loop driven by the truth: the loop itself must hold a lane and stop behind a car."""

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from drivesim.episode import NARROW, WIDE, EgoState, Episode, Frame
from drivesim.recorded import as_text, comma2k19, parse
from drivesim.traffic import Traffic
from modeld.action import Action
from modeld.cameras import MEDMODEL, SBIGMODEL
from modeld.warp import luma_phases, prepare_warp, unpacked, warp_matrix
from selfdrive_tests.closed_loop import (
    LOST,
    NEEDLESS,
    TOUCHED,
    Car,
    Outcome,
    PerfectDriver,
    drive_by,
    set_speed_at,
)

# The truth needs no pictures: one view of a few pixels is drawn.
TINY = ((64, 32, 114.0, 32.0, 6.0),)


def test_a_car_with_constant_curvature_drives_a_circle() -> None:
    radius, speed = 100.0, 10.0
    car = Car(EgoState(0.0, 0.0, 0.0, speed, 0.0, 1 / radius))
    for _ in range(600):
        ego = car.follow(Action(1 / radius, 0.0))
        assert np.hypot(ego.x, ego.y - radius) == pytest.approx(radius, abs=1e-3)
    assert ego.heading == pytest.approx(speed * 30 / radius)


def test_steering_answers_late_and_acceleration_stays_within_its_limits() -> None:
    car = Car(EgoState(0.0, 0.0, 0.0, 20.0))
    curvatures = [car.follow(Action(0.005, -9.0)).curvature for _ in range(40)]
    assert curvatures[1] == 0 < curvatures[2]
    assert curvatures[-1] == pytest.approx(0.005, rel=1e-3)
    assert car.ego.acceleration == pytest.approx(-4, abs=1e-3)


def test_cruise_control_does_not_exceed_the_set_speed() -> None:
    car = Car(EgoState(0.0, 0.0, 0.0, 15.0))
    speeds = [car.follow(Action(0.0, 2.0), set_speed=20.0).speed for _ in range(400)]
    assert max(speeds) <= 20.0
    assert speeds[-1] == pytest.approx(20.0, abs=0.05)


def test_a_packed_picture_unpacks_to_the_picture_it_was() -> None:
    random = np.random.RandomState(0)
    luma = random.randint(0, 256, (256, 512)).astype(np.uint8)
    chroma = random.randint(0, 256, (2, 128, 256)).astype(np.uint8)
    there = unpacked(np.concatenate([luma_phases(luma), chroma]))
    assert np.array_equal(there[0], luma)
    assert np.array_equal(there[1][..., 1], chroma[1])


def test_the_views_of_the_world_are_those_of_modeld() -> None:
    """The daemon's warp must leave the world's pictures as they are."""
    for view, model in ((NARROW, MEDMODEL), (WIDE, SBIGMODEL)):
        assert view == (512, 256, model.focal_px, model.cx, model.cy)
        warp = prepare_warp(warp_matrix((0.0, 0.0, 0.0), model, model), 256, 512)
        random = np.random.RandomState(1)
        packed = random.randint(0, 256, (6, 128, 256)).astype(np.uint8)
        assert np.array_equal(warp.pack(*unpacked(packed)), packed)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_holds_the_lane(seed: int) -> None:
    episode = Episode(seed, "clear", 10.0, views=TINY)
    outcome = Outcome(episode.road.lane_width)
    for moment in islice(drive_by(episode, PerfectDriver()), 200):
        outcome.add(moment)
        assert moment.help == ""
    assert outcome.metres > 50
    assert outcome.departures == []
    assert outcome.most_offset < 0.6


def standing_car(seed: int, station: float) -> Episode:
    """A highway with one car, which stands in our lane."""
    episode = Episode(seed, "clear", 30.0, kind="highway", traffic=[], views=TINY)
    row = (station, episode.target.after, 0.0, 1.0)
    episode.traffic = Traffic(np.random.RandomState(seed), [row])
    return episode


def test_the_truth_stops_behind_a_stopped_car_from_25_m_s() -> None:
    episode = standing_car(1, 160.0)
    outcome = Outcome(episode.road.lane_width)
    start = replace(episode.start(), speed=25.0)
    for moment in islice(drive_by(episode, PerfectDriver(), start, 25.0), 500):
        outcome.add(moment)
    assert moment.ego.speed < 0.5
    assert outcome.gap is not None and 0 < outcome.gap < 12
    assert outcome.touched == []
    assert outcome.hardest_braking >= -4.001


def reckless(curvature: float, acceleration: float):  # type: ignore[no-untyped-def]
    """A driver that always asks for the same."""
    def drive(frame: Frame) -> Action:
        return Action(curvature, acceleration)
    return drive


def test_a_driver_that_turns_off_the_road_is_put_back_and_counted() -> None:
    episode = Episode(3, "clear", 30.0, kind="highway", traffic=[], views=TINY)
    outcome = Outcome(episode.road.lane_width)
    moments = list(islice(drive_by(episode, reckless(0.004, 0.0)), 400))
    for moment in moments:
        outcome.add(moment)
    helped = [i for i, moment in enumerate(moments) if moment.help == LOST]
    assert 1 < len(helped) <= len(outcome.departures) <= len(helped) + 1
    assert abs(moments[helped[0] + 1].offset) < 0.1
    assert outcome.over_line > 0


def test_a_driver_that_does_not_brake_touches_the_car_ahead_once() -> None:
    episode = standing_car(4, 100.0)
    outcome = Outcome(episode.road.lane_width)
    start = replace(episode.start(), speed=20.0)
    for moment in islice(drive_by(episode, PerfectSteering(), start), 200):
        outcome.add(moment)
    assert len(outcome.touched) == 1
    assert outcome.touched[0] == pytest.approx(98.0, abs=1.5)


class PerfectSteering(PerfectDriver):
    """Steers as the truth does, and never brakes."""

    def __call__(self, frame: Frame) -> Action:
        return replace(super().__call__(frame), acceleration=0.0, should_stop=False)


def test_a_driver_that_stands_without_a_reason_is_set_off() -> None:
    episode = Episode(5, "clear", 30.0, kind="highway", traffic=[], views=TINY)
    outcome = Outcome(episode.road.lane_width)
    moments = list(islice(drive_by(episode, reckless(0.0, -3.0)), 400))
    for moment in moments:
        outcome.add(moment)
    assert outcome.needless_stops
    helped = next(i for i, moment in enumerate(moments) if moment.help == NEEDLESS)
    assert moments[helped + 1].ego.speed > 3


def test_no_vehicle_means_no_gap() -> None:
    episode = Episode(5, "clear", 30.0, kind="highway", traffic=[], views=TINY)
    (moment,) = islice(drive_by(episode, PerfectDriver()), 1)
    assert moment.gap == math.inf
    assert moment.help != TOUCHED


def test_a_recorded_drive_is_driven_as_it_was() -> None:
    """Where comma2k19 drove, and about as fast once its hard start is caught up with."""
    recorded = comma2k19()
    episode = Episode(6, "clear", 20.0, "highway", TINY, [], recorded)
    stations = np.array([100.0, 300.0, 900.0])
    curvature = np.interp(stations, recorded.stations, recorded.curvature)
    assert episode.road.line.curvature_at(stations) == pytest.approx(curvature, abs=1e-5)
    assert set_speed_at(episode, 305.0) == pytest.approx(18.8, abs=0.1)
    moments = list(islice(drive_by(episode, PerfectDriver()), 900))
    assert moments[-1].station > 600
    for moment in moments:
        there = np.interp(moment.station, recorded.stations, recorded.speed)
        assert moment.ego.speed < there + 2.0
        assert moment.ego.speed > there - 2.0 or moment.station < 200
    assert max(abs(moment.offset) for moment in moments) < 0.3


def test_a_recorded_drive_comes_again_with_its_sides_exchanged() -> None:
    recorded = comma2k19()
    length = recorded.stations[-1]
    assert recorded.curvature_at(np.array([length + 150.0])) == pytest.approx(
        -recorded.curvature_at(np.array([150.0])))
    assert parse(as_text(recorded)).speed == pytest.approx(recorded.speed)
    with pytest.raises(ValueError, match="begins with the line"):
        parse("no table")
