"""What came out of a replay: the log as one record per frame, and the numbers of its summary."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from messaging import LogReader
from selfdrive_tests.drives import RATE_HZ, Calibration
from selfdrive_tests.plans import FrameRecord, calibration_from_event, plan_from_event
from selfdrive_tests.replay import ReplayResult


class Records:
    """Collects frames, and the plans that answered them, from a log or while it is written.

    A frame is done when its plan is there or that of a later one; on_done is called with it then.
    done: in order.
    """

    def __init__(self, on_done: Callable[[FrameRecord], object] | None = None) -> None:
        self.done: list[FrameRecord] = []
        self._on_done = on_done
        self._open: deque[FrameRecord] = deque()
        self._speed = 0.0
        self._calibration: Calibration | None = None

    def take(self, event: Any) -> None:
        """Note an event of any kind."""
        kind = event.which()
        if kind == "carState":
            self._speed = event.carState.vEgo
        elif kind == "extrinsicsCalibration":
            self._calibration = calibration_from_event(event)
        elif kind == "narrowRoadEncodeIdx":
            frame_id = event.narrowRoadEncodeIdx.frameId
            self._open.append(FrameRecord(frame_id, self._speed, self._calibration, None))
        elif kind == "modelV2":
            plan = plan_from_event(event)
            while self._open and self._open[0].frame_id <= plan.frame_id:
                record = self._open.popleft()
                answered = record.frame_id == plan.frame_id
                self._add(replace(record, plan=plan) if answered else record)

    def end(self) -> None:
        """Nothing more comes: what is open was not answered."""
        while self._open:
            self._add(self._open.popleft())

    def _add(self, record: FrameRecord) -> None:
        self.done.append(record)
        if self._on_done is not None:
            self._on_done(record)


def read_records(log: Path) -> list[FrameRecord]:
    """Frames of a replay's log in order, each with the plan that answered it, if any."""
    records = Records()
    for event in LogReader(log):
        records.take(event)
    records.end()
    return records.done


@dataclass(frozen=True)
class Summary:
    """The numbers a person asks for first.

    frames: published. answered: with a plan. valid: with a plan that counts as valid.
    median_ms, p99_ms: modelExecutionTime, None without plans. wall_s: of the replay alone.
    """

    frames: int
    answered: int
    valid: int
    restarts: int
    median_ms: float | None
    p99_ms: float | None
    drive_s: float
    wall_s: float

    @property
    def dropped(self) -> int:
        """Frames without a plan."""
        return self.frames - self.answered

    @property
    def realtime_factor(self) -> float:
        """Seconds of the drive per second of replay."""
        return self.drive_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def verdict(self) -> str:
        """One sentence: what a reader must know even if he reads nothing else."""
        if self.frames == 0:
            return "No frame was replayed."
        if self.answered == 0:
            return "No frame was answered."
        answered = "Every frame was answered"
        if self.dropped:
            verb = "was" if self.dropped == 1 else "were"
            answered = f"{self.dropped} of {self.frames} frames {verb} not answered"
        if self.valid == 0:
            return f"{answered}, {'and' if self.dropped else 'but'} no plan counts as valid."
        if self.valid < self.answered:
            return f"{answered}; {self.answered - self.valid} plans do not count as valid."
        if self.dropped:
            return f"{answered}; all other plans count as valid."
        return f"{answered}, and every plan counts as valid."

    @property
    def good(self) -> bool:
        """Nothing dropped, nothing restarted, every plan valid."""
        return 0 < self.frames == self.answered == self.valid and not self.restarts


def summarize(records: Sequence[FrameRecord], result: ReplayResult) -> Summary:
    """The summary of a replay from its log's records."""
    plans = [record.plan for record in records if record.plan is not None]
    times_ms = np.array([plan.execution_s for plan in plans]) * 1e3
    return Summary(
        frames=len(records),
        answered=len(plans),
        valid=sum(plan.valid for plan in plans),
        restarts=len(result.restarts),
        median_ms=float(np.median(times_ms)) if plans else None,
        p99_ms=float(np.percentile(times_ms, 99)) if plans else None,
        drive_s=len(records) / RATE_HZ,
        wall_s=result.wall_s,
    )


def summary_lines(summary: Summary) -> list[tuple[str, str]]:
    """The summary as names and values, for the terminal."""
    rows = [
        ("frames", str(summary.frames)),
        ("dropped", str(summary.dropped)),
        ("plans not valid", str(summary.answered - summary.valid)),
        ("restarts", str(summary.restarts)),
    ]
    if summary.median_ms is not None and summary.p99_ms is not None:
        rows.append(("model time", f"{summary.median_ms:.1f} ms median, {summary.p99_ms:.1f} p99"))
    rows.append(("real-time factor", f"{summary.realtime_factor:.2f}"))
    return rows
