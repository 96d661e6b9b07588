"""The `modeld` command."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from messaging import Bus
from modeld import process, status
from modeld.camera_program import CameraProgram, is_camera_program
from modeld.contract import ContractError, Runner
from modeld.daemon import DEFAULT_DELAYS, NAME, Daemon, Options
from modeld.model_state import DrivingModel
from modeld.params import CarDelays, decode_car_params, read_delays, wait_for_car_params
from modeld.planner import Planner

REALTIME_PRIORITY = 54


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
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
    parser.add_argument("--sampling", choices=("nearest", "bilinear"),
                        help="of the warp (default nearest); logs from before February 2026 need "
                        "bilinear")
    process.add_options(parser, "modelV2")
    args = parser.parse_args(argv)
    if args.off_policy and not args.policy:
        parser.error("--off-policy goes with --policy, which takes the on-policy model")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; process.run says what the exit codes mean."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["status"]:
        return status.main(argv[1:])
    args = _arguments(argv)

    def make(bus: Bus, runners: list[Runner]) -> Daemon:
        model = driving_model(runners, args.sampling)
        planner = Planner(model, args.sampling or "nearest", args.send_raw_predictions)
        return Daemon(planner, bus, Options(args.lockstep, _car_delays(args.params)))

    return process.run(NAME, _files(args), make, args, REALTIME_PRIORITY)


def driving_model(
    runners: Sequence[Runner], sampling: str | None = None,
) -> DrivingModel | CameraProgram:
    """What the loaded artifacts are: a model of one to three files, or a camera program.

    sampling: what was asked for, if anything; a camera program has its own.
    Raises ContractError or ParseError if the daemon cannot run them.
    """
    if len(runners) != 1 or not is_camera_program(runners[0]):
        return DrivingModel(*runners)
    program = CameraProgram(runners[0])
    if sampling not in (None, program.sampling):
        raise ContractError(f"The camera program samples {program.sampling}; leave out --sampling "
                            f"{sampling}, or compose it anew.")
    return program


def _files(args: argparse.Namespace) -> list[str]:
    """The artifacts in the order in which DrivingModel takes them."""
    return [file for file in (args.model, args.policy, args.off_policy) if file]


def _car_delays(directory: Path | None) -> CarDelays:
    """Delays of the car in a params directory, usual ones without a directory."""
    if directory is None:
        return DEFAULT_DELAYS
    return read_delays(decode_car_params(wait_for_car_params(directory)), DEFAULT_DELAYS)


if __name__ == "__main__":
    sys.exit(main())
