"""The report in a real browser: nothing overflows, nothing is broken, nothing is fetched."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfdrive_tests.compare import FIELDS, BadMoment, Comparison, Difference, FieldResult
from selfdrive_tests.drives import Calibration
from selfdrive_tests.job import Outcome
from selfdrive_tests.overview import overview_page
from selfdrive_tests.plans import FrameRecord
from selfdrive_tests.report import Compared, Report, Still, page
from selfdrive_tests.results import Summary

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

# A window cannot be as narrow as a phone, but a frame inside it can.
FRAME = """<!doctype html><title></title>
<script>addEventListener("message", (e) => document.title = e.data);</script>
<iframe src="{page}" style="border: 0; width: {width}px; height: 900px"></iframe>
"""

# Told to the frame around: the layout's width, what sticks out, and what was loaded.
MEASURE = """
<script>window.addEventListener("load", () => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => e && (getComputedStyle(e).overflowX != "visible"
    || scrolls(e.parentElement));
  const out = [...document.querySelectorAll("main *")].filter((e) =>
    e.getBoundingClientRect().right > width + 0.5 && !scrolls(e.parentElement));
  const pictures = [...document.images];
  parent.postMessage(JSON.stringify({
    width: width,
    scroll: document.documentElement.scrollWidth,
    out: out.map((e) => e.outerHTML.slice(0, 120)),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 80)),
    pictures: pictures.length,
    broken: pictures.filter((e) => !e.naturalWidth).length,
    plots: document.querySelectorAll("svg").length,
  }), "*");
});</script>
"""


def measure(page: Path, width: int, scratch: Path) -> dict[str, Any]:
    """What a browser `width` pixels wide makes of a page; skips the test without one."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    copy = page.with_name("measured.html")
    copy.write_text(
        page.read_text(encoding="utf-8").replace("</body>", MEASURE + "</body>"), encoding="utf-8"
    )
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(page=copy.name, width=width), encoding="utf-8")
    command = [
        chromium,
        *FLAGS,
        f"--user-data-dir={scratch / 'profile'}",
        "--window-size=1300,1000",
        "--virtual-time-budget=10000",
        "--dump-dom",
        frame.as_uri(),
    ]
    home = {**os.environ, "HOME": str(scratch)}
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=240, env=home
    )
    start, end = result.stdout.find("<title>"), result.stdout.find("</title>")
    assert 0 <= start < end, result.stderr[-2000:]
    return dict(json.loads(result.stdout[start + len("<title>") : end]))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with everything in it, and long words where text comes from outside."""
    records = [FrameRecord(i, 20.0, Calibration((0.0, 0.0, 0.0)), None) for i in range(40)]
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
    report: Path, tmp_path: Path, width: int
) -> None:
    seen = measure(report, width, tmp_path)
    assert seen["width"] == width
    assert seen["out"] == []
    assert seen["scroll"] <= width
    assert (seen["pictures"], seen["broken"]) == (3, 0)
    assert seen["plots"] == 9
    assert all(name.startswith("data:") for name in seen["loaded"])


@pytest.mark.parametrize("width", [400, 1100])
def test_page_above_segments_fits_the_window(tmp_path: Path, width: int) -> None:
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
    seen = measure(path, width, tmp_path)
    assert seen["out"] == [] and seen["scroll"] <= width == seen["width"]
    assert seen["loaded"] == []
