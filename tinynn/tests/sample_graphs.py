"""A fixed set of graphs that reaches every operation and every way a kernel is written."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tinynn import derived, ir
from tinynn.ir import DType, Graph, Node
from tinynn.onnx.reader import import_model
from tinynn.simplify import simplify, widen_f16
from tinynn.tests.random_graphs import STEPS, graphs

_MAKE = Path(__file__).resolve().parents[2].parent / "shared/models/make_driving_models.py"

# Sizes of the plane; channels, outputs and groups; window, stride, dilation and padding.
_CONVS = (
    ((14, 22), (16, 24, 1), (3, 1, 1, 1)),  # dense
    ((9, 13), (3, 20, 1), (5, 2, 1, 2)),
    ((7, 9), (64, 40, 1), (1, 1, 1, 0)),  # 1x1: a matrix product
    ((16, 20), (12, 33, 1), (1, 2, 1, 0)),
    ((11, 17), (5, 7, 1), (3, 1, 2, 2)),
    ((12, 40), (8, 16, 4), (3, 1, 1, 1)),  # grouped
    ((15, 15), (6, 9, 3), (3, 2, 1, 0)),
    ((10, 35), (16, 16, 16), (3, 1, 1, 1)),  # depthwise
    ((20, 33), (8, 8, 8), (5, 2, 1, 2)),
    ((17, 21), (8, 16, 8), (3, 1, 3, 3)),
    ((9, 70), (4, 4, 4), (7, 1, 1, 3)),
    ((8, 8), (24, 1, 1), (3, 1, 1, 1)),  # a single output channel
    ((6, 6), (300, 20, 1), (3, 1, 1, 1)),  # long sums
    ((1, 40), (4, 6, 1), (3, 3, 3, 5)),  # mostly padding
)

# Factors of matrix products; the second is given at run time and as a constant.
_MATMULS = (((1, 5), (5, 1)), ((3, 64), (64, 40)), ((2, 10, 64), (64, 100)), ((1, 512), (512, 33)),
            ((8, 10, 64), (8, 64, 10)), ((1, 300), (300, 3)), ((70, 70), (70, 70)),
            ((2, 3, 17, 19), (2, 3, 19, 23)))


def random_graphs() -> list[Graph]:
    """Random graphs, the same in every run: two for each kind of step and 100 of all kinds."""
    found: list[Graph] = []
    for ops, count in (*(((step,), 2) for step in STEPS), (tuple(STEPS), 100)):
        found += _draw(ops, count)
    return found


def _draw(ops: Sequence[str], count: int) -> list[Graph]:
    found: list[Graph] = []

    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate],
              deadline=None, suppress_health_check=list(HealthCheck))
    @given(graphs(16, tuple(DType), ops, empty_axes=True, special=True))
    def collect(graph: Graph) -> None:
        found.append(graph)

    collect()
    return found


def convs() -> list[Graph]:
    """Convolutions, every second one with bias and ReLU."""
    rng = np.random.default_rng(0)
    graphs = []
    for number, (size, (inner, outer, groups), window) in enumerate(_CONVS):
        k, stride, dilation, pad = window
        x = ir.input_("x", DType.F32, (2, inner, *size))
        weight = rng.standard_normal((outer, inner // groups, k, k)).astype(np.float32)
        y = derived.conv(x, ir.const(weight), [stride] * 2, [dilation] * 2, [(pad, pad)] * 2,
                         groups)
        if number % 2:
            bias = ir.const(rng.standard_normal((1, outer, 1, 1)).astype(np.float32))
            y = ir.add(y, derived.broadcast_to(bias, y.shape))
            y = ir.maximum(y, ir.full(y.shape, 0, DType.F32))
        graphs.append(Graph("conv", {"x": x}, {"y": y}))
    return graphs


def matmuls() -> list[Graph]:
    """Matrix products, matrix times vector among them, also with weights that fit f16."""
    rng = np.random.default_rng(1)
    graphs = []
    for a, b in _MATMULS:
        x, y = ir.input_("x", DType.F32, a), ir.input_("y", DType.F32, b)
        weight = rng.standard_normal(b).astype(np.float32)
        halves = weight.astype(np.float16).astype(np.float32)
        outputs: dict[str, Node] = {"run_time": derived.matmul(x, y),
                                    "f32": derived.matmul(x, ir.const(weight)),
                                    "f16": derived.matmul(x, ir.const(halves))}
        graphs.append(Graph("matmul", {"x": x, "y": y}, outputs))
    return graphs


def driving_model(name: str, folder: Path) -> Graph:
    """A driving model with seeded weights, as it is when it is compiled. Skips without its
    script."""
    if not _MAKE.exists():
        pytest.skip("the script that builds driving models is not here")
    subprocess.run([sys.executable, _MAKE, "--out", folder, "--only", name], check=True,
                   capture_output=True)
    return simplify(widen_f16(import_model(folder / f"{name}.onnx")))
