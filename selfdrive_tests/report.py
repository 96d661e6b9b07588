"""The report of a replay: one HTML page that needs nothing but the browser.

Everything that differs between two replays of the same drive (times) stands in one section, between
the comments "times: begin" and "times: end"; the rest has the same bytes for the same plans.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image

from selfdrive_tests.compare import (
    EXACT,
    BadMoment,
    Comparison,
    Difference,
    value_text,
    worst_moments,
)
from selfdrive_tests.drives import RATE_HZ
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.plots import Plot, Series, plan_values, plots, plots_element, plots_script
from selfdrive_tests.results import Summary

BUDGET_MS = 1000.0 / RATE_HZ
BINS = 40
# Of the picture that stands for the video, at most.
POSTER_SIZE = (640, 640)


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


def page(report: Report) -> str:
    """The whole page."""
    parts = [
        _header(report),
        *(comparison_section(compared) for compared in report.compared),
        _times(report),
        _pictures(report),
        section("Plots", _plots(report)),
        section("What was run", table(report.run)),
        f"<script>\n{plots_script()}</script>\n",
    ]
    return document(f"{report.title}: replay", "".join(parts))


def document(title: str, body: str) -> str:
    """A whole HTML page in the style of this program; body is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    summary = report.summary
    numbers = [
        ("frames", f"{summary.frames:,}"),
        ("dropped", f"{summary.dropped:,}"),
        ("plans not valid", f"{summary.answered - summary.valid:,}"),
        ("daemon restarts", f"{summary.restarts:,}"),
    ]
    warning = f'<p class="warning">{escape(report.warning)}</p>\n' if report.warning else ""
    return (
        f'<header>\n<p class="kind">Drive replay</p>\n<h1>{escape(report.title)}</h1>\n'
        f"{verdicts(summary, [one.result for one in report.compared])}{warning}</header>\n"
        f"{tiles(numbers)}{notes_list(report.notes)}"
    )


def verdicts(summary: Summary, comparisons: Sequence[Comparison]) -> str:
    """What came of the replay, and of each comparison, in a sentence each."""
    lines = [(summary.good, summary.verdict)]
    lines += [(comparison.passed, comparison.verdict) for comparison in comparisons]
    return "".join(
        f'<p class="verdict {"good" if good else "bad"}">{escape(text)}</p>\n'
        for good, text in lines
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
    figure = f'<div class="wide">{plots_element("times", [plot], frames_of(report))}</div>\n'
    body = tiles(numbers) + figure + histogram(milliseconds, "ms") + table(report.when)
    return f"<!-- times: begin -->\n{section('Times', body)}<!-- times: end -->\n"


def histogram(values: np.ndarray, unit: str) -> str:
    """How often which value occurs, as bars; "" without values. The highest 1 % share a bar."""
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = float(values.min()), max(float(np.percentile(values, 99)), float(values.min()) + 1)
    edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.minimum(values, high), edges)
    bars = "".join(
        f'<i style="height:{100 * count / counts.max():.1f}%" '
        f'title="{edges[i]:.1f} to {edges[i + 1]:.1f} {unit}: {count} frames"></i>'
        for i, count in enumerate(counts)
    )
    ends = f"<span>{low:.1f} {unit}</span><span>{high:.1f} {unit} and more</span>"
    return (
        "<figure><figcaption>How often the model took how long</figcaption>\n"
        f'<div class="bars">{bars}</div><div class="ends">{ends}</div></figure>\n'
    )


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
            f'<video controls preload="metadata"{_poster(report.stills)} src="{name}"></video>\n'
            f'<p>The whole drive: <a href="{name}">{name}</a>, in the folder of this page.</p>\n'
        )
    body = f'{video}<div class="stills">\n{figures}</div>\n'
    return section("Pictures", LEGEND + body)


def _poster(stills: Sequence[Still]) -> str:
    """The attribute of the picture that a video shows before it is played: its middle, small."""
    if not stills:
        return ""
    middle = Image.fromarray(stills[len(stills) // 2].rgb)
    middle.thumbnail(POSTER_SIZE)
    return f' poster="{_data_uri(np.asarray(middle))}"'


def comparison_section(compared: Compared) -> str:
    """What differs, the worst moments with their pictures, and the table of fields."""
    result = compared.result
    moments = "".join(
        _moment(moment, compared.stills.get(moment.frame_id))
        for moment in worst_moments(result.bad)
    )
    body = notes_list([*map(str, result.claims), *result.notes])
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
    return (
        f'<figure data-seconds="{moment.frame_id / RATE_HZ:.2f}">{image}'
        f"<figcaption><b>{caption}</b>{lines}</figcaption></figure>\n"
    )


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
    """The plots; of several comparisons the first is drawn behind them."""
    others = report.compared[0].others if report.compared else None
    hint = (
        '<p class="legend" id="plots">Drag across a plot to zoom all of them, double-click to see '
        "everything again. A click on one of the worst moments shows it here.</p>\n"
        "<noscript><p>The plots need JavaScript, which is switched off.</p></noscript>"
    )
    drawn = plots(report.records, report.truth, others)
    return hint + plots_element("numbers", drawn, frames_of(report))


def frames_of(report: Report) -> list[int]:
    """Ids of the frames, in order."""
    return [record.frame_id for record in report.records]


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
.fields th { width: auto; } .fields * { white-space: nowrap; overflow-wrap: normal; }
.segment { background: #fff; border: 1px solid #e3e7ec; border-left: 5px solid; padding: 8px 14px;
  border-radius: 8px; margin-bottom: 10px; font-size: 15px; }
.segment p { margin: 2px 0 0; font-size: 14px; color: #465060; }
.segment.good { border-left-color: #12907a; } .segment.bad { border-left-color: #c0392b; }
.differs td { color: #a02a1e; background: #fdf1ef; }
.scrolls { overflow-x: auto; margin: 12px 0; }
h3 { font-size: 17px; margin: 22px 0 6px; }
.wide { margin-bottom: 12px; }
img, video { display: block; width: 100%; height: auto; }
canvas { display: block; width: 100%; height: 150px; touch-action: pan-y; cursor: crosshair; }
video { border-radius: 8px; background: #000; }
figure .legend { font-size: 12px; margin: 0 0 4px; font-variant-numeric: tabular-nums; }
figure[data-seconds] { cursor: pointer; }
.bars { display: flex; align-items: flex-end; gap: 1px; height: 90px; }
.bars i { flex: 1; background: #2563b8; min-height: 1px; }
.ends { display: flex; justify-content: space-between; font-size: 12px; color: #667080; }
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
