"""The report of a replay: one HTML page that needs nothing but the browser.

Everything that differs between two replays of the same drive (times) stands in one section, between
the comments "times: begin" and "times: end"; the rest has the same bytes for the same plans.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from selfdrive_tests.compare import (
    EXACT,
    LINE_PLACE_M,
    BadMoment,
    Comparison,
    Difference,
    value_text,
    worst_moments,
)
from selfdrive_tests.drives import RATE_HZ
from selfdrive_tests.overlay import LEAD_MIN_PROBABILITY
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.results import Summary

BUDGET_MS = 1000.0 / RATE_HZ

INK, MUTED, GRID = "#1c2430", "#667080", "#e3e7ec"
BLUE, TEAL, ORANGE, RED = "#2563b8", "#12907a", "#d9822b", "#c0392b"
TRUTH_COLOR, TRUTH_LABEL = "#c6ccd4", "true road"
OTHER_COLOR, OTHER_LABEL = "#cf9df2", "compared with"
LANE_COLORS = ("#9bb8dd", BLUE, TEAL, "#8fcfc0")

PLOT_STYLE = {
    "svg.hashsalt": "tinydrive",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Still:
    """A picture with its caption. rgb: (height, width, 3) uint8."""

    rgb: np.ndarray
    caption: str


@dataclass(frozen=True)
class Compared:
    """A comparison with all that is shown of it.

    others: the other side's plans by frame id. stills: of the worst moments, by frame id.
    """

    result: Comparison
    others: Mapping[int, Plan]
    stills: Mapping[int, Still] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    video: file name beside the page, "" for none. notes: sentences about the drive and the run.
    run: what was run, names and values. when: names and values that hold times.
    truth: frame id -> what a perfect model would say, for rendered drives.
    """

    title: str
    summary: Summary
    records: Sequence[FrameRecord]
    stills: Sequence[Still] = ()
    video: str = ""
    warning: str = ""
    notes: Sequence[str] = ()
    run: Sequence[tuple[str, str]] = ()
    when: Sequence[tuple[str, str]] = ()
    truth: Mapping[int, Plan] = field(default_factory=dict)
    compared: Sequence[Compared] = ()


@dataclass(frozen=True)
class Series:
    """One line of a plot; NaN leaves a gap. label: "" if the title says it all."""

    values: np.ndarray
    color: str = BLUE
    label: str = ""
    dots: bool = False
    width: float | None = None


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


def page(report: Report) -> str:
    """The whole page."""
    parts = [
        _header(report),
        *(_comparison(compared) for compared in report.compared),
        _times(report),
        _pictures(report),
        section("Plots", _plots(report)),
        section("What was run", table(report.run)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}: replay</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    summary = report.summary
    mood = "good" if summary.good else "bad"
    numbers = [
        ("frames", f"{summary.frames:,}"),
        ("dropped", f"{summary.dropped:,}"),
        ("plans not valid", f"{summary.answered - summary.valid:,}"),
        ("daemon restarts", f"{summary.restarts:,}"),
    ]
    warning = f'<p class="warning">{escape(report.warning)}</p>\n' if report.warning else ""
    return (
        f'<header>\n<p class="kind">Drive replay</p>\n<h1>{escape(report.title)}</h1>\n'
        f'<p class="verdict {mood}">{escape(summary.verdict)}</p>\n{warning}</header>\n'
        f"{tiles(numbers)}{notes_list(report.notes)}"
    )


def _times(report: Report) -> str:
    summary = report.summary
    numbers = [("real-time factor", f"{summary.realtime_factor:.2f}")]
    if summary.median_ms is not None and summary.p99_ms is not None:
        numbers = [
            ("model time, median", f"{summary.median_ms:.1f} ms"),
            ("model time, 99th percentile", f"{summary.p99_ms:.1f} ms"),
            *numbers,
        ]
    plans = [record.plan for record in report.records]
    milliseconds = plan_values(plans, lambda plan: plan.execution_s * 1e3)
    plot = Plot(
        f"Model time per frame; the dashed line is the {BUDGET_MS:.0f} ms between two frames",
        "ms",
        [Series(milliseconds)],
        limits=(0, None),
        level=BUDGET_MS,
    )
    figure = f'<div class="wide">{_figure(plot, report.records, wide=True)}</div>\n'
    body = tiles(numbers) + figure + table(report.when)
    return f"<!-- times: begin -->\n{section('Times', body)}<!-- times: end -->\n"


def _pictures(report: Report) -> str:
    if not report.stills and not report.video:
        return ""
    figures = "".join(
        f'<figure><img src="{_data_uri(still.rgb)}" alt="{escape(still.caption)}">'
        f"<figcaption>{escape(still.caption)}</figcaption></figure>\n"
        for still in report.stills
    )
    video = ""
    if report.video:
        name = escape(report.video)
        video = (
            f'<video controls preload="metadata" src="{name}"></video>\n'
            f'<p>The whole drive: <a href="{name}">{name}</a>, in the folder of this page.</p>\n'
        )
    body = f'{video}<div class="stills">\n{figures}</div>\n'
    return section("Pictures", LEGEND + body)


def _comparison(compared: Compared) -> str:
    """What differs, the worst moments with their pictures, and the table of fields."""
    result = compared.result
    mood = "good" if result.passed else "bad"
    moments = "".join(
        _moment(moment, compared.stills.get(moment.frame_id))
        for moment in worst_moments(result.bad)
    )
    body = f'<p class="verdict {mood}">{escape(result.verdict)}</p>\n'
    body += notes_list(result.notes)
    body += _field_table(result)
    if moments:
        body += f'<h3>Worst moments</h3>\n{OTHER_LEGEND}<div class="stills">\n{moments}</div>\n'
    return section(f"Compared with {result.against}", body)


def _moment(moment: BadMoment, still: Still | None) -> str:
    caption = f"frame {moment.frame_id}, {moment.frame_id / RATE_HZ:.2f} s"
    image = f'<img src="{_data_uri(still.rgb)}" alt="{escape(caption)}">' if still else ""
    lines = "".join(f"<br>{escape(difference_text(one))}" for one in moment.differences[:4])
    more = len(moment.differences) - 4
    lines += f"<br>and {more} more" if more > 0 else ""
    return f"<figure>{image}<figcaption><b>{caption}</b>{lines}</figcaption></figure>\n"


def difference_text(one: Difference) -> str:
    """A difference in words: here and there, and what is allowed."""
    unit = one.field.unit
    here, there = value_text(one.here, unit), value_text(one.there, unit)
    return f"{one.field.name}: {here} here, {there} there; tolerance {one.field.tolerance}"


def _field_table(result: Comparison) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("field", "tolerance", "differs in", "largest difference")
    )
    rows = ""
    for row in result.fields:
        item = row.field
        worst = "none"
        if row.worst_frame is not None:
            size = "not equal" if np.isinf(row.worst) else f"{row.worst:.3g} {item.unit}"
            worst = f"{size.rstrip()} at frame {row.worst_frame}"
        mark = ' class="differs"' if row.differing else ""
        unit = "" if item.tolerance == EXACT else item.unit
        tolerance = f"{item.tolerance} {unit}".rstrip()
        cells = (item.name, tolerance, f"{row.differing} of {row.compared}", worst)
        rows += f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
    whole = f'<table class="fields">\n<tr>{head}</tr>\n{rows}</table>\n'
    return f'<div class="scrolls">{whole}</div>\n'


def _plots(report: Report) -> str:
    others = report.compared[0] if report.compared else None
    drawn = plots(report.records, report.truth, others.others if others else None)
    figures = "".join(_figure(plot, report.records) for plot in drawn)
    return f'<div class="plots">\n{figures}</div>\n'


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
            "0 to 1",
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
            "0 to 1",
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


def _figure(plot: Plot, records: Sequence[FrameRecord], wide: bool = False) -> str:
    caption = f"<figcaption>{escape(plot.title)}</figcaption>"
    return f"<figure>{caption}{svg(plot, records, wide)}</figure>\n"


def svg(plot: Plot, records: Sequence[FrameRecord], wide: bool = False) -> str:
    """A plot as an <svg> element, the same bytes for the same numbers."""
    seconds = np.array([record.frame_id for record in records], np.float64) / RATE_HZ
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(8.0 if wide else 4.6, 2.0), layout="constrained")
        axes = figure.add_subplot()
        for series in plot.series:
            (line,) = axes.plot(seconds, series.values, color=series.color, label=series.label)
            if series.dots:
                line.set(marker=".", markersize=2, linewidth=0.5)
            if series.width:
                line.set(linewidth=series.width)
        for mark in plot.marks:
            axes.axvline(mark, color=RED, linewidth=0.8)
        if plot.level is not None:
            axes.axhline(plot.level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_ylim(*y_limits(plot))
        if len(seconds) > 1:
            axes.set_xlim(seconds[0], seconds[-1])
        axes.set_ylabel(plot.unit)
        axes.set_xlabel("s")
        if any(series.label for series in plot.series):
            figure.legend(loc="outside upper left", ncols=4, fontsize=8, handlelength=1.2)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    return re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)


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


def _data_uri(rgb: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def notes_list(notes: Sequence[str]) -> str:
    """Sentences as a list, "" for none."""
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return f'<ul class="notes">\n{items}</ul>\n' if items else ""


def section(title: str, body: str) -> str:
    """A part of the page under a heading; body is HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}</section>\n"


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Names and values as a row of boxes."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n" for name, value in numbers
    )
    return f'<dl class="tiles">\n{items}</dl>\n'


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as a table, "" for none."""
    if not rows:
        return ""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in rows
    )
    return f"<table>\n{lines}</table>\n"


LEGEND = (
    '<p class="legend"><span style="color:#1f9d73">&#9632;</span> path '
    '<span style="color:#b9c2cd">&#9632;</span> lane lines, the fainter the less probable '
    '<span style="color:#ff6b4a">&#9632;</span> road edges '
    '<span style="color:#e0a51f">&#9632;</span> vehicle ahead</p>\n'
)

OTHER_LEGEND = (
    '<p class="legend"><span style="color:#1f9d73">&#9632;</span> path here '
    '<span style="color:#be5cfa">&#9632;</span> path there '
    '<span style="color:#e2b2ff">&#9632;</span> lane lines there '
    '<span style="color:#ff5cbc">&#9632;</span> road edges there</p>\n'
)

STYLE = """
body { margin: 0; background: #f5f6f8; color: #1c2430; line-height: 1.45;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 28px 18px 60px; overflow-wrap: anywhere; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 10px; }
h2 { font-size: 19px; margin: 0 0 14px; }
.kind { margin: 0; color: #667080; font-size: 13px; letter-spacing: .08em;
  text-transform: uppercase; }
.verdict { margin: 0 0 14px; font-size: 18px; padding-left: 12px; border-left: 5px solid; }
.verdict.good { border-color: #12907a; }
.verdict.bad { border-color: #c0392b; }
.warning { margin: 0 0 14px; padding: 9px 14px; background: #fff3d6; border-radius: 6px; }
.notes { margin: 0 0 22px; padding-left: 20px; color: #465060; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px;
  margin: 0 0 20px; }
.tiles div { background: #fff; border: 1px solid #e3e7ec; border-radius: 8px; padding: 10px 14px; }
.tiles dt { font-size: 13px; color: #667080; }
.tiles dd { margin: 0; font-size: 25px; font-weight: 600; font-variant-numeric: tabular-nums; }
section { margin-top: 34px; }
figure { margin: 0; background: #fff; border: 1px solid #e3e7ec; border-radius: 8px;
  padding: 10px; }
figcaption { font-size: 14px; color: #465060; margin-bottom: 4px; }
.stills, .plots { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); }
.stills figure { padding: 0; overflow: hidden; }
.stills figcaption { margin: 0; padding: 6px 10px; }
.fields { font-variant-numeric: tabular-nums; }
.fields th { width: auto; } .fields td { white-space: nowrap; overflow-wrap: normal; }
.segment { background: #fff; border: 1px solid #e3e7ec; border-left: 5px solid; padding: 8px 14px;
  border-radius: 8px; margin-bottom: 10px; font-size: 15px; }
.segment p { margin: 2px 0 0; font-size: 14px; color: #465060; }
.segment.good { border-left-color: #12907a; } .segment.bad { border-left-color: #c0392b; }
.differs td { color: #a02a1e; background: #fdf1ef; }
.scrolls { overflow-x: auto; margin: 12px 0; }
h3 { font-size: 17px; margin: 22px 0 6px; }
.wide { margin-bottom: 16px; }
.wide figure { overflow-x: auto; }
img, video, svg { display: block; width: 100%; height: auto; }
.wide svg { min-width: 540px; }
video { border-radius: 8px; background: #000; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
.legend { font-size: 14px; color: #465060; margin: 0 0 12px; }
.legend span { margin-left: 10px; }
.legend span:first-child { margin-left: 0; }
table { width: 100%; border-collapse: collapse; background: #fff; border: 1px solid #e3e7ec;
  font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px; border-top: 1px solid #e3e7ec; }
th { width: 15em; font-weight: 500; color: #667080; }
@media (max-width: 480px) { h1 { font-size: 24px; } .tiles dd { font-size: 21px; }
  .tiles { grid-template-columns: 1fr 1fr; } th { width: 6.5em; } main { padding-top: 18px; } }
"""
