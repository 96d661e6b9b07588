"""Road geometry and ground truth against brute force and against integrating the car's motion."""
import numpy as np
import pytest

from drivesim.grids import LEAD_T_IDXS, T_IDXS, X_IDXS
from drivesim.road import STEP, TIGHTEST, Profile
from drivesim.truth import drive_truth, frame_times
from drivesim.world import World, make_world

Truth = dict[str, np.ndarray]
HEIGHT = 1.22
SEEDS = (0, 1, 5)


@pytest.fixture(scope="module", params=SEEDS)
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param, 12.0)


@pytest.fixture(scope="module")
def truth(world: World) -> Truth:
    return drive_truth(world, frame_times(12.0), HEIGHT)


def test_grids_are_those_of_the_models() -> None:
    assert T_IDXS[[1, 16, 32]] == pytest.approx([0.009765625, 2.5, 10.0], abs=0)
    assert X_IDXS[[1, 16, 32]] == pytest.approx([0.1875, 48.0, 192.0], abs=0)
    assert len(T_IDXS) == len(X_IDXS) == 33
    assert list(LEAD_T_IDXS) == [0, 2, 4, 6, 8, 10]


def test_curvature_is_continuous_and_bounded(world: World) -> None:
    curvature = world.road.curvature
    assert np.abs(curvature).max() <= TIGHTEST
    assert np.abs(curvature).max() > 0.4 * TIGHTEST  # there are curves
    # The shortest clothoid is 60 m long.
    assert np.abs(np.diff(curvature)).max() <= TIGHTEST / 60 * STEP * 1.001


def test_samples_are_equally_spaced_and_turn_by_the_curvature(world: World) -> None:
    road = world.road
    steps = np.hypot(np.diff(road.x), np.diff(road.y))
    assert steps == pytest.approx(STEP, abs=1e-7)
    directions = np.unwrap(np.arctan2(np.diff(road.y), np.diff(road.x)))
    assert np.diff(directions) / STEP == pytest.approx(road.curvature[1:-1], abs=1e-5)


def test_offset_points_lie_to_the_right(world: World) -> None:
    s = np.array([10.0, 200.0, 500.0])
    across = world.road.point(s, 2.0) - world.road.point(s)
    heading = world.road.heading_at(s)
    assert np.hypot(*across.T) == pytest.approx(2.0)
    forward = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    turn = forward[:, 0] * across[:, 1] - forward[:, 1] * across[:, 0]
    assert turn == pytest.approx(2.0)  # clockwise with y to the east


def test_profile_of_two_lanes() -> None:
    profile = Profile(lanes=2)
    assert profile.boundaries == [-3.6, 0.0, 3.6]
    assert profile.lane_centre(1) == pytest.approx(1.8)
    assert profile.edges == pytest.approx((-4.6, 6.0))


def integrate(truth: Truth, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Position and yaw at each frame from `first` on, from speed and yaw rate by trapezoids."""
    speed, yaw_rate, times = (truth[k][first:] for k in ("speed", "yaw_rate", "time"))
    dt = np.diff(times)
    yaw = np.concatenate([[0.0], np.cumsum(dt * (yaw_rate[1:] + yaw_rate[:-1]) / 2)])
    north, east = speed * np.cos(yaw), speed * np.sin(yaw)
    x = np.concatenate([[0.0], np.cumsum(dt * (north[1:] + north[:-1]) / 2)])
    y = np.concatenate([[0.0], np.cumsum(dt * (east[1:] + east[:-1]) / 2)])
    return times - times[0], x, y, yaw


@pytest.mark.parametrize("first", [0, 30])
def test_path_is_the_integral_of_speed_and_yaw_rate(truth: Truth, first: int) -> None:
    times, x, y, yaw = integrate(truth, first)
    path = truth["path_position"][first]
    assert np.interp(T_IDXS, times, x) == pytest.approx(path[:, 0], abs=0.03)
    assert np.interp(T_IDXS, times, y) == pytest.approx(path[:, 1], abs=0.03)
    assert np.interp(T_IDXS, times, yaw) == pytest.approx(
        truth["path_orientation"][first, :, 2], abs=1e-3)
    assert not path[:, 2].any()  # the path is at the height of the camera


def test_path_starts_here_and_points_ahead(truth: Truth) -> None:
    assert not truth["path_position"][:, 0].any()
    assert truth["path_velocity"][:, 0, 0] == pytest.approx(truth["speed"])
    assert truth["path_velocity"][:, 0, 1] == pytest.approx(0.0, abs=1e-9)
    assert truth["curvature"] * truth["speed"] == pytest.approx(truth["yaw_rate"])
    assert (truth["speed"] > 15).all() and (truth["speed"] < 32).all()


def nearest_offset(world: World, point: np.ndarray) -> float:
    """Signed distance of a world point from the centreline by trying every sample."""
    road = world.road
    away = point - np.stack([road.x, road.y], axis=1)
    i = int(np.argmin((away**2).sum(axis=1)))
    return -away[i, 0] * np.sin(road.heading[i]) + away[i, 1] * np.cos(road.heading[i])


@pytest.mark.parametrize("frame", [0, 100, 239])
def test_lines_lie_where_the_road_has_them(world: World, truth: Truth, frame: int) -> None:
    heading, origin = truth["heading"][frame], truth["position"][frame]
    forward = np.array([np.cos(heading), np.sin(heading)])
    right = np.array([-np.sin(heading), np.cos(heading)])
    boundaries = world.profile.boundaries
    offsets = [boundaries[i] if 0 <= i < len(boundaries) else None
               for i in range(world.lane - 1, world.lane + 3)]
    lines = [*zip(offsets, truth["lane_lines"][frame], strict=True),
             *zip(world.profile.edges, truth["road_edges"][frame], strict=True)]
    assert truth["lane_line_probs"][frame].tolist() == [float(o is not None) for o in offsets]
    for offset, line in lines:
        if offset is None:
            assert np.isnan(line[:, 0]).all()
            continue
        assert (line[:, 1] == HEIGHT).all()
        for x, y in zip(X_IDXS, line[:, 0], strict=True):
            point = origin + x * forward + y * right
            assert nearest_offset(world, point) == pytest.approx(offset, abs=0.002)


def test_ego_drives_between_its_lines(truth: Truth) -> None:
    left, right = truth["lane_lines"][:, 1, 0, 0], truth["lane_lines"][:, 2, 0, 0]
    assert (left < -1.3).all() and (right > 1.3).all()
    assert right - left == pytest.approx(3.6, abs=0.05)


def test_lead_drives_ahead_in_the_same_lane(world: World, truth: Truth) -> None:
    lead = truth["lead"]
    assert (lead[:, 0, 0] > 15).all() and (lead[:, 0, 0] < 90).all()
    # Two seconds of the lead's own speed lie between its places, seen in one frame.
    moved = np.hypot(*(lead[:, 1, :2] - lead[:, 0, :2]).T)
    assert moved == pytest.approx((lead[:, 0, 2] + lead[:, 1, 2]), abs=0.6)
    assert np.diff(lead[:, 0, 2]) * 20 == pytest.approx(lead[1:, 0, 3], abs=0.05)
