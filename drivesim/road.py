"""The road: a centreline of clothoids and arcs, and what lies across it."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP = 0.25  # m between samples of the centreline
TIGHTEST = 1 / 380  # 1/m; comfortable at highway speed


@dataclass(frozen=True)
class Centreline:
    """Samples every STEP metres of arc length, beginning at `start`, in the world frame.

    x, y: (N,) m. heading: (N,) rad. curvature: (N,) 1/m, positive to the right, continuous.
    """

    start: float
    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    curvature: np.ndarray

    @property
    def stations(self) -> np.ndarray:
        """(N,) arc length of the samples, m."""
        return self.start + STEP * np.arange(len(self.x))

    def curvature_at(self, s: np.ndarray) -> np.ndarray:
        """Curvature at arc lengths s, 1/m."""
        return np.interp(s, self.stations, self.curvature)

    def heading_at(self, s: np.ndarray) -> np.ndarray:
        """Heading at arc lengths s, rad."""
        return np.interp(s, self.stations, self.heading)

    def point(self, s: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """(..., 2) world points at arc lengths s, `offset` metres to the right."""
        heading = self.heading_at(s)
        x = np.interp(s, self.stations, self.x) - offset * np.sin(heading)
        y = np.interp(s, self.stations, self.y) + offset * np.cos(heading)
        return np.stack([x, y], axis=-1)


@dataclass(frozen=True)
class Profile:
    """What lies across the road; offsets in metres from the centreline, positive to the right.

    lanes: their number. lane_width: m. shoulders: paved width beyond the left and right edge line.
    gravel: width of the strip between asphalt and grass.
    """

    lanes: int
    lane_width: float = 3.6
    shoulders: tuple[float, float] = (1.0, 2.4)
    gravel: float = 0.9
    line_width: float = 0.16
    dash: float = 3.0
    dash_period: float = 12.0

    @property
    def boundaries(self) -> list[float]:
        """Offsets of the lane lines, left to right; the first and the last are solid."""
        return [(i - self.lanes / 2) * self.lane_width for i in range(self.lanes + 1)]

    @property
    def edges(self) -> tuple[float, float]:
        """Offsets of the left and right edge of the asphalt."""
        left, right = self.shoulders
        return self.boundaries[0] - left, self.boundaries[-1] + right

    def lane_centre(self, lane: int) -> float:
        """Offset of the middle of a lane; 0 is the leftmost."""
        return (lane + 0.5 - self.lanes / 2) * self.lane_width


def make_centreline(random: np.random.RandomState, start: float, end: float) -> Centreline:
    """A centreline from arc length `start` to `end`, straight around 0, curves to both sides.

    Curves follow each other as straight, clothoid, arc, clothoid. Each turns back about what the
    one before turned, so the road stays within view of a camera that looks along it.
    """
    knots, values = [start, 25.0], [0.0, 0.0]
    side = 1.0 if random.randint(2) else -1.0
    while knots[-1] < end:
        straight, ramp, arc = random.uniform((5, 60, 20), (40, 100, 90))
        bend = side * random.uniform(0.45, 1.0) * TIGHTEST
        for length, value in ((straight, 0.0), (ramp, bend), (arc, bend), (ramp, 0.0)):
            knots.append(knots[-1] + length)
            values.append(value)
        side = -side
    stations = np.arange(start, end, STEP)
    curvature = np.interp(stations, knots, values)
    heading = running_integral(curvature)
    return Centreline(start, running_integral(np.cos(heading)), running_integral(np.sin(heading)),
                      heading, curvature)


def running_integral(values: np.ndarray) -> np.ndarray:
    """Trapezoid integral from the first sample to each, with spacing STEP."""
    steps = 0.5 * STEP * (values[1:] + values[:-1])
    return np.concatenate([[0.0], np.cumsum(steps)])
