"""Warp matrices against published numbers; sampling against one pixel at a time in plain Python."""
from __future__ import annotations

import numpy as np
import pytest

from modeld import cameras, warp
from modeld.cameras import Camera, Intrinsics

OX, OS, NEO = cameras.AR_OX, cameras.OS, cameras.NEO
MED, SBIG = cameras.MEDMODEL, cameras.SBIGMODEL
DM = Intrinsics(567, 720, 356)

CHECKS = [
    ((0, 0, 0), OX.narrow, MED, [2.9098902, 0, 219.06813, 0, 2.9098902, 465.48923, 0, 0, 1]),
    ((0, 0, 0), OX.wide, SBIG, [1.2461538, 0, 644.98462, 0, 1.2461538, 414.83383, 0, 0, 1]),
    ((0, 0, 0), OS.narrow, MED, [1.2543956, 0, 350.87473, 0, 1.2543956, 320.29077, 0, 0, 1]),
    ((0, 0, 0), OS.wide, SBIG, [0.93461537, 0, 432.73846, 0, 0.93461537, 238.12538, 0, 0, 1]),
    ((0, 0, 0), NEO.narrow, MED, [1, 0, 326, 0, 1, 389.4, 0, 0, 1]),
    ((0, 0.02, -0.01), OX.narrow, MED, [
        2.9203379, 0.020602413, 188.69759, 0.0066372519, 2.9225814, 410.07852,
        1.0988828e-5, 2.1975458e-5, 0.99589086]),
    ((0, 0.02, -0.01), OX.wide, SBIG, [
        1.2672780, 0.042119473, 627.27332, 0.013274504, 1.2724509, 395.95343,
        2.1977656e-5, 4.3950917e-5, 0.98745197]),
    ((0.005, -0.03, 0.04), OS.narrow, MED, [
        1.2237282, -0.02975644, 404.92963, -0.010492082, 1.2413836, 357.36118,
        -4.4108452e-5, -3.271559e-5, 1.0115995]),
    ((0, 0, 0), OX.wide, DM, [1, 0, 244, 0, 1, 248, 0, 0, 1]),
    ((0, 0, 0), OS.wide, DM, [0.75, 0, 132, 0, 0.75, 113, 0, 0, 1]),
]


@pytest.mark.parametrize(("rpy", "camera", "model", "expected"), CHECKS)
def test_published_matrices(
    rpy: tuple[float, ...], camera: Camera, model: Intrinsics, expected: list[float],
) -> None:
    matrix = warp.warp_matrix(rpy, camera.intrinsics, model)
    assert matrix.dtype == np.float32
    # The published numbers have eight digits; what should be 0 comes out as rounding noise.
    np.testing.assert_allclose(matrix.ravel(), expected, rtol=2e-7, atol=1e-12)


def test_rotation_is_right_handed() -> None:
    # Yaw turns forward (x) to the right (y), pitch turns it up (-z), roll turns right down (z).
    half = np.pi / 2
    np.testing.assert_allclose(warp.rotation_from_rpy((0, 0, half)) @ [1, 0, 0], [0, 1, 0],
                               atol=1e-15)
    np.testing.assert_allclose(warp.rotation_from_rpy((0, half, 0)) @ [1, 0, 0], [0, 0, -1],
                               atol=1e-15)
    np.testing.assert_allclose(warp.rotation_from_rpy((half, 0, 0)) @ [0, 1, 0], [0, 0, 1],
                               atol=1e-15)


def test_corner_of_the_model_view_is_clipped() -> None:
    matrix = warp.warp_matrix((0, 0, 0), OX.narrow.intrinsics, MED)
    x, y, w = matrix @ np.array([511, 255, 1], np.float32)
    assert (round(float(x / w), 2), round(float(y / w), 2)) == (1706.02, 1207.51)
    taps = warp.nearest_taps(matrix, (1208, 1928), (256, 512))
    assert taps.index[0, 255, 511] == 1207 * 1928 + 1706


def frame(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (height, width), dtype=np.uint8),
            rng.integers(0, 256, (height // 2, width // 2, 2), dtype=np.uint8))


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_packing_order(sampling: str) -> None:
    rows, columns = np.mgrid[:256, :512]
    luma = ((3 * rows + 5 * columns) % 256).astype(np.uint8)
    chroma = np.zeros((128, 256, 2), np.uint8)
    chroma[..., 0], chroma[..., 1] = 77, 99
    packed = warp.prepare_warp(np.eye(3), 256, 512, sampling).pack(luma, chroma)
    assert packed[:4, 0, 0].tolist() == [0, 3, 5, 8]
    np.testing.assert_array_equal(packed[1], luma[1::2, 0::2])
    np.testing.assert_array_equal(packed[2], luma[0::2, 1::2])
    assert (packed[4] == 77).all()
    assert (packed[5] == 99).all()


MATRICES = {
    "calibrated": warp.warp_matrix((0.01, 0.02, -0.01), Intrinsics(500, 160, 100), MED),
    "outside": np.array([[1, 0.25, -200.3], [-0.125, 1, -90.5], [0, 0, 1]], np.float32),
    "halves": np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]], np.float32),  # many ties
    "tilted": np.array([[0.7, 0.1, 4], [0.05, 0.9, 2], [1e-3, -2e-3, 0.9]], np.float32),
    "vanishing": np.array([[0.7, 0.1, 4], [0.05, 0.9, 2], [0.0078125, 0, -1]], np.float32),
    "zero": np.zeros((3, 3), np.float32),
}


def scalar_nearest(plane: np.ndarray, matrix: np.ndarray, x: int, y: int) -> int:
    """One output pixel, in float32 throughout."""
    f = np.float32
    sx, sy, sw = (r[0] * f(x) + r[1] * f(y) + r[2] for r in matrix.astype(f))
    column, row = (0, 0) if sw == 0 else (round(float(sx / sw)), round(float(sy / sw)))
    height, width = plane.shape
    return int(plane[min(max(row, 0), height - 1), min(max(column, 0), width - 1)])


def scalar_bilinear(
    plane: np.ndarray, matrix: np.ndarray, x: int, y: int, border: str,
) -> int:
    """One output pixel: 1/32 pixel coordinates, 15-bit weights, rounded sum."""
    f = np.float32
    sx, sy, sw = (r[0] * f(x) + r[1] * f(y) + r[2] for r in matrix.astype(f))
    scale = f(32) / sw if sw != 0 else f(0)
    fx, fy = round(float(sx * scale)), round(float(sy * scale))
    height, width = plane.shape

    def tap(column: int, row: int) -> int:
        inside = 0 <= column < width and 0 <= row < height
        if border == "zero" and not inside:
            return 0
        return int(plane[min(max(row, 0), height - 1), min(max(column, 0), width - 1)])

    column, row = fx // 32, fy // 32
    ax, ay = (fx % 32) / 32, (fy % 32) / 32
    weights = [round((1 - ax) * (1 - ay) * 32768), round(ax * (1 - ay) * 32768),
               round((1 - ax) * ay * 32768), round(ax * ay * 32768)]
    taps = [tap(column, row), tap(column + 1, row), tap(column, row + 1), tap(column + 1, row + 1)]
    return (sum(w * t for w, t in zip(weights, taps, strict=True)) + 16384) >> 15


def unpacked(packed: np.ndarray) -> np.ndarray:
    luma = np.empty((256, 512), np.uint8)
    luma[0::2, 0::2], luma[1::2, 0::2] = packed[0], packed[1]
    luma[0::2, 1::2], luma[1::2, 1::2] = packed[2], packed[3]
    return luma


def places(height: int, width: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(1)
    corners = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)]
    many = zip(rng.integers(0, width, 300), rng.integers(0, height, 300), strict=True)
    return corners + [(int(x), int(y)) for x, y in many]


@pytest.mark.parametrize("name", MATRICES)
def test_nearest(name: str) -> None:
    matrix = MATRICES[name]
    luma, chroma = frame(200, 320)
    packed = warp.prepare_warp(matrix, 200, 320, "nearest").pack(luma, chroma)
    seen = unpacked(packed)
    for x, y in places(256, 512):
        assert seen[y, x] == scalar_nearest(luma, matrix, x, y), (x, y)
    # Chroma: the warp of pixel (x, y) scaled by two in both frames, without half pixels.
    half = matrix * np.array([[1, 1, 0.5], [1, 1, 0.5], [2, 2, 1]], np.float32)
    for x, y in places(128, 256):
        for channel in (0, 1):
            assert packed[4 + channel, y, x] == scalar_nearest(chroma[..., channel], half, x, y)


@pytest.mark.parametrize("border", ["clamp", "zero"])
@pytest.mark.parametrize("name", MATRICES)
def test_bilinear(name: str, border: str) -> None:
    matrix = MATRICES[name]
    luma, chroma = frame(200, 320)
    packed = warp.prepare_warp(matrix, 200, 320, "bilinear", border).pack(luma, chroma)
    seen = unpacked(packed)
    for x, y in places(256, 512):
        assert seen[y, x] == scalar_bilinear(luma, matrix, x, y, border), (x, y)
    # Chroma: out point times 2 plus 0.5, result minus 0.5 times 0.5.
    enlarge = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    shrink = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    half = (shrink @ matrix.astype(np.float64) @ enlarge).astype(np.float32)
    for x, y in places(128, 256):
        for channel in (0, 1):
            want = scalar_bilinear(chroma[..., channel], half, x, y, border)
            assert packed[4 + channel, y, x] == want, (x, y)


def test_chroma_follows_luma_in_bilinear() -> None:
    # A plane that rises by 4 per luma pixel looks the same at half resolution with 8 per pixel.
    luma = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    centres = (luma[0::2, 0::2].astype(int) + luma[0::2, 1::2]) // 2
    chroma = np.repeat(centres[..., None], 2, axis=2).astype(np.uint8)
    shift = np.array([[0.0625, 0, 8], [0, 0.0625, 8], [0, 0, 1]], np.float32)
    packed = warp.prepare_warp(shift, 64, 64, "bilinear").pack(luma, chroma)
    averaged = packed[:4].astype(int).mean(axis=0)
    assert np.abs(packed[4] - averaged).max() <= 1


def test_strided_planes_and_small_frames() -> None:
    luma, chroma = frame(64, 96)
    wide, wide_chroma = np.zeros((64, 128), np.uint8), np.zeros((32, 64, 2), np.uint8)
    wide[:, :96], wide_chroma[:, :48] = luma, chroma
    for sampling in ("nearest", "bilinear"):
        tight = warp.prepare_warp(MATRICES["tilted"], 64, 96, sampling).pack(luma, chroma)
        assert tight.shape == (6, 128, 256)
        for stride in (96, 128):
            made = warp.prepare_warp(MATRICES["tilted"], 64, 96, sampling, stride=stride)
            for planes in ((luma, chroma), (wide[:, :96], wide_chroma[:, :48]),
                           (wide[:, :96], chroma)):
                np.testing.assert_array_equal(made.pack(*planes), tight)


def test_unknown_sampling() -> None:
    with pytest.raises(ValueError, match="'cubic' is not known"):
        warp.prepare_warp(np.eye(3), 64, 64, "cubic")
