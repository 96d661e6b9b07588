"""A whole road from a seed: where it runs, its lanes and paint, what stands beside it.

Stations are arc lengths along the centreline (m), offsets metres to the right of it. Traffic keeps
to the right. Lanes of the own direction have the numbers 0 (left) to lanes - 1; `oncoming` more lie
to their left.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.recorded import Recorded
from drivesim.road import STEP, Centreline, running_integral

BEHIND = 60.0  # m of road behind station 0
RIBBON_STEP = 2.0  # m between samples of ribbons
ASPHALT, CONCRETE, GRAVEL = (96.0, 97.0, 100.0), (138.0, 136.0, 130.0), (146.0, 138.0, 124.0)
WHITE, YELLOW, TAR = (236.0, 236.0, 230.0), (226.0, 176.0, 52.0), (52.0, 52.0, 55.0)
# kind: (sharpest curvature 1/m, straights m, ramps m, arcs m, lanes, grade, cruise m/s). After
# common design guides: radius grows with design speed.
KINDS = {
    "highway": (1 / 450, (60, 500), (80, 200), (100, 450), (2, 4), 0.035, (24.0, 35.0)),
    "rural": (1 / 110, (20, 220), (30, 80), (30, 160), (1, 2), 0.07, (14.0, 25.0)),
    "urban": (1 / 60, (40, 260), (12, 30), (15, 70), (1, 3), 0.03, (8.0, 16.0)),
}


WINDING = 0.15  # of its straights are left in a winding road


@dataclass(frozen=True)
class Ribbon:
    """A painted or paved strip along the road.

    centre, half: (S,) offset and half width every RIBBON_STEP from station -BEHIND, m; half 0 where
    there is none. dash, period, phase: m, period 0 for solid. wear: 0 new to 1 gone.
    """

    colour: tuple[float, float, float]
    centre: np.ndarray
    half: np.ndarray
    opacity: float = 1.0
    dash: float = 0.0
    period: float = 0.0
    phase: float = 0.0
    wear: float = 0.0


@dataclass(frozen=True)
class Things:
    """Upright rectangles: N things. All metres; texture names of `sprites`.

    Each begins at (station, offset) and runs along by `length` and across by `width`, from `bottom`
    to `top` above the road. faces: it turns to the camera about its middle.
    """

    station: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    width: np.ndarray
    bottom: np.ndarray
    top: np.ndarray
    texture: np.ndarray
    tint: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class Highway:
    """The road.

    rise: (N,) height of the centreline's samples, m. line_probs: (lanes + 1,) how visible the
    lines left to right of the own lanes are. extra: (S,) width of an exit or merge lane, m.
    left_edge, right_edge: (S,) of the pavement, m.
    """

    kind: str
    line: Centreline
    rise: np.ndarray
    lanes: int
    oncoming: int
    lane_width: float
    line_probs: np.ndarray
    extra: np.ndarray
    left_edge: np.ndarray
    right_edge: np.ndarray
    ribbons: tuple[Ribbon, ...]
    things: Things
    cruise: float

    def boundary(self, index: int) -> float:
        """Offset of the line left of own lane `index`."""
        return (index - self.lanes / 2) * self.lane_width

    def lane_centre(self, lane: float) -> float:
        """Offset of the middle of a lane; oncoming lanes have negative numbers."""
        return (lane + 0.5 - self.lanes / 2) * self.lane_width

    def rise_at(self, station: np.ndarray) -> np.ndarray:
        """Height of the road at stations, m."""
        return np.interp(station, self.line.stations, self.rise)

    def edge_at(self, side: int, station: np.ndarray) -> np.ndarray:
        """Offset of the left (0) or right (1) edge of the pavement at stations, m."""
        edge = (self.left_edge, self.right_edge)[side]
        return np.interp(station, RIBBON_STEP * np.arange(len(edge)) - BEHIND, edge)


def make_highway(random: np.random.RandomState, length: float, kind: str | None = None,
                 clear: bool = False, recorded: Recorded | None = None,
                 winding: bool = False) -> Highway:
    """A road of that length, m. kind: of KINDS; clear: all paint is whole. recorded: where it runs.
    winding: straights are short, so that three quarters of it are curves instead of one."""
    kind = kind or str(random.choice(list(KINDS), p=[0.5, 0.35, 0.15]))
    sharpest, straights, ramps, arcs, lanes_range, grade, cruise = KINDS[kind]
    if recorded is None:
        shorter = WINDING if winding else 1.0
        line = wander(random, -BEHIND, length, sharpest,
                      (shorter * straights[0], shorter * straights[1]), ramps, arcs)
    else:
        line = recorded.line(-BEHIND, length)
    lanes = int(random.randint(lanes_range[0], lanes_range[1] + 1))
    divided = kind == "highway"
    oncoming = 0 if divided else int(random.randint(1, lanes + 1))
    width = random.uniform(3.4, 3.8) if divided else random.uniform(2.8, 3.6)
    stations = np.arange(-BEHIND, length, RIBBON_STEP)
    paint = Markings(random, stations, lanes, oncoming, width, divided, clear)
    things = roadside(random, kind, paint, length)
    return Highway(kind, line, hills(random, line, grade), lanes, oncoming, width,
                   paint.visible, paint.extra, paint.left, paint.right, tuple(paint.ribbons),
                   things, random.uniform(*cruise))


def wander(random: np.random.RandomState, start: float, end: float, sharpest: float,
           straights: tuple[float, float], ramps: tuple[int, int],
           arcs: tuple[int, int]) -> Centreline:
    """Straights, clothoids and arcs in turn. Curvatures are log-uniform: gentle ones are common."""
    knots, values = [start, 15.0], [0.0, 0.0]
    while knots[-1] < end:
        bend = sharpest * np.exp(-random.exponential(1.0)) * random.choice([-1.0, 1.0])
        share = abs(bend) / sharpest  # gentle curves are longer
        arc = random.uniform(*arcs) * (1.5 - share)
        for step, value in ((random.uniform(*straights), 0.0), (random.uniform(*ramps), bend),
                            (arc, bend), (random.uniform(*ramps), 0.0)):
            knots.append(knots[-1] + step)
            values.append(value)
    stations = np.arange(start, end, STEP)
    curvature = np.interp(stations, knots, values)
    heading = running_integral(curvature)
    return Centreline(start, running_integral(np.cos(heading)), running_integral(np.sin(heading)),
                      heading, curvature)


def hills(random: np.random.RandomState, line: Centreline, grade: float) -> np.ndarray:
    """(N,) height of the road: waves of several lengths whose slopes sum to about `grade`."""
    rise = np.zeros_like(line.x)
    for wavelength in (1400.0, 600.0, 280.0):
        steep = grade * random.uniform(0, 1) * min(1.0, wavelength / 800)
        wave = 2 * np.pi / wavelength
        rise += steep / wave * np.sin(wave * line.stations + random.uniform(0, 2 * np.pi))
    return rise


class Markings:
    """Lays pavement and paint across a road; keeps the ribbons, lowest first."""

    def __init__(self, random: np.random.RandomState, stations: np.ndarray, lanes: int,
                 oncoming: int, width: float, divided: bool, clear: bool) -> None:
        self.random, self.stations, self.clear = random, stations, clear
        self.ribbons: list[Ribbon] = []
        first, last = -lanes / 2 * width, lanes / 2 * width
        far_left = first - oncoming * width
        shoulders = random.uniform((0.4, 1.5), (2.0, 3.2)) if divided else random.uniform(
            (0.2, 0.2), (1.2, 1.6))
        self.left = np.full(len(stations), far_left - shoulders[0])
        self.extra = self.extra_lane(divided, width)
        self.right = last + shoulders[1] + self.extra
        gravel = random.uniform(0.0, 1.5)
        self.strip(GRAVEL, self.left - gravel, self.right + gravel)
        shade = random.uniform(0.62, 1.25)
        base = CONCRETE if random.uniform() < 0.2 else ASPHALT
        self.strip(tuple(shade * np.array(base)), self.left, self.right)
        if random.uniform() < 0.4:  # seams of tar, repairs
            for _ in range(random.randint(1, 3)):
                self.painted(TAR, random.uniform(far_left, last), 0.05, 0.7, 0.0, 0.0, 0.4)
        yellow = random.uniform() < 0.6
        self.visible = np.ones(lanes + 1)
        dash, period = ((3.0, 12.0), (3.0, 9.0), (6.0, 18.0), (1.5, 4.5))[random.randint(4)]
        for i in range(lanes + 1):
            at = first + i * width
            if i == lanes and self.extra.any():  # the extra lane has the outer line
                self.visible[i] = self.line(at, "dashed", WHITE, dash / 2, period / 2)
            elif i == lanes:
                self.visible[i] = self.line(at, "solid", WHITE, dash, period)
            elif i == 0:
                style = "solid" if divided else str(random.choice(["double", "dashed", "mixed"]))
                self.visible[i] = self.line(at, style, YELLOW if yellow else WHITE, dash, period)
            else:
                self.visible[i] = self.line(at, "dashed", WHITE, dash, period)
        for i in range(1, oncoming + 1):
            style = "solid" if i == oncoming else "dashed"
            self.line(first - i * width, style, WHITE, dash, period)
        if self.extra.any():
            self.painted(WHITE, self.right - shoulders[1], 0.08, 0.9, 0.0, 0.0, 0.1)

    def extra_lane(self, divided: bool, width: float) -> np.ndarray:
        """(S,) how far an exit or a merge widens the road: tapers at both ends of a lane."""
        if not divided or self.random.uniform() < 0.55:
            return np.zeros(len(self.stations))
        begin = self.random.uniform(50, 400)
        length, taper = self.random.uniform(150, 350), self.random.uniform(40, 120)
        return width * np.interp(self.stations, [begin, begin + taper, begin + taper + length,
                                                 begin + 2 * taper + length], [0, 1, 1, 0])

    def line(self, at: float, style: str, colour: tuple[float, float, float], dash: float,
             period: float) -> float:
        """Lay one lane line of a style; returns how visible it is, 0 or 1."""
        state = self.random.choice(["good", "worn", "missing"], p=[0.72, 0.2, 0.08])
        if self.clear:
            state = "good"
        if state == "missing":
            return 0.0
        wear = self.random.uniform(0.0, 0.2) if state == "good" else self.random.uniform(0.4, 0.75)
        half = self.random.uniform(0.05, 0.09)
        dashed, solid = (dash, period), (0.0, 0.0)
        apart = {"double": (solid, solid), "mixed": (solid, dashed)}.get(style)
        if apart is None:
            self.painted(colour, at, half, 0.95, *(dashed if style == "dashed" else solid), wear)
        else:
            for side, (painted, every) in zip((-1, 1), apart, strict=True):
                self.painted(colour, at + side * 0.13, 0.055, 0.95, painted, every, wear)
        return 1.0

    def painted(self, colour: tuple[float, float, float], at: float | np.ndarray, half: float,
                opacity: float, dash: float, period: float, wear: float) -> None:
        """Lay a strip of constant width."""
        shape = self.stations.shape
        self.ribbons.append(Ribbon(colour, np.broadcast_to(at, shape), np.full(shape, half),
                                   opacity, dash, period, self.random.uniform(0, 12), wear))

    def strip(self, colour: tuple[float, ...], left: np.ndarray, right: np.ndarray) -> None:
        """Lay pavement between two offsets."""
        red, green, blue = colour
        self.ribbons.append(Ribbon((red, green, blue), (left + right) / 2, (right - left) / 2))


def roadside(random: np.random.RandomState, kind: str, paint: Markings, length: float) -> Things:
    """Everything upright: barriers, posts, poles, signs, trees, buildings, bridges."""
    rows: list[tuple[float, float, float, float, float, float, str, float, bool]] = []

    def edge(side: int, station: float) -> float:
        return float(np.interp(station, paint.stations, (paint.left, paint.right)[side]))

    def row_of(texture: str, side: int, every: float, away: float, wide: float,
               tall: float) -> None:
        for at in np.arange(-20 + random.uniform(0, every), length, every):
            rows.append((at, edge(side, at) + (2 * side - 1) * away, 0, wide, 0, tall, texture,
                         random.uniform(0.8, 1.1), True))

    for side in (0, 1):
        sign = 2 * side - 1
        barrier = random.choice(["none", "rail", "concrete"], p=[0.45, 0.4, 0.15])
        if kind == "highway" and side == 0:
            barrier = random.choice(["none", "rail", "concrete"], p=[0.2, 0.4, 0.4])
        if barrier != "none":
            bottom, top = (0.4, 0.78) if barrier == "rail" else (0.0, 0.9)
            begin, end = np.sort(random.uniform(-40, length, 2)) if side else (-40.0, length)
            away = random.uniform(0.3, 1.2)
            for at in np.arange(begin, end, 6.0):
                here, there = edge(side, at), edge(side, at + 6)
                rows.append((at, here + sign * away, 6.0, there - here, bottom, top, barrier, 1.0,
                             False))
        if random.uniform() < 0.5:
            row_of("post", side, 40.0 if kind == "highway" else 25.0, 0.7, 0.12, 1.0)
        if random.uniform() < 0.45:
            row_of("pole", side, random.uniform(30, 60), random.uniform(1.5, 4), 0.22,
                   random.uniform(6, 10))
        for at in np.cumsum(random.exponential(160, 12)):
            if at < length:
                rows.append((at, edge(side, at) + sign * random.uniform(1, 3), 0,
                             random.uniform(0.6, 2.5), 1.6, random.uniform(2.6, 4.2),
                             f"sign{random.randint(3)}", random.uniform(0.8, 1.1), True))
        density = random.choice([6.0, 14.0, 45.0])
        at = -20.0
        while at < length:
            at += random.exponential(density)
            rows.append((at, edge(side, at) + sign * (3.5 + random.exponential(11)), 0,
                         random.uniform(4, 8), 0, random.uniform(4, 13),
                         f"tree{random.randint(4)}", random.uniform(0.6, 1.2), True))
        blocks = {"urban": 22.0, "rural": 150.0, "highway": 260.0}[kind]
        at = random.exponential(blocks)
        while at < length:
            deep, tall = random.uniform(8, 24), random.uniform(4, 14)
            near = edge(side, at) + sign * random.uniform(6, 18)
            tint = random.uniform(0.5, 1.15)
            rows.append((at, near, deep, 0, 0, tall, "house", tint, False))
            rows.append((at, near, 0, sign * 12, 0, tall, "house", tint * 0.85, False))
            at += deep + random.exponential(blocks)
    if random.uniform() < 0.35:
        at = random.uniform(80, length)
        left, right = edge(0, at) - 14, edge(1, at) + 14
        rows.append((at, left, 0, right - left, 5.2, 6.6, "concrete", 0.8, False))
        for pillar in (edge(0, at) - 2.5, edge(1, at) + 1.5):
            rows.append((at, pillar, 0, 1.0, 0, 5.2, "concrete", 0.7, False))
    return Things(*(np.array(column) for column in zip(*sorted(rows), strict=True)))
