"""The pinhole camera and the frames of reference.

world       x north, y east, z down; headings are clockwise seen from above. The road is z = 0.
calibrated  origin in the camera, x along the car's direction of travel, y right, z down.
device      the calibrated frame turned by rpy: how the device really sits behind the windscreen.
view        x right, y down, z forward; a permutation of the device frame.
pixel       u right, v down; whole numbers are pixel centres.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# comma's narrow and wide cameras have 1928 pixels across; focal lengths in those pixels.
SENSOR_WIDTH = 1928
NARROW_FOCAL = 2648.0
WIDE_FOCAL = 567.0


@dataclass(frozen=True)
class Camera:
    """A camera without distortion.

    width, height: pixels. focal: pixels. center: principal point (u, v), pixels.
    rpy: roll, pitch, yaw that turn calibrated coordinates into device ones, radians. With positive
    pitch the device looks down, with positive yaw to the left. mount_height: metres above the road.
    """

    width: int
    height: int
    focal: float
    center: tuple[float, float]
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mount_height: float = 1.22

    @property
    def device_from_calibrated(self) -> np.ndarray:
        """Rotation (3, 3)."""
        return rotation(*self.rpy)

    def rays(self) -> np.ndarray:
        """(height, width, 3) directions of the pixels in the calibrated frame, device depth 1."""
        right = (np.arange(self.width) - self.center[0]) / self.focal
        down = (np.arange(self.height) - self.center[1]) / self.focal
        device = np.empty((self.height, self.width, 3))
        device[..., 0] = 1.0
        device[..., 1] = right
        device[..., 2] = down[:, None]
        return device @ self.device_from_calibrated  # rows times R is the inverse of R

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) points in the calibrated frame -> (..., 2) pixels, (...) depth in metres.

        Pixels of points that are not in front of the camera (depth <= 0) are NaN.
        """
        device = np.asarray(points) @ self.device_from_calibrated.T
        depth = device[..., 0]
        safe = np.where(depth > 0, depth, np.nan)[..., None]
        return self.focal * device[..., 1:] / safe + np.asarray(self.center), depth


def rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll), (3, 3)."""
    cr, sr = math.cos(roll), math.sin(roll)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def comma_camera(width: int, height: int, wide: bool, rpy: tuple[float, float, float],
                 mount_height: float = 1.22) -> Camera:
    """comma's narrow or wide camera scaled to `width`, principal point in the middle."""
    focal = (WIDE_FOCAL if wide else NARROW_FOCAL) * width / SENSOR_WIDTH
    return Camera(width, height, focal, (width / 2, height / 2), rpy, mount_height)
