"""Where the time of a replay goes: seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Stages shorter than that are not worth a line.
SHOWN_S = 0.001
# What the stages mean, in the order in which they are shown.
MEANING = {
    "start": "start of the daemon",
    "decode": "waiting for pictures",
    "clock": "waiting for the clock, 20 frames a second",
    "publish": "messages, frames and log",
    "model": "the model, in the daemon",
    "daemon": "the rest of the daemon, and the bus",
    "read": "reading the log back",
    "compare": "comparison",
    "check": "check of the stated precision",
    "draw": "pictures, and the rest of the video",
    "report": "plots and page",
}


@dataclass
class Stages:
    """Seconds by the name of the stage; names are those of MEANING."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the wall-clock time of the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds, which may be negative, to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count a part of one stage as another, at most as much as the first one has."""
        part = min(seconds, self.seconds.get(source, 0.0))
        self.add(source, -part)
        self.add(target, part)

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    def rows(self) -> list[tuple[str, str]]:
        """Stage, and its time with its share of the whole."""
        total = self.total or 1.0
        return [
            (MEANING[stage], f"{self.seconds[stage]:.2f} s, {self.seconds[stage] / total:.0%}")
            for stage in MEANING
            if self.seconds.get(stage, 0.0) >= SHOWN_S
        ]

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest, in words; "" before anything was measured."""
        if not self.seconds:
            return ""
        return MEANING[max(MEANING, key=lambda stage: self.seconds.get(stage, 0.0))]
