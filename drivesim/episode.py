"""Drives through random worlds, as the model sees them: pictures of both views and their truth.

    for frame in Episode(seed).frames():      a good driver with disturbances, for training
        ...
    episode = Episode(seed); ego = episode.start()
    frame = episode.observe(ego)              what is seen from there, and what would be right
    episode.advance(ego)                      after the caller has moved its car by 0.05 s

The same seed and conditions give the same bytes on the same kind of machine.
"""
from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drivesim import driver, labels, looks
from drivesim.camera import rotation
from drivesim.grids import FRAMES_PER_SECOND, T_IDXS
from drivesim.highway import RIBBON_STEP, make_highway
from drivesim.labels import Here, Truth
from drivesim.painter import FAR, NOISE_SIDE, TABLE_STEP, Ground, Painter, make_ground, make_view
from drivesim.recorded import Recorded
from drivesim.scene import scene_quads
from drivesim.scenery import tileable_noise
from drivesim.sprites import make_atlas
from drivesim.traffic import Row, Traffic, random_hindrance, random_rows

DT = 1 / FRAMES_PER_SECOND
# The two views of the model: width, height, focal length, principal point, pixels.
NARROW, WIDE = (512, 256, 910.0, 256.0, 47.6), (512, 256, 455.0, 256.0, 151.8)
NOSE = 2.0  # m from the camera to the front of our car
ASTRAY = 0.9  # m off the lane's centre at which a person would take over
NEAR = 50.0  # m of road to either side in which we are looked for
Array = np.ndarray


@dataclass(frozen=True)
class EgoState:
    """Our car, at its camera: x north, y east m; heading rad clockwise; speed m/s; acceleration
    m/s^2; curvature of its way, 1/m, positive to the right."""

    x: float
    y: float
    heading: float
    speed: float
    acceleration: float = 0.0
    curvature: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One moment. time s; narrow, wide: packed pictures (6, 128, 256) uint8 as modeld packs them;
    desire (8,) and traffic_convention (2,): float32 inputs of the model."""

    time: float
    narrow: Array
    wide: Array
    truth: Truth
    desire: Array
    traffic_convention: Array
    ego: EgoState


class Episode:
    """One world, its traffic and our way through it."""

    def __init__(self, seed: int, conditions: str = "random", seconds: float = 15.0,
                 kind: str | None = None, views: tuple[tuple[float, ...], ...] = (NARROW, WIDE),
                 traffic: list[Row] | None = None, recorded: Recorded | None = None,
                 winding: bool = False, pressing: bool = False) -> None:
        """conditions: "random", "clear" or "bad". kind: "highway", "rural", "urban" or any.
        views: cameras (width, height, focal, centre x, centre y); the second is the wide one.
        traffic: vehicles (station m, offset m, speed m/s, 1 with us or -1) instead of random ones.
        recorded: a drive whose way the road takes, and whose speed nobody exceeds.
        winding: with few straights. pressing: with a vehicle close ahead that brakes or stands.
        Raises ValueError for unknown conditions."""
        self.seconds, self.recorded = seconds, recorded
        self.random = random = np.random.RandomState(seed & 0xFFFFFFFF)
        self.looks = looks.make_looks(random, conditions)
        self.road = make_highway(random, (seconds + 12) * 36 + FAR, kind, conditions == "clear",
                                 recorded, winding)
        self.limits = driver.speed_limits(self.road)
        if recorded is not None:
            begin = self.road.line.start + driver.LIMIT_STEP * np.arange(len(self.limits))
            self.limits = np.minimum(self.limits, recorded.speed_at(begin))
        self.lane = int(random.randint(self.road.lanes))
        centres = [self.road.lane_centre(i) for i in range(-self.road.oncoming, self.road.lanes)]
        rows = random_rows(random, centres[self.road.oncoming :], centres[: self.road.oncoming],
                           self.lane, self.road.cruise)
        centre = self.road.lane_centre(self.lane)
        self.hindrance = random_hindrance(random, float(self.limits[30])) if pressing else None
        if self.hindrance is not None:
            ahead = [row for row in rows if row[1] != centre or row[3] < 0]
            rows = [*ahead, (self.hindrance.gap, centre, self.hindrance.wanted, 1.0)]
        self.traffic = Traffic(random, rows if traffic is None else traffic)
        if self.hindrance is not None:
            self.traffic.stops[-1] = self.hindrance.stops
            self.traffic.braking[-1] = self.hindrance.braking
        self.target = driver.LaneTarget(centre, centre, 0.0)
        self.time, self.frame_number, self.seed = 0.0, 0, seed
        self.painters = [self._painter(view, second) for second, view in enumerate(views)]
        self.previous: dict[int, tuple[int, Array]] = {}  # view -> frame number, picture
        # About where we are, m: given by callers whose road is long enough to cross itself.
        self.near: float | None = None
        self.ribbon = np.stack([np.stack([r.centre, r.half], -1) for r in self.road.ribbons])
        self.paint = np.array([(*r.colour, r.opacity, r.dash, r.period, r.phase, r.wear)
                               for r in self.road.ribbons], np.float32)
        self.ribbon = self.ribbon.astype(np.float32)

    def _painter(self, view: tuple[float, ...], second: int) -> Painter:
        """The painter of a view, with its dirt."""
        width, height, focal, x, y = view
        matrix = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
        turn = self.looks.residual
        if second:
            turn = rotation(*self.looks.wide_euler) @ turn
        noise = tileable_noise(np.random.RandomState(3), NOISE_SIDE, NOISE_SIDE, 0.6)
        painter = Painter(make_view(int(width), int(height), matrix, turn),
                          np.ascontiguousarray(noise), *make_atlas())
        if self.looks.smear:
            shape = painter.smear.shape
            side = max(shape)
            spots = tileable_noise(self.random, side, side, 0.9)[: shape[0], : shape[1]]
            painter.smear[:] = np.clip(spots - 1.1, 0, 1) * self.looks.smear
        return painter

    # -- the open loop

    def frames(self, every: int = 1, start: int = 0) -> Iterator[Frame]:
        """Drive with disturbances and recoveries for `seconds`; draw each `every`-th frame only,
        from frame `start` on."""
        random = self.random
        station, offset = 0.0, self.target.after + random.normal(0, 0.25)
        drift, push, push_until = 0.0, 0.0, 0.0
        speed = float(self.limits[30]) * random.uniform(0.75, 1.0)
        if self.hindrance is not None:
            speed = self.hindrance.ours
        next_push, next_change = random.exponential(3.0), random.exponential(12.0)
        for number in range(round(self.seconds * FRAMES_PER_SECOND)):
            if self.time > next_push:  # a gust, a rut, a driver who looks away
                push, push_until = random.normal(0, 0.7), self.time + random.uniform(0.5, 1.6)
                next_push = push_until + random.exponential(5.0)
            if self.time > push_until:
                push = 0.0
            if self.time > next_change:
                side = int(random.choice([-1, 1]))
                if not self.traffic.beside(station, self.road.lane_centre(self.lane + side), 25.0):
                    self.command(side)
                next_change = self.time + 6 + random.exponential(12.0)
            wanted, rate, feed = (float(v[0]) for v in self.target.at(np.array([self.time])))
            pull = (feed - 2 * driver.SPRING * (drift - rate) - driver.SPRING**2 * (offset - wanted)
                    + push) * min(1.0, speed / 3)
            pull -= drift * max(0.0, 1 - speed / 3)
            lead = self._lead_forecast(station, offset)
            forecast = driver.speed_plan(self.road, self.limits, station, speed, lead)
            acceleration = float(forecast[2][0])
            ego = self._ego(station, offset, speed, drift, acceleration, pull)
            if number >= start and (number - start) % every == 0:
                yield self.observe(ego)
            self.advance(ego)
            curvature = float(self.road.line.curvature_at(np.array(station)))
            station += speed / max(1 - curvature * offset, 0.2) * DT
            offset, drift = offset + drift * DT, drift + pull * DT
            speed = max(0.0, speed + acceleration * DT)

    def _ego(self, station: float, offset: float, speed: float, drift: float, acceleration: float,
             pull: float) -> EgoState:
        """Road coordinates -> world."""
        s, o = np.array(station), np.array(offset)
        place = self.road.line.point(s, o)
        lateral = math.atan2(drift, max(speed, 0.5))
        turn = float(labels.curvature_at(self.road.line, s, o)) * speed
        turn += (pull * speed - drift * acceleration) / max(speed**2 + drift**2, 0.25)
        pace = math.hypot(speed, drift)
        heading = float(self.road.line.heading_at(s)) + lateral
        return EgoState(float(place[0]), float(place[1]), heading, pace, acceleration,
                        turn / max(pace, 0.5))

    # -- the closed loop

    def start(self) -> EgoState:
        """Our car in the middle of its lane."""
        return self.centred(0.0, float(self.limits[30]) * 0.9)

    def centred(self, station: float, speed: float) -> EgoState:
        """Our car in the middle of its lane at a station (m) and speed (m/s)."""
        return self._ego(station, self.target.after, speed, 0.0, 0.0, 0.0)

    def command(self, side: int) -> bool:
        """Ask for a lane change to the left (-1) or right (1); False if there is no such lane."""
        lane = self.lane + side
        if self.target.changing(self.time) or not 0 <= lane < self.road.lanes:
            return False
        self.target = driver.LaneTarget(self.target.after, self.road.lane_centre(lane), self.time)
        self.lane = lane
        return True

    def offset(self, ego: EgoState) -> tuple[float, float, float]:
        """Station, metres right of the road's centreline, metres right of the lane's centre."""
        line = self.road.line
        gap = np.hypot(line.x - ego.x, line.y - ego.y)
        if self.near is not None:
            gap[np.abs(line.stations - self.near) > NEAR] = np.inf
        i = int(gap.argmin())
        sin, cos = math.sin(line.heading[i]), math.cos(line.heading[i])
        north, east = ego.x - line.x[i], ego.y - line.y[i]
        across = east * cos - north * sin
        ahead = north * cos + east * sin
        station = float(line.stations[i]) + ahead / max(1 - line.curvature[i] * across, 0.2)
        return station, float(across), float(across) - self.target.after

    def advance(self, ego: EgoState) -> None:
        """Move time and traffic by 0.05 s."""
        station, across, _ = self.offset(ego)
        self.traffic.step(DT, self.time, station, across, ego.speed)
        self.frame_number += 1
        self.time = self.frame_number * DT

    def observe(self, ego: EgoState) -> Frame:
        """Pictures and truth from where `ego` is."""
        station, across, _ = self.offset(ego)
        here = self._here(ego, station)
        packed = [self._pack(i, *planes) for i, planes in enumerate(self._pictures(here))]
        desire = self.desires(self.time)
        return Frame(self.time, packed[0], packed[-1], self._truth(ego, here, across), desire,
                     np.array([1, 0], np.float32), ego)

    def _here(self, ego: EgoState, station: float) -> Here:
        """The frame our camera looks from."""
        s = np.array(station)
        return Here(np.array([ego.x, ego.y]), ego.heading, station, self.looks.height,
                    float(self.road.rise_at(s)), float(labels.slope_at(self.road, s)),
                    self.looks.residual)

    # -- truth

    def desires(self, time: float) -> Array:
        """What is asked of the driver at a time up to now, (8,) float32, one of which is 1."""
        desires = np.zeros(8, np.float32)
        left = self.target.after < self.target.before
        change = labels.LANE_CHANGE_LEFT if left else labels.LANE_CHANGE_RIGHT
        desires[change if self.target.changing(time) else 0] = 1
        return desires

    def _lead_forecast(self, station: float, offset: float) -> tuple[float, Array, Array] | None:
        """Gap to the vehicle ahead, its ways and speeds at the steps of the driver's forecast."""
        traffic = self.traffic
        i = traffic.ahead(station, 0.5 * (offset + self.target.after))
        if i < 0:
            return None
        t = np.arange(0, T_IDXS[-1] + 2 * driver.STEP, driver.STEP)
        speeds, ways = labels.coast(t, traffic.speed[i], traffic.acceleration[i])
        return float(traffic.station[i]) - station - NOSE, ways, speeds

    def _truth(self, ego: EgoState, here: Here, across: float) -> Truth:
        road, line, traffic = self.road, self.road.line, self.traffic
        s = np.array(here.station)
        lateral = ego.heading - float(line.heading_at(s))
        along, drift = ego.speed * math.cos(lateral), ego.speed * math.sin(lateral)
        stretch = max(1 - float(line.curvature_at(s)) * across, 0.2)
        lead = self._lead_forecast(here.station, across)
        station, speed, pull = driver.speed_plan(road, self.limits, here.station, along, lead)
        offset, drifts, pulls = driver.lateral_plan(self.target, self.time, across, drift)
        station = here.station + (station - here.station) / stretch
        plan = labels.plan_truth(road, here, station, speed, pull, offset, drifts, pulls)
        lane = int(np.clip(round(across / road.lane_width + (road.lanes - 1) / 2), 0,
                           road.lanes - 1))
        lines, line_probs, edges = labels.lanes_truth(road, here, lane)
        i = traffic.ahead(here.station, across)
        seen = i >= 0 and traffic.station[i] - here.station < labels.LEAD_RANGE
        trajectory = labels.lead_truth(
            road, here, *((traffic.station[i], traffic.offset[i], traffic.speed[i],
                           traffic.acceleration[i]) if seen
                          else (here.station + labels.LEAD_RANGE, across, ego.speed, 0.0)))
        bend = float(labels.slope_at(road, s + 1) - labels.slope_at(road, s - 1)) / 2
        desires = np.stack([self.desires(self.time + t) for t in (2, 4, 6, 8)])
        astray = abs(across - float(self.target.at(np.array(self.time))[0])) > ASTRAY
        values = {
            "plan": plan, "lane_lines": lines, "lane_line_probs": line_probs, "road_edges": edges,
            "lead": np.stack([trajectory] * 3), "lead_prob": np.full(3, float(seen)),
            "pose": np.concatenate([
                ego.speed * here.residual[:, 0],
                ego.speed * here.residual @ (0, bend, ego.curvature)]),
            "wide_from_device_euler": self.looks.wide_euler,
            "road_transform": np.array([0, 0, here.height, *euler_of(here.residual)]),
            "desire_state": self.desires(self.time), "desire_pred": desires,
            "meta": labels.meta_truth(plan, astray, desires),
            "curvature": plan[0, 14] / max(ego.speed, 0.5), "acceleration": plan[0, 6],
        }  # fmt: skip
        return Truth(**{name: np.asarray(value, np.float32) for name, value in values.items()})

    # -- pictures

    def ground(self, here: Here) -> Ground:
        """Tables of the road from here, for the painter."""
        stations = np.arange(here.station - 12.0, here.station + FAR + 60.0, 1.0)
        points = here.level(self.road, stations, 0.0)
        forward = np.arange(0, FAR, TABLE_STEP)
        ahead = np.maximum.accumulate(points[:, 0])
        along = np.interp(forward, ahead, stations)
        turn = self.road.line.heading_at(along) - here.heading
        road = np.stack([np.interp(along, stations, points[:, 1]), along - here.station,
                         np.sin(turn), np.cos(turn), self.road.line.curvature_at(along)], axis=-1)
        below = np.maximum(np.interp(along, stations, points[:, 2]), -40)
        first = self.road.line.start - here.station
        return make_ground(here.height, below, road, self.ribbon, self._phased(here), first,
                           RIBBON_STEP)

    def _phased(self, here: Here) -> Array:
        """The paint, with dashes moved to stations that count from here (for float32's sake)."""
        paint = self.paint.copy()
        period = np.where(paint[:, 5] > 0, paint[:, 5], 1)
        paint[:, 6] = (paint[:, 6] - here.station) % period
        return paint

    def _pictures(self, here: Here) -> Iterator[tuple[Array, Array]]:
        """Luma (h, w) and chroma (2, h/2, w/2) of each view."""
        ground, look = self.ground(here), self.looks
        seed = (self.seed * 7919 + self.frame_number * 2) & 0x7FFFFFFF
        light = look.light(here.heading, seed)
        quads = scene_quads(self.road, self.traffic, here, look, seed)
        for i, painter in enumerate(self.painters):
            light.seed = seed + i
            picture = painter.paint(ground, light, quads)
            if look.blend:  # a long exposure keeps some of the moment before
                number, before = self.previous.get(i, (-2, picture))
                self.previous[i] = self.frame_number, picture.copy()
                if number == self.frame_number - 1:
                    picture *= 1 - look.blend
                    picture += look.blend * before
            yield painter.develop(light)

    def _pack(self, view: int, luma: Array, chroma: Array) -> Array:
        """(6, h/2, w/2) uint8: luma at even and odd rows of even, then odd columns; U, V."""
        if self.looks.jpeg:
            luma = compressed(luma, self.looks.jpeg)
        phases = [luma[row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return np.stack([*phases, *chroma])

    def nv12(self, ego: EgoState, view: int = 0) -> Array:
        """One view as a camera delivers it: (height * 3 / 2, width) uint8."""
        here = self._here(ego, self.offset(ego)[0])
        luma, chroma = list(self._pictures(here))[view]
        return np.concatenate([luma, chroma.transpose(1, 2, 0).reshape(-1, luma.shape[1])])


def euler_of(turn: Array) -> tuple[float, float, float]:
    """Roll, pitch, yaw (rad) of Rz(yaw) Ry(pitch) Rx(roll)."""
    return (math.atan2(turn[2, 1], turn[2, 2]), -math.asin(float(np.clip(turn[2, 0], -1, 1))),
            math.atan2(turn[1, 0], turn[0, 0]))


def compressed(plane: Array, quality: int) -> Array:
    """The plane as JPEG of that quality gives it back."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(plane).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
