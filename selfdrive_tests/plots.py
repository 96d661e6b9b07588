"""What is plotted of a replay, as data for plots.js, which draws it in the browser.

The report embeds data and script, so that it opens from disk; the viewer sends numbers as they
come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from selfdrive_tests.compare import LINE_PLACE_M
from selfdrive_tests.drives import RATE_HZ
from selfdrive_tests.overlay import LEAD_MIN_PROBABILITY
from selfdrive_tests.plans import FrameRecord, Plan

INK, BLUE, TEAL, ORANGE, RED = "#1c2430", "#2563b8", "#12907a", "#d9822b", "#c0392b"
TRUTH_COLOR, TRUTH_LABEL = "#c6ccd4", "true road"
OTHER_COLOR, OTHER_LABEL = "#cf9df2", "compared with"
LANE_COLORS = ("#9bb8dd", BLUE, TEAL, "#8fcfc0")
# Digits that are kept of a number: more than can be seen.
DIGITS = 5


@dataclass(frozen=True)
class Series:
    """One line of a plot; NaN leaves a gap. label: "" if the title says it all. width: pixels."""

    values: np.ndarray
    color: str = BLUE
    label: str = ""
    dots: bool = False
    width: float = 1.3


@dataclass(frozen=True)
class Plot:
    """A plot over the time of the drive.

    limits: of the y axis. span: its least height, so that tiny changes look tiny. marks: times of
    red lines. level: of a dashed line.
    """

    title: str
    unit: str
    series: Sequence[Series]
    limits: tuple[float | None, float | None] = (None, None)
    span: float = 1.0
    marks: Sequence[float] = field(default=())
    level: float | None = None


@dataclass(frozen=True)
class _Lines:
    """Makes the lines of a plot: the model's, and behind it the truth's and the other side's."""

    records: Sequence[FrameRecord]
    truth: Mapping[int, Plan]
    other: Mapping[int, Plan]

    def of(
        self,
        number: Callable[[Plan], float],
        color: str,
        name: str = "",
        dots: bool = False,
        named: bool = True,
    ) -> list[Series]:
        """name: of the model's line. named: whether the legend names the lines behind it."""
        series = []
        for plans, shade, label, width in (
            (self.truth, TRUTH_COLOR, TRUTH_LABEL, 4.0),
            (self.other, OTHER_COLOR, OTHER_LABEL, 2.4),
        ):
            if plans:
                values = plan_values([plans.get(one.frame_id) for one in self.records], number)
                series.append(Series(values, shade, label if named else "", width=width))
        own = name or ("here" if self.other else "model" if self.truth else "")
        values = plan_values([record.plan for record in self.records], number)
        return [*series, Series(values, color, own, dots)]


def plots(
    records: Sequence[FrameRecord],
    truth: Mapping[int, Plan] | None = None,
    other: Mapping[int, Plan] | None = None,
) -> list[Plot]:
    """Every plot but that of the model time.

    truth and other: plans by frame id, the true ones and those that were compared with; their
    lines lie behind the model's.
    """
    models = [record.plan for record in records]
    lanes = _rows(records, "lane_probabilities", 4)
    names = ("far left", "left", "right", "far right")
    lost = [record.frame_id / RATE_HZ for record in records if record.plan is None]
    speed = np.array([record.speed for record in records], np.float64)
    draw = _Lines(records, truth or {}, other or {}).of
    return [
        Plot(
            "Desired curvature, positive to the right",
            "1/m",
            draw(lambda plan: plan.curvature, BLUE),
            span=0.01,
        ),
        Plot("Desired acceleration", "m/s²", draw(lambda plan: plan.acceleration, TEAL)),
        Plot(
            "Lane line probabilities",
            "",
            [Series(lanes[:, i], LANE_COLORS[i], names[i]) for i in range(4)],
            limits=(-0.02, 1.02),
        ),
        Plot(
            f"Own lane's lines {LINE_PLACE_M:.0f} m ahead, positive to the right",
            "m",
            [
                *draw(lambda plan: plan.line_at(1, LINE_PLACE_M), BLUE, "left"),
                *draw(lambda plan: plan.line_at(2, LINE_PLACE_M), TEAL, "right", named=False),
            ],
            span=8.0,
        ),
        Plot(
            "Lead: probability",
            "",
            draw(lambda plan: plan.leads[0].probability if plan.leads else np.nan, ORANGE),
            limits=(-0.02, 1.02),
        ),
        Plot(
            f"Lead: distance, where its probability is {LEAD_MIN_PROBABILITY:.0%} or more",
            "m",
            draw(seen_distance, ORANGE, dots=True),
            limits=(0, None),
            span=50.0,
        ),
        Plot("Speed of the car", "m/s", [Series(speed, INK)], limits=(0, None), span=10.0),
        Plot(
            "Frame drops; red: frames without a plan",
            "%",
            [Series(plan_values(models, lambda plan: plan.drop_percent), RED)],
            limits=(0, None),
            marks=lost,
        ),
    ]


def plan_values(plans: Sequence[Plan | None], number: Callable[[Plan], float]) -> np.ndarray:
    """A number of every plan, (frames,); NaN where there is no plan."""
    return np.array([np.nan if plan is None else number(plan) for plan in plans], np.float64)


def seen_distance(plan: Plan) -> float:
    """Metres to the first lead, NaN if there is none that is probable."""
    if not plan.leads or not plan.leads[0].probability >= LEAD_MIN_PROBABILITY:
        return np.nan
    return plan.leads[0].x


def _rows(records: Sequence[FrameRecord], name: str, width: int) -> np.ndarray:
    """A list of every plan, cut or filled up with NaN to (frames, width)."""
    table = np.full((len(records), width), np.nan)
    for i, record in enumerate(records):
        values = getattr(record.plan, name) if record.plan is not None else ()
        table[i, : min(width, len(values))] = values[:width]
    return table


def y_limits(plot: Plot) -> tuple[float, float]:
    """Range of the y axis: the given limits, else room for all values and the least height."""
    values = np.concatenate([series.values for series in plot.series])
    values = np.append(values, [] if plot.level is None else plot.level)
    values = values[np.isfinite(values)]
    given_low, given_high = plot.limits
    low = given_low if given_low is not None else values.min(initial=np.inf if len(values) else 0)
    high = given_high if given_high is not None else values.max(initial=low)
    lack = max(plot.span - (high - low), 0.0)
    room = 0.06 * max(high - low, plot.span)
    if given_low is None:
        low -= lack / 2 + room
        lack /= 2
    if given_high is None:
        high += lack + room
    return float(low), float(high)


def plot_data(drawn: Sequence[Plot], frame_ids: Sequence[int]) -> dict[str, Any]:
    """Plots as plots.js takes them: plain data without NaN."""
    return {
        "time": [frame_id / RATE_HZ for frame_id in frame_ids],
        "plots": [_plain_plot(plot) for plot in drawn],
    }


def _plain_plot(plot: Plot) -> dict[str, Any]:
    low, high = y_limits(plot)
    return {
        "title": plot.title,
        "unit": plot.unit,
        "low": low,
        "high": high,
        "level": plot.level,
        "marks": list(plot.marks),
        "series": [
            {
                "label": series.label,
                "color": series.color,
                "width": series.width,
                "dots": series.dots,
                "values": plain_numbers(series.values),
            }
            for series in plot.series
        ],
    }


def plain_numbers(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, rounded to what can be seen; None for those that are not finite."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]


def plots_element(name: str, drawn: Sequence[Plot], frame_ids: Sequence[int]) -> str:
    """HTML of plots that plots.js fills; name: of its data, unique on the page."""
    data = plot_data(drawn, frame_ids)
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<div class="plots" data-plots="{name}"></div>\n'
        f'<script type="application/json" id="{name}">{text}</script>\n'
    )


def plots_script() -> str:
    """The text of plots.js."""
    return (files("selfdrive_tests") / "plots.js").read_text(encoding="utf-8")
