"""The page above the reports of many segments: the verdict, and a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from selfdrive_tests.job import REPORT_NAME, Outcome
from selfdrive_tests.report import document, notes_list, section, table, tiles
from selfdrive_tests.stages import Stages

WORDS = {0: "good", 1: "broke off", 2: "not replayed", 3: "differs"}


def verdict(outcomes: Sequence[Outcome]) -> str:
    """One sentence on all segments."""
    good = len(outcomes)
    if all(outcome.code == 0 for outcome in outcomes):
        return f"All {good} segments are good." if good > 1 else "The segment is good."
    parts = []
    for code, word in ((3, "differing"), (2, "not replayed"), (1, "broken off")):
        count = sum(outcome.code == code for outcome in outcomes)
        parts += [f"{count} {word}"] if count else []
    return f"Not all of {len(outcomes)} segments are good: {', '.join(parts)}."


def total_stages(outcomes: Sequence[Outcome]) -> Stages:
    """Times of all segments together."""
    total = Stages()
    for outcome in outcomes:
        for stage, seconds in outcome.stages.seconds.items():
            total.add(stage, seconds)
    return total


def overview_page(
    title: str, outcomes: Sequence[Outcome], notes: Sequence[str], command: str, wall_s: float
) -> str:
    """The whole page. wall_s: of the whole job, several segments at a time."""
    summaries = [outcome.summary for outcome in outcomes if outcome.summary is not None]
    frames = sum(summary.frames for summary in summaries)
    drive_s = sum(summary.drive_s for summary in summaries)
    mood = "good" if all(outcome.code == 0 for outcome in outcomes) else "bad"
    head = (
        f'<header>\n<p class="kind">Route replay</p>\n<h1>{escape(title)}</h1>\n'
        f'<p class="verdict {mood}">{escape(verdict(outcomes))}</p>\n</header>\n'
    )
    numbers = tiles(
        [
            ("segments", f"{len(outcomes):,}"),
            ("frames", f"{frames:,}"),
            ("dropped", f"{sum(summary.dropped for summary in summaries):,}"),
            ("segments that differ", str(sum(outcome.code == 3 for outcome in outcomes))),
        ]
    )
    stages = total_stages(outcomes)
    factor = drive_s / wall_s if wall_s > 0 else 0.0
    times = table(
        [
            ("whole job", f"{wall_s:.1f} s for {drive_s:.1f} s of driving: {factor:.2f} times"),
            ("of which", "sums over all segments, also of those replayed at the same time"),
            *stages.rows(),
            ("bottleneck", stages.bottleneck or "nothing was replayed"),
        ]
    )
    parts = [
        head,
        numbers,
        notes_list(notes),
        section("Segments", _segments(outcomes)),
        f"<!-- times: begin -->\n{section('Times', times)}<!-- times: end -->\n",
        section("What was run", table([("command", command)])),
    ]
    return document(f"{title}: replay", "".join(parts))


def _segments(outcomes: Sequence[Outcome]) -> str:
    return "".join(_segment(outcome) for outcome in outcomes)


def _segment(outcome: Outcome) -> str:
    """A box with what was seen, and the way to the segment's own report."""
    name = escape(outcome.name)
    if not outcome.error:
        name = f'<a href="{quote(outcome.name)}/{REPORT_NAME}">{name}</a>'
    said = [outcome.error] if outcome.error else []
    said += [outcome.summary.verdict] if outcome.summary else []
    said += [comparison.verdict for comparison in outcome.comparisons]
    said += outcome.notes
    frames = f", {outcome.summary.frames:,} frames" if outcome.summary else ""
    text = "<br>".join(escape(line) for line in said)
    mood = "good" if outcome.code == 0 else "bad"
    return (
        f'<div class="segment {mood}"><b>{name}</b>: {WORDS[outcome.code]}{frames}'
        f"<p>{text}</p></div>\n"
    )
