"""A good driver: comfortable speed, back to the lane like a damped spring, lane changes.

All in road coordinates: station along and offset to the right of the centreline, m.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.grids import T_IDXS
from drivesim.highway import Highway
from drivesim.traffic import NO_LEAD, follow

LATERAL = 2.0  # m/s^2 that is comfortable in a curve
SLOWING = 1.3  # m/s^2 with which it brakes for one
SPRING = 0.75  # 1/s; critically damped
CHANGE_SECONDS = 4.5  # of a lane change
STEP = 0.2  # s of the forecast
LIMIT_STEP = 2.0  # m between speed limits
Array = np.ndarray


def speed_limits(road: Highway) -> Array:
    """Fitting speed every LIMIT_STEP metres of the centreline: curves, and braking before them."""
    stations = np.arange(road.line.start, road.line.stations[-1], LIMIT_STEP)
    bend = np.maximum(np.abs(road.line.curvature_at(stations)), 1e-6)
    limits = np.minimum(road.cruise, np.sqrt(LATERAL / bend))
    for i in range(len(limits) - 2, -1, -1):
        limits[i] = min(limits[i], np.sqrt(limits[i + 1] ** 2 + 2 * SLOWING * LIMIT_STEP))
    return limits


@dataclass(frozen=True)
class LaneTarget:
    """Where across the road the driver wants to be: from one offset to another, begun at a time."""

    before: float
    after: float
    begun: float

    def at(self, time: Array) -> tuple[Array, Array, Array]:
        """Offset, m, and its two derivatives at times (s): a quintic without a jolt."""
        share = np.clip((time - self.begun) / CHANGE_SECONDS, 0, 1)
        step = self.after - self.before
        place = share**3 * (10 - 15 * share + 6 * share**2)
        rate = 30 * share**2 * (1 - share) ** 2 / CHANGE_SECONDS
        pull = 60 * share * (1 - share) * (1 - 2 * share) / CHANGE_SECONDS**2
        return self.before + step * place, step * rate, step * pull

    def changing(self, time: float) -> bool:
        """Whether a lane change is under way."""
        return self.before != self.after and self.begun <= time < self.begun + CHANGE_SECONDS


def lateral_plan(target: LaneTarget, time: float, offset: float, drift: float
                 ) -> tuple[Array, Array, Array]:
    """Offset (33,) at T_IDXS from now, and its two derivatives; starts at offset and drift."""
    wanted, rate, pull = target.at(time + T_IDXS)
    gap, gap_rate = offset - wanted[0], drift - rate[0]
    fading = np.exp(-SPRING * T_IDXS)
    slope = gap_rate + SPRING * gap
    away = (gap + slope * T_IDXS) * fading
    away_rate = slope * fading - SPRING * away
    away_pull = -2 * SPRING * away_rate - SPRING**2 * away
    return wanted + away, rate + away_rate, pull + away_pull


def speed_plan(road: Highway, limits: Array, station: float, speed: float,
               lead: tuple[float, Array, Array] | None) -> tuple[Array, Array, Array]:
    """Station, speed along the road and acceleration (33,) at T_IDXS.

    lead: gap from our nose to it now, m; its ways m and speeds m/s at the
    steps of the forecast, or None for a free road.
    """
    count = round(T_IDXS[-1] / STEP) + 1
    rows = np.empty((count, 3))
    here, pace = station, speed
    for i in range(count):
        gap, leader = NO_LEAD
        if lead is not None:
            gap, leader = lead[0] + lead[1][i] - (here - station), lead[2][i]
        cell = int((here - road.line.start) / LIMIT_STEP)
        wanted = float(limits[min(max(cell, 0), len(limits) - 1)])
        pull = max(follow(pace, wanted, gap, pace - leader), -pace / STEP)
        rows[i] = here, pace, pull
        here += max(0.0, pace * STEP + 0.5 * pull * STEP**2)
        pace = max(0.0, pace + pull * STEP)
    cell = np.minimum((T_IDXS / STEP).astype(int), count - 1)
    rest = T_IDXS - cell * STEP
    pulls = np.interp(T_IDXS, STEP * np.arange(count), rows[:, 2])
    station_at = rows[cell, 0] + rows[cell, 1] * rest + 0.5 * rows[cell, 2] * rest**2
    return station_at, np.maximum(rows[cell, 1] + rows[cell, 2] * rest, 0), pulls
