"""What a perfect model would say about one frame: every output of the model contract."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.grids import LEAD_T_IDXS, T_IDXS, X_IDXS
from drivesim.highway import RIBBON_STEP, Highway
from drivesim.road import Centreline

Array = np.ndarray
BRAKING_FADES = 1.5  # s in which the acceleration of a car ahead is expected to fade
LEAD_RANGE = 140.0  # m
LANE_CHANGE_LEFT, LANE_CHANGE_RIGHT = 3, 4  # of the contract's desires


@dataclass(frozen=True)
class Truth:
    """All float32, in the frame of the picture: origin camera, x forward, y right, z down; metres.

    plan (33, 15): position, velocity, acceleration, roll-pitch-yaw (rad), rates (rad/s) at T_IDXS.
    lane_lines (4, 33, 2), road_edges (2, 33, 2): y and z at X_IDXS, from left to right;
    lane_line_probs (4,): 1 where a line is painted. lead (3, 6, 4): x, y of its rear, speed,
    acceleration at LEAD_T_IDXS, for the car that is the lead 0, 2, 4 s from now; lead_prob (3,).
    pose (6,): velocity m/s and rotation rates rad/s now. wide_from_device_euler (3,) rad.
    road_transform (6,): the camera above the road, m, and the tilt of the road, rad.
    desire_state (8,), desire_pred (4, 8): now, and 2, 4, 6, 8 s ahead. meta (55,): 0 or 1, as laid
    out for that width. curvature 1/m to the right and acceleration m/s^2 a good driver wants now.
    What is absent has finite values and the probability 0.
    """

    plan: Array
    lane_lines: Array
    lane_line_probs: Array
    road_edges: Array
    lead: Array
    lead_prob: Array
    pose: Array
    wide_from_device_euler: Array
    road_transform: Array
    desire_state: Array
    desire_pred: Array
    meta: Array
    curvature: Array
    acceleration: Array


@dataclass(frozen=True)
class Here:
    """The frame a camera on the road looks from.

    place (2,) m and heading rad in the world; station m; height of the camera m; rise m and slope
    of the road there. residual: (3, 3) turns the car's frame into the picture's.
    """

    place: Array
    heading: float
    station: float
    height: float
    rise: float
    slope: float
    residual: Array

    def level(self, road: Highway, stations: Array, offsets: Array | float,
              above: Array | float = 0.0) -> Array:
        """(N, 3) points of the road, `above` metres over it, in the frame of the car."""
        north, east = (road.line.point(stations, offsets) - self.place).T
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        forward = north * cos + east * sin
        down = self.height - (road.rise_at(stations) - self.rise) + self.slope * forward - above
        return np.stack([forward, east * cos - north * sin, down], axis=-1)

    def points(self, road: Highway, stations: Array, offsets: Array | float,
               above: Array | float = 0.0) -> Array:
        """The same in the frame of the picture."""
        return self.level(road, stations, offsets, above) @ self.residual.T


def slope_at(road: Highway, station: Array) -> Array:
    """Rise per metre at stations."""
    return (road.rise_at(station + 1.0) - road.rise_at(station - 1.0)) / 2.0


def curvature_at(line: Centreline, station: Array, offset: Array) -> Array:
    """Of the line at a constant offset, 1/m."""
    curvature = line.curvature_at(station)
    return curvature / np.maximum(1 - curvature * offset, 0.2)


def plan_truth(road: Highway, here: Here, station: Array, speed: Array, acceleration: Array,
               offset: Array, drift: Array, pull: Array) -> Array:
    """(33, 15) for a car at T_IDXS. offset, drift, pull: m to the right and its derivatives.

    speed is along the centreline's direction; all inputs are (33,).
    """
    position = here.level(road, station, offset, here.height)
    lateral = np.arctan2(drift, np.maximum(speed, 0.5))
    yaw = road.line.heading_at(station) + lateral - here.heading
    steer = (pull * speed - drift * acceleration) / np.maximum(speed**2 + drift**2, 0.25)
    yaw_rate = curvature_at(road.line, station, offset) * speed + steer
    pace = np.hypot(speed, drift)
    pitch = np.arctan(slope_at(road, station)) - np.arctan(here.slope)
    pitch_rate = np.gradient(pitch, T_IDXS)
    flat = np.zeros_like(yaw)
    forward = np.stack([np.cos(yaw), np.sin(yaw), -np.sin(pitch)], axis=1)
    right = np.stack([-np.sin(yaw), np.cos(yaw), flat], axis=1)
    pushed = acceleration[:, None] * forward + (pace * yaw_rate)[:, None] * right
    columns = (position @ here.residual.T, pace[:, None] * forward @ here.residual.T,
               pushed @ here.residual.T, np.stack([flat, pitch, yaw], axis=1),
               np.stack([flat, pitch_rate, yaw_rate], axis=1))
    return np.concatenate(columns, axis=1)


def line_truth(road: Highway, here: Here, offsets: list[Array | float]) -> Array:
    """(n, 33, 2): y and z at X_IDXS of lines at those offsets, each a number or (S,)."""
    stations = line_stations(here)
    lines = []
    for offset in offsets:
        points = here.points(road, stations, offset)
        forward = np.maximum.accumulate(points[:, 0])
        lines.append(np.stack([np.interp(X_IDXS, forward, points[:, i]) for i in (1, 2)], axis=-1))
    return np.array(lines)


def line_stations(here: Here) -> Array:
    """(S,) stations that cover X_IDXS, m."""
    return np.arange(here.station - 14.0, here.station + 260.0, 2.0)


def lanes_truth(road: Highway, here: Here, lane: int) -> tuple[Array, Array, Array]:
    """Lines and their probabilities around own lane `lane`, and edges."""
    stations = line_stations(here)
    offsets: list[Array | float] = [road.boundary(lane + i) for i in (-1, 0, 1, 2)]
    probs = np.array([visible(road, here, lane + i) for i in (-1, 0, 1, 2)])
    edges: list[Array | float] = [road.edge_at(side, stations) for side in (0, 1)]
    lines = line_truth(road, here, offsets + edges)
    return lines[:4], probs, lines[4:]


def visible(road: Highway, here: Here, index: int) -> float:
    """1 if boundary `index` of the own lanes is painted near here, else 0."""
    if 0 <= index <= road.lanes:
        return float(road.line_probs[index])
    if index == -1:
        return float(road.oncoming > 0)
    at = RIBBON_STEP * np.arange(len(road.extra)) + road.line.start
    return float(np.interp(here.station + 20.0, at, road.extra) > 0.8 * road.lane_width)


def lead_truth(road: Highway, here: Here, station: float, offset: float, speed: float,
               acceleration: float) -> Array:
    """(6, 4) of a car whose rear is at station; its acceleration fades with BRAKING_FADES."""
    speeds, gone = coast(LEAD_T_IDXS, speed, acceleration)
    place = here.points(road, station + gone, offset)
    faded = acceleration * np.exp(-LEAD_T_IDXS / BRAKING_FADES) * (speeds > 0)
    return np.column_stack([place[:, 0], place[:, 1], speeds, faded])


def coast(t: Array, speed: float, acceleration: float) -> tuple[Array, Array]:
    """Speeds and ways after t seconds if the acceleration fades exponentially; never backwards."""
    fade = BRAKING_FADES * (1 - np.exp(-t / BRAKING_FADES))
    speeds = np.maximum(0.0, speed + acceleration * fade)
    way = speed * t + acceleration * BRAKING_FADES * (t - fade)
    return speeds, np.maximum.accumulate(np.maximum(way, 0.0))


def meta_truth(plan: Array, astray: bool, desires: Array) -> Array:
    """(55,): engaged; per 2, 4, 6, 8, 10 s whether the driver takes over or brakes hard; per 0, 2,
    .., 10 s pedals and blinkers. astray: so far off that a person would steer. desires (4, 8)."""
    meta = np.zeros(55)
    meta[0] = 1.0
    forward = plan[:, 6]
    for k, until in enumerate((2, 4, 6, 8, 10)):
        hardest = forward[until >= T_IDXS].min()
        meta[1 + 6 * k : 7 + 6 * k] = (0.0, hardest < -3.5, astray, hardest < -3.0, hardest < -4.0,
                                       hardest < -5.0)
    for j, at in enumerate((0, 2, 4, 6, 8, 10)):
        now = np.interp(at, T_IDXS, forward)
        desire = desires[min(max(j - 1, 0), 3)]
        meta[31 + 4 * j : 35 + 4 * j] = (now > 0.3, now < -0.3, desire[LANE_CHANGE_LEFT],
                                         desire[LANE_CHANGE_RIGHT])
    return meta
