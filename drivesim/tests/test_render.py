"""Pictures against the truth: what the truth says is paint must be paint in the picture."""
import dataclasses

import numpy as np
import pytest

from drivesim.camera import Camera, comma_camera
from drivesim.grids import X_IDXS
from drivesim.render import Renderer, covered_pixels, dashes
from drivesim.road import Profile
from drivesim.truth import drive_truth, frame_times, to_frame
from drivesim.world import World, make_world

Scene = tuple[World, dict[str, np.ndarray], int]
CAMERA = comma_camera(964, 604, False, (0.0, 0.02, -0.01))
WIDE = comma_camera(964, 604, True, (0.0, 0.02, -0.01))
TIMES = frame_times(12.0)


def empty_road(seed: int) -> World:
    """A world without trees, posts and traffic, so that nothing hides the paint."""
    world = make_world(seed, 12.0)
    lead = dataclasses.replace(world.lead, station=world.lead.station + 10_000)
    road = world.road
    assert road.stations[-1] > 12 * 30 + 420
    return dataclasses.replace(world, things=(), lead=lead)


@pytest.fixture(scope="module", params=[0, 3])
def scene(request: pytest.FixtureRequest) -> Scene:
    """A world, its truth, and its frame with the sharpest curve under the car."""
    world = empty_road(request.param)
    truth = drive_truth(world, TIMES, CAMERA.mount_height)
    sharpest = int(np.argmax(np.abs(truth["curvature"])))
    assert abs(truth["curvature"][sharpest]) > 1 / 1500
    return world, truth, sharpest


def brightness(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Green along a row of places (u, v), bilinear."""
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    fu, fv = u - u0, v - v0
    green = image[..., 1].astype(float)
    upper = green[v0, u0] * (1 - fu) + green[v0, u0 + 1] * fu
    lower = green[v0 + 1, u0] * (1 - fu) + green[v0 + 1, u0 + 1] * fu
    return upper * (1 - fv) + lower * fv


def paint_offset(image: np.ndarray, camera: Camera, x: float, y: float) -> float | None:
    """How many pixels beside the projection of the road point (x, y) the paint is centred.

    None if the place is not well inside the picture, or no paint is there (between dashes).
    """
    (u, v), _ = camera.project(np.array([x, y, camera.mount_height]))
    reach = max(5.0, 0.45 * camera.focal / x)  # 0.45 m of road to both sides
    if not (reach + 2 < u < camera.width - reach - 2 and 2 < v < camera.height - 3):
        return None
    places = np.linspace(u - reach, u + reach, 81)
    profile = brightness(image, places, np.full(81, v))
    excess = profile - np.median(profile)
    if excess.max() < 35:
        return None
    weight = np.where(excess > 0.5 * excess.max(), excess, 0.0)
    return float((places * weight).sum() / weight.sum() - u)


@pytest.mark.parametrize(("camera", "reach"), [(CAMERA, 60.0), (WIDE, 16.0)])
def test_lane_lines_of_the_truth_are_painted(scene: Scene, camera: Camera, reach: float) -> None:
    world, truth, sharpest = scene
    renderer = Renderer(world, camera)
    solid: list[float | None] = []
    dashed: list[float | None] = []
    outer = {world.profile.boundaries[0], world.profile.boundaries[-1]}
    for frame in (0, sharpest, 200):
        image = renderer.frame(TIMES[frame])
        for k in range(4):
            index = world.lane - 1 + k
            if not 0 <= index < len(world.profile.boundaries):
                continue
            y = truth["lane_lines"][frame, k, :, 0]
            for x in np.arange(4.0, reach, 0.9):
                offset = paint_offset(image, camera, x, np.interp(x, X_IDXS, y))
                kind = solid if world.profile.boundaries[index] in outer else dashed
                kind.append(offset)
    found = [o for o in solid + dashed if o is not None]
    assert np.abs(found).max() < 1.5
    assert abs(np.mean(found)) < 0.2  # no bias
    # Near solid lines are beside the narrow picture; a quarter of a dashed line is painted.
    assert sum(o is not None for o in solid) > 0.4 * len(solid)
    assert sum(o is not None for o in dashed) > 0.1 * len(dashed)
    assert len(found) > 40


def test_the_asphalt_ends_at_the_road_edge(scene: Scene) -> None:
    world, truth, sharpest = scene
    renderer = Renderer(world, CAMERA)
    checked = 0
    for frame in (0, sharpest):
        image = renderer.frame(TIMES[frame])
        for side, edge in enumerate(truth["road_edges"][frame, :, :, 0]):
            outward = 2 * side - 1
            for x in np.arange(18.0, 60.0, 3.0):
                y = float(np.interp(x, X_IDXS, edge))
                ends = np.array([[x, y - outward * 0.4, 1.22], [x, y + outward * 0.4, 1.22]])
                pixels, _ = CAMERA.project(np.array([[x, y, 1.22]]))
                (u, v), reach = pixels[0], 0.4 * CAMERA.focal / x
                if not (reach + 3 < u < CAMERA.width - reach - 3 and v < CAMERA.height - 3):
                    continue
                (inside, outside), _ = CAMERA.project(ends)
                places = np.linspace(inside[0], outside[0], 121)
                profile = brightness(image, places, np.full(121, v))
                middle = (profile[:30].mean() + profile[-30:].mean()) / 2
                crossing = places[int(np.argmax(profile > middle))]
                assert profile[-30:].mean() - profile[:30].mean() > 12  # gravel is lighter
                assert abs(crossing - u) < 2.0
                checked += 1
    assert checked > 15


def test_road_coordinates_agree_with_the_nearest_sample(scene: Scene) -> None:
    world, _, sharpest = scene
    t = float(TIMES[sharpest])
    renderer = Renderer(world, CAMERA)
    along, across, _, _ = renderer.road_coordinates(t)
    origin = world.ego.position(np.array([t]))[0]
    heading = float(world.ego.heading(np.array([t]))[0])
    fine = np.arange(world.ego.along(np.array([t]))[0] - 5, 420.0 + 12 * 30, 0.02)
    line = to_frame(world.road.point(fine), origin, heading)
    chosen = np.random.RandomState(0).choice(np.flatnonzero(renderer.forward < 120), 60)
    for i in chosen:
        away = np.hypot(line[:, 0] - renderer.forward[i], line[:, 1] - renderer.right[i])
        nearest = int(np.argmin(away))
        assert abs(across[i]) == pytest.approx(away[nearest], abs=0.02)
        assert along[i] == pytest.approx(fine[nearest], abs=0.05)


def test_the_car_ahead_is_where_the_truth_says() -> None:
    world = make_world(0, 12.0)
    truth = drive_truth(world, TIMES, CAMERA.mount_height)
    renderer = Renderer(world, CAMERA)
    for frame in (0, 120):
        image = renderer.frame(TIMES[frame]).astype(int)
        x, y = truth["lead"][frame, 0, :2]
        (u, v), _ = CAMERA.project(np.array([x, y, CAMERA.mount_height - 0.75]))
        half = 0.9 * CAMERA.focal / x
        row = image[round(v)]
        red = np.flatnonzero(row[:, 0] - row[:, 1] > 60)
        assert abs(red.mean() - u) < 2.0
        assert red.min() == pytest.approx(u - half, abs=3)
        assert red.max() == pytest.approx(u + half, abs=3)


def test_sky_is_above_the_horizon_and_ground_below() -> None:
    world = empty_road(0)
    image = Renderer(world, CAMERA).frame(0.0).astype(int)
    (_, horizon), _ = CAMERA.project(np.array([1.0, 0.0, 0.0]))
    sky, road = image[20 : int(horizon) - 40], image[int(horizon) + 100 :, 300:660]
    assert (sky[..., 2] >= sky[..., 0]).mean() > 0.95  # blue or white
    assert np.ptp(road.mean(axis=(0, 1))) < 12  # grey
    assert sky.mean() > road.mean() + 30


def test_equal_worlds_give_equal_pictures_and_other_seeds_others() -> None:
    camera = comma_camera(200, 120, False, (0.0, 0.02, -0.01))
    one, same, other = (Renderer(make_world(seed, 2.0), camera).frame(1.0) for seed in (4, 4, 5))
    assert one.dtype == np.uint8 and one.shape == (120, 200, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_frames_do_not_depend_on_their_order() -> None:
    camera = comma_camera(200, 120, False, (0.0, 0.02, -0.01))
    renderer = Renderer(make_world(4, 2.0), camera)
    first = renderer.frame(0.5)
    renderer.frame(1.5)
    assert np.array_equal(first, renderer.frame(0.5))


def test_dashes_cover_their_share() -> None:
    profile = Profile(lanes=2)  # 3 m of paint every 12 m
    s = np.array([1.5, 7.0, 3.0, 13.0, 600.0], np.float32)
    sharp = np.full(5, 0.01, np.float32)
    assert dashes(s, sharp, profile) == pytest.approx([1, 0, 0.5, 1, 0.5], abs=0.01)
    assert dashes(s, np.full(5, 12.0, np.float32), profile) == pytest.approx(0.25, abs=1e-5)


def test_covered_pixels_share_their_borders() -> None:
    pixels, cover = covered_pixels(2.0, 3.25, 100)
    assert pixels.tolist() == [2, 3, 4, 5]
    assert cover == pytest.approx([0.5, 1, 1, 0.75])
    assert covered_pixels(-3.0, 4.0, 100)[0].tolist() == [0, 1]
    assert not len(covered_pixels(120.0, 4.0, 100)[0])
