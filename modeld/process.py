"""What the commands of this package have in common: artifacts, signals, real-time priority."""
from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from types import FrameType

import tinynn
from modeld.contract import Runner

log = logging.getLogger("modeld")

REALTIME_CORE = 7  # of a comma device; smaller machines choose for themselves


def load_verified(files: Sequence[str | Path], threads: int | None) -> list[Runner]:
    """The artifacts, each after its golden vectors came out right on this machine.

    Raises tinynn.ArtifactError for a file that cannot be run or computes wrong here.
    """
    runners: list[Runner] = []
    for file in files:
        runner = tinynn.load(file, threads=threads)
        for result in runner.verify():
            if not result.passed:
                raise tinynn.ArtifactError(
                    f"{file}: output {result.output!r} is off by {result.error:.1e} on this "
                    f"machine, {result.tolerance:.0e} is allowed. Compile the model again; tinynn "
                    "verify shows all outputs.")
        runners.append(runner)
    return runners


def stop_on_signals(stop: Event) -> None:
    """SIGINT and SIGTERM set `stop`."""
    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def enter_realtime(priority: int) -> None:
    """Real-time priority and a core of our own, no garbage collection; a warning if refused."""
    gc.freeze()
    gc.disable()
    try:
        if (os.cpu_count() or 1) > REALTIME_CORE:
            os.sched_setaffinity(0, {REALTIME_CORE})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, PermissionError) as error:
        log.warning("No real-time scheduling (%s); going on without. It needs CAP_SYS_NICE.", error)
