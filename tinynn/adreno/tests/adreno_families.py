"""Runs small graphs of every family on an OpenCL platform and compares with the interpreter.

A process of its own, because oclgrind reports on standard error and llvmpipe needs its libraries.

    python -m tinynn.adreno.tests.adreno_families PLATFORM PRECISION
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from tinynn import derived, interp, ir
from tinynn.adreno.lower import lower
from tinynn.adreno.tests.adreno_tools import run_images
from tinynn.ir import DType, Graph, Node
from tinynn.runtime.golden import relative_error
from tinynn.tests.opencl_tools import find_device

TOLERANCE = {"f32": 1e-5, "f16": 1e-2}


def _weights(*shape: int) -> Node:
    values = np.random.default_rng(len(shape)).standard_normal(shape) / np.sqrt(shape[-1] + 1)
    return ir.const(values.astype(np.float32))


def _conv(x: Node, outer: int, window: int, groups: int = 1, stride: int = 1) -> Node:
    weights = _weights(outer, x.shape[1] // groups, window, window)
    pad = (window // 2, window // 2)
    return derived.conv(x, weights, [stride] * 2, [1, 1], [pad] * 2, groups)


def _biased(x: Node) -> Node:
    bias = np.arange(x.shape[1], dtype=np.float32).reshape(1, -1, 1, 1)
    return ir.add(x, derived.broadcast_to(ir.const(bias), x.shape))


def _relu(x: Node) -> Node:
    return ir.maximum(x, ir.full(x.shape, 0.0, DType.F32))


def _maxima(x: Node) -> Node:
    """Of windows of 3 x 3; what lies outside is less than all."""
    padded = ir.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], float("-inf"))
    return ir.reduce(ir.window(padded, [(2, 3, 1, 1), (3, 3, 1, 1)]), "max", (4, 5))


def _dense(x: Node, outer: int, seed: int = 0) -> Node:
    weights = np.random.default_rng(seed).standard_normal((x.shape[-1], outer)) / 8
    return derived.matmul(x, ir.const(weights.astype(np.float32)))


def _over_map(x: Node) -> Node:
    return _dense(ir.reshape(x, (1, x.size)), 40)


def _heads(x: Node) -> Node:
    trunk = _relu(_dense(x, 64))
    heads = [_relu(_dense(_relu(_dense(trunk, 32, n)), 32, n + 9)) for n in range(3)]
    return ir.concat([_dense(h, 5 + n, n) for n, h in enumerate(heads)], 1)


def _softmax(x: Node) -> Node:
    scores = derived.matmul(x, ir.permute(x, (0, 2, 1)))
    return derived.matmul(derived.softmax(scores, 2), x)


def _channels_last(x: Node) -> Node:
    return ir.permute(x, (0, 2, 3, 1))


def _positions(x: Node) -> Node:
    """A table read at places beyond 1,024, where half has no room for whole numbers and a half."""
    table = ir.const(np.random.default_rng(3).standard_normal(2100), DType.F32)
    size = ir.sqrt(ir.mul(x, x))  # dear enough to be stored
    across = ir.mul(size, ir.const(np.full((1, 256), 400.0), DType.F32))
    down = ir.const(np.arange(64).reshape(64, 1) * 8 + 1100.25, DType.F32)
    places = ir.add(ir.expand(across, (64, 256)), ir.expand(down, (64, 256)))
    return ir.gather(table, ir.cast(places, DType.I32), 0)


def families() -> Iterator[tuple[str, Graph]]:
    """What each family is chosen for, with sizes that leave tiles partly empty."""
    def graph(build: Callable[[Node], Node], *shape: int, dtype: DType = DType.F32) -> Graph:
        x = ir.input_("x", dtype, shape)
        return Graph("small", {"x": x}, {"y": build(x)})

    def image(build: Callable[[Node], Node], *shape: int) -> Graph:
        return graph(lambda x: _channels_last(build(x)), *shape)

    yield "1 x 1", image(lambda x: _conv(_relu(_conv(x, 40, 1)), 24, 1), 1, 5, 6, 19)
    yield "channels that fill no texel", image(
        lambda x: _conv(_relu(_conv(x, 10, 1)), 7, 1), 1, 3, 5, 9)
    yield "3 x 3, stride 2", image(
        lambda x: _conv(_relu(_conv(x, 16, 3)), 12, 3, 1, 2), 1, 3, 9, 22)
    yield "splits", image(lambda x: _conv(_relu(_conv(x, 256, 1)), 16, 1), 1, 3, 2, 4)
    yield "a dense layer over a map", graph(lambda x: _over_map(_conv(x, 12, 1)), 1, 3, 4, 8)
    yield "channels and pixels of a map are split", graph(
        lambda x: _over_map(_conv(x, 32, 1)), 1, 3, 4, 8)
    yield "windows", image(lambda x: _conv(_conv(x, 12, 1), 12, 7, 12), 1, 3, 11, 21)
    yield "windows, stride 2, two channels from one", image(
        lambda x: _conv(_biased(_conv(_conv(x, 12, 1), 24, 3, 12, 2)), 8, 1), 1, 3, 11, 19)
    yield "pixels an odd number of texels apart", image(
        lambda x: _conv(_conv(_conv(x, 64, 1), 64, 3, 64), 72, 3), 1, 3, 5, 7)
    yield "a row of channels left and right", image(
        lambda x: ir.concat([_conv(x, 8, 1), _conv(x, 12, 3)], 1), 1, 4, 6, 7)
    yield "maxima of windows", image(lambda x: _maxima(_conv(x, 8, 1)), 1, 4, 6, 7)
    yield "tokens", graph(lambda x: _dense(_relu(_dense(x, 64)), 40), 1, 10, 16)
    yield "heads", graph(_heads, 1, 16)
    yield "attention", graph(lambda x: _softmax(_dense(x, 32)), 1, 6, 16)
    yield "a sum per work-group", graph(
        lambda x: ir.reduce(ir.mul(_dense(x, 96), _dense(x, 96)), "sum", (1,)), 3, 8)
    yield "pooling", graph(lambda x: ir.reduce(_relu(_conv(x, 24, 1)), "sum", (2, 3)), 1, 4, 5, 7)
    yield "positions", graph(_positions, 1, 256)
    yield "bytes", graph(lambda x: _conv(ir.cast(x, DType.F32), 8, 3), 1, 6, 8, 10, dtype=DType.U8)


def main(platform: str, precision: str) -> None:
    device = find_device(platform)
    for name, graph in families():
        rng = np.random.default_rng(1)
        node = graph.inputs["x"]
        x = (rng.standard_normal(node.shape) * (9 if node.dtype is DType.U8 else 1))
        x = abs(x).astype(np.uint8) if node.dtype is DType.U8 else x.astype(np.float32)
        code = lower(graph, "opencl:adreno630", precision)
        want = interp.run(graph, {"x": x})["y"]
        # Oclgrind does not know all instructions that optimised code may hold.
        options = ["-cl-opt-disable"] if platform == "Oclgrind" else []
        got = run_images(code, {"x": x}, device, options)["y"]
        error = relative_error(got, want)
        print(f"{name}: {' '.join(s.kernel for s in code.steps)}: {error:.1e}")
        if error > TOLERANCE[precision]:
            raise SystemExit(f"{name}: error {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
