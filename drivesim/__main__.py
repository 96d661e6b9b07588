"""Command line: `python -m drivesim -o DIR --seconds 12 --seed 0`."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drivesim.drive import render_drive


def main(arguments: list[str] | None = None) -> int:
    """Render a drive; returns the exit status: 0, or 2 for an error told in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m drivesim",
        description="Render a procedural road drive with ground truth into a folder.",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seconds", type=float, default=12.0, help="length (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the world (default 0)")
    parser.add_argument("--width", type=int, default=964, help="pixels (default 964)")
    parser.add_argument("--height", type=int, default=604, help="pixels (default 604)")
    parser.add_argument("--wide", action="store_true", help="also render the wide camera")
    args = parser.parse_args(arguments)
    try:
        render_drive(args.out, args.seconds, args.seed, width=args.width, height=args.height,
                     wide=args.wide)
    except (OSError, ValueError) as error:
        print(f"drivesim: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
