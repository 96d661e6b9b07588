"""Everything upright or lying on the road at one moment, as the painter's rectangles."""
from __future__ import annotations

import math

import numpy as np

from drivesim.highway import Highway
from drivesim.labels import Here
from drivesim.looks import Looks
from drivesim.painter import QUAD
from drivesim.sprites import INDEX
from drivesim.traffic import Traffic

SEEN = 280.0  # m
RAINDROPS = 120  # streaks in sight
Array = np.ndarray


def scene_quads(road: Highway, traffic: Traffic, here: Here, look: Looks,
                seed: int) -> Array:
    """Quads of the roadside, of vehicles and of rain, far to near, in the frame of the picture."""
    quads = np.concatenate([thing_quads(road, here, look),
                            vehicle_quads(road, traffic, here, look),
                            rain_quads(np.random.RandomState(seed), RAINDROPS if look.rain else 0)])
    # A shadow lies under its owner: it is painted as if a little farther away.
    middle = quads["corner"] + 0.5 * (quads["right"] + quads["down"])
    away = middle[:, 0] + 3.0 * (quads["texture"] == INDEX["shadow"])
    order = np.argsort(-away, kind="stable")
    quads = quads[order][away[order] > -5]
    for name in ("corner", "right", "down"):
        quads[name] = quads[name] @ here.residual.T
    return quads


def thing_quads(road: Highway, here: Here, look: Looks) -> Array:
    """The roadside, and the shadows of trees where the sun shines."""
    things = road.things
    near = np.flatnonzero((things.station > here.station - 15)
                          & (things.station < here.station + SEEN))
    station, offset = things.station[near], things.offset[near]
    feet = here.level(road, station, offset)
    ends = here.level(road, station + things.length[near], offset + things.width[near])
    faces = things.faces[near]
    wide = np.where(faces[:, None], things.width[near][:, None] * (0.0, 1.0, 0.0), ends - feet)
    quads = np.zeros(len(near), QUAD)
    quads["corner"] = feet - (0.0, 0.0, 1.0) * things.top[near][:, None]
    quads["corner"] -= np.where(faces[:, None], 0.5 * wide, 0)
    quads["right"] = wide
    quads["down"][:, 2] = things.top[near] - things.bottom[near]
    quads["down"][:, 0] = 1e-4  # no plane through the camera
    quads["tint"] = things.tint[near][:, None]
    quads["alpha"] = 1
    quads["texture"] = [INDEX[name] for name in things.texture[near]]
    trees = np.char.startswith(things.texture[near], "tree")
    if look.sun_power == 0 or not trees.any():
        return quads
    reach = min(1 / math.tan(look.sun[1]), 4.0)
    angle = look.sun[0] - here.heading + math.pi  # shadows point away from the sun
    thrown = np.array([math.cos(angle), math.sin(angle), 0])
    shadows = quads[trees]
    tall = things.top[near][trees][:, None]
    across = np.array([-thrown[1], thrown[0], 0]) * things.width[near][trees][:, None]
    shadows["corner"] = feet[trees] - 0.5 * across - (0, 0, 0.02)
    shadows["right"], shadows["down"] = across, thrown * tall * reach
    shadows["texture"], shadows["tint"], shadows["alpha"] = INDEX["shadow"], 1.0, 0.8
    return np.concatenate([shadows, quads])


def rain_quads(random: np.random.RandomState, count: int) -> Array:
    """Streaks of rain before the camera."""
    quads = np.zeros(count, QUAD)
    quads["corner"] = random.uniform((2, -4, -3), (12, 4, 1.2), (count, 3))
    quads["right"][:, 1] = 0.015
    quads["down"] = (0.01, 0.02, 0.3)
    quads["texture"], quads["tint"], quads["alpha"] = INDEX["lamp"], 0.75, 0.3
    return quads


def vehicle_quads(road: Highway, traffic: Traffic, here: Here, look: Looks) -> Array:
    """Of each vehicle a shadow, the side we see, the end we see, and at night its lamps."""
    near = np.flatnonzero((traffic.station > here.station - 12)
                          & (traffic.station < here.station + SEEN))
    count = len(near)
    length, width, height = traffic.size[near].T
    station, offset = traffic.station[near], traffic.offset[near]
    left, right = offset - width / 2, offset + width / 2
    near_left, near_right = here.level(road, station, left), here.level(road, station, right)
    far_left = here.level(road, station + length, left)
    far_right = here.level(road, station + length, right)
    up = np.zeros((count, 3))
    up[:, 2] = height
    truck, ours = traffic.truck[near], traffic.direction[near] > 0
    tint = np.clip(traffic.tint[near], 0.1, 1.6)

    shadow = np.zeros(count, QUAD)
    shadow["corner"] = near_left - 0.1 * (near_right - near_left) - (0.4, 0, 0.03)
    shadow["right"] = 1.2 * (near_right - near_left)
    shadow["down"] = 1.1 * (far_left - near_left) + (0.4, 0, 0)
    shadow["texture"], shadow["alpha"], shadow["tint"] = INDEX["shadow"], 1.0, 1.0

    end = np.zeros(count, QUAD)
    end["corner"], end["right"], end["down"] = near_left - up, near_right - near_left, up
    end["texture"] = np.where(truck, INDEX["truck"], np.where(ours, INDEX["car"], INDEX["front"]))
    end["tint"], end["alpha"] = tint, 1.0

    side = end.copy()
    from_left = (near_left[:, 1] > 0)[:, None]
    side["corner"] = np.where(from_left, near_left, near_right) - up
    side["right"] = np.where(from_left, far_left - near_left, far_right - near_right)
    side["texture"] = np.where(truck, INDEX["truck"], INDEX["side"])
    side["tint"] = 0.85 * tint
    parts = [shadow, side, end]
    if look.night:
        colour = np.where(ours[:, None], (1.0, 0.12, 0.08), (1.0, 0.97, 0.85))
        size = np.where(ours, 0.5, 0.9)[:, None]
        for share in (0.12, 0.88):
            lamp = np.zeros(count, QUAD)
            middle = near_left + share * (near_right - near_left) - 0.45 * up
            lamp["corner"] = middle - 0.5 * size * (0, 1, 1) - (0.1, 0, 0)
            lamp["right"], lamp["down"] = size * (0, 1, 0), size * (0, 0, 1)
            lamp["texture"], lamp["tint"] = INDEX["lamp"], colour
            lamp["alpha"], lamp["glows"] = 1.0, 1.0
            parts.append(lamp)
    return np.concatenate(parts)
