"""Many segments: one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from messaging import MessagingError
from selfdrive_tests.compare import CompareError
from selfdrive_tests.drives import DriveError, Overrides
from selfdrive_tests.guard import die_with_parent
from selfdrive_tests.job import Job, Outcome, Progress, run_drive
from selfdrive_tests.process_job import run_process
from selfdrive_tests.processes import MODELD
from selfdrive_tests.replay import ReplayError, Watcher
from selfdrive_tests.segments import Source
from tinynn.runtime.layout import ArtifactError

# What a user can be told in one line; anything else is a defect of this program.
FAULTS = (DriveError, CompareError, ArtifactError, MessagingError, OSError, ReplayError)


def run_source(
    source: Source,
    overrides: Overrides,
    job: Job,
    out: Path,
    progress: Progress,
    watcher: Watcher | None = None,
) -> Outcome:
    """Replay one source; what is wrong with it is in the outcome, so that others can go on."""
    try:
        drive = source.open(overrides, job.process)
        if job.process != MODELD:
            return run_process(drive, job, out, progress)
        return run_drive(drive, job, out, progress, watcher)
    except FAULTS as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        broke_off = isinstance(error, ReplayError) and not error.at_start
        return Outcome(source.name, out, error=text, error_code=1 if broke_off else 2)


def no_progress(total: int | None, what: str) -> Any:
    """In the place of a bar where many would write over each other."""
    return tqdm(total=total, desc=what, disable=True)


def run_sources(
    sources: Sequence[Source],
    overrides: Overrides,
    job: Job,
    out: Path,
    jobs: int,
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Replay all sources, `jobs` at a time; gives their outcomes in the order of the sources.

    Each gets a folder of its name in `out`. done is called with each outcome as it comes.
    """
    if jobs == 1:
        outcomes = []
        for source in sources:
            outcomes.append(run_source(source, overrides, job, out / source.name, no_progress))
            done(outcomes[-1])
        return outcomes
    # Spawned, not forked: a fork of a process with threads may stand still.
    with ProcessPoolExecutor(
        min(jobs, len(sources)), multiprocessing.get_context("spawn"), _begin_worker, (os.getpid(),)
    ) as pool:
        try:
            futures = {
                pool.submit(
                    run_source, source, overrides, job, out / source.name, no_progress
                ): source
                for source in sources
            }
            by_name = {}
            for future in as_completed(futures):
                source = futures[future]
                try:
                    outcome = future.result()
                except Exception as error:
                    text = f"{source.name} could not be replayed: {error!r}."
                    outcome = Outcome(source.name, out / source.name, error=text, error_code=1)
                by_name[source.name] = outcome
                done(outcome)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return [by_name[source.name] for source in sources]


def _begin_worker(parent: int) -> None:
    """A worker stops in good order at SIGTERM, and at once when the main process is killed.

    It would wait for more work otherwise, whatever is raised in it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    die_with_parent(parent, signal.SIGKILL)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Of the whole command: 1 (broke off) counts more than 2 (wrong input), 2 more than 3."""
    codes = {outcome.code for outcome in outcomes}
    return next((code for code in (1, 2, 3) if code in codes), 0)
