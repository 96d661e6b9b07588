"""Camera frame -> packed model picture: warp matrix, sampling, packing.

Two ways of sampling exist because the models of two eras were trained and logged with them:
`nearest` (since February 2026) and `bilinear` in fixed point (before). They also differ in how the
half-resolution chroma planes follow from the luma matrix.

Frames of reference: device x forward, y right, z down; view x right, y down, z forward; pixels x
right, y down with integer coordinates at pixel centres.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, sin

import numpy as np

from modeld.cameras import Intrinsics
from modeld.constants import MODEL_HEIGHT, MODEL_WIDTH, PICTURE_SHAPE

VIEW_FROM_DEVICE = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
# Chroma has half the resolution. Pixel (x, y) of it is taken at luma (2x, 2y) ...
PLAIN_CHROMA = np.array([[1, 1, 0.5], [1, 1, 0.5], [2, 2, 1]], np.float32)
# ... or, more exactly, at the middle of the four luma pixels it stands for.
LUMA_FROM_CHROMA = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
_FIXED_BITS = 5  # fraction of a pixel in bilinear sampling
_FIXED_ONE = 1 << _FIXED_BITS
_WEIGHT_BITS = 15
_FAR = float(1 << 20)  # coordinates beyond this are far outside any picture


def rotation_from_rpy(rpy: Sequence[float]) -> np.ndarray:
    """R (3, 3) float64 = Rz(yaw) Ry(pitch) Rx(roll); rpy in radians."""
    roll, pitch, yaw = rpy
    rx = np.array([[1, 0, 0], [0, cos(roll), -sin(roll)], [0, sin(roll), cos(roll)]])
    ry = np.array([[cos(pitch), 0, sin(pitch)], [0, 1, 0], [-sin(pitch), 0, cos(pitch)]])
    rz = np.array([[cos(yaw), -sin(yaw), 0], [sin(yaw), cos(yaw), 0], [0, 0, 1]])
    return rz @ ry @ rx


def warp_matrix(rpy: Sequence[float], camera: Intrinsics, model: Intrinsics) -> np.ndarray:
    """W (3, 3) float32: homogeneous model pixel -> homogeneous camera pixel.

    `rpy` is the calibration (radians): the rotation from the calibrated frame, which looks where
    the car drives, to the device frame. Both frames share the camera's position, so one matrix maps
    every ray: W = K_camera V R(rpy) (K_model V)^-1 with V = view from device.
    """
    calibrated_from_model = np.linalg.inv(model.matrix() @ VIEW_FROM_DEVICE)
    device = rotation_from_rpy(rpy) @ calibrated_from_model
    return (camera.matrix() @ VIEW_FROM_DEVICE @ device).astype(np.float32)


NO_WARP = np.zeros((3, 3), np.float32)  # before the first calibration


def _project(matrix: np.ndarray, width: int, height: int) -> tuple[np.ndarray, ...]:
    """x, y, w (height, width) float32 of W @ (column, row, 1) for every output pixel."""
    matrix = matrix.astype(np.float32)
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    return tuple(row[0] * columns + row[1] * rows + row[2] for row in matrix)


def _ratio(x: np.ndarray, w: np.ndarray, scale: float) -> np.ndarray:
    """scale * x / w rounded half to even, as int64; where w = 0 the coordinate is 0."""
    inverse = np.divide(np.float32(scale), w, out=np.zeros_like(w), where=w != 0)
    return np.clip(np.rint(x * inverse), -_FAR * scale, _FAR * scale).astype(np.int64)


@dataclass(frozen=True)
class Taps:
    """Which source pixels make each output pixel.

    index: (T, ..., h, w) into the flattened source plane; weight: int32 of 2^15 in sum, of a shape
    that goes with it, or None if there is one tap and it is taken as it is.
    """

    index: np.ndarray
    weight: np.ndarray | None

    def sample(self, plane: np.ndarray) -> np.ndarray:
        """Flat uint8 source plane -> uint8 (..., h, w)."""
        if self.weight is None:
            return plane.take(self.index[0])
        total = np.full(self.index.shape[1:], 1 << (_WEIGHT_BITS - 1), np.int32)
        for index, weight in zip(self.index, self.weight, strict=True):
            total += plane.take(index) * weight
        return (total >> _WEIGHT_BITS).astype(np.uint8)

    def reordered(self, order: Callable[[np.ndarray], np.ndarray]) -> Taps:
        """The same taps for a rearranged output; `order` rearranges the last two axes."""
        return Taps(order(self.index), None if self.weight is None else order(self.weight))

    def spaced(self, width: int, stride: int, step: int = 1) -> Taps:
        """The same taps for a plane of `width` pixels with gaps.

        stride: bytes from one row to the next. step: from one pixel to the next.
        """
        return Taps(self.index // width * stride + self.index % width * step, self.weight)

    def both_channels(self) -> Taps:
        """These taps and those one byte further on: output (2, h, w) instead of (h, w)."""
        weight = None if self.weight is None else self.weight[:, None]
        return Taps(np.stack([self.index, self.index + 1], axis=1), weight)


def _nearest(matrix: np.ndarray, output: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Column and row (h, w) of the nearest source pixel, rounded half to even in float32."""
    x, y, w = _project(matrix, output[1], output[0])
    # Divided, not multiplied by the reciprocal: that is what decides ties.
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = np.rint(x / w), np.rint(y / w)
    column[w == 0] = row[w == 0] = 0
    return column, row


def nearest_taps(matrix: np.ndarray, source: tuple[int, int], output: tuple[int, int]) -> Taps:
    """One tap per pixel, rounded half to even in float32 and clipped to the source (h, w)."""
    column, row = _nearest(matrix, output)
    column = np.clip(column, 0, source[1] - 1).astype(np.int64)
    row = np.clip(row, 0, source[0] - 1).astype(np.int64)
    return Taps((row * source[1] + column)[None], None)


def bilinear_taps(
    matrix: np.ndarray, source: tuple[int, int], output: tuple[int, int], border: str = "clamp",
) -> Taps:
    """Four taps per pixel with weights in fixed point.

    Coordinates have five fractional bits. Taps outside the source (h, w) are clamped to its edge
    (border "clamp") or count as black ("zero", the oldest versions).
    """
    x, y, w = _project(matrix, output[1], output[0])
    fixed_x, fixed_y = _ratio(x, w, _FIXED_ONE), _ratio(y, w, _FIXED_ONE)
    left, top = fixed_x >> _FIXED_BITS, fixed_y >> _FIXED_BITS
    part_x, part_y = fixed_x & (_FIXED_ONE - 1), fixed_y & (_FIXED_ONE - 1)
    # The product of two 5-bit fractions has 10 bits; five more make 15. No rounding is needed.
    scale = 1 << (_WEIGHT_BITS - 2 * _FIXED_BITS)
    indices, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            weight = (part_x if right else _FIXED_ONE - part_x)
            weight = weight * (part_y if down else _FIXED_ONE - part_y) * scale
            inside_column = np.clip(column, 0, source[1] - 1)
            inside_row = np.clip(row, 0, source[0] - 1)
            if border == "zero":
                weight = weight * ((inside_column == column) & (inside_row == row))
            indices.append(inside_row * source[1] + inside_column)
            weights.append(weight)
    return Taps(np.stack(indices), np.stack(weights).astype(np.int32))


def chroma_matrix(matrix: np.ndarray, sampling: str) -> np.ndarray:
    """The warp of the half-resolution planes (float32) that belongs to a luma warp."""
    if sampling == "nearest":
        return matrix.astype(np.float32) * PLAIN_CHROMA
    chroma_from_luma = np.linalg.inv(LUMA_FROM_CHROMA)
    return (chroma_from_luma @ matrix.astype(np.float64) @ LUMA_FROM_CHROMA).astype(np.float32)


def luma_phases(luma: np.ndarray) -> np.ndarray:
    """(..., 256, 512) -> (..., 4, 128, 256): phases (row, column) ee, oe, eo, oo."""
    return np.stack([luma[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], axis=-3)


def unpacked(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A packed picture (6, h, w) as luma (2 h, 2 w) and chroma (h, w, 2), U first."""
    luma = np.empty((2 * packed.shape[1], 2 * packed.shape[2]), np.uint8)
    for phase in range(4):
        luma[phase % 2 :: 2, phase // 2 :: 2] = packed[phase]
    return luma, np.ascontiguousarray(packed[4:].transpose(1, 2, 0))


@dataclass(frozen=True)
class Warp:
    """A warp made ready for frames of one size; `pack` then costs a table look-up.

    stride: bytes from row to row for which the taps are made.
    """

    luma: Taps
    chroma: Taps
    stride: int

    def pack(self, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
        """luma (H, W), chroma (H/2, W/2, 2) with U first -> packed picture (6, 128, 256) uint8."""
        packed = np.empty(PICTURE_SHAPE, np.uint8)
        packed[:4] = self.luma.sample(_flat(luma, self.stride))
        packed[4:] = self.chroma.sample(_flat(chroma, self.stride))
        return packed


def _flat(plane: np.ndarray, stride: int) -> np.ndarray:
    """The bytes of a plane with its rows `stride` bytes apart; copied only if they are not so."""
    rows, used = len(plane), plane[0].size
    if plane.strides[0] != stride or not plane[0].flags.c_contiguous:
        spaced = np.zeros((rows, stride), np.uint8)
        spaced[:, :used] = plane.reshape(rows, used)
        plane = spaced
    return np.lib.stride_tricks.as_strided(plane, (stride * (rows - 1) + used,), (1,))


@lru_cache(maxsize=8)
def _prepared(
    matrix: bytes, height: int, width: int, sampling: str, border: str, stride: int,
) -> Warp:
    luma_matrix = np.frombuffer(matrix, np.float32).reshape(3, 3)
    sizes = ((height, width), (MODEL_HEIGHT, MODEL_WIDTH))
    halves = ((height // 2, width // 2), (MODEL_HEIGHT // 2, MODEL_WIDTH // 2))
    half_matrix = chroma_matrix(luma_matrix, sampling)
    if sampling == "nearest":
        luma, chroma = nearest_taps(luma_matrix, *sizes), nearest_taps(half_matrix, *halves)
    elif sampling == "bilinear":
        luma = bilinear_taps(luma_matrix, *sizes, border)
        chroma = bilinear_taps(half_matrix, *halves, border)
    else:
        raise ValueError(f"Sampling '{sampling}' is not known; use 'nearest' or 'bilinear'.")
    return Warp(luma.spaced(width, stride).reordered(luma_phases),
                chroma.spaced(width // 2, stride, step=2).both_channels(), stride)


def prepare_warp(
    matrix: np.ndarray, height: int, width: int, sampling: str = "nearest", border: str = "clamp",
    stride: int | None = None,
) -> Warp:
    """The warp by `matrix` (3, 3) for frames of height x width pixels; remembered between calls.

    stride: bytes from one row of their planes to the next, without gaps if none is given. Planes
    that lie otherwise are copied before they are sampled.
    """
    data = matrix.astype(np.float32).tobytes()
    return _prepared(data, height, width, sampling, border, stride or width)


@dataclass(frozen=True)
class FilledWarp:
    """A nearest warp of one plane that gives pixels outside the source a constant.

    taps: of all pixels, for rows `stride` bytes apart. outside: flat positions, in the output, of
    those beyond the source.
    """

    taps: Taps
    outside: np.ndarray
    fill: int
    stride: int

    def sample(self, plane: np.ndarray) -> np.ndarray:
        """plane (H, W) uint8 -> (h, w) uint8."""
        picture = self.taps.sample(_flat(plane, self.stride))
        picture.reshape(-1)[self.outside] = self.fill
        return picture


def filled_warp(
    matrix: np.ndarray, source: tuple[int, int], output: tuple[int, int], fill: int,
    stride: int | None = None,
) -> FilledWarp:
    """The warp by `matrix` (3, 3) from a source (H, W) to an output (h, w).

    stride: as `prepare_warp` has it.
    """
    column, row = _nearest(matrix, output)
    inside = (column >= 0) & (column < source[1]) & (row >= 0) & (row < source[0])
    stride = stride or source[1]
    taps = nearest_taps(matrix, source, output).spaced(source[1], stride)
    return FilledWarp(taps, np.flatnonzero(~inside), fill, stride)
