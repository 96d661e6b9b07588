"""The console command `drive-replay`: says what to install where the `replay` extra is missing."""

from __future__ import annotations

import sys


def main() -> int:
    """Run drive-replay; 2 with one line on stderr if a package it needs is not installed."""
    try:
        from selfdrive_tests.__main__ import main as drive_replay
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("av", "fsspec", "PIL", "tqdm"):
            raise
        print(
            f"drive-replay: the Python package {error.name} is missing. Install what replays "
            "need: pip install 'tinydrive[replay]'",
            file=sys.stderr,
        )
        return 2
    return drive_replay()
