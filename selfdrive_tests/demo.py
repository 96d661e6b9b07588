"""`./run demo`: compile a model, replay a drive through the daemon, show where the results are.

Without --drive it renders a short procedural road first, so that it needs nothing but a clone.
All other arguments go to drive-replay.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from drivesim import render_drive
from selfdrive_tests.__main__ import main as drive_replay

ROOT = Path(__file__).resolve().parents[1]
MODEL = "driving_demo"
SECONDS = 12.0
SEED = 0


def build_model() -> Path:
    """Bring compiled_models/build up to date for the demo's model; raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "SCons", "-Q", MODEL], cwd=ROOT, check=True)
    return ROOT / "compiled_models" / "build" / f"{MODEL}.tnn"


def rendered_drive(folder: Path) -> Path:
    """The procedural drive, rendered once; drive.toml is written last and marks it complete."""
    if not (folder / "drive.toml").exists():
        print(f"rendering {SECONDS:g} s of procedural road into {folder}", file=sys.stderr)
        render_drive(folder, seconds=SECONDS, seed=SEED)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run demo", description=__doc__.split("\n\n")[0],
        epilog="Further options are those of drive-replay, for instance --view model.")
    parser.add_argument("--drive", type=Path, help="video file or drive folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", help="results go here")
    args, further = parser.parse_known_args()
    try:
        model = build_model()
    except subprocess.CalledProcessError as error:
        print(f"./run demo: building {MODEL} failed with exit code {error.returncode}; "
              "the lines above say why", file=sys.stderr)
        return 2
    drive = args.drive or rendered_drive(args.out.parent / f"drive-seed{SEED}")
    return drive_replay([str(drive), "--model", str(model), "-o", str(args.out), *further])


if __name__ == "__main__":
    sys.exit(main())
