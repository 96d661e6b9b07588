"""Plans as plain numbers, taken from log events: what the overlay draws and the report plots."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selfdrive_tests.drives import Calibration


@dataclass(frozen=True)
class Lead:
    """A vehicle ahead as the model sees it now: metres forward and right, m/s over ground."""

    probability: float
    x: float
    y: float
    v: float


@dataclass(frozen=True)
class Plan:
    """One modelV2 message. Positions are in the calibrated frame: x forward, y right, z down.

    position: (N, 3) metres, at the height of the device; times: (N,) s from now, its own.
    lane_lines: 4 of (N, 3), far left first; road_edges: 2 of (N, 3); both with their own z.
    curvature: 1/m, positive to the right. acceleration: m/s2.
    """

    frame_id: int
    valid: bool
    execution_s: float
    drop_percent: float
    position: np.ndarray
    lane_lines: tuple[np.ndarray, ...]
    lane_probabilities: tuple[float, ...]
    road_edges: tuple[np.ndarray, ...]
    leads: tuple[Lead, ...]
    curvature: float
    acceleration: float
    should_stop: bool
    confidence: str
    times: np.ndarray = field(default_factory=lambda: np.empty(0))

    def lateral_at(self, seconds: float) -> float:
        """Where the path is so many seconds from now, metres to the right; NaN if unknown."""
        return interpolated(seconds, self.times, self.position[:, 1])

    def forward_at(self, seconds: float) -> float:
        """How far ahead the path is so many seconds from now, metres; NaN if unknown."""
        return interpolated(seconds, self.times, self.position[:, 0])

    def line_at(self, number: int, metres: float) -> float:
        """Lateral place of a lane line so many metres ahead, metres to the right, or NaN."""
        if number >= len(self.lane_lines):
            return math.nan
        line = self.lane_lines[number]
        return interpolated(metres, line[:, 0], line[:, 1])


def interpolated(at: float, x: np.ndarray, y: np.ndarray) -> float:
    """y at a place between the first and the last x, which ascend; NaN outside or if x is empty."""
    if len(x) != len(y) or not len(x) or not x[0] <= at <= x[-1]:
        return math.nan
    return float(np.interp(at, x, y))


@dataclass(frozen=True)
class FrameRecord:
    """A replayed frame: its number in the drive, what was known, and the plan, if one came.

    speed: m/s as carState had it. calibration: the newest that was published, None before any.
    """

    frame_id: int
    speed: float
    calibration: Calibration | None
    plan: Plan | None


def plan_from_event(event: Any) -> Plan:
    """The numbers of a modelV2 event. Lists may have any length, also none."""
    model = event.modelV2
    leads = tuple(
        Lead(lead.prob, lead.x[0], lead.y[0], lead.v[0])
        for lead in model.leadsV3
        if len(lead.x) and len(lead.y) and len(lead.v)
    )
    return Plan(
        frame_id=model.frameId,
        valid=event.valid,
        execution_s=model.modelExecutionTime,
        drop_percent=model.frameDropPerc,
        position=_points(model.position),
        lane_lines=tuple(_points(line) for line in model.laneLines),
        lane_probabilities=tuple(model.laneLineProbs),
        road_edges=tuple(_points(edge) for edge in model.roadEdges),
        leads=leads,
        curvature=model.action.desiredCurvature,
        acceleration=model.action.desiredAcceleration,
        should_stop=model.action.shouldStop,
        confidence=str(model.confidence),
        times=np.array(model.position.t, np.float64),
    )


def _points(line: Any) -> np.ndarray:
    """An XYZTData as (N, 3) float32; N is that of its shortest axis."""
    axes = [np.array(axis, np.float32) for axis in (line.x, line.y, line.z)]
    count = min(len(axis) for axis in axes)
    return np.stack([axis[:count] for axis in axes], axis=-1)


def calibration_from_event(event: Any) -> Calibration | None:
    """Mounting as an extrinsicsCalibration event has it; None if it holds no angles."""
    message = event.extrinsicsCalibration
    if len(message.rpyCalib) != 3:
        return None
    roll, pitch, yaw = message.rpyCalib
    heights = list(message.height)
    if heights and heights[0] > 0:
        return Calibration((roll, pitch, yaw), heights[0])
    return Calibration((roll, pitch, yaw))
