"""Other vehicles, and how every driver follows the one ahead: the Intelligent Driver Model.

Treiber, Hennecke, Helbing 2000: a = A (1 - (v / v0)^4 - (gap* / gap)^2),
gap* = G + v T + v dv / (2 sqrt(A B)).
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ACCELERATION, BRAKING = 1.4, 2.0  # A, B in m/s^2
HEADWAY, STANDSTILL = 1.5, 4.0  # T in s, G in m
LIMIT = -6.0  # m/s^2
SAFE_BRAKING = 3.0  # m/s^2, from which distances are such that nobody must brake harder
NO_LEAD = (1e4, 0.0)
Row = tuple[float, float, float, float]  # station m, offset m, wanted speed m/s, direction


def follow(speed: float, wanted: float, gap: float, closing: float) -> float:
    """Acceleration of a driver, m/s^2. gap: to the vehicle ahead, m; closing: speed at which it
    shrinks, m/s."""
    desired = STANDSTILL + max(0.0, speed * HEADWAY
                               + speed * closing / (2 * math.sqrt(ACCELERATION * BRAKING)))
    free = (speed / max(wanted, 0.1)) ** 4
    return max(LIMIT, ACCELERATION * (1 - free - (desired / max(gap, 0.5)) ** 2))


def random_rows(random: np.random.RandomState, lanes: list[float], oncoming: list[float],
                ego_lane: int, cruise: float) -> list[Row]:
    """Vehicles in lanes at those offsets, with us and oncoming."""
    rows: list[Row] = []
    for lane, offset in enumerate(lanes):
        station = random.exponential(35.0) + (16.0 if lane == ego_lane else -30.0)
        if lane == ego_lane and random.uniform() < 0.25:
            continue  # a free road ahead
        while station < 260:
            rows.append((station, offset, cruise * random.uniform(0.75, 1.05), 1.0))
            station += random.uniform(25, 130)
    for offset in oncoming:
        station = random.uniform(20, 150)
        while station < 900:
            rows.append((station, offset, cruise * random.uniform(0.8, 1.1), -1.0))
            station += random.uniform(30, 220)
    return rows


@dataclass(frozen=True)
class Hindrance:
    """A vehicle ahead that asks for the brakes. gap: m from our camera. wanted: its speed, m/s.
    stops: s at which it brakes to a stand, with `braking` m/s^2. ours: our speed, m/s."""

    gap: float
    wanted: float
    stops: float
    braking: float
    ours: float


def random_hindrance(random: np.random.RandomState, limit: float) -> Hindrance:
    """One that a driver at up to `limit` m/s can still stop for: it brakes, stands, is slow, or we
    are in a queue already."""
    kind = str(random.choice(["brakes", "stands", "slow", "queue"], p=[0.4, 0.25, 0.2, 0.15]))
    ours = limit * random.uniform(0.6, 1.0)
    stops, braking = (random.uniform(0, 5), random.uniform(1.5, 6.0)) if kind == "brakes" else (
        1e9, 2.5)
    if kind == "queue":
        ours = random.choice([0.0, random.uniform(0, 5)])
        return Hindrance(random.uniform(6, 14), random.choice([0.0, random.uniform(0, 12)]), stops,
                         braking, ours)
    wanted = {"brakes": ours, "stands": 0.0, "slow": limit * random.uniform(0.2, 0.6)}[kind]
    closing = max(ours - wanted, 0.0)
    safe = 6.0 + random.uniform(0.6, 2.2) * wanted + closing**2 / (2 * SAFE_BRAKING)
    spare = 30.0 if kind == "brakes" else 70.0
    return Hindrance(safe + random.uniform(0, spare), wanted, stops, braking, ours)


class Traffic:
    """N vehicles, arrays (N,). station: of the end that is nearer to the start of the road, m.

    offset: m. speed m/s, acceleration m/s^2, along the own direction. wanted: m/s. direction: 1
    with us, -1 oncoming. size: (N, 3) length, width, height, m. stops: s at which it brakes to a
    stand. braking: m/s^2 with which it does.
    """

    def __init__(self, random: np.random.RandomState, rows: list[Row]) -> None:
        table = np.array(rows).reshape(-1, 4)
        count = len(table)
        self.station, self.offset, self.wanted, self.direction = table.T.copy()
        self.offset += random.normal(0, 0.15, count)
        self.speed = self.wanted * random.uniform(0.9, 1.0, count)
        self.acceleration = np.zeros(count)
        self.truck = random.uniform(size=count) < 0.2
        car = random.uniform((3.8, 1.65, 1.38), (4.9, 1.95, 1.8), (count, 3))
        self.size = np.where(self.truck[:, None], (9.0, 2.5, 3.4), car)
        self.tint = random.uniform(0.25, 1.4, (count, 1)) * random.uniform(0.85, 1.15, (count, 3))
        self.stops = np.where(random.uniform(size=count) < 0.12, random.uniform(0, 14, count), 1e9)
        self.braking = np.full(count, 2.5)

    def ahead(self, station: float, offset: float) -> int:
        """Index of the next vehicle ahead with our direction in the lane at offset; -1 if none."""
        gap = np.where((self.direction > 0) & (np.abs(self.offset - offset) < 1.7)
                       & (self.station > station), self.station - station, np.inf)
        return int(gap.argmin()) if len(gap) and np.isfinite(gap.min()) else -1

    def beside(self, station: float, offset: float, clearance: float) -> bool:
        """Whether a vehicle in the lane at offset is nearer than `clearance` metres along."""
        gap = np.abs(self.station + 0.5 * self.size[:, 0] - station)
        return bool(((gap < clearance) & (np.abs(self.offset - offset) < 1.7)).any())

    def step(self, seconds: float, time: float, ego_station: float, ego_offset: float,
             ego_speed: float) -> None:
        """Move everybody; those behind us see us too. ego_station: of our camera, m."""
        for i in range(len(self.station)):
            speed, ours = float(self.speed[i]), self.direction[i] > 0
            gap, leader = NO_LEAD
            if ours:
                front = self.station[i] + self.size[i, 0]
                j = self.ahead(front, self.offset[i])
                if j >= 0:
                    gap, leader = self.station[j] - front, self.speed[j]
                if abs(self.offset[i] - ego_offset) < 1.7 and -2 < ego_station - front < gap:
                    gap, leader = ego_station - 3.0 - front, ego_speed
            wanted = float(self.wanted[i])
            pull = follow(speed, wanted, float(gap), speed - float(leader))
            if time > self.stops[i] or wanted == 0:
                pull = min(pull, -float(self.braking[i]))
            self.acceleration[i] = max(pull, -speed / seconds)
        before = self.speed
        self.speed = np.maximum(0.0, self.speed + self.acceleration * seconds)
        self.station = self.station + self.direction * 0.5 * (before + self.speed) * seconds
