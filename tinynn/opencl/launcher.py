"""Builds the launcher of OpenCL kernels (runtime/launcher.c) for the processors that wheels serve.

    python -m tinynn.opencl.launcher

setup.py does the same when a wheel is made, so that devices need no compiler. In a source tree
without it, the runtime enqueues kernels in a loop in Python.
"""
from __future__ import annotations

import sys
from pathlib import Path

from tinynn.machine import MACHINES
from tinynn.render.toolchain import build

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
SOURCE = RUNTIME / "launcher.c"
_LEVELS = {"x86_64": "x86-64-v2", "aarch64": "aarch64"}  # processor -> the lowest level we serve


def build_launchers(folder: Path = RUNTIME) -> list[Path]:
    """Write launcher-PROCESSOR.so for each processor. Raises ToolchainError."""
    paths = []
    for processor, level in _LEVELS.items():
        code, _ = build(SOURCE.read_text(), MACHINES[level])
        path = folder / f"launcher-{processor}.so"
        path.write_bytes(code)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in build_launchers(*map(Path, sys.argv[1:])):
        print(written)
