"""The closed loop driven by the truth: the loop itself must hold a lane and stop behind a car."""

from dataclasses import replace

import numpy as np
import pytest

from drivesim.episode import EgoState, Episode
from modeld.action import Action
from modeld.warp import luma_phases
from selfdrive_tests.sim import Car, Outcome, PerfectPlanner, drive_by, picture


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


def test_a_packed_picture_unpacks_to_the_picture_it_was() -> None:
    random = np.random.RandomState(0)
    luma = random.randint(0, 256, (256, 512)).astype(np.uint8)
    chroma = random.randint(0, 256, (2, 128, 256)).astype(np.uint8)
    unpacked = picture(np.concatenate([luma_phases(luma), chroma]), 0)
    assert np.array_equal(unpacked.luma, luma)
    assert np.array_equal(unpacked.chroma[..., 1], chroma[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_holds_the_lane(seed: int) -> None:
    outcome = Outcome()
    for moment in drive_by(Episode(seed, "clear", 10.0), PerfectPlanner(), 200):
        outcome.add(moment)
    assert outcome.metres > 50
    assert outcome.departures == 0
    assert outcome.most_offset < 0.6


def test_the_truth_stops_behind_a_stopped_car_from_25_m_s() -> None:
    episode = Episode(1, "clear", 30.0, kind="highway")
    start = replace(episode.start(), speed=25.0)
    traffic = episode.traffic
    lead = traffic.ahead(0.0, episode.target.after)
    assert lead >= 0
    traffic.station[lead], traffic.wanted[lead], traffic.speed[lead] = 160.0, 0.0, 0.0
    outcome = Outcome()
    for moment in drive_by(episode, PerfectPlanner(), 500, start):
        outcome.add(moment)
        assert episode.offset(moment.ego)[0] < traffic.station[lead]
    assert moment.ego.speed < 0.5
    assert outcome.hardest_braking >= -4.001
