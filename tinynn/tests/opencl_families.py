"""Runs small graphs of every schedule family on an OpenCL platform and compares with the
interpreter. Started as a process of its own, because oclgrind reports on standard error.

    python -m tinynn.tests.opencl_families PLATFORM [PRECISION [WITHOUT]]

WITHOUT is part of the names of graphs to leave out.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinynn import derived, interp, ir
from tinynn.ir import DType, Graph, Node
from tinynn.opencl.lower import lower
from tinynn.tests.direct import assert_close
from tinynn.tests.opencl_tools import find_device, run_program


def _conv(x: Node, outer: int, window: int, groups: int = 1, stride: int = 1) -> Node:
    inner = x.shape[1]
    rng = np.random.default_rng(outer)
    weight = rng.standard_normal((outer, inner // groups, window, window)).astype(np.float32)
    pad = (window // 2, window // 2)
    return derived.conv(x, ir.const(weight), [stride] * 2, [1, 1], [pad] * 2, groups)


def families() -> Iterator[tuple[str, Graph]]:
    """What each family is chosen for, with sizes that leave tiles partly empty."""
    def graph(build: Callable[..., Node], *shapes: tuple[int, ...],
              dtype: DType = DType.F32) -> Graph:
        inputs = {f"x{i}": ir.input_(f"x{i}", dtype, shape) for i, shape in enumerate(shapes)}
        return Graph("small", inputs, {"y": build(*inputs.values())})

    yield "tile 8 x 8, packed weights", graph(lambda x: _conv(x, 67, 1), (1, 5, 10, 31))
    yield "3 x 3 with padding", graph(lambda x: _conv(x, 9, 3), (1, 3, 7, 13))
    yield "stride 2", graph(lambda x: _conv(x, 6, 3, stride=2), (1, 3, 9, 22))
    yield "lines of windows", graph(lambda x: _conv(x, 5, 7, 5), (1, 5, 9, 21))
    yield "lines of windows, stride 2", graph(lambda x: _conv(x, 8, 3, 4, 2), (1, 4, 11, 19))
    yield "shared sums", graph(derived.matmul, (3, 70), (70, 21))
    yield "columns packed", graph(
        lambda x: derived.matmul(x, ir.const(np.linspace(-1, 1, 1920, dtype=np.float32).reshape(
            64, 30))), (1, 64))
    ones = np.linspace(0.5, 1.5, 4100 * 9, dtype=np.float32).reshape(4100, 9)
    yield "a sum that half alone could not hold", graph(
        lambda x: derived.matmul(ir.mul(x, x), ir.const(ones)), (2, 4100))
    yield "a sum per work-group", graph(lambda x: ir.reduce(x, "sum", (1,)), (3, 200))
    yield "a maximum per work-group", graph(lambda x: ir.reduce(x, "max", (0,)), (77, 5))
    yield "vectors", graph(lambda x, y: ir.maximum(ir.mul(x, y), ir.exp2(x)), (5, 7), (5, 7))
    yield "runs of bytes", graph(
        lambda x, y: ir.concat([ir.slice_(x, [(1, 2, 1), (0, 48, 1)]), y], 0), (3, 48), (2, 48),
        dtype=DType.U8)
    yield "elements one by one", graph(lambda x: ir.permute(x, (1, 0)), (6, 9), dtype=DType.I64)
    yield "truth values", graph(
        lambda x, y: ir.where(ir.less(x, y), x, ir.full((4, 9), 2.0, DType.F32)), (4, 9), (4, 9))
    rows = ir.const(np.array([2, 0, 3], np.int32))
    yield "rows by index", graph(lambda x: ir.gather(x, rows, 0), (4, 11))
    yield "scatter", graph(lambda x, y: ir.scatter(x, rows, y, 0, "add"), (4, 5), (3, 5))


def sample(node: Node, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Numbers for an input."""
    values = rng.standard_normal(node.shape) * (1 if node.dtype.is_float else 9)
    return values.astype(node.dtype.numpy)


TOLERANCE = {"f32": 1e-5, "f16": 5e-3}


def main(platform: str, precision: str = "f32", without: str = "nothing") -> None:
    device = find_device(platform)
    rng = np.random.default_rng(7)
    for name, graph in families():
        if without in name:
            continue
        inputs = {key: sample(node, rng) for key, node in graph.inputs.items()}
        code = lower(graph, "opencl", precision)
        # Oclgrind does not know all instructions that optimised code may hold.
        options = "-cl-opt-disable" if platform == "Oclgrind" else ""
        got = run_program(code, inputs, device, options)
        assert_close(got, interp.run(graph, inputs), TOLERANCE[precision])
        print(f"{name}: {', '.join(step.kernel for step in code.steps)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
