"""The camera against numbers known from comma's own warp, and against plain geometry."""
import numpy as np
import pytest

from drivesim.camera import Camera, comma_camera

# Model pixel -> camera pixel, as openpilot computes it: rows of W for a calibration rpy, a camera
# 1928 pixels wide and a model view with this focal length and centre.
WARPS = [
    ((0.0, 0.0, 0.0), False, (910.0, 256.0, 47.6),
     [[2.9098902, 0, 219.06813], [0, 2.9098902, 465.48923], [0, 0, 1]]),
    ((0.0, 0.02, -0.01), False, (910.0, 256.0, 47.6),
     [[2.9203379, 0.020602413, 188.69759], [0.0066372519, 2.9225814, 410.07852],
      [1.0988828e-5, 2.1975458e-5, 0.99589086]]),
    ((0.0, 0.02, -0.01), True, (455.0, 256.0, 151.8),
     [[1.2672780, 0.042119473, 627.27332], [0.013274504, 1.2724509, 395.95343],
      [2.1977656e-5, 4.3950917e-5, 0.98745197]]),
]


@pytest.mark.parametrize(("rpy", "wide", "model", "warp"), WARPS)
def test_projection_agrees_with_openpilots_warp(rpy: tuple[float, float, float], wide: bool,
                                                model: tuple[float, float, float],
                                                warp: list[list[float]]) -> None:
    camera = comma_camera(1928, 1208, wide, rpy)
    focal, cx, cy = model
    pixels = np.array([[0.0, 0.0], [256.0, 47.6], [511.0, 255.0], [30.0, 200.0]])
    # A model pixel is a direction in the calibrated frame: x forward, y right, z down.
    directions = np.column_stack([np.ones(4), (pixels - [cx, cy]) / focal])
    expected = np.column_stack([pixels, np.ones(4)]) @ np.array(warp).T
    expected = expected[:, :2] / expected[:, 2:]
    projected, depth = camera.project(directions)
    assert np.abs(projected - expected).max() < 2e-3
    assert (depth > 0).all()


def test_point_on_the_road_20_m_ahead() -> None:
    camera = Camera(964, 604, 1324.0, (482.0, 302.0))
    pixel, depth = camera.project(np.array([20.0, 2.0, 1.22]))
    assert depth == 20.0
    assert pixel == pytest.approx([482 + 1324 * 2 / 20, 302 + 1324 * 1.22 / 20])


def test_positive_pitch_looks_down_and_positive_yaw_left() -> None:
    ahead = np.array([1.0, 0.0, 0.0])
    down, _ = Camera(100, 100, 100.0, (50.0, 50.0), (0.0, 0.1, 0.0)).project(ahead)
    left, _ = Camera(100, 100, 100.0, (50.0, 50.0), (0.0, 0.0, 0.1)).project(ahead)
    assert down[1] < 50  # what lies straight ahead is above the middle
    assert left[0] > 50  # ... and to the right of the middle
    assert down[0] == left[1] == 50


def test_rays_are_the_inverse_of_project() -> None:
    camera = comma_camera(200, 120, False, (0.01, 0.03, -0.02))
    pixels, depth = camera.project(7.5 * camera.rays())
    u, v = np.meshgrid(np.arange(200), np.arange(120))
    assert np.allclose(pixels, np.stack([u, v], axis=-1), atol=1e-9)
    assert np.allclose(depth, 7.5)


def test_points_behind_the_camera_have_no_pixel() -> None:
    camera = comma_camera(200, 120, False, (0.0, 0.0, 0.0))
    pixels, depth = camera.project(np.array([[-5.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert np.isnan(pixels).all()
    assert (depth <= 0).all()
