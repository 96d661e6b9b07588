"""Runs whole models on an OpenCL platform and compares with onnxruntime.

    python -m tinynn.adreno.tests.adreno_models PLATFORM TARGET PRECISION MODEL.onnx...
"""
from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime

from tinynn import halves
from tinynn.adreno.tests.adreno_tools import run_images
from tinynn.compiler import lower
from tinynn.golden import input_specs, reduced_bounds
from tinynn.ir import Graph
from tinynn.onnx.reader import import_model
from tinynn.runtime.golden import relative_error, sample_inputs
from tinynn.simplify import simplify, widen_f16
from tinynn.tests.opencl_tools import find_device

SIGMOID = 1e-6  # onnxruntime's is off by up to 1e-7, which is much of a number near 0


def bound(graph: Graph, precision: str) -> float:
    """What an artifact of it states."""
    if precision == "f32":
        return 1e-4
    rounded = halves.round_stored(simplify(widen_f16(graph)))
    return max(reduced_bounds(graph, rounded, halves.run).values())


def main(platform: str, target: str, precision: str, *paths: str) -> None:
    device = find_device(platform)
    missed = []
    for path in paths:
        graph = import_model(path)
        inputs = sample_inputs(input_specs(graph), 0)
        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        want = dict(zip(names, session.run(names, inputs), strict=True))
        got = run_images(lower(graph, target, precision), inputs, device)
        error = max((relative_error(got[name], want[name]) for name in names
                     if abs(got[name] - want[name]).max() > SIGMOID), default=0.0)
        allowed = bound(graph, precision)
        print(f"{Path(path).stem}: {error:.1e}, stated {allowed:.1e}", flush=True)
        missed += [path] if error > allowed else []
    if missed:
        raise SystemExit(f"not within what is stated: {', '.join(missed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
