"""The atlas of textures that painter.c draws: square, premultiplied, with all their halvings."""
from __future__ import annotations

from functools import lru_cache

import numpy as np

from drivesim import scenery

NAMES = ("car", "front", "side", "truck", "shadow", "lamp", "post", "pole", "rail", "concrete",
         "house", "sign0", "sign1", "sign2", "tree0", "tree1", "tree2", "tree3")
INDEX = {name: i for i, name in enumerate(NAMES)}
SIDE = 128


@lru_cache(maxsize=1)
def make_atlas() -> tuple[np.ndarray, np.ndarray]:
    """(bytes,) uint8 of all textures and (T, 3) int32: first byte, side, number of levels."""
    random = np.random.RandomState(5)
    parts: list[np.ndarray] = []
    table = []
    start = 0
    for name in NAMES:
        sprite = square(draw(name, random))
        opacity = sprite[..., 3:]
        premultiplied = np.concatenate([sprite[..., :3] * opacity, 255 * opacity], axis=-1)
        levels = scenery.mip_levels(premultiplied, 1)
        table.append((start, SIDE, len(levels)))
        parts += [np.clip(level, 0, 255).astype(np.uint8).ravel() for level in levels]
        start += sum(level.size for level in levels)
    return np.concatenate(parts), np.array(table, np.int32)


def square(sprite: np.ndarray) -> np.ndarray:
    """The sprite stretched to SIDE x SIDE."""
    rows = np.arange(SIDE) * sprite.shape[0] // SIDE
    columns = np.arange(SIDE) * sprite.shape[1] // SIDE
    return sprite[rows[:, None], columns]


def draw(name: str, random: np.random.RandomState) -> np.ndarray:
    """One texture as (height, width, 4), opacity 0 to 1."""
    if name == "car":
        return repainted(scenery.make_car())
    if name == "post":
        return scenery.make_post(right=True)
    if name.startswith("tree"):
        return scenery.make_tree(random, conifer=name == "tree2")
    return globals()[f"draw_{name.rstrip('012')}"](random)


def repainted(car: np.ndarray) -> np.ndarray:
    """A car without colour, for the tint to give it one; its lamps stay red."""
    red, green = car[..., 0], car[..., 1]
    body = (red > 1.4 * green) & (red < 170)
    car[body, :3] = 1.1 * red[body][:, None]
    return car


def plain(colour: tuple[float, float, float], grain: float,
          random: np.random.RandomState) -> np.ndarray:
    """An opaque surface of one colour with some grain."""
    sprite = scenery.blank(SIDE, SIDE)
    sprite[..., :3] = np.array(colour) + grain * random.standard_normal((SIDE, SIDE, 1))
    sprite[..., 3] = 1
    return sprite


def draw_front(random: np.random.RandomState) -> np.ndarray:
    """The front of a car: windscreen, grille, headlights."""
    car = scenery.blank(210, 256)
    for x in (0.14, 0.86):
        scenery.paint_box(car, (x, 0.715), (0.078, 0.095), 0.03, (23, 23, 25))
    scenery.paint_box(car, (0.5, 0.215), (0.445, 0.19), 0.07, (120, 122, 126), taper=0.15)
    scenery.paint_box(car, (0.5, 0.2), (0.40, 0.15), 0.05, (40, 48, 56), taper=0.13)
    scenery.paint_box(car, (0.5, 0.51), (0.48, 0.205), 0.085, (138, 140, 146), taper=0.03)
    scenery.paint_box(car, (0.5, 0.56), (0.22, 0.06), 0.02, (30, 31, 34))
    for x in (0.14, 0.86):
        scenery.paint_box(car, (x, 0.45), (0.085, 0.04), 0.03, (240, 240, 230))
    return car


def draw_side(random: np.random.RandomState) -> np.ndarray:
    """A car from its side."""
    car = scenery.blank(128, 256)
    scenery.paint_box(car, (0.5, 0.13), (0.30, 0.11), 0.06, (128, 130, 134), taper=0.1)
    scenery.paint_box(car, (0.5, 0.14), (0.27, 0.075), 0.03, (40, 47, 55), taper=0.08)
    scenery.paint_box(car, (0.5, 0.30), (0.49, 0.12), 0.07, (140, 142, 148))
    for x in (0.2, 0.8):
        scenery.paint_box(car, (x, 0.42), (0.075, 0.075), 0.075, (22, 22, 24))
        scenery.paint_box(car, (x, 0.42), (0.04, 0.04), 0.04, (120, 120, 124))
    return car


def draw_truck(random: np.random.RandomState) -> np.ndarray:
    """The rear, or side, of a box truck."""
    truck = scenery.blank(256, 256)
    for x in (0.16, 0.84):
        scenery.paint_box(truck, (x, 0.93), (0.08, 0.07), 0.03, (22, 22, 24))
    scenery.paint_box(truck, (0.5, 0.44), (0.49, 0.43), 0.01, (205, 206, 208))
    scenery.paint_box(truck, (0.5, 0.44), (0.006, 0.42), 0.002, (150, 150, 152))
    scenery.paint_box(truck, (0.5, 0.88), (0.48, 0.03), 0.01, (60, 60, 64))
    for x in (0.08, 0.92):
        scenery.paint_box(truck, (x, 0.88), (0.04, 0.02), 0.01, (180, 20, 20))
    return truck


def draw_shadow(random: np.random.RandomState) -> np.ndarray:
    """A soft dark blob."""
    return blob((16, 17, 20), 0.75)


def draw_lamp(random: np.random.RandomState) -> np.ndarray:
    """A soft shine."""
    return blob((255, 255, 255), 1.0)


def blob(colour: tuple[float, float, float], opacity: float) -> np.ndarray:
    """A disc that fades to its border."""
    sprite = scenery.blank(SIDE, SIDE)
    place = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    sprite[..., :3] = colour
    sprite[..., 3] = opacity * np.clip(1 - place**2 - place[:, None] ** 2, 0, 1)
    return sprite


def draw_pole(random: np.random.RandomState) -> np.ndarray:
    """A pole of steel or wood."""
    return plain((110, 104, 98), 6, random)


def draw_rail(random: np.random.RandomState) -> np.ndarray:
    """A guardrail: a bright and a dark band, and the gap to the next post."""
    rail = plain((160, 163, 166), 5, random)
    rail[SIDE // 3 : SIDE // 2, :, :3] *= 0.65
    rail[-SIDE // 6 :, :, :3] *= 0.75
    rail[:, :4, :3] *= 0.5
    return rail


def draw_concrete(random: np.random.RandomState) -> np.ndarray:
    """Concrete, with a joint."""
    wall = plain((150, 148, 142), 7, random)
    wall[:, :2, :3] *= 0.6
    wall[-SIDE // 4 :, :, :3] *= 0.85
    return wall


def draw_house(random: np.random.RandomState) -> np.ndarray:
    """A wall with rows of windows."""
    wall = plain((176, 160, 144), 6, random)
    for row in (14, 54, 94):
        for column in range(8, SIDE - 16, 24):
            wall[row : row + 20, column : column + 13, :3] = (62, 70, 80)
    return wall


def draw_sign(random: np.random.RandomState) -> np.ndarray:
    """A sign with a border and something written on it."""
    ground = ((30, 96, 60), (236, 234, 226), (40, 70, 140))[random.randint(3)]
    sign = plain(ground, 2, random)
    ink = (240, 240, 238) if sum(ground) < 400 else (30, 30, 32)
    for row in range(24, 104, 28):
        for column in range(14, 110, 12):
            sign[row : row + 16, column : column + random.randint(3, 10), :3] = ink
    return sign
