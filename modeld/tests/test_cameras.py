"""Intrinsics table against the published numbers."""
from __future__ import annotations

import numpy as np
import pytest

from modeld import cameras
from modeld.cameras import Intrinsics


@pytest.mark.parametrize(("device", "sensor", "narrow", "wide"), [
    ("tizi", "ox03c10", (2648, 964, 604), (567, 964, 604)),
    ("tici", "ar0231", (2648, 964, 604), (567, 964, 604)),
    ("tici", "unknown", (2648, 964, 604), (567, 964, 604)),
    ("mici", "os04c10", (1141.5, 672, 380), (425.25, 672, 380)),
    ("tizi", "os04c10", (1141.5, 672, 380), (425.25, 672, 380)),
    ("pc", "unknown", (2648, 964, 604), (567, 964, 604)),
    ("unknown", "ox03c10", (2648, 964, 604), (567, 964, 604)),
])
def test_devices(
    device: str, sensor: str, narrow: tuple[float, ...], wide: tuple[float, ...],
) -> None:
    found = cameras.lookup(device, sensor)
    assert found.narrow.intrinsics == Intrinsics(*narrow)
    assert found.wide is not None
    assert found.wide.intrinsics == Intrinsics(*wide)


def test_neo_has_one_camera() -> None:
    found = cameras.lookup("neo", "unknown")
    assert found.narrow.intrinsics == Intrinsics(910, 582, 437)
    assert found.wide is None


def test_unknown_camera_is_named() -> None:
    with pytest.raises(cameras.UnknownCamera, match="device 'neo' with sensor 'os04c10'"):
        cameras.lookup("neo", "os04c10")


def test_intrinsics_of_a_resized_picture() -> None:
    camera = cameras.lookup("tizi", "ox03c10").narrow
    assert camera.at_size(1928, 1208) == Intrinsics(2648, 964, 604)
    assert camera.at_size(964, 604) == Intrinsics(1324, 482, 302)
    cropped = camera.at_size(1928, 1084)  # 62 rows less above and below
    assert cropped == Intrinsics(2648, 964, 542)


def test_matrix_projects_a_point() -> None:
    pixel = Intrinsics(100, 50, 40).matrix() @ np.array([1.0, -2.0, 4.0])
    np.testing.assert_allclose(pixel[:2] / pixel[2], [75, -10])
