"""Convolutions over local planes: windows of every kind, and inputs that are converted on the way.
"""
from __future__ import annotations

import numpy as np
import pytest

from tinynn import derived, interp, ir
from tinynn.algebra import fold_literals
from tinynn.compiler import generate, lower
from tinynn.conv import Conv
from tinynn.fuse import fuse
from tinynn.ir import DType, Graph, Node
from tinynn.kernel import Kernel
from tinynn.machine import MACHINES, machine_of
from tinynn.schedule import schedule
from tinynn.simplify import simplify
from tinynn.tests.direct import Direct, assert_close

RNG = np.random.default_rng(0)


def _conv(x: Node, out: int, taps: tuple[int, int], stride: int, dilation: int, pad: int) -> Node:
    weight = RNG.standard_normal((out, x.shape[1], *taps)).astype(np.float16).astype(np.float32)
    return derived.conv(x, ir.const(weight), [stride] * 2, [dilation] * 2, [(pad, pad)] * 2, 1)


def _schedules(graph: Graph, target: str) -> list[Conv]:
    kernels: list[Kernel] = [fold_literals(kernel) for kernel in fuse(graph).kernels]
    plans = [schedule(kernel, machine_of(target)) for kernel in kernels]
    assert all(isinstance(plan, Conv) for plan in plans)
    return [plan for plan in plans if isinstance(plan, Conv)]


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu"])
@pytest.mark.parametrize(("size", "taps", "stride", "dilation", "pad"), [
    ((20, 64), (3, 3), 1, 1, 1), ((21, 61), (3, 3), 1, 1, 0), ((40, 128), (3, 3), 2, 1, 1),
    ((33, 125), (5, 3), 2, 1, 2), ((20, 47), (3, 3), 1, 2, 2), ((23, 95), (5, 5), 3, 1, 0),
    ((50, 16), (3, 3), 1, 1, 1)])
def test_windows_agree_with_the_interpreter(
        target: str, size: tuple[int, int], taps: tuple[int, int], stride: int, dilation: int,
        pad: int) -> None:
    x = ir.input_("x", DType.F32, (2, 5, *size))
    y = _conv(x, 19, taps, stride, dilation, pad)
    y = ir.maximum(y, ir.full(y.shape, 0, DType.F32))
    graph = Graph("conv", {"x": x}, {"y": y})
    (plan,) = _schedules(graph, target)
    assert plan.chunk % plan.tile_y == 0
    _agree(graph, {"x": RNG.standard_normal(x.shape).astype(np.float32)}, target)


@pytest.mark.parametrize("folded", [False, True])
def test_a_stem_reads_bytes_itself(folded: bool) -> None:
    """u8 pixels are scaled where they are copied, also from an image that is folded to channels."""
    if folded:  # four neighbouring columns are channels
        image = ir.input_("x", DType.U8, (1, 1, 32, 256))
        pixels = ir.permute(ir.reshape(image, (1, 32, 64, 4)), (0, 3, 1, 2))
    else:
        image = pixels = ir.input_("x", DType.U8, (1, 4, 32, 64))
    number = ir.cast(pixels, DType.F32)
    scaled = ir.div(ir.add(number, ir.full(number.shape, -127.5, DType.F32)),
                    ir.full(number.shape, 127.5, DType.F32))
    graph = simplify(Graph("stem", {"x": image}, {"y": _conv(scaled, 24, (3, 3), 2, 1, 1)}))
    (plan,) = _schedules(graph, "cpu")
    assert plan.kernel.loads()[0].tensor.dtype is DType.U8
    feed = {"x": RNG.integers(0, 256, image.shape).astype(np.uint8)}
    program = Direct(lower(graph))
    try:
        assert_close(program(feed, 2), interp.run(graph, feed), 1e-5)
    finally:
        program.close()


def test_narrow_images_are_left_to_panels() -> None:
    x = ir.input_("x", DType.F32, (1, 16, 12, 9))
    (kernel,) = fuse(Graph("narrow", {"x": x}, {"y": _conv(x, 8, (3, 3), 1, 1, 1)})).kernels
    assert not isinstance(schedule(kernel, MACHINES["x86-64-v4"]), Conv)


def _agree(graph: Graph, feed: dict[str, np.ndarray], target: str) -> None:
    """One and several threads give the interpreter's result, all of them the same bits."""
    program = Direct(generate(graph, target))
    try:
        want, first = interp.run(graph, feed), program(feed, 1)
        assert_close(first, want, 1e-5)
        for threads in (2, 3):
            again = program(feed, threads)
            assert all(np.array_equal(first[name], again[name]) for name in first)
    finally:
        program.close()


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu"])
def test_epilogues_as_vectors_treat_special_numbers_as_scalars_do(target: str) -> None:
    """exp2, max, comparisons and where after a sum, on numbers at which they could differ."""
    edges = [0.0, -0.0, 1.0, -1.0, 0.5, 126.9, 127.99, 128.0, 1e9, -125.5, -126.5, -140.3, -149.0,
             -150.1, -1e9, np.inf, -np.inf, np.nan, 3e38, 1e-40, 1e-45]
    values = np.concatenate([edges, RNG.uniform(-160, 130, 107)]).astype(np.float32)
    x = ir.input_("x", DType.F32, (1, 2, 4, 32))
    total = derived.conv(x, ir.const(np.ones((3, 2, 1, 1), np.float32)), [1] * 2, [1] * 2,
                         [(0, 0)] * 2, 1)
    one, zero = (ir.full(total.shape, number, DType.F32) for number in (1, 0))
    outputs = {
        "exp2": ir.exp2(total), "max": ir.maximum(total, one), "max_second": ir.maximum(one, total),
        "elu": ir.where(ir.less(total, zero), ir.exp2(total), total),
        "equal": ir.where(ir.equal(total, zero), one, ir.div(one, total))}
    pixels = np.zeros(x.shape, np.float32)
    pixels[0, 0] = values.reshape(4, 32)
    for name, node in outputs.items():
        graph = Graph(name, {"x": x}, {name: node})
        program = Direct(generate(graph, target))
        try:
            assert "reduced = load_f32x" in program.code.source
            got, want = program({"x": pixels})[name], interp.run(graph, {"x": pixels})[name]
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-45)  # a denormal's last place
        finally:
            program.close()
