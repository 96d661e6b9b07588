"""Runs whole models on an OpenCL platform and compares with onnxruntime.

    python -m tinynn.adreno.tests.adreno_models PLATFORM PRECISION MODEL.onnx...
"""
from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime

from tinynn.adreno.lower import lower
from tinynn.adreno.tests.adreno_tools import run_images
from tinynn.golden import input_specs
from tinynn.onnx.reader import import_model
from tinynn.runtime.golden import relative_error, sample_inputs
from tinynn.tests.opencl_tools import find_device

SMALL = 1e-4
TOLERANCE = {"f32": 1e-4, "f16": 2e-2}  # those that artifacts hold


def main(platform: str, precision: str, *paths: str) -> None:
    device = find_device(platform)
    worst = 0.0
    for path in paths:
        graph = import_model(path)
        inputs = sample_inputs(input_specs(graph), 0)
        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        want = dict(zip(names, session.run(names, inputs), strict=True))
        got = run_images(lower(graph, "opencl:adreno630", precision), inputs, device)
        # Probabilities near 0 are left out: onnxruntime's sigmoid is a multiple of 1.5e-8 there.
        error = max(relative_error(got[name], want[name]) for name in names
                    if abs(want[name]).max() > SMALL)
        print(f"{Path(path).stem}: {error:.1e}", flush=True)
        worst = max(worst, error)
    if worst > TOLERANCE[precision]:
        raise SystemExit(f"error {worst}")


if __name__ == "__main__":
    main(*sys.argv[1:])
