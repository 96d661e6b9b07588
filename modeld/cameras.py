"""Camera intrinsics: what each sensor has, and what the two model views are.

Pixels; the principal point counts from the centre of the top left pixel, x right, y down.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal length and principal point, all in pixels."""

    focal_px: float
    cx: float
    cy: float

    def matrix(self) -> np.ndarray:
        """K (3, 3) float64: view frame (x right, y down, z forward) -> homogeneous pixel."""
        return np.array([[self.focal_px, 0, self.cx], [0, self.focal_px, self.cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class Camera:
    """A camera as a device type has it: picture size in pixels and its intrinsics."""

    width: int
    height: int
    intrinsics: Intrinsics

    def at_size(self, width: int, height: int) -> Intrinsics:
        """Intrinsics of the same camera when its picture is delivered at another size.

        The picture is taken as scaled to `width` and cropped evenly above and below.
        """
        scale = width / self.width
        inner = self.intrinsics
        cy = inner.cy * scale + (height - self.height * scale) / 2
        return Intrinsics(inner.focal_px * scale, inner.cx * scale, cy)


@dataclass(frozen=True)
class Device:
    """The road cameras of a device. A device without a wide camera has None there."""

    narrow: Camera
    wide: Camera | None


def _camera(width: int, height: int, focal_px: float) -> Camera:
    return Camera(width, height, Intrinsics(focal_px, width / 2, height / 2))


# The sensors AR0231 and OX03C10 deliver the same picture; OS04C10 is read at half resolution.
AR_OX = Device(_camera(1928, 1208, 2648.0), _camera(1928, 1208, 567.0))
OS = Device(_camera(1344, 760, 1522.0 * 3 / 4), _camera(1344, 760, 567.0 * 3 / 4))
NEO = Device(_camera(1164, 874, 910.0), None)

# Keyed by (deviceState.deviceType, camera state's sensor) as the log spells them.
DEVICES: dict[tuple[str, str], Device] = {
    **{(device, sensor): OS if sensor == "os04c10" else AR_OX
       for device in ("tici", "tizi", "mici") for sensor in ("ar0231", "ox03c10", "os04c10")},
    ("neo", "unknown"): NEO,
    ("tici", "unknown"): AR_OX,
    ("unknown", "ar0231"): AR_OX,
    ("unknown", "ox03c10"): AR_OX,
    ("pc", "unknown"): AR_OX,
}

# The views the models are trained on, both 512 x 256: the main one and the wide "big" one.
MEDMODEL = Intrinsics(910.0, 256.0, 47.6)
SBIGMODEL = Intrinsics(455.0, 256.0, 151.8)
# The view of the driver monitoring models, 1440 x 960.
DRIVER_MODEL = Intrinsics(567.0, 720.0, 356.0)

# Cabin cameras by the width of their picture: nothing else is announced about them in time.
CABIN = {
    1928: _camera(1928, 1208, 567.0),
    1344: _camera(1344, 760, 567.0 * 3 / 4),
    816: _camera(816, 612, 650.0),
}


class UnknownCamera(ValueError):  # noqa: N818 - says what it is
    """No intrinsics are known for this device and sensor."""


def lookup(device_type: str, sensor: str) -> Device:
    """The cameras of a device. Raises UnknownCamera if the pair is in no table."""
    try:
        return DEVICES[device_type, sensor]
    except KeyError:
        raise UnknownCamera(
            f"No intrinsics are known for device '{device_type}' with sensor '{sensor}'. "
            "Give them with the frame stream (FrameServer(..., intrinsics=(focal, cx, cy))) "
            "or add the pair to modeld/cameras.py.") from None
