"""How cars move along the road: smooth closed forms of time, so truth is exact at any instant."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.road import Centreline

HALF_STEP = 0.005  # s, of the central differences for acceleration and yaw rate


@dataclass(frozen=True)
class Wave:
    """amplitude * sin(rate * t + phase), a building block of speed and lateral position."""

    amplitude: float
    rate: float
    phase: float

    def value(self, t: np.ndarray) -> np.ndarray:
        return self.amplitude * np.sin(self.rate * t + self.phase)

    def slope(self, t: np.ndarray) -> np.ndarray:
        return self.amplitude * self.rate * np.cos(self.rate * t + self.phase)

    def integral(self, t: np.ndarray) -> np.ndarray:
        """From 0 to t."""
        swing = np.cos(self.phase) - np.cos(self.rate * t + self.phase)
        return self.amplitude / self.rate * swing


@dataclass(frozen=True)
class Motion:
    """A car on the road.

    station: arc length at t = 0, m. cruise: mean speed along the centreline, m/s. offset: mean
    distance to the right of the centreline, m. speed_waves in m/s and wander in m are added.
    """

    road: Centreline
    station: float
    cruise: float
    offset: float
    speed_waves: tuple[Wave, ...]
    wander: tuple[Wave, ...]

    def along(self, t: np.ndarray) -> np.ndarray:
        """Arc length on the centreline, m."""
        return self.station + self.cruise * t + sum(w.integral(t) for w in self.speed_waves)

    def along_rate(self, t: np.ndarray) -> np.ndarray:
        """Derivative of `along`, m/s."""
        return np.full_like(t, self.cruise) + sum(w.value(t) for w in self.speed_waves)

    def across(self, t: np.ndarray) -> np.ndarray:
        """Offset to the right of the centreline, m."""
        return np.full_like(t, self.offset) + sum(w.value(t) for w in self.wander)

    def across_rate(self, t: np.ndarray) -> np.ndarray:
        """Derivative of `across`, m/s."""
        return np.zeros_like(t) + sum(w.slope(t) for w in self.wander)

    def position(self, t: np.ndarray) -> np.ndarray:
        """(..., 2) in the world, m."""
        return self.road.point(self.along(t), self.across(t))

    def velocity_road(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Speed along and across the road at the car's own place, m/s."""
        s = self.along(t)
        stretch = 1 - self.road.curvature_at(s) * self.across(t)  # inner lanes are shorter
        return self.along_rate(t) * stretch, self.across_rate(t)

    def speed(self, t: np.ndarray) -> np.ndarray:
        """m/s."""
        return np.hypot(*self.velocity_road(t))

    def heading(self, t: np.ndarray) -> np.ndarray:
        """Direction of travel in the world, rad. The car points where it goes: no side slip."""
        along, across = self.velocity_road(t)
        return self.road.heading_at(self.along(t)) + np.arctan2(across, along)

    def acceleration(self, t: np.ndarray) -> np.ndarray:
        """Rate of change of the speed, m/s^2."""
        return (self.speed(t + HALF_STEP) - self.speed(t - HALF_STEP)) / (2 * HALF_STEP)

    def yaw_rate(self, t: np.ndarray) -> np.ndarray:
        """Rate of change of the heading, rad/s, positive to the right."""
        return (self.heading(t + HALF_STEP) - self.heading(t - HALF_STEP)) / (2 * HALF_STEP)


def random_waves(random: np.random.RandomState,
                 sizes: tuple[tuple[float, float], ...]) -> tuple[Wave, ...]:
    """One wave per (amplitude, period in s), varied by up to 20 %, with a random phase."""
    waves = []
    for amplitude, period in sizes:
        amplitude *= random.uniform(0.8, 1.2)
        rate = 2 * np.pi / (period * random.uniform(0.8, 1.2))
        waves.append(Wave(amplitude, rate, random.uniform(0, 2 * np.pi)))
    return tuple(waves)
