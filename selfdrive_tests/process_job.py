"""The job for processes other than modeld: replay, compare every value by frame id, report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from selfdrive_tests.compare import CompareError, Comparison, Field, Moment, compare, tolerances
from selfdrive_tests.drives import RATE_HZ, Drive
from selfdrive_tests.heard import fields_of
from selfdrive_tests.job import (
    DAEMON_LOG,
    REPORT_NAME,
    Job,
    Model,
    Outcome,
    Progress,
    check_start,
    describe_model,
    is_artifact,
    known_plans,
    other_name,
    prepare,
    replay_drive,
    replay_other,
    run_rows,
)
from selfdrive_tests.plots import BLUE, OTHER_COLOR, Plot, Series, plots_element, plots_script
from selfdrive_tests.references import read_log_plans, reference_file, write_reference
from selfdrive_tests.replay import ReplayResult
from selfdrive_tests.report import (
    Compared,
    comparison_section,
    document,
    notes_list,
    section,
    table,
    tiles,
    verdicts,
)
from selfdrive_tests.results import Summary

Moments = Mapping[int, Moment | None]


def run_process(drive: Drive, job: Job, out: Path, progress: Progress) -> Outcome:
    """Do the whole job for one drive; results go to `out`. Raises as run_drive does."""
    check_start(drive, job)
    config = job.process
    model = Model(config.name, "", "", "") if job.model is None else describe_model(job.model)
    known: dict[str, dict[int, Moment | None]] = known_plans(drive, job)
    segment = prepare(out, drive, model)
    began = datetime.now(UTC)
    result = replay_drive(drive, job, segment, out / DAEMON_LOG, progress)
    stages = result.stages
    with stages.measure("read"):
        heard = read_log_plans(result.log, config) if len(result.lost) < result.frames else {}
        here = {frame_id: heard.get(frame_id) for frame_id in result.published}
    if job.against is not None and is_artifact(job.against):
        known[other_name(job)] = replay_other(drive, job, out, progress, stages)
    with stages.measure("compare"):
        fields = chosen_fields(here, job)
        comparisons = [compare(here, there, name, fields) for name, there in known.items()]
        if job.update_refs is not None:
            file = reference_file(job.update_refs, drive.name, config)
            write_reference(file, here, drive.name, model.name, fields)
    summary = summarize(here, result)
    notes = [*drive.notes, *([drive.problem] if drive.problem else [])]
    notes += [*result.notes, *result.restarts]
    when = [
        ("begun", began.isoformat(" ", "seconds")),
        *stages.rows(),
        ("bottleneck", stages.bottleneck),
    ]
    run = [("process", config.name), *run_rows(drive, model, job)]
    other = next(iter(known.values()), {})
    text = process_page(drive.name, summary, comparisons, here, other, job, notes, when, run)
    (out / REPORT_NAME).write_text(text, encoding="utf-8")
    files = [("report", out / REPORT_NAME), ("log", result.log)]
    if job.update_refs is not None:
        files.append(("reference", reference_file(job.update_refs, drive.name, config)))
    return Outcome(drive.name, out, summary, comparisons, notes, files, stages)


def chosen_fields(here: Moments, job: Job) -> tuple[Field, ...]:
    """Every value that the process said, with the tolerances of the job. Raises CompareError."""
    fields = fields_of({i: one for i, one in here.items() if one})
    try:
        return tolerances(job.tolerances, fields)
    except ValueError as error:
        raise CompareError(f"--tolerance: {error}.") from error


def summarize(here: Moments, result: ReplayResult) -> Summary:
    """The numbers of the summary; a message counts as valid if all of a frame's do."""
    answered = [one for one in here.values() if one is not None]
    valid = [one for one in answered if all(_valid(name, v) for name, v in one.values.items())]
    return Summary(
        frames=len(here),
        answered=len(answered),
        valid=len(valid),
        restarts=len(result.restarts),
        median_ms=None,
        p99_ms=None,
        drive_s=len(here) / RATE_HZ,
        wall_s=result.wall_s,
    )


def _valid(name: str, value: object) -> bool:
    return name.count(".") != 1 or not name.endswith(".valid") or value is True


def process_page(
    title: str,
    summary: Summary,
    comparisons: list[Comparison],
    here: Moments,
    other: Moments,
    job: Job,
    notes: list[str],
    when: list[tuple[str, str]],
    run: list[tuple[str, str]],
) -> str:
    """The report: verdict, comparisons, the plots that the process's description names."""
    numbers = [("frames", f"{summary.frames:,}"), ("dropped", f"{summary.dropped:,}")]
    times = tiles([("real-time factor", f"{summary.realtime_factor:.2f}")]) + table(when)
    drawn = [value_plot(name, here, other) for name in job.process.plots]
    parts = [
        f'<header>\n<p class="kind">Replay of {escape(job.process.name)}</p>\n'
        f"<h1>{escape(title)}</h1>\n"
        f"{verdicts(summary, comparisons)}</header>\n",
        tiles(numbers),
        notes_list(notes),
        *(comparison_section(Compared(comparison, {})) for comparison in comparisons),
        f"<!-- times: begin -->\n{section('Times', times)}<!-- times: end -->\n",
        section("Plots", plots_element("numbers", drawn, list(here))) if drawn else "",
        section("What was run", table(run)),
        f"<script>\n{plots_script()}</script>\n",
    ]
    return document(f"{title}: {job.process.name}", "".join(parts))


def value_plot(name: str, here: Moments, other: Moments) -> Plot:
    """A value over the frames; behind it that of the other side."""
    series = [Series(numbers_of(name, here, here), BLUE, "here" if other else "")]
    if other:
        there = numbers_of(name, here, other)
        series.insert(0, Series(there, OTHER_COLOR, "compared with", width=2.4))
    return Plot(name, "", series)


def numbers_of(name: str, frames: Moments, moments: Moments) -> np.ndarray:
    """A value of each frame, NaN where it is not a number."""
    values = []
    for frame_id in frames:
        one = moments.get(frame_id)
        value = one.values.get(name) if one else None
        values.append(value if isinstance(value, float) else np.nan)
    return np.array(values, np.float64)
