"""Painting with painter.c: its structures, built with the compiler's own toolchain at first use."""
from __future__ import annotations

import ctypes
import tempfile
from ctypes import POINTER, Structure, c_float, c_int32, c_uint32, c_void_p
from functools import lru_cache
from pathlib import Path

import numpy as np

NOISE_SIDE = 256
FAR = 350.0  # m of ground that is drawn
TABLE_STEP = 0.5  # m of forward distance
HIT_CELLS = 4096
QUAD = np.dtype([("corner", "f4", 3), ("right", "f4", 3), ("down", "f4", 3), ("tint", "f4", 3),
                 ("alpha", "f4"), ("glows", "f4"), ("texture", "i4")])
_VIEW_FROM_DEVICE = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])


class View(Structure):
    """A camera: see painter.c."""

    _fields_ = [("width", c_int32), ("height", c_int32), ("ray", c_float * 9),
                ("pixel", c_float * 9), ("per_pixel", c_float)]


class Ground(Structure):
    """The road ahead as tables; `keep` holds the arrays it points into."""

    _fields_ = [
        ("camera_height", c_float), ("slope_end", c_float), ("far", c_float),
        ("hit", c_void_p), ("hits", c_int32), ("hit_step", c_float),
        ("road", c_void_p), ("roads", c_int32), ("road_step", c_float),
        ("ribbon", c_void_p), ("paint", c_void_p), ("ribbons", c_int32), ("stations", c_int32),
        ("first_station", c_float), ("station_step", c_float),
    ]  # fmt: skip
    keep: tuple[np.ndarray, ...]


class Light(Structure):
    """Light, weather and lens: see painter.c."""

    _fields_ = [
        ("haze", c_float * 3), ("zenith", c_float * 3), ("sun", c_float * 3),
        ("grass", c_float * 3), ("sun_power", c_float), ("cloud", c_float),
        ("haze_distance", c_float), ("ambient", c_float), ("headlight", c_float),
        ("texture", c_float), ("gain", c_float), ("noise", c_float), ("vignette", c_float),
        ("glare", c_float), ("veil", c_float), ("north", c_float), ("east", c_float),
        ("seed", c_uint32),
    ]  # fmt: skip


def make_view(width: int, height: int, matrix: np.ndarray, rotation: np.ndarray) -> View:
    """A camera with matrix K (3, 3), turned so that device = rotation @ calibrated."""
    pixel = matrix @ _VIEW_FROM_DEVICE @ rotation
    return View(width, height, (c_float * 9)(*np.linalg.inv(pixel).ravel()),
                (c_float * 9)(*pixel.ravel()), 1 / matrix[0, 0])


def make_ground(camera_height: float, below: np.ndarray, road: np.ndarray, ribbon: np.ndarray,
                paint: np.ndarray, first_station: float, station_step: float) -> Ground:
    """Tables of what lies ahead.

    below: (N,) how far the ground lies below the camera at forward distances i TABLE_STEP.
    road: (N, 5) as in painter.c, at the same distances; ribbon: (R, S, 2); paint: (R, 8).
    """
    distance = TABLE_STEP * np.arange(1, len(below))
    # A ray meets the ground where the line of sight to it first sinks below the ray.
    slope = np.minimum.accumulate(below[1:] / distance)
    end = float(slope[-1])
    along = 1 / (slope - end + camera_height / FAR)
    step = along[-1] / (HIT_CELLS - 1)
    hit = np.interp(np.arange(HIT_CELLS) * step, along, distance).astype(np.float32)
    tables = tuple(np.ascontiguousarray(x, np.float32)
                   for x in (hit, road, ribbon, paint))
    pointers = [x.ctypes.data for x in tables]
    ground = Ground(camera_height, end, FAR, pointers[0], len(hit), step, pointers[1],
                    len(tables[1]), TABLE_STEP, pointers[2], pointers[3], len(ribbon),
                    ribbon.shape[1], first_station, station_step)
    ground.keep = tables
    return ground


class Painter:
    """Paints one view again and again; owns its picture, (height, width, 3) float32."""

    def __init__(self, view: View, noise: np.ndarray, atlas: np.ndarray,
                 textures: np.ndarray) -> None:
        """noise: (256, 256) float32; atlas: bytes and textures: (T, 3) int32 of `sprites`."""
        self.view, self.noise, self.atlas, self.textures = view, noise, atlas, textures
        self.library = load_library()
        self.picture = np.empty((view.height, view.width, 3), np.float32)
        self.depth = np.empty((view.height, view.width), np.float32)
        self.smear = np.zeros((view.height // 8 + 1, view.width // 8), np.float32)

    def paint(self, ground: Ground, light: Light, quads: np.ndarray) -> np.ndarray:
        """The scene without the lens: `picture`, RGB 0 to 255. quads: far to near."""
        view = ctypes.byref(self.view)
        self.library.paint_ground(view, ctypes.byref(ground), ctypes.byref(light),
                                  self.noise.ctypes.data, self.picture.ctypes.data,
                                  self.depth.ctypes.data)
        self.library.paint_quads(view, c_void_p(quads.ctypes.data), len(quads),
                                 c_void_p(self.atlas.ctypes.data),
                                 c_void_p(self.textures.ctypes.data), ctypes.byref(light),
                                 self.picture.ctypes.data, self.depth.ctypes.data)
        return self.picture

    def develop(self, light: Light) -> tuple[np.ndarray, np.ndarray]:
        """What the sensor delivers of `picture`: luma (h, w), chroma (2, h/2, w/2) uint8."""
        luma = np.empty((self.view.height, self.view.width), np.uint8)
        chroma = np.empty((2, self.view.height // 2, self.view.width // 2), np.uint8)
        self.library.develop(ctypes.byref(self.view), ctypes.byref(light),
                             self.smear.ctypes.data, self.picture.ctypes.data, luma.ctypes.data,
                             chroma.ctypes.data)
        return luma, chroma


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """painter.c, compiled; kept between runs. Raises tinynn's ToolchainError without a compiler."""
    from tinynn import cache
    from tinynn.machine import machine_of

    source = Path(__file__).with_name("painter.c").read_text()
    code, _ = cache.build(source, machine_of("cpu"))
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(code)
        file.flush()
        library = ctypes.CDLL(file.name)
    library.paint_ground.argtypes = [POINTER(View), POINTER(Ground), POINTER(Light), c_void_p,
                                     c_void_p, c_void_p]
    library.paint_quads.argtypes = [POINTER(View), c_void_p, c_int32, c_void_p, c_void_p,
                                    POINTER(Light), c_void_p, c_void_p]
    library.develop.argtypes = [POINTER(View), POINTER(Light), c_void_p, c_void_p, c_void_p,
                                c_void_p]
    for function in (library.paint_ground, library.paint_quads, library.develop):
        function.restype = None
    return library
