"""The `modeld` command."""
from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from messaging import Bus, MessagingError
from modeld import process, status
from modeld.contract import ContractError
from modeld.daemon import DEFAULT_DELAYS, Daemon, Options
from modeld.model_state import DrivingModel
from modeld.params import CarDelays, decode_car_params, read_delays, wait_for_car_params
from modeld.parser import ParseError
from modeld.planner import Planner

log = logging.getLogger("modeld")

REALTIME_PRIORITY = 54


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="modeld", description="Run a compiled driving model on camera frames from the bus and "
        "publish modelV2, drivingModelData and cameraOdometry.",
        epilog="`modeld status` shows how the daemons on a bus are.")
    parser.add_argument("--model", required=True, metavar="FILE",
                        help="artifact of the model, or of the vision model if --policy is given")
    parser.add_argument("--policy", metavar="FILE",
                        help="artifact of the policy model, or of the on-policy one of three files")
    parser.add_argument("--off-policy", metavar="FILE",
                        help="artifact of the off-policy model, where there are three files")
    parser.add_argument("--params", type=Path, metavar="DIR", help="take the parameters of the car "
                        "from the file CarParams in this directory, and wait until it is there")
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
    args = parser.parse_args(argv)
    if args.off_policy and not args.policy:
        parser.error("--off-policy goes with --policy, which takes the on-policy model")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Gives 0, 1 if the bus failed, 2 if it could not start."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["status"]:
        return status.main(argv[1:])
    args = _arguments(argv)
    logging.basicConfig(format="modeld: %(message)s", level=logging.INFO, stream=sys.stderr)
    stop = Event()
    process.stop_on_signals(stop)
    try:
        model = DrivingModel(*process.load_verified(_files(args), args.threads))
        planner = Planner(model, args.sampling, args.send_raw_predictions)
        car = _car_delays(args.params, stop)
        daemon = Daemon(planner, Bus(args.namespace), Options(args.lockstep, car))
    except (ContractError, MessagingError, OSError, ParseError, ValueError) as error:
        print(f"modeld: {error}", file=sys.stderr)
        return 2
    if args.realtime:
        process.enter_realtime(REALTIME_PRIORITY)
    try:
        daemon.run(stop, args.frames)
    except MessagingError as error:
        print(f"modeld: {error}", file=sys.stderr)
        return 1
    finally:
        daemon.close()
    log.info("%s", planner.counters.summary())
    return 0


def _files(args: argparse.Namespace) -> list[str]:
    """The artifacts in the order in which DrivingModel takes them."""
    return [file for file in (args.model, args.policy, args.off_policy) if file]


def _car_delays(directory: Path | None, stop: Event) -> CarDelays:
    """Delays of the car in a params directory, usual ones without a directory."""
    data = wait_for_car_params(directory, stop) if directory else None
    return read_delays(decode_car_params(data), DEFAULT_DELAYS) if data else DEFAULT_DELAYS


if __name__ == "__main__":
    sys.exit(main())
