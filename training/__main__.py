"""Command line: `python -m training train --hours 8`, `... export`, `... evaluate`."""
from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tinydrive" / "training"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m training", description="Train the driving model on procedural roads.")
    top.add_argument("--run", type=Path, default=CACHE, metavar="DIR",
                     help="folder of checkpoint and curves (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="begin a run, or continue the folder's")
    train.add_argument("--hours", type=float, default=math.inf, help="stop after so long")
    train.add_argument("--batches", type=int, default=4000, help="of new worlds, in the whole run")
    train.add_argument("--repeat", type=int, default=2, help="steps per new batch")
    train.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1))
    train.add_argument("--seed", type=int, default=0, help="of weights and worlds")
    export = commands.add_parser("export", help="write the ONNX file of the checkpoint")
    export.add_argument("-o", "--out", type=Path, default=Path("driving_demo.onnx"))
    export.add_argument("--trained-by", default="", metavar="COMMAND",
                        help="the command of the run, for the file's metadata")
    judge = commands.add_parser("evaluate", help="figures on worlds never trained on")
    judge.add_argument("--worlds", type=int, default=500)
    judge.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1))
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives the exit status: 0, or 2 for an error told in one line."""
    args = parser().parse_args(arguments)
    try:
        return run(args)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("training: PyTorch is missing. Install it: pip install 'tinydrive[train]'",
              file=sys.stderr)
    except FileNotFoundError as error:
        print(f"training: {error.filename} is not there; train first.", file=sys.stderr)
    return 2


def run(args: argparse.Namespace) -> int:
    """Carry out a command that was parsed."""
    from training.loop import Settings, Training, load_network

    if args.command == "train":
        settings = Settings(args.batches, seed=args.seed, workers=args.workers,
                            repeat=args.repeat, hours=args.hours)
        Training(args.run, settings).run()
    elif args.command == "export":
        from training.export import onnx_model

        about = {"trained_by": args.trained_by} if args.trained_by else {}
        args.out.write_bytes(onnx_model(load_network(args.run), about).SerializeToString())
        print(args.out)
    else:
        from training.evaluate import evaluate
        from training.metrics import table

        print(table(evaluate(load_network(args.run), args.worlds, args.workers)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
