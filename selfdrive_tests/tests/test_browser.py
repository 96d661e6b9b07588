"""The report in a real browser: nothing overflows, nothing is broken, nothing is fetched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfdrive_tests.compare import FIELDS, BadMoment, Comparison, Difference, FieldResult
from selfdrive_tests.drives import Calibration
from selfdrive_tests.job import Outcome
from selfdrive_tests.overview import overview_page
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.report import Compared, Report, Still, page
from selfdrive_tests.results import Summary

# The layout's width, what sticks out, and what was loaded.
MEASURE = """
(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => e && (getComputedStyle(e).overflowX != "visible"
    || scrolls(e.parentElement));
  const out = [...document.querySelectorAll("main *")].filter((e) =>
    e.getBoundingClientRect().right > width + 0.5 && !scrolls(e.parentElement));
  const pictures = [...document.images];
  return {
    width: width,
    scroll: document.documentElement.scrollWidth,
    out: out.map((e) => e.outerHTML.slice(0, 120)),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 80)),
    pictures: pictures.length,
    broken: pictures.filter((e) => !e.naturalWidth).length,
  };
})()
"""
# How many plots have something drawn in the colour of their first line.
DRAWN = """
view.boards.flatMap((board) => board.figures.map(({ canvas }, i) => {
  const series = board.plots[i].series.at(-1);
  const wanted = [1, 3, 5].map((at) => parseInt(series.color.slice(at, at + 2), 16));
  const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < bytes.length; at += 4) {
    if (wanted.every((value, k) => Math.abs(bytes[at + k] - value) < 40) && bytes[at + 3] > 200) {
      return 1;
    }
  }
  return 0;
})).reduce((sum, one) => sum + one, 0)
"""


def plan(index: int) -> Plan:
    """A gentle curve."""
    line = np.linspace([0.0, 0.0, 0.0], [100.0, 1.0, 0.0], 33, dtype=np.float32)
    return Plan(
        index, True, 0.01, 0.0, line, (line, line - 1.8, line + 1.8, line), (0.2, 0.9, 0.8, 0.1),
        (line, line), (), 0.001 * index, 0.1, False, "green", np.linspace(0, 10, 33),
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with everything in it, and long words where text comes from outside."""
    level = Calibration((0.0, 0.0, 0.0))
    records = [FrameRecord(i, 20.0, level, plan(i)) for i in range(40)]
    picture = np.full((804, 1280, 3), 120, np.uint8)
    long_word = "x" * 120
    content = Report(
        title=f"drive_{long_word}",
        summary=Summary(40, 39, 38, 1, 1234.5, 2345.6, 2.0, 1.6),
        records=records,
        stills=[Still(picture, "frame 3, 0.15 s"), Still(picture, "frame 3: truth")],
        warning="Random weights: what is drawn means nothing.",
        notes=[f"The log /data/{long_word}/rlog.zst is readable up to byte 7."],
        run=[("artifact", "sha256 " + "ab" * 32), ("command", f"drive-replay /{long_word}")],
        when=[("begun", "2026-01-02 03:04:05+00:00")],
    )
    differing = Comparison(f"reference_{long_word}", [FieldResult(f, 40, 40, 9.0) for f in FIELDS])
    differing.bad.append(BadMoment(3, tuple(Difference(f, 1.0, 9.0, 8.0, 80.0) for f in FIELDS)))
    compared = Compared(differing, {}, {3: Still(picture, "frame 3")})
    content = replace(content, compared=[compared])
    path = tmp_path / "report.html"
    path.write_text(page(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [400, 1100])
def test_report_fits_the_window_and_loads_nothing(
    report: Path, browser: Any, width: int
) -> None:
    browser.open(report.as_uri(), width)
    seen = browser.value(MEASURE)
    assert seen["width"] == width
    assert seen["out"] == []
    assert seen["scroll"] <= width
    assert (seen["pictures"], seen["broken"]) == (3, 0)
    assert all(name.startswith("data:") for name in seen["loaded"])


def test_plots_are_drawn_and_zoom_together(report: Path, browser: Any) -> None:
    browser.open(report.as_uri())
    browser.wait("document.querySelectorAll('canvas').length == 9")
    # Lead and drops have nothing to show here; lanes, curvature and speed have.
    browser.wait(f"{DRAWN} >= 5")
    assert browser.value("view.range") is None
    browser.drag("#plots ~ .plots canvas", 0.4, 0.7)
    low, high = browser.value("view.range")
    assert 0 < low < high < 39 / 20
    spans = browser.value("view.boards.map((board) => board.span)")
    assert spans == [[low, high], [low, high]]
    # One of the worst moments shows itself in the plots.
    browser.value("document.querySelector('[data-seconds]').click()")
    assert browser.value("view.range") == pytest.approx([3 / 20 - 2, 3 / 20 + 2])
    browser.value("document.querySelector('canvas').dispatchEvent(new MouseEvent('dblclick'))")
    assert browser.value("view.range") is None


@pytest.mark.parametrize("width", [400, 1100])
def test_page_above_segments_fits_the_window(
    tmp_path: Path, browser: Any, width: int
) -> None:
    long_word = "y" * 90
    differing = Comparison(long_word, [FieldResult(item, 40, 40, 9.0) for item in FIELDS])
    differing.bad.append(BadMoment(3, ()))
    summary = Summary(40, 39, 38, 1, 1234.5, 2345.6, 2.0, 1.6)
    outcomes = [
        Outcome(f"{long_word}--0", tmp_path, summary, [differing], ["A note."]),
        Outcome(f"{long_word}--1", tmp_path, error="No video.", error_code=2),
    ]
    path = tmp_path / "report.html"
    text = overview_page(long_word, outcomes, ["Segment 2 is not there."], "drive-replay", 3.0)
    path.write_text(text, encoding="utf-8")
    browser.open(path.as_uri(), width)
    seen = browser.value(MEASURE)
    assert seen["out"] == [] and seen["scroll"] <= width == seen["width"]
    assert seen["loaded"] == []
