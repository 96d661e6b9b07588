"""Does the lab find what matters, and only that? One weight is moved until a tolerance is exceeded.

    python -m selfdrive_tests.sensitivity MODEL.onnx DRIVE -o OUT --weight NAME --at ROW,COLUMN

References are written with the model as it is. Then the same model is compiled for another machine
(other tiles, other vector registers: the sums are made in another order), which must pass, and with
one weight moved by a step that doubles until drive-replay finds a difference, which it must show.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from selfdrive_tests.__main__ import main as drive_replay

# The first step in parts of the weight's size, and how often it is doubled at most.
FIRST_STEP, DOUBLINGS = 2.0**-6, 14
DIFFERS = 3


def moved(
    model: onnx.ModelProto, name: str, place: tuple[int, ...], step: float
) -> onnx.ModelProto:
    """The model with one element of the initializer `name` moved by step times its own size.

    Raises KeyError if there is no such initializer.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    found = {tensor.name: tensor for tensor in changed.graph.initializer}[name]
    values = numpy_helper.to_array(found).copy()
    values[place] += values.dtype.type(step) * np.abs(values[place])
    found.CopyFrom(numpy_helper.from_array(values, name))
    return changed


def compile_model(source: Path, artifact: Path, target: str) -> Path:
    """Compile by the command, as a user would; raises CalledProcessError."""
    command = [sys.executable, "-m", "tinynn", "compile", str(source), "-o", str(artifact)]
    subprocess.run([*command, "--target", target], check=True)
    return artifact


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0 if the moved weight was found and the other machine passed, else 1."""
    top = argparse.ArgumentParser(prog="python -m selfdrive_tests.sensitivity", description=__doc__)
    top.add_argument("model", type=Path)
    top.add_argument("drive")
    top.add_argument("-o", "--out", type=Path, required=True)
    top.add_argument("--weight", required=True, metavar="NAME", help="of an initializer")
    top.add_argument("--at", required=True, metavar="ROW,COLUMN", help="of the element")
    top.add_argument("--other-target", default="cpu:x86-64-v3", help="default: %(default)s")
    options, further = top.parse_known_args(argv)
    place = tuple(int(number) for number in options.at.split(","))
    options.out.mkdir(parents=True, exist_ok=True)
    refs = str(options.out / "refs")

    def replay(artifact: Path, name: str, *more: str) -> int:
        common = [options.drive, "--model", str(artifact), "-o", str(options.out / name)]
        return drive_replay([*common, "--no-video", *further, *more])

    before = compile_model(options.model, options.out / "before.tnn", "cpu")
    replay(before, "before", "--update-refs", refs)
    other = compile_model(options.model, options.out / "other.tnn", options.other_target)
    passed = replay(other, "other-tiles", "--refs", refs, "--against", str(before)) == 0
    print(f"{options.other_target}: {'passes' if passed else 'DIFFERS'}")
    model = onnx.load(options.model)
    for doubling in range(DOUBLINGS):
        step = FIRST_STEP * 2**doubling
        source = options.out / "moved.onnx"
        onnx.save(moved(model, options.weight, place, step), source)
        artifact = compile_model(source, options.out / "moved.tnn", "cpu")
        found = replay(artifact, "moved", "--refs", refs) == DIFFERS
        print(f"{options.weight}{list(place)} moved by {step:g} of its size: "
              f"{'found' if found else 'nothing exceeds its tolerance'}", flush=True)  # fmt: skip
        if found:
            return 0 if passed else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
