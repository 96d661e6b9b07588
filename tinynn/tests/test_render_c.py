"""Every operation in every dtype, and the functions of one number, as compiled C."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinynn import interp, ir
from tinynn.compiler import generate, plan
from tinynn.ir import DType, Graph, Node, Op
from tinynn.machine import MACHINES
from tinynn.render.c import compile_units, render_program
from tinynn.tests.direct import Arrays, Direct, assert_close, joined, run

BINARY = (ir.add, ir.mul, ir.div, ir.maximum, ir.less, ir.equal)
UNARY = (ir.exp2, ir.log2, ir.sqrt, ir.sin, ir.floor)
_SIGNED = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 2.0, 3.25, -7.0, 1e-3, 100.0, -1e4)
_EDGES = (np.inf, -np.inf, np.nan, 6e-8, 65504.0, 3e38, 1e-40, -1e-45, 1e300, -1e-310)


def _edge_values(dtype: DType) -> np.ndarray:
    """Numbers at which conversions, comparisons and rounding can go wrong."""
    if dtype is DType.BOOL:
        return np.array([False, True])
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        near = [limits.min, limits.min + 1, limits.max, limits.max - 1, limits.max // 2, 0, 1, 2, 3,
                7, 100]
        if limits.min < 0:
            near += [-1, -2, -3, -7, -100]
        return np.array(near, dtype.numpy)
    with np.errstate(over="ignore", under="ignore"):
        return np.array([*_SIGNED, *_EDGES]).astype(dtype.numpy)


def _check(graphs: list[Graph], feeds: list[Arrays], tolerance: Callable[[DType], float]) -> None:
    inputs = {f"{i}.{name}": value for i, feed in enumerate(feeds) for name, value in feed.items()}
    graph = joined(graphs)
    want = interp.run(graph, inputs)
    got = run(graph, inputs)
    for name, value in want.items():
        assert_close({name: got[name]}, {name: value}, tolerance(DType.of(value.dtype)))


@pytest.mark.parametrize("build", BINARY, ids=lambda build: build.__name__)
def test_binary_operations_of_all_dtypes_on_all_pairs_of_edge_values(
        build: Callable[[Node, Node], Node]) -> None:
    graphs, feeds = [], []
    for dtype in DType:
        if build is ir.div and dtype is DType.BOOL:
            continue
        values = _edge_values(dtype)
        a, b = (g.ravel() for g in np.meshgrid(values, values))
        x, y = ir.input_("x", dtype, a.shape), ir.input_("y", dtype, b.shape)
        graphs.append(Graph("binary", {"x": x, "y": y}, {"out": build(x, y)}))
        feeds.append({"x": a, "y": b})
    # One operation rounds as numpy does: nothing may differ.
    _check(graphs, feeds, lambda dtype: 0.0)


def test_casts_between_all_dtypes_of_all_edge_values() -> None:
    graphs, feeds = [], []
    for source in DType:
        values = _edge_values(source)
        x = ir.input_("x", source, values.shape)
        graphs.append(Graph("casts", {"x": x}, {
            target.value: ir.cast(x, target) for target in DType if target is not source}))
        feeds.append({"x": values})
    _check(graphs, feeds, lambda dtype: 0.0)


def test_all_halves_survive_conversion_and_rounding_is_to_even() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = bits.view(np.float16)
    x = ir.input_("x", DType.F16, every.shape)
    between = np.arange(0, 1 << 31, 50021, dtype=np.uint32).view(np.float32)
    y = ir.input_("y", DType.F32, between.shape)
    outputs = {"wide": ir.cast(x, DType.F32)}
    outputs |= {d.value: ir.cast(y, d) for d in (DType.F16, DType.BF16)}
    graph = Graph("halves", {"x": x, "y": y}, outputs)
    feed = {"x": every, "y": between}
    want = interp.run(graph, feed)
    for target in ("cpu:x86-64-v2", "cpu"):
        assert_close(run(graph, feed, target), want, 0.0)


def test_reductions_of_all_dtypes_and_kinds() -> None:
    rng = np.random.default_rng(0)
    graphs, feeds = [], []
    for dtype in DType:
        values = rng.integers(-3 if dtype.value.startswith(("i", "f", "b")) else 0, 4, (3, 5, 37))
        x = ir.input_("x", dtype, values.shape)
        outputs = {f"{kind}{i}": ir.reduce(x, kind, axes) for kind in ir.REDUCE_KINDS
                   for i, axes in enumerate([(0,), (2,), (1, 2), (0, 1, 2)])}
        graphs.append(Graph("reductions", {"x": x}, outputs))
        feeds.append({"x": values.astype(dtype.numpy)})
    _check(graphs, feeds, lambda dtype: {DType.F16: 2e-3, DType.BF16: 2e-2}.get(dtype, 1e-6))


def test_reductions_over_nothing_give_the_identity() -> None:
    graphs, feeds = [], []
    for dtype in DType:
        x = ir.input_("x", dtype, (3, 0))
        graphs.append(Graph("empty", {"x": x}, {k: ir.reduce(x, k, (1,)) for k in ir.REDUCE_KINDS}))
        feeds.append({"x": np.zeros((3, 0), dtype.numpy)})
    _check(graphs, feeds, lambda dtype: 0.0)


def _ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest distance in units in the last place of the exact value."""
    finite = np.isfinite(exact) & np.isfinite(exact.astype(got.dtype))
    np.testing.assert_array_equal(got[~finite], exact.astype(got.dtype)[~finite])
    unit = np.spacing(np.abs(exact[finite]).astype(got.dtype)).astype(np.float64)
    return float(np.max(np.abs(got[finite] - exact[finite]) / unit))


def _function_inputs(op: Op) -> np.ndarray:
    rng = np.random.default_rng(1)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1e-40, 1.1754944e-38, 3.4e38, -3.4e38]
    if op is Op.EXP2:
        values = np.concatenate([rng.uniform(-160, 135, 40000), rng.uniform(-1e-3, 1e-3, 1000),
                                 np.arange(-155, 130)])
    elif op is Op.LOG2:
        values = np.concatenate([np.exp2(rng.uniform(-149, 128, 40000)), rng.uniform(.9, 1.1, 9000),
                                 -np.ones(1)])
    else:
        values = np.concatenate([rng.uniform(-10, 10, 40000), rng.uniform(-1e6, 1e6, 9000),
                                 np.pi * np.arange(-50, 50), np.exp2(rng.uniform(0, 127, 9000))])
    return np.concatenate([values, special])


@pytest.mark.parametrize(("op", "function"), [
    (Op.EXP2, np.exp2), (Op.LOG2, np.log2), (Op.SIN, np.sin)], ids=lambda v: getattr(v, "name", ""))
def test_functions_are_accurate_to_two_units_in_the_last_place(
        op: Op, function: Callable[[np.ndarray], np.ndarray]) -> None:
    values = _function_inputs(op)
    inputs = {"x": values.astype(np.float32), "y": values}
    nodes = {"x": ir.input_("x", DType.F32, values.shape),
             "y": ir.input_("y", DType.F64, values.shape)}
    graph = Graph("functions", nodes, {
        name: ir.node(op, node.dtype, node.shape, (node,)) for name, node in nodes.items()})
    got = run(graph, inputs)
    with np.errstate(all="ignore"):
        single = function(inputs["x"].astype(np.float64))
        assert _ulps(got["x"], single) <= 2
        # numpy's own double is right to half a unit, so this is within 3 of the true value.
        assert _ulps(got["y"], function(values)) <= 3
        signs = np.signbit(function(values[values == 0]))
    np.testing.assert_array_equal(np.signbit(got["x"][values == 0]), signs)


def test_equal_kernels_are_written_once() -> None:
    x, y = (ir.input_(name, DType.F32, (64,)) for name in "xy")
    graph = Graph("twins", {"x": x, "y": y}, {"a": ir.exp2(x), "b": ir.exp2(y)})
    planned = plan(graph, MACHINES["x86-64-v3"])
    _, symbols = render_program(planned.functions)
    assert symbols == ["k000_loops_64"] * 2


def test_every_function_says_what_it_computes() -> None:
    x = ir.input_("x", DType.F32, (3, 4))
    graph = Graph("note", {"x": x}, {"y": ir.exp2(ir.reduce(ir.mul(x, x), "sum", (1,)))})
    source = generate(graph, "cpu").source
    assert "/* MUL REDUCE:sum EXP2 -> f32[3]\n   loops: 3, each sum over 4 */" in source


def test_scatter_modes_and_indices_outside() -> None:
    x = ir.input_("x", DType.F32, (5, 3))
    rows = ir.input_("i", DType.I64, (6,))
    updates = ir.input_("u", DType.F32, (6, 3))
    outputs = {mode: ir.scatter(x, rows, updates, 0, mode) for mode in ir.SCATTER_MODES}
    graph = Graph("scatter", {"x": x, "i": rows, "u": updates}, outputs)
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((5, 3)).astype(np.float32),
            "i": np.array([0, 4, 4, -1, 5, 0]),
            "u": rng.standard_normal((6, 3)).astype(np.float32)}
    assert_close(run(graph, feed), interp.run(graph, feed), 1e-6)


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_integer], ids=lambda d: d.value)
def test_gather_clips_indices_of_every_dtype(dtype: DType) -> None:
    limits = np.iinfo(dtype.numpy)
    x = ir.input_("x", DType.F32, (5, 3))
    rows = ir.input_("i", dtype, (4,))
    graph = Graph("gather", {"x": x, "i": rows}, {"y": ir.gather(x, rows, 0)})
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    got = run(graph, {"x": values, "i": np.array([0, 3, limits.max, limits.min], dtype.numpy)})
    np.testing.assert_array_equal(got["y"], values[[0, 3, 4, 0]])


def test_threads_are_started_and_stopped_and_started_again() -> None:
    x = ir.input_("x", DType.F32, (1 << 18,))
    program = Direct(generate(Graph("t", {"x": x}, {"y": ir.exp2(x)}), "cpu"))
    values = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)
    first = program({"x": values}, 1)["y"]
    for threads in (2, 5, 3, 1, 2):
        np.testing.assert_array_equal(program({"x": values}, threads)["y"], first)
    program.close()


@pytest.mark.parametrize("kind", ["max", "sum"])
def test_pooling_of_special_values_in_planes_of_every_width(kind: str) -> None:
    """Windows of 3 x 3 with strides 1 and 2, padded with the lowest number or 0."""
    graphs, feeds = [], []
    rng = np.random.default_rng(3)
    fill = -np.inf if kind == "max" else 0.0
    for width, stride in ((4, 1), (9, 2), (16, 1), (35, 2), (70, 2)):
        x = ir.input_("x", DType.F32, (3, 11, width))
        padded = ir.pad(x, [(0, 0), (1, 1), (1, 1)], fill)
        windows = ir.window(padded, [(1, 3, stride, 1), (2, 3, stride, 1)])
        graphs.append(Graph("pool", {"x": x}, {"y": ir.reduce(windows, kind, (3, 4))}))
        values = rng.standard_normal(x.shape).astype(np.float32)
        rare = rng.choice([np.nan, np.inf, -np.inf, -0.0], x.shape).astype(np.float32)
        feeds.append({"x": np.where(rng.random(x.shape) < 0.02, rare, values)})
    _check(graphs, feeds, lambda dtype: 1e-6)


def test_products_that_leave_the_range_of_their_type_on_the_way() -> None:
    """3e38 * 100 * 0 is 0, not the NaN of infinity times 0."""
    graphs, feeds = [], []
    for dtype in (DType.BF16, DType.F16, DType.F32):
        large = 6e4 if dtype is DType.F16 else 3e38
        row = np.array([large, 100, 1, -1, 0.5, 0, 2, 1e-4] * 5, np.float32).astype(dtype.numpy)
        x = ir.input_("x", dtype, (3, row.size))
        graphs.append(Graph("product", {"x": x}, {"rows": ir.reduce(x, "mul", (1,)),
                                                  "columns": ir.reduce(x, "mul", (0,))}))
        feeds.append({"x": np.stack([row, row[::-1], np.roll(row, 3)])})
    _check(graphs, feeds, lambda dtype: 1e-6 if dtype is DType.F32 else 1e-2)


def test_a_change_of_one_function_changes_one_unit() -> None:
    pieces = ["helpers", *(f"function {i}" for i in range(20)), "driver"]
    units = compile_units(pieces)
    assert all(unit.startswith("helpers\n") for unit in units)
    assert [line for unit in units for line in unit.splitlines()[1:]] == pieces[1:]
    pieces[11] = "changed"
    changed = [old != new for old, new in zip(units, compile_units(pieces), strict=True)]
    assert sum(changed) == 1
