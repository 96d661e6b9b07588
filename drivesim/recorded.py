"""The way and the speed of a real drive, for worlds whose road runs and is driven like it.

`comma2k19.tsv` is a minute of comma2k19 (copyright 2018 comma.ai, MIT licence): every 10 m of its
way the curvature and the speed, by `python -m selfdrive_tests.comma2k19 FOLDER --profile FILE`.
"""
from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from drivesim.road import STEP, Centreline, running_integral

HEAD = "station_m\tcurvature_per_m\tspeed_m_s"  # curvature is positive to the right
Array = np.ndarray


@dataclass(frozen=True)
class Recorded:
    """stations (N,) m from 0 on, ascending; curvature (N,) 1/m to the right; speed (N,) m/s.

    A way that is longer than the drive goes through it again, with left and right exchanged.
    """

    stations: Array
    curvature: Array
    speed: Array

    def speed_at(self, stations: Array) -> Array:
        """Speed at stations of any sign, m/s."""
        return np.interp(stations % self.stations[-1], self.stations, self.speed)

    def curvature_at(self, stations: Array) -> Array:
        """Curvature at stations of any sign, 1/m."""
        side = 1 - 2 * (stations // self.stations[-1] % 2)
        return side * np.interp(stations % self.stations[-1], self.stations, self.curvature)

    def line(self, start: float, end: float) -> Centreline:
        """The centreline between two stations; heading 0 at the first."""
        curvature = self.curvature_at(np.arange(start, end, STEP))
        heading = running_integral(curvature)
        return Centreline(start, running_integral(np.cos(heading)),
                          running_integral(np.sin(heading)), heading, curvature)


def comma2k19() -> Recorded:
    """The drive that comes with the package."""
    return parse((files("drivesim") / "comma2k19.tsv").read_text(encoding="utf-8"))


def parse(text: str) -> Recorded:
    """A table as `as_text` writes it. Raises ValueError if it is none."""
    head, *rows = text.splitlines()
    if head != HEAD:
        raise ValueError(f"a recorded drive begins with the line {HEAD!r}")
    return Recorded(*np.array([row.split("\t") for row in rows], float).T)


def as_text(recorded: Recorded) -> str:
    """The table: a line per station, values between tabs."""
    rows = zip(recorded.stations, recorded.curvature, recorded.speed, strict=True)
    return "\n".join([HEAD, *(f"{s:.0f}\t{k:.5f}\t{v:.2f}" for s, k, v in rows)]) + "\n"
