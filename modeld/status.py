"""How a daemon is: it keeps a small file about itself, `modeld status` shows it.

The file lies beside the sockets of the bus and is replaced as a whole once a second, so that a
reader never sees half of it. Nothing of it travels in messages: replays do not depend on it.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from messaging import Bus, BusError
from messaging.options import add_bus_option
from modeld.watch import Counters

log = logging.getLogger("modeld")

DAEMONS = ("modeld", "dmonitoringmodeld")
PERIOD_S = 1.0
SILENT_S = 5.0  # a file older than this was left by a daemon that hangs or is gone
WAITING, RUNNING, STOPPED = "waiting for a camera", "running", "stopped"


class StatusError(ValueError):
    """The file is none that a daemon wrote."""


@dataclass(frozen=True)
class Status:
    """What a daemon says about itself.

    state: WAITING, RUNNING or STOPPED. frames, dropped, faults, last: see watch.Counters.
    frame_id: of the newest frame, None before the first. valid: whether it was published so.
    execution_ms: mean time of the newest runs. target: what the model runs on now.
    """

    pid: int
    state: str
    frames: int
    dropped: int
    frame_id: int | None
    valid: bool
    execution_ms: float
    target: str
    faults: dict[str, int]
    last: dict[str, str]


def status_path(bus: Bus, daemon: str) -> Path:
    """Where the daemon of this name keeps its file."""
    return bus.directory / f"{daemon}.status.json"


class StatusFile:
    """The writing side. A file that cannot be written is named in the log once and done without."""

    def __init__(
        self, bus: Bus, daemon: str, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = status_path(bus, daemon)
        self._clock = clock
        self._due: float | None = None
        self._warned = False
        with contextlib.suppress(BusError):  # then writing says so
            bus.make_directory()  # on msgq nothing else does

    def update(
        self, state: str, counters: Counters, frame_id: int | None, valid: bool, mean_s: float,
        target: str,
    ) -> None:
        """Write the file if a second has passed since the last time, or the daemon has stopped."""
        now = self._clock()
        if self._due is not None and now < self._due and state != STOPPED:
            return
        self._due = now + PERIOD_S
        status = Status(
            os.getpid(), state, counters.frames, counters.dropped, frame_id, valid,
            round(1000 * mean_s, 2), target, dict(counters.faults), counters.last)
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(asdict(status), indent=1, sort_keys=True))
            os.replace(partial, self.path)
        except OSError as error:
            if not self._warned:
                log.warning("The status file %s cannot be written (%s); going on without.",
                            self.path, error.strerror)
            self._warned = True


def read_status(path: Path) -> Status:
    """The status in a file. Raises OSError if it cannot be read, StatusError if it is damaged."""
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise StatusError(f"{path} is not a status file: it is no JSON.") from None
    if not isinstance(table, dict) or not _sound(table):
        raise StatusError(f"{path} is not a status file: its fields are not those of a status.")
    return Status(**table)


def _sound(table: dict[str, Any]) -> bool:
    number = (int, float)
    kinds: dict[str, Any] = {
        "pid": int, "state": str, "frames": int, "dropped": int, "frame_id": (int, type(None)),
        "valid": bool, "execution_ms": number, "target": str, "faults": dict, "last": dict}
    return (
        table.keys() == kinds.keys()
        and all(isinstance(table[name], kind) for name, kind in kinds.items())
        and all(isinstance(count, int) for count in table["faults"].values())
        and all(isinstance(text, str) for text in table["last"].values()))


def describe(daemon: str, status: Status, age_s: float) -> list[str]:
    """The lines that `modeld status` prints about one daemon."""
    if status.state != STOPPED and age_s > SILENT_S:
        state = f"no sign of life for {age_s:.0f} s; it hangs or was killed"
    else:
        state = status.state
    lines = [f"{daemon} (process {status.pid}): {state}, target {status.target}"]
    frames = f"  {frames_in_words(status.frames)}, {status.dropped} dropped"
    if status.frame_id is not None:
        validity = "valid" if status.valid else "NOT valid"
        frames += (f"; newest {status.frame_id}, published as {validity}; "
                   f"model {status.execution_ms:.1f} ms")
    lines.append(frames)
    for kind, count in sorted(status.faults.items(), key=lambda item: -item[1]):
        lines += [f"  {kind}: {frames_in_words(count)}",
                  f"    last: {status.last.get(kind, 'unknown')}"]
    return lines


def frames_in_words(count: int) -> str:
    """"1 frame", "2 frames"."""
    return "1 frame" if count == 1 else f"{count} frames"


def alive(status: Status, age_s: float) -> bool:
    """Whether the daemon runs (or waits for a camera) and says so."""
    return status.state != STOPPED and age_s <= SILENT_S


def main(argv: Sequence[str] | None = None) -> int:
    """`modeld status`. Gives 0 if a daemon is alive on the bus, 1 if none is, 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="modeld status", description="Show how the daemons on a bus are: what they handled, "
        "what went wrong how often, and why.")
    add_bus_option(parser)
    args = parser.parse_args(argv)
    try:
        bus = Bus.at(args.bus)
    except BusError as error:
        print(f"modeld: {error}", file=sys.stderr)
        return 2
    any_alive = found = False
    for daemon in DAEMONS:
        path = status_path(bus, daemon)
        try:
            status = read_status(path)
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        except (OSError, StatusError) as error:
            print(f"modeld: {error}", file=sys.stderr)
            continue
        found = True
        any_alive = any_alive or alive(status, age_s)
        print("\n".join(describe(daemon, status, age_s)))
    if not found:
        print(f"No daemon has been on the bus '{bus.address}'. Start one there with modeld --bus "
              f"{bus.address}, or name another bus with --bus.")
    return 0 if any_alive else 1
