"""What the commands of this package have in common: options, artifacts, signals, the way to end."""
from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Protocol

import tinynn
from messaging import Bus, BusError, MessagingError
from messaging.options import add_bus_option, positive
from modeld.contract import ContractError, Runner
from modeld.watch import Counters

log = logging.getLogger("modeld")

OUR_TARGET = "cpu"  # what every artifact for this machine has


class Daemon(Protocol):
    """What `run` runs."""

    @property
    def counters(self) -> Counters: ...
    def run(self, stop: Event, frames: int | None = None) -> None: ...
    def close(self) -> None: ...


def add_options(parser: argparse.ArgumentParser, message: str) -> None:
    """The options of both daemons. message: the one into which raw predictions go."""
    add_bus_option(parser)
    parser.add_argument("--lockstep", action="store_true", help="take every frame and wait for the "
                        "messages it depends on: for replays that must be reproducible")
    parser.add_argument("--target", metavar="TARGET", help="of the artifact, for instance opencl; "
                        "if it does not run here, its cpu target does (default: the best that "
                        "runs)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of the model")
    parser.add_argument("--cores", type=_cores, default=(), metavar="LIST",
                        help="a core for each thread of the model, for instance 6,7")
    parser.add_argument("--frames", type=positive, metavar="N", help="stop after so many frames")
    parser.add_argument("--send-raw-predictions", action="store_true",
                        help=f"put the raw output vector into {message}")
    parser.add_argument("--realtime", action="store_true",
                        help="ask the system for real-time scheduling")


def _cores(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of cores; write for instance 6,7")
    return tuple(int(number) for number in text.split(","))


def bus_of(args: argparse.Namespace) -> Bus:
    """The bus that the options name. Raises BusError if it cannot be."""
    bus = Bus.at(args.bus)
    if args.lockstep and bus.msgq_prefix is not None:
        raise BusError("--lockstep needs a bus whose frames carry barriers, and VisionIPC has no "
                       "place for them. Replay on a namespace instead of msgq.")
    return bus


def load_verified(files: Sequence[str | Path], args: argparse.Namespace) -> list[Runner]:
    """The artifacts, each after its golden vectors came out right on this machine.

    Raises tinynn.ArtifactError for a file that cannot be run or computes wrong here.
    """
    return [_verified(file, args) for file in files]


def _verified(file: str | Path, args: argparse.Namespace) -> Runner:
    runner = _load(file, args)
    for result in runner.verify():
        if not result.passed:
            raise tinynn.ArtifactError(
                f"{file}: output {result.output!r} is off by {result.error:.1e} on this "
                f"machine, {result.tolerance:.0e} is allowed. Compile the model again; tinynn "
                "verify shows all outputs.")
    return runner


def _load(file: str | Path, args: argparse.Namespace) -> tinynn.Runner:
    """With the target that was asked for, or, if that does not run here, with the processor's."""
    threads = args.threads or (len(args.cores) or None)
    try:
        return tinynn.load(file, target=args.target, threads=threads, cores=args.cores)
    except tinynn.ArtifactError as error:
        if args.target is None or args.target.startswith(OUR_TARGET):
            raise
        log.warning("%s Going on with the target %s.", error, OUR_TARGET)
    return tinynn.load(file, target=OUR_TARGET, threads=threads, cores=args.cores)


def run(name: str, files: Sequence[str], make: Callable[[Bus, list[Runner]], Daemon],
        args: argparse.Namespace, priority: int) -> int:
    """Make a daemon and run it until SIGINT or SIGTERM, or `args.frames` frames.

    files: artifacts, which `make` gets loaded, with the bus. priority: in real-time scheduling.
    Gives the exit code: 0, 1 if the bus failed or a frame did not fit the model, 2 if the daemon
    could not start. A signal ends the start at once, by SystemExit.
    """
    logging.basicConfig(format=f"{name}: %(message)s", level=logging.INFO, stream=sys.stderr)
    starting, stop = Event(), Event()
    starting.set()
    stop_on_signals(stop, starting)
    if args.realtime:  # before there are threads: those of the model inherit it
        enter_realtime(priority)
    try:
        bus = bus_of(args)
        daemon = make(bus, load_verified(files, args))
    except (MessagingError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    starting.clear()
    gc.freeze()
    try:
        daemon.run(stop, args.frames)
    except (MessagingError, ContractError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    finally:
        daemon.close()
    log.info("%s", daemon.counters.summary())
    return 0


def stop_on_signals(stop: Event, starting: Event | None = None) -> None:
    """SIGINT and SIGTERM set `stop`; while `starting` is set they end the program at once."""
    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        if starting is not None and starting.is_set():
            sys.exit(0)
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def enter_realtime(priority: int) -> None:
    """Real-time priority for this thread and those it starts; a warning if refused."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, PermissionError) as error:
        log.warning("No real-time scheduling (%s); going on without. It needs CAP_SYS_NICE.", error)
