"""The overlay's projection against numbers worked out by hand, its clipping, and what it draws."""

from typing import Any

import numpy as np
import pytest

from selfdrive_tests.drives import Calibration, Camera
from selfdrive_tests.overlay import (
    LANE_COLOR,
    Panel,
    Projection,
    clip,
    draw,
    panel_rows,
    ribbon,
)
from selfdrive_tests.plans import Lead, Plan

NEO = Camera(1164, 874, 910.0, (582.0, 437.0))
Angles = tuple[float, float, float]
STRAIGHT: Angles = (0.0, 0.0, 0.0)
HEIGHT = 1.22
PANEL = Panel(40, 2.0, 20.0, "driving_supercombo")


def pixel(camera: Camera, rpy: Angles, point: Angles) -> np.ndarray:
    projection = Projection(camera, rpy)
    return projection.pixels(projection.view(np.array([point], np.float64)))[0]


def plan(**changes: Any) -> Plan:
    x = 192 * (np.arange(33) / 32) ** 2
    zero = np.zeros(33)

    def line(y: float) -> np.ndarray:
        return np.stack([x, zero + y, zero + HEIGHT], axis=-1).astype(np.float32)

    values: dict[str, Any] = {
        "frame_id": 40,
        "valid": True,
        "execution_s": 0.02,
        "drop_percent": 0.0,
        "position": np.stack([x, zero, zero], axis=-1).astype(np.float32),
        "lane_lines": tuple(line(y) for y in (-5.5, -1.8, 1.8, 5.5)),
        "lane_probabilities": (0.0, 1.0, 1.0, 0.0),
        "road_edges": (),
        "leads": (),
        "curvature": 0.001,
        "acceleration": 0.5,
        "should_stop": False,
        "confidence": "green",
    }
    return Plan(**(values | changes))


def test_road_point_straight_ahead() -> None:
    # 20 m ahead on the road: 910 * 1.22 / 20 = 55.51 pixels below the centre.
    assert pixel(NEO, STRAIGHT, (20.0, 0.0, HEIGHT)) == pytest.approx((582.0, 492.51))
    # 2 m to the right of it: 910 * 2 / 20 = 91 pixels.
    assert pixel(NEO, STRAIGHT, (20.0, 2.0, HEIGHT)) == pytest.approx((673.0, 492.51))


def test_pitch_and_yaw_turn_the_device() -> None:
    # A nose-up device sees the horizon lower: 910 * tan(0.02) below the centre.
    assert pixel(NEO, (0.0, 0.02, 0.0), (1e6, 0.0, 0.0)) == pytest.approx(
        (582.0, 437.0 - 910 * np.tan(0.02)), abs=1e-6
    )
    # A device that looks to the right by 0.03 sees what is straight ahead to its left.
    assert pixel(NEO, (0.0, 0.0, -0.03), (1e6, 0.0, 0.0)) == pytest.approx(
        (582.0 + 910 * np.tan(-0.03), 437.0), abs=1e-6
    )


@pytest.mark.parametrize(
    ("camera", "rpy", "focal", "center", "matrix"),
    [
        # Published warp matrices, model pixel -> camera pixel.
        (
            Camera(1928, 1208, 2648.0, (964.0, 604.0)),
            (0.0, 0.02, -0.01),
            910.0,
            (256.0, 47.6),
            [
                [2.9203379, 0.020602413, 188.69759],
                [0.0066372519, 2.9225814, 410.07852],
                [1.0988828e-5, 2.1975458e-5, 0.99589086],
            ],
        ),
        (
            Camera(1344, 760, 1141.5, (672.0, 380.0)),
            (0.005, -0.03, 0.04),
            910.0,
            (256.0, 47.6),
            [
                [1.2237282, -0.02975644, 404.92963],
                [-0.010492082, 1.2413836, 357.36118],
                [-4.4108452e-5, -3.271559e-5, 1.0115995],
            ],
        ),
    ],
)
def test_projection_agrees_with_the_warp_tables(
    camera: Camera,
    rpy: Angles,
    focal: float,
    center: tuple[float, float],
    matrix: list[list[float]],
) -> None:
    for column, row in [(0, 0), (511, 255), (300, 40)]:
        across, down = (column - center[0]) / focal, (row - center[1]) / focal
        warped = np.array(matrix) @ (column, row, 1)
        found = pixel(camera, rpy, (1.0, across, down))
        assert found == pytest.approx(warped[:2] / warped[2], abs=2e-3)


def test_clip_cuts_a_square_in_half() -> None:
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    half = clip(square, square[:, 0] - 1)
    assert sorted(map(tuple, half)) == [(1.0, 0.0), (1.0, 2.0), (2.0, 0.0), (2.0, 2.0)]
    assert len(clip(square, square[:, 0] - 3)) == 0
    assert clip(square, square[:, 0] + 1) is square


def test_outlines_stay_within_the_picture_whatever_the_points() -> None:
    rng = np.random.default_rng(1)
    quads = rng.normal(0, 1, (500, 4, 3)) * 10.0 ** rng.uniform(-3, 6, (500, 1, 1))
    outlines = Projection(NEO, (0.01, 0.1, -0.2)).polygons(quads)
    drawn = [outline for outline in outlines if len(outline)]
    assert len(drawn) > 50
    for outline in drawn:
        assert np.isfinite(outline).all()
        assert outline.min() >= -1e-6
        assert (outline.max(axis=0) <= np.array([1164, 874]) + 1e-6).all()


def test_points_behind_the_camera_are_not_mirrored_before_it() -> None:
    behind = np.array([[[-20.0, 0, 1.2], [-10.0, 0, 1.2], [-10.0, 1, 1.2], [-20.0, 1, 1.2]]])
    (outline,) = Projection(NEO, STRAIGHT).polygons(behind)
    assert len(outline) == 0


def test_ribbon_keeps_its_width_in_a_curve() -> None:
    angle = np.linspace(0, np.pi / 2, 30)
    arc = np.stack([50 * np.sin(angle), 50 * (1 - np.cos(angle)), 0 * angle], axis=-1)
    quads = ribbon(arc, 0.9)
    near_left, far_left, far_right, near_right = quads.transpose(1, 0, 2)
    # Both edges are arcs about (0, 50): the left one outside, the right one inside.
    for left, right in [(near_left, near_right), (far_left, far_right)]:
        distances = [np.hypot(edge[1:-1, 0], edge[1:-1, 1] - 50) for edge in (left, right)]
        assert distances[0] == pytest.approx(50.9, abs=0.02)
        assert distances[1] == pytest.approx(49.1, abs=0.02)


def test_ribbon_leaves_out_what_is_not_finite() -> None:
    line = np.stack([np.arange(10.0), np.zeros(10), np.zeros(10)], axis=-1)
    line[5, 1] = np.nan
    assert 0 < len(ribbon(line, 1.0)) < 9
    assert len(ribbon(line[:1], 1.0)) == len(ribbon(line[:0], 1.0)) == 0


def test_lane_line_is_painted_where_the_road_point_projects() -> None:
    picture = np.zeros((874, 1164, 3), np.uint8)
    drawn = draw(picture, plan(), NEO, Calibration(STRAIGHT, HEIGHT), PANEL)
    x, y = pixel(NEO, STRAIGHT, (10.0, 1.8, HEIGHT))
    assert tuple(drawn[round(y), round(x)]) == LANE_COLOR
    # Half way between the lane lines is the path, far left of them nothing: probability 0.
    x, y = pixel(NEO, STRAIGHT, (10.0, 0.0, HEIGHT))
    red, green, _ = drawn[round(y), round(x)]
    assert green > 2 * red
    x, y = pixel(NEO, STRAIGHT, (12.0, -5.5, HEIGHT))
    assert not drawn[round(y), round(x)].any()
    assert not picture.any()


def test_opacity_fades_the_plan() -> None:
    picture = np.full((874, 1164, 3), 50, np.uint8)
    x, y = pixel(NEO, STRAIGHT, (10.0, 1.8, HEIGHT))
    drawn = draw(picture, plan(), NEO, Calibration(STRAIGHT, HEIGHT), PANEL, opacity=0.4)
    # White at 40 % over 50: 50 + 0.4 * 205.
    assert drawn[round(y), round(x)] == pytest.approx([132] * 3, abs=1)


def test_path_turns_grey_when_the_plan_is_not_valid() -> None:
    picture = np.zeros((874, 1164, 3), np.uint8)
    drawn = draw(picture, plan(valid=False), NEO, None, PANEL)
    x, y = pixel(NEO, STRAIGHT, (10.0, 0.0, HEIGHT))
    color = drawn[round(y), round(x)].astype(int)
    assert color.any() and np.ptp(color) < 20
    badge = drawn[8:36, -118:-8].reshape(-1, 3).astype(int)
    assert (badge[:, 0] > 2 * badge[:, 1]).mean() > 0.5


def test_leads_are_drawn_only_if_probable_and_ahead() -> None:
    picture = np.zeros((874, 1164, 3), np.uint8)
    empty = plan(position=np.empty((0, 3), np.float32), lane_lines=(), lane_probabilities=())
    calibration = Calibration(STRAIGHT, HEIGHT)
    nothing = draw(picture, empty, NEO, calibration, PANEL)
    for lead in (Lead(0.4, 20, 0, 10), Lead(0.9, -20, 0, 10), Lead(0.9, np.nan, 0, 10)):
        hidden = Plan(**(vars(empty) | {"leads": (lead,)}))
        np.testing.assert_array_equal(draw(picture, hidden, NEO, calibration, PANEL), nothing)
    shown = Plan(**(vars(empty) | {"leads": (Lead(0.9, 20, 3, 10),)}))
    changed = (draw(picture, shown, NEO, calibration, PANEL) != nothing).any(axis=-1)
    rows, columns = np.nonzero(changed)
    x, y = pixel(NEO, STRAIGHT, (20.0, 3.0, HEIGHT))
    assert columns.mean() == pytest.approx(x, abs=3)
    assert rows.min() == pytest.approx(y - 910 * 1.3 * 0.8 / 20, abs=2)


@pytest.mark.parametrize("size", [(768, 384), (256, 128), (1280, 800)])
def test_wild_plans_of_any_size_are_drawn_without_failing(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    wild = [rng.normal(0, 1, (33, 3)).astype(np.float32) * 10.0**k for k in (-2, 1, 4, 8)]
    wild[2][3:7] = np.inf
    wild[3][5] = np.nan
    odd = plan(
        position=wild[1],
        lane_lines=tuple(wild),
        lane_probabilities=(np.nan, 2.0, -1.0, 0.5),
        road_edges=(wild[2], wild[0][:1]),
        leads=(Lead(np.nan, 1, 1, 1), Lead(1.0, 1e30, -1e30, 0)),
        confidence="unknown",
    )
    camera = Camera(size[0], size[1], 455.0, (size[0] / 2, size[1] / 4))
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    drawn = draw(picture, odd, camera, Calibration((0.1, -0.1, 0.2)), PANEL)
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8


def test_panel_tells_the_numbers() -> None:
    rows = dict(panel_rows(plan(), PANEL))
    assert rows["frame 40"] == "2.00 s"
    assert rows["speed"] == "20.0 m/s  72 km/h"
    assert rows["curvature"] == "+0.0010 1/m"
    assert rows["acceleration"] == "+0.50 m/s/s"
    assert "curvature" not in dict(panel_rows(None, PANEL))
