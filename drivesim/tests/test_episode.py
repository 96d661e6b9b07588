"""The training world: geometry against closed forms, determinism, truth against motion."""
from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from drivesim.camera import rotation
from drivesim.driver import speed_limits
from drivesim.episode import WIDE, EgoState, Episode, Frame, euler_of
from drivesim.grids import T_IDXS, X_IDXS
from drivesim.highway import Things
from drivesim.painter import FAR, TABLE_STEP, make_ground
from drivesim.road import Centreline, running_integral
from drivesim.traffic import ACCELERATION, HEADWAY, STANDSTILL, follow

SMALL = (64.0, 32.0, 114.0, 32.0, 6.0)  # a view for tests that look at the truth alone
NARROW = (512.0, 256.0, 910.0, 256.0, 47.6)


def plain(curvature: float = 0.0, view: tuple[float, ...] = SMALL) -> Episode:
    """A flat empty road of one curvature, seen straight through a clean lens."""
    episode = Episode(3, "clear", 10.0, "highway", (view,))
    stations = episode.road.line.stations
    heading = running_integral(np.full(len(stations), curvature))
    heading -= np.interp(0.0, stations, heading)
    line = Centreline(float(stations[0]), running_integral(np.cos(heading)),
                      running_integral(np.sin(heading)), heading, np.full(len(heading), curvature))
    nothing = Things(*(np.zeros(0, kind) for kind in ("f8",) * 6 + ("U9", "f8", "?")))
    episode.road = replace(episode.road, line=line, rise=np.zeros(len(stations)), things=nothing)
    episode.limits = speed_limits(episode.road)
    episode.looks = replace(
        episode.looks, residual=np.eye(3), noise=0.0, blend=0.0, jpeg=0, smear=0.0, texture=0.0,
        sun_power=0.0, veil=0.0, haze_distance=1e6, vignette=0.0, ambient=1.0, gain=1.0, height=1.2,
    )  # fmt: skip
    clear_traffic(episode)
    episode.painters = [episode._painter(view, 0)]
    return episode


def clear_traffic(episode: Episode) -> None:
    """Leave one vehicle, far behind."""
    traffic = episode.traffic
    for name in ("station", "offset", "wanted", "direction", "speed", "acceleration", "truck",
                 "size", "tint", "stops"):
        setattr(traffic, name, getattr(traffic, name)[:1].copy())
    traffic.station[0], traffic.direction[0], traffic.stops[0] = -500.0, 1.0, 1e9
    traffic.speed[0] = traffic.wanted[0] = 0.0


def luma(frame: Frame) -> np.ndarray:
    """The luma of the narrow picture, (256, 512)."""
    packed = frame.narrow.astype(float)
    picture = np.empty((2 * packed.shape[1], 2 * packed.shape[2]))
    for k in range(4):
        picture[k % 2 :: 2, k // 2 :: 2] = packed[k]
    return picture


def test_line_on_a_straight_road_lies_where_the_pinhole_says() -> None:
    episode = plain(view=NARROW)
    episode.paint[:, 3] = 0  # no paint but one line
    episode.paint[-1] = (255, 255, 255, 1, 0, 0, 0, 0)
    offset = episode.target.after + 1.0
    episode.ribbon[-1, :, 0], episode.ribbon[-1, :, 1] = offset, 0.1
    picture = luma(episode.observe(episode.start()))
    for row in (80, 120, 180, 240):
        away = 1.2 * 910 / (row - 47.6)  # m ahead at which this row meets the road
        bright = picture[row] - np.median(picture[row])
        bright[bright < 30] = 0
        seen = (bright * np.arange(512)).sum() / bright.sum()
        assert seen == pytest.approx(256 + 910 * 1.0 / away, abs=0.7)


def test_lead_has_the_width_of_its_distance() -> None:
    episode = plain(view=NARROW)
    ego = episode.start()
    before = luma(episode.observe(ego))
    traffic = episode.traffic
    traffic.station[0], traffic.offset[0] = 30.0, episode.target.after
    traffic.size[0], traffic.truck[0], traffic.tint[0] = (9.0, 2.5, 3.0), True, 1.3
    frame = episode.observe(ego)
    changed = np.abs(luma(frame) - before)[30] > 15  # a row through its body
    assert changed.sum() == pytest.approx(910 * 2.5 / 30.0 * 0.98, abs=2.5)
    assert frame.truth.lead_prob[0] == 1
    np.testing.assert_allclose(frame.truth.lead[0, 0, :2], (30.0, 0.0), atol=1e-3)


@pytest.mark.parametrize("radius", [-150.0, 400.0])
def test_plan_on_a_circle_is_the_circle(radius: float) -> None:
    episode = plain(1 / radius)
    frame = episode.observe(episode.start())
    own = radius - episode.target.after  # radius of our lane
    x, y, _ = frame.truth.plan[:, :3].T
    np.testing.assert_allclose(np.hypot(x, y - own), abs(own), rtol=1e-4)
    assert frame.truth.curvature == pytest.approx(1 / own, rel=1e-3)
    yaw_rate, speed = frame.truth.plan[:, 14], np.hypot(*frame.truth.plan[:, 3:5].T)
    np.testing.assert_allclose(yaw_rate / speed, 1 / own, rtol=1e-3)
    # The left line of our lane is a circle too; where it exists at that distance.
    left = frame.truth.lane_lines[1, :, 0]
    near = 0.6 * abs(own) > X_IDXS
    radius_of_line = own + episode.road.lane_width / 2
    expected = own - np.sign(own) * np.sqrt(radius_of_line**2 - X_IDXS[near] ** 2)
    np.testing.assert_allclose(left[near], expected, atol=0.02)


def test_rays_meet_hills_where_a_march_along_them_does() -> None:
    forward = np.arange(0, FAR, TABLE_STEP)
    below = 1.2 - 3.0 * np.sin(forward / 45.0) ** 2 + 0.01 * forward
    flat = np.zeros((len(forward), 5))
    ground = make_ground(1.2, below, flat, np.zeros((1, 2, 2)), np.zeros((1, 8)), 0.0, 2.0)
    offset = ground.camera_height / ground.far - ground.slope_end
    for slope in (0.3, 0.1, 0.03, 0.01):
        fine = np.arange(0.5, FAR - 1, 0.01)
        under = np.interp(fine, forward, below) <= slope * fine
        hit = float(np.interp(1 / (slope + offset) / ground.hit_step, np.arange(ground.hits),
                              ground.keep[0]))
        if under.any():
            assert hit == pytest.approx(fine[under.argmax()], abs=0.5)
        else:
            assert slope <= ground.slope_end


def test_a_seed_gives_the_same_bytes() -> None:
    def digest(seed: int) -> list[bytes]:
        return [f.narrow.tobytes() + f.wide.tobytes() + f.truth.plan.tobytes()
                for f in Episode(seed, "bad", 0.15).frames()]

    assert digest(7) == digest(7)
    assert digest(7) != digest(8)


@pytest.mark.parametrize("conditions", ["clear", "bad"])
def test_truth_is_finite_and_agrees_with_the_motion(conditions: str) -> None:
    for seed in range(4):
        frames = list(Episode(seed, conditions, 3.0, views=(SMALL,)).frames())
        for frame in frames:
            for field in fields(frame.truth):
                value = getattr(frame.truth, field.name)
                assert value.dtype == np.float32 and np.isfinite(value).all(), field.name
            assert (np.diff(frame.truth.lane_lines[:, 3, 0]) > 1).all()  # left to right
        turn = rotation(*frames[0].truth.road_transform[3:])
        x, y, heading = frames[0].ego.x, frames[0].ego.y, frames[0].ego.heading
        for frame in frames[:-1]:
            speed, rates = turn.T @ frame.truth.pose[:3], turn.T @ frame.truth.pose[3:]
            x += 0.05 * speed[0] * math.cos(heading + 0.025 * rates[2])
            y += 0.05 * speed[0] * math.sin(heading + 0.025 * rates[2])
            heading += 0.05 * rates[2]
        way = 3.0 * max(f.ego.speed for f in frames)
        assert math.hypot(x - frames[-1].ego.x, y - frames[-1].ego.y) < 0.01 * way + 0.1
        assert heading == pytest.approx(frames[-1].ego.heading, abs=0.01)


def test_following_the_truth_holds_the_lane_and_stops_behind_a_stopped_car() -> None:
    episode = plain(1 / 300)
    episode.traffic.station[0], episode.traffic.offset[0] = 150.0, episode.target.after
    ego, off = episode.start(), []
    ego = replace(ego, speed=20.0)
    for _ in range(320):
        truth = episode.observe(ego).truth
        speed = max(0.0, ego.speed + 0.05 * float(truth.acceleration))
        turn = float(truth.curvature) * ego.speed * 0.05
        ego = EgoState(ego.x + 0.05 * ego.speed * math.cos(ego.heading + turn / 2),
                       ego.y + 0.05 * ego.speed * math.sin(ego.heading + turn / 2),
                       ego.heading + turn, speed, float(truth.acceleration), float(truth.curvature))
        episode.advance(ego)
        off.append(episode.offset(ego)[2])
    station = episode.offset(ego)[0]
    assert max(map(abs, off)) < 0.2
    assert ego.speed < 0.5 and 140 < station < 148


def test_lane_change_is_planned_and_named() -> None:
    episode = plain()
    side = -1 if episode.lane else 1
    ego = episode.start()
    assert episode.command(side)
    frame = episode.observe(ego)
    assert frame.truth.plan[-1, 1] == pytest.approx(side * episode.road.lane_width, abs=0.02)
    assert frame.desire[3 if side < 0 else 4] == 1
    assert frame.truth.desire_pred[3, 0] == 1  # done after eight seconds


def test_driver_keeps_the_gap_of_the_model_in_equilibrium() -> None:
    speed, wanted = 20.0, 30.0
    gap = (STANDSTILL + speed * HEADWAY) / math.sqrt(1 - (speed / wanted) ** 4)
    assert follow(speed, wanted, gap, 0.0) == pytest.approx(0.0, abs=1e-9)
    assert follow(0.0, wanted, 1e9, 0.0) == pytest.approx(ACCELERATION)


def test_nv12_has_the_size_of_the_camera() -> None:
    episode = Episode(1, "clear", 1.0, views=((192.0, 120.0, 264.0, 96.0, 60.0), WIDE))
    assert episode.nv12(episode.start()).shape == (180, 192)


def test_euler_angles_come_back() -> None:
    assert euler_of(rotation(0.1, -0.2, 0.3)) == pytest.approx((0.1, -0.2, 0.3))


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="clear"):
        Episode(0, "sunny")


def test_plan_starts_here_and_samples_the_right_times() -> None:
    frame = plain().observe(plain().start())
    np.testing.assert_allclose(frame.truth.plan[0, :3], 0, atol=1e-4)
    speed = frame.truth.plan[:, 3]
    steps = np.diff(T_IDXS) * 0.5 * (speed[1:] + speed[:-1])
    np.testing.assert_allclose(frame.truth.plan[-1, 0], steps.sum(), rtol=2e-3)


def test_every_fourth_frame_is_the_same_drive() -> None:
    def drive() -> Episode:
        return Episode(5, "random", 0.6, views=(SMALL,))

    every, fourth = list(drive().frames()), list(drive().frames(every=4))
    assert [f.ego for f in every[::4]] == [f.ego for f in fourth]


def test_traffic_may_be_given() -> None:
    episode = Episode(5, "clear", 1.0, views=(SMALL,), traffic=[])
    assert episode.observe(episode.start()).truth.lead_prob[0] == 0
    rows = [(60.0, episode.target.after, 0.0, 1.0)]
    episode = Episode(5, "clear", 1.0, views=(SMALL,), traffic=rows)
    assert episode.observe(episode.start()).truth.lead[0, 0, 0] == pytest.approx(60, abs=1.5)


def test_a_winding_road_is_mostly_curved() -> None:
    shares = {}
    for winding in (False, True):
        roads = [Episode(seed, "clear", 5.0, "highway", winding=winding).road for seed in range(6)]
        bends = np.concatenate([np.abs(road.line.curvature_at(np.arange(0, 300, 5.0)))
                                for road in roads])
        shares[winding] = float(np.mean(bends > 1e-5))
        assert bends.max() <= 1 / 450
    assert shares[True] > 0.6 > 0.4 > shares[False]


def test_who_is_pressed_brakes_and_touches_nobody() -> None:
    hardest, slowest = [], []
    for seed in range(16):
        episode = Episode(seed, "clear", 6.0, views=(SMALL,), pressing=True)
        pulls = []
        for frame in episode.frames(every=2):
            station, _, _ = episode.offset(frame.ego)
            assert episode.traffic.station[-1] - station > 2.5  # our nose is 2 m before our camera
            pulls.append(float(frame.truth.acceleration))
        hardest.append(min(pulls))
        slowest.append(frame.ego.speed)
    assert np.median(hardest) < -1.5 and min(hardest) > -6.1
    assert min(slowest) < 5 < 15 < max(slowest)
