"""`./run demo`: compile the demonstration model, let it drive, show where the results are.

Without --drive it drives a simulated car down a procedural road, so that it needs nothing but a
clone; with --drive it replays that drive. All other arguments go to drive-replay.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from selfdrive_tests.__main__ import main as drive_replay

ROOT = Path(__file__).resolve().parents[1]
MODEL = "driving_demo"
# A winding road that the model has never seen, and can hold; further arguments may say otherwise.
WORLD = ["sim", "--seed", "1600000013", "--seconds", "20"]


def build_model() -> Path:
    """Bring compiled_models/build up to date for the demo's model; raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "SCons", "-Q", MODEL], cwd=ROOT, check=True)
    return ROOT / "compiled_models" / "build" / f"{MODEL}.tnn"


def main() -> int:
    """The command; gives the exit code of drive-replay, or 2 if the model could not be built."""
    parser = argparse.ArgumentParser(
        prog="./run demo", description=__doc__.split("\n\n")[0],
        epilog="Further options are those of drive-replay sim, for instance --ui, or, with "
        "--drive, those of drive-replay, for instance --view model.")
    parser.add_argument("--drive", type=Path, help="video file or drive folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", help="results go here")
    args, further = parser.parse_known_args()
    try:
        model = build_model()
    except subprocess.CalledProcessError as error:
        print(f"./run demo: building {MODEL} failed with exit code {error.returncode}; "
              "the lines above say why", file=sys.stderr)
        return 2
    what = WORLD if args.drive is None else [str(args.drive)]
    return drive_replay([*what, "--model", str(model), "-o", str(args.out), *further])


if __name__ == "__main__":
    sys.exit(main())
