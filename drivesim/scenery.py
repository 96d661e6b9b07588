"""Pictures the renderer composes: tileable noise, the sky, trees, posts and the car ahead.

Colours are linear in display values, 0 to 255, RGB. Sprites are (height, width, 4) with opacity
0 to 1 in the last channel; their lower edge stands on the road.
"""
from __future__ import annotations

import numpy as np

HAZE = np.array([196.0, 207.0, 217.0])  # where everything fades to, and the sky at the horizon
ZENITH = np.array([92.0, 141.0, 200.0])
SKY_BOTTOM = -0.03  # rad of elevation where the panorama ends; the ground hides what is below
Sprite = np.ndarray


def tileable_noise(random: np.random.RandomState, rows: int, columns: int,
                   falloff: float) -> np.ndarray:
    """(rows, columns) periodic noise, mean 0, std 1; amplitude falls as frequency^-falloff."""
    spectrum = np.fft.rfft2(random.standard_normal((rows, columns)))
    fy = np.fft.fftfreq(rows)[:, None] * rows
    fx = np.fft.rfftfreq(columns)[None, :] * columns
    spectrum *= np.maximum(np.hypot(fy, fx), 1.0) ** -falloff
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(rows, columns))
    return (noise / noise.std()).astype(np.float32)


def mip_levels(texture: np.ndarray, smallest: int = 4) -> list[np.ndarray]:
    """The texture and its halvings by averaging 2x2 cells, down to `smallest` rows or columns."""
    levels = [texture]
    while min(levels[-1].shape[:2]) >= 2 * smallest:
        t = levels[-1]
        t = t[: t.shape[0] // 2 * 2, : t.shape[1] // 2 * 2]
        levels.append((t[::2, ::2] + t[1::2, ::2] + t[::2, 1::2] + t[1::2, 1::2]) / 4)
    return levels


# -- sky


def make_panorama(random: np.random.RandomState, pixels_per_radian: float,
                  top: float) -> np.ndarray:
    """(rows, columns, 3) sky around the whole horizon.

    Rows go from elevation `top` (rad) to SKY_BOTTOM, columns are headings from 0 to 2 pi.
    """
    columns = int(2 * np.pi * pixels_per_radian)
    rows = int((top - SKY_BOTTOM) * pixels_per_radian)
    elevation = np.linspace(top, SKY_BOTTOM, rows)[:, None]
    azimuth = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None, :]
    height = np.clip(elevation / 0.7, 0, 1) ** 0.55
    sky = HAZE + (ZENITH - HAZE) * height[..., None]
    glow = np.exp(-elevation / 0.25) * (0.5 + 0.5 * np.cos(azimuth - 0.7)) ** 3
    sky = sky + glow[..., None] * np.array([26.0, 14.0, -6.0])
    cover = cloud_cover(random, elevation, azimuth)
    shade = np.array([250.0, 250.0, 251.0]) - 26.0 * cover[..., None] ** 2
    sky += (shade - sky) * (0.85 * cover)[..., None]
    for base, swing, colour in (
        (0.022, 0.012, np.array([160.0, 178.0, 196.0])),
        (0.009, 0.006, np.array([126.0, 150.0, 150.0])),
    ):
        crest = base + swing * ridge(random, azimuth)
        inside = np.clip((crest - elevation) * pixels_per_radian + 0.5, 0, 1)
        low = np.clip(elevation / (2 * base), 0, 1)[..., None]  # haze gathers at the foot
        fill = HAZE + (colour - HAZE) * (0.45 + 0.55 * low)
        sky += (fill - sky) * inside[..., None]
    return sky.astype(np.float32)


def cloud_cover(random: np.random.RandomState, elevation: np.ndarray,
                azimuth: np.ndarray) -> np.ndarray:
    """Opacity 0 to 1 of flat clouds: noise on a plane overhead, squeezed towards the horizon."""
    noise = tileable_noise(random, 512, 1024, 1.45)
    depth = 0.16 / (np.maximum(elevation, 0.0) + 0.10)  # distance to the cloud plane
    row = (depth * 900).astype(int) % 512
    column = (azimuth / (2 * np.pi) * 3072).astype(int) % 1024
    row, column = np.broadcast_arrays(row, column)
    cover = np.clip((noise[row, column] - 0.35) * 0.8, 0, 1)
    return cover * np.clip((elevation - 0.03) / 0.12, 0, 1)


def ridge(random: np.random.RandomState, azimuth: np.ndarray) -> np.ndarray:
    """A periodic skyline around 0, about -1 to 1."""
    total = np.zeros_like(azimuth)
    for waves in (3, 7, 13, 29, 61, 127):
        total += np.sin(waves * azimuth + random.uniform(0, 2 * np.pi)) / waves**0.6
    return total / 1.5


# -- sprites


def paint_box(canvas: Sprite, centre: tuple[float, float], half: tuple[float, float],
              radius: float, colour: tuple[float, float, float], opacity: float = 1.0,
              taper: float = 0.0) -> None:
    """Paint a box with round corners and soft edges; measures are shares of the canvas width.

    taper: how much narrower each side is at the top than at the bottom.
    """
    height, width = canvas.shape[:2]
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height)[:, None] + 0.5) / width
    half_width = half[0] - taper * (0.5 - 0.5 * (y - centre[1]) / half[1])
    beyond_x = np.abs(x - centre[0]) - half_width + radius
    beyond_y = np.abs(y - centre[1]) - half[1] + radius
    outside = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    distance = outside + np.minimum(np.maximum(beyond_x, beyond_y), 0) - radius
    cover = opacity * np.clip(0.5 - distance * width, 0, 1)
    blend_over(canvas, cover, np.asarray(colour))


def blend_over(canvas: Sprite, cover: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour with opacity `cover` (height, width) over the canvas, in place."""
    below = canvas[..., 3] * (1 - cover)
    total = np.maximum(below + cover, 1e-6)[..., None]
    canvas[..., :3] = (canvas[..., :3] * below[..., None] + colour * cover[..., None]) / total
    canvas[..., 3] = below + cover


def blank(height: int, width: int) -> Sprite:
    """A fully transparent canvas."""
    return np.zeros((height, width, 4), np.float32)


def make_car() -> Sprite:
    """The rear of a car, as wide as the sprite, 0.82 times as high."""
    car = blank(210, 256)
    for half_width in (0.49, 0.47, 0.44, 0.40):  # soft shadow
        paint_box(car, (0.5, 0.795), (half_width, 0.024), 0.02, (20, 21, 23), 0.35)
    for x in (0.140, 0.860):
        paint_box(car, (x, 0.715), (0.078, 0.095), 0.03, (23, 23, 25))  # tyres
    paint_box(car, (0.5, 0.215), (0.445, 0.190), 0.07, (116, 24, 28), taper=0.15)  # roof
    paint_box(car, (0.5, 0.200), (0.385, 0.128), 0.05, (36, 44, 52), taper=0.13)  # rear window
    paint_box(car, (0.5, 0.130), (0.290, 0.045), 0.03, (112, 130, 146), 0.55, taper=0.05)
    paint_box(car, (0.5, 0.510), (0.480, 0.205), 0.085, (148, 32, 37), taper=0.03)  # body
    paint_box(car, (0.5, 0.330), (0.420, 0.022), 0.02, (200, 92, 92), 0.75)  # edge of the boot lid
    paint_box(car, (0.5, 0.565), (0.470, 0.100), 0.05, (126, 25, 30), 0.8)  # lower half in shade
    for x in (0.125, 0.875):
        paint_box(car, (x, 0.425), (0.092, 0.045), 0.03, (188, 16, 20))  # tail lights
        paint_box(car, (x, 0.418), (0.060, 0.014), 0.012, (255, 120, 104))
    paint_box(car, (0.5, 0.440), (0.205, 0.010), 0.01, (206, 206, 208), 0.8)  # chrome strip
    paint_box(car, (0.5, 0.515), (0.125, 0.034), 0.01, (226, 228, 222))  # plate
    paint_box(car, (0.5, 0.675), (0.460, 0.055), 0.04, (43, 42, 45))  # bumper
    for x in (0.21, 0.79):
        paint_box(car, (x, 0.662), (0.045, 0.010), 0.008, (150, 30, 30))  # reflectors
    return car


def make_post(right: bool) -> Sprite:
    """A white marker post with a black band and a reflector."""
    post = blank(160, 20)
    paint_box(post, (0.5, 4.1), (0.46, 4.0), 0.3, (226, 228, 226))
    paint_box(post, (0.5, 1.6), (0.47, 0.75), 0.05, (38, 39, 42))
    paint_box(post, (0.5, 1.6), (0.20, 0.50), 0.05, (214, 126, 40) if right else (236, 238, 240))
    return post


def make_tree(random: np.random.RandomState, conifer: bool) -> Sprite:
    """A tree lit from the upper left, 160 wide and 192 high."""
    tree = blank(192, 160)
    paint_box(tree, (0.5, 1.0), (0.020, 0.20), 0.01, (74, 60, 48))
    tint = random.uniform(-9, 9, 3)
    if conifer:
        paint_conifer(tree, random, np.array([50.0, 78.0, 54.0]) + 0.6 * tint)
    else:
        paint_crown(tree, random, np.array([76.0, 98.0, 50.0]) + tint)
    return tree


def paint_crown(tree: Sprite, random: np.random.RandomState, colour: np.ndarray) -> None:
    """A round crown of clumps of leaves, each clump darker at its lower right."""
    clumps = [(0.5 + 0.27 * np.cos(a), 0.50 + 0.25 * np.sin(a)) for a in random.uniform(0, 6.3, 11)]
    clumps += [(0.5, 0.45), (0.42, 0.34), (0.58, 0.36)]
    for x, y in sorted(clumps, key=lambda clump: -clump[1]):
        size = random.uniform(0.11, 0.17)
        shade = 1.18 - 0.55 * (y - 0.2) - 0.25 * (x - 0.5)
        for _ in range(130):
            angle, reach = random.uniform(0, 2 * np.pi), np.sqrt(random.uniform(0, 1))
            dx, dy = reach * np.cos(angle), 0.85 * reach * np.sin(angle)
            light = shade - 0.20 * dy - 0.12 * dx + random.uniform(-0.11, 0.11)
            paint_leaves(tree, (x + size * dx, y + size * dy), random.uniform(1.6, 4.0),
                         colour * light)


def paint_conifer(tree: Sprite, random: np.random.RandomState, colour: np.ndarray) -> None:
    """A cone of branches in tiers, painted from the bottom to the top."""
    for level in np.sort(random.uniform(0, 1, 1500))[::-1]:  # 0 at the top
        tier = 0.72 + 0.28 * ((7 * level) % 1.0)
        side = random.uniform(-1, 1)
        spread = (0.015 + 0.29 * level) * tier
        light = 1.16 - 0.30 * level - 0.26 * side + random.uniform(-0.16, 0.16)
        light -= 0.22 * ((7 * level) % 1.0)  # the lower side of a tier is in the shade
        paint_leaves(tree, (0.5 + side * spread, 0.04 + 1.0 * level), random.uniform(1.4, 3.4),
                     colour * light)


def paint_leaves(tree: Sprite, centre: tuple[float, float], radius: float,
                 colour: np.ndarray) -> None:
    """Paint a soft disc; centre in shares of the width, radius in pixels."""
    height, width = tree.shape[:2]
    at_x, at_y = centre[0] * width, centre[1] * width
    reach = int(radius) + 2
    rows = slice(max(int(at_y) - reach, 0), min(int(at_y) + reach, height))
    columns = slice(max(int(at_x) - reach, 0), min(int(at_x) + reach, width))
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5
    x = np.arange(columns.start, columns.stop) + 0.5
    distance = np.hypot(x - at_x, y - at_y)
    blend_over(tree[rows, columns], np.clip((radius - distance) / 2.0, 0, 1), colour)
