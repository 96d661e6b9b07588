"""The `modeld` command."""
from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from threading import Event
from types import FrameType

import tinynn
from messaging import Bus, MessagingError
from modeld.contract import ContractError, Runner
from modeld.daemon import Daemon, Options
from modeld.model_state import DrivingModel
from modeld.parser import ParseError
from modeld.planner import Counters, Planner

log = logging.getLogger("modeld")

_REALTIME_PRIORITY, _REALTIME_CORE = 54, 7


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="modeld", description="Run a compiled driving model on camera frames from the bus and "
        "publish modelV2, drivingModelData and cameraOdometry.")
    parser.add_argument("--model", required=True, metavar="FILE",
                        help="artifact of the model, or of the vision model if --policy is given")
    parser.add_argument("--policy", metavar="FILE", help="artifact of the policy model")
    parser.add_argument("--namespace", metavar="NS", help="bus to work on (default: "
                        "$TINYDRIVE_NAMESPACE, else 'default')")
    parser.add_argument("--lockstep", action="store_true", help="take every frame and wait for the "
                        "messages it depends on: for replays that must be reproducible")
    parser.add_argument("--sampling", choices=("nearest", "bilinear"), default="nearest",
                        help="of the warp; logs from before February 2026 need bilinear")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the model")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after so many frames")
    parser.add_argument("--send-raw-predictions", action="store_true",
                        help="put the raw output vector into modelV2")
    parser.add_argument("--realtime", action="store_true",
                        help="ask the system for real-time scheduling and a core of its own")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Gives 0, 1 if the bus failed, 2 if it could not start."""
    args = _arguments(argv)
    logging.basicConfig(format="modeld: %(message)s", level=logging.INFO, stream=sys.stderr)
    stop = Event()
    _stop_on_signals(stop)
    try:
        model = DrivingModel(*_load(args))
        planner = Planner(model, args.sampling, args.send_raw_predictions)
        daemon = Daemon(planner, Bus(args.namespace), Options(args.lockstep))
    except (ContractError, MessagingError, OSError, ParseError, ValueError) as error:
        print(f"modeld: {error}", file=sys.stderr)
        return 2
    if args.realtime:
        _enter_realtime()
    try:
        daemon.run(stop, args.frames)
    except MessagingError as error:
        print(f"modeld: {error}", file=sys.stderr)
        return 1
    finally:
        daemon.close()
    log.info("%s", summary(planner.counters))
    return 0


def _load(args: argparse.Namespace) -> list[Runner]:
    """The artifacts, each after its golden vectors came out right on this machine."""
    files = [args.model] if args.policy is None else [args.model, args.policy]
    runners: list[Runner] = []
    for file in files:
        runner = tinynn.load(file, threads=args.threads)
        for result in runner.verify():
            if not result.passed:
                raise tinynn.ArtifactError(
                    f"{file}: output {result.output!r} is off by {result.error:.1e} on this "
                    f"machine, {result.tolerance:.0e} is allowed. Compile the model again; tinynn "
                    "verify shows all outputs.")
        runners.append(runner)
    return runners


def _stop_on_signals(stop: Event) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _enter_realtime() -> None:
    """Real-time priority and a core of our own, no garbage collection; a warning if refused."""
    gc.freeze()
    gc.disable()
    try:
        if (os.cpu_count() or 1) > _REALTIME_CORE:
            os.sched_setaffinity(0, {_REALTIME_CORE})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME_PRIORITY))
    except (AttributeError, PermissionError) as error:
        log.warning("No real-time scheduling (%s); going on without. It needs CAP_SYS_NICE.", error)


def summary(counters: Counters) -> str:
    """One line: what was done, and what went wrong how often."""
    problems = {"dropped": counters.dropped, "not finite": counters.not_finite,
                "not calibrated": counters.not_calibrated, "stale": counters.stale,
                "camera fault": counters.camera_fault}
    told = [f"{count} {name}" for name, count in problems.items() if count]
    return f"{counters.frames} frames" + (f": {', '.join(told)}" if told else "")


if __name__ == "__main__":
    sys.exit(main())
