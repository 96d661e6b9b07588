"""The report: self-contained, complete, the same bytes again but for the section of times."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np
import pytest

from selfdrive_tests.drives import Calibration
from selfdrive_tests.plans import FrameRecord, Lead, Plan
from selfdrive_tests.plots import Plot, Series, plot_data, plots, y_limits
from selfdrive_tests.report import Report, Still, histogram, page
from selfdrive_tests.results import Summary

NO_POINTS = np.empty((0, 3), np.float32)


def plan(index: int) -> Plan:
    return Plan(
        frame_id=index,
        valid=True,
        execution_s=0.020 + 0.001 * (index % 5),
        drop_percent=0.0,
        position=NO_POINTS,
        lane_lines=(),
        lane_probabilities=(0.1, 0.9, 0.8, 0.2),
        road_edges=(),
        leads=(Lead(0.9 if index > 10 else 0.1, 30.0 + index, 0.0, 20.0),),
        curvature=0.001 * np.sin(index / 5),
        acceleration=0.1,
        should_stop=False,
        confidence="green",
    )


def report(frames: int = 40, lost: int | None = None) -> Report:
    calibration = Calibration((0.0, 0.0, 0.0))
    records = [
        FrameRecord(index, 20.0, calibration, None if index == lost else plan(index))
        for index in range(frames)
    ]
    answered = frames - (lost is not None)
    summary = Summary(frames, answered, answered, 0, 22.0, 24.0, frames / 20, 1.6)
    picture = np.full((48, 96, 3), 120, np.uint8)
    return Report(
        title="A <drive> & more",
        summary=summary,
        records=records,
        stills=[Still(picture, "frame 3, 0.15 s")],
        video="plan.mp4",
        warning="Random weights.",
        notes=["Speed <assumed>."],
        run=[("model", "driving_supercombo"), ("artifact", "sha256 00ff")],
        when=[("begun", "2026-01-02 03:04:05")],
    )


class Outline(HTMLParser):
    """Collects headings, addresses, and whether every element is closed."""

    EMPTY: ClassVar[set[str]] = {"meta", "img", "br", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action")
        ]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_page_is_well_formed_and_has_every_section() -> None:
    outline = Outline(page(report()))
    assert not outline.open
    assert "".join(outline.headings[:1]).startswith("A ")
    assert outline.headings[-4:] == ["Times", "Pictures", "Plots", "What was run"]


def test_page_needs_nothing_from_elsewhere() -> None:
    text = page(report())
    for address in Outline(text).addresses:
        assert address.startswith(("data:image/", "#")) or address == "plan.mp4"
    assert not re.search(r"url\(|@import|<script src|import\(|fetch\(", text)
    assert "http" not in text


def test_text_from_outside_is_escaped() -> None:
    text = page(report())
    assert "A &lt;drive&gt; &amp; more" in text and "<drive>" not in text
    assert "Speed &lt;assumed&gt;." in text


def test_same_results_give_the_same_bytes() -> None:
    assert page(report()) == page(report())


def test_times_stand_in_their_section_alone() -> None:
    first = report()
    slower = [
        replace(r, plan=r.plan and replace(r.plan, execution_s=0.5 + r.frame_id))
        for r in first.records
    ]
    summary = replace(first.summary, median_ms=520.0, p99_ms=900.0, wall_s=99.0)
    second = replace(first, records=slower, summary=summary, when=[("begun", "never")])
    pattern = re.compile("<!-- times: begin -->.*<!-- times: end -->", re.DOTALL)
    first_page, second_page = page(first), page(second)
    assert first_page != second_page
    assert len(pattern.findall(first_page)) == 1
    assert pattern.sub("", first_page) == pattern.sub("", second_page)


def test_numbers_of_the_summary_are_on_the_page() -> None:
    text = page(report(lost=7))
    assert "1 of 40 frames was not answered; all other plans count as valid." in text
    assert "<dt>dropped</dt><dd>1</dd>" in text
    assert "<dd>22.0 ms</dd>" in text and "<dd>24.0 ms</dd>" in text
    assert "<dt>real-time factor</dt><dd>1.25</dd>" in text
    assert "Random weights." in text


def test_plots_have_titles_units_and_the_right_numbers() -> None:
    by_title = {plot.title: plot for plot in plots(report(lost=7).records)}
    curvature = next(p for title, p in by_title.items() if "curvature" in title)
    values = curvature.series[0].values
    assert np.isnan(values[7]) and values[8] == pytest.approx(0.001 * np.sin(8 / 5))
    distance = next(p for title, p in by_title.items() if "distance" in title)
    assert np.isnan(distance.series[0].values[:11]).all()
    assert distance.series[0].values[20] == 50.0
    lanes = by_title["Lane line probabilities"]
    assert [series.values[0] for series in lanes.series] == [0.1, 0.9, 0.8, 0.2]
    drops = next(p for title, p in by_title.items() if "drops" in title)
    assert list(drops.marks) == [7 / 20]
    assert all(plot.unit or "probabilit" in plot.title for plot in by_title.values())


def test_plots_show_both_sides_of_a_comparison() -> None:
    records = report().records
    other = {i: replace(plan(i), acceleration=0.01 * i) for i in range(20)}
    both = next(p for p in plots(records, other=other) if p.title == "Desired acceleration")
    assert [series.label for series in both.series] == ["compared with", "here"]
    there, here = (series.values for series in both.series)
    assert there[:20] == pytest.approx(0.01 * np.arange(20)) and np.isnan(there[20:]).all()
    assert here == pytest.approx(np.full(40, 0.1))


def test_plot_data_are_plain_numbers() -> None:
    data = plot_data([Plot("t", "m", [Series(np.array([1.234567, np.nan]))])], [4, 5])
    assert data["time"] == [0.2, 0.25]
    assert data["plots"][0]["series"][0]["values"] == [1.2346, None]


def test_histogram_counts_every_frame_and_gathers_the_slowest() -> None:
    text = histogram(np.array([1.0] * 150 + [1.5] * 49 + [90.0]), "ms")
    counts = [int(number) for number in re.findall(r"ms: (\d+) frames", text)]
    assert sum(counts) == 200 and counts[0] == 150 and counts[-1] == 1
    assert histogram(np.array([np.nan]), "ms") == ""


@pytest.mark.parametrize(
    ("values", "limits", "span", "expected"),
    [
        # Flat: the least height, centred, with 6 % room on either side.
        ([2.0, 2.0], (None, None), 1.0, (1.44, 2.56)),
        ([0.0, 10.0], (None, None), 1.0, (-0.6, 10.6)),
        ([3.0, 4.0], (0.0, None), 10.0, (0.0, 10.6)),
        ([3.0, 40.0], (0.0, None), 10.0, (0.0, 42.4)),
        ([0.5], (0.0, 1.0), 1.0, (0.0, 1.0)),
        ([np.nan], (None, None), 1.0, (-0.56, 0.56)),
    ],
)
def test_limits_of_the_y_axis(
    values: list[float],
    limits: tuple[float | None, float | None],
    span: float,
    expected: tuple[float, float],
) -> None:
    plot = Plot("title", "unit", [Series(np.array(values))], limits, span)
    assert y_limits(plot) == pytest.approx(expected)


def test_replay_without_any_plan_still_gives_a_page() -> None:
    empty = replace(
        report(frames=1, lost=0),
        stills=(),
        video="",
        summary=Summary(1, 0, 0, 3, None, None, 0.05, 1.0),
    )
    text = page(empty)
    assert not Outline(text).open
    assert "No frame was answered." in text and "<h2>Pictures</h2>" not in text
