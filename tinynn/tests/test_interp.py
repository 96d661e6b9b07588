"""The meaning of each operation, against loops and numbers written out by hand."""
from __future__ import annotations

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tinynn import ir
from tinynn.interp import run
from tinynn.ir import DType, Graph, GraphError, Node

INF, NAN = math.inf, math.nan


def value(n: Node, **feed: Any) -> np.ndarray[Any, Any]:
    inputs = {x.arg: x for x in ir.toposort([n]) if x.op is ir.Op.INPUT}
    return run(Graph("g", inputs, {"out": n}), feed)["out"]


def f32(*values: float) -> Node:
    return ir.const(np.array(values, np.float32))


def same(got: np.ndarray[Any, Any], wanted: Any) -> None:
    """Equal values, dtypes and signs of zero."""
    wanted = np.asarray(wanted, got.dtype)
    np.testing.assert_array_equal(got, wanted)
    if got.dtype.kind == "f":
        signs = np.signbit(got) == np.signbit(wanted)
        assert np.all(signs | np.isnan(wanted))


def test_slice_pad_window_against_index_arithmetic() -> None:
    data = np.arange(24.0).reshape(4, 6)
    x = ir.const(data)
    sliced = value(ir.slice_(x, [(3, 2, -2), (1, 3, 2)]))
    padded = value(ir.pad(x, [(1, 0), (0, 2)], 9.5))
    windows = value(ir.window(x, [(1, 3, 2, 1), (0, 2, 1, 2)]))
    for i, j in itertools.product(range(2), range(3)):
        assert sliced[i, j] == data[3 - 2 * i, 1 + 2 * j]
    for i, j in itertools.product(range(5), range(8)):
        assert padded[i, j] == (data[i - 1, j] if i >= 1 and j < 6 else 9.5)
    assert windows.shape == (2, 2, 3, 2)
    for i, j, k, m in itertools.product(range(2), range(2), range(3), range(2)):
        assert windows[i, j, k, m] == data[i + 2 * m, 2 * j + k]


def test_descending_slice_reaches_the_first_element_and_may_be_empty() -> None:
    x = f32(0, 1, 2, 3)
    same(value(ir.slice_(x, [(3, 4, -1)])), [3, 2, 1, 0])
    same(value(ir.slice_(x, [(2, 2, -2)])), [2, 0])
    assert value(ir.slice_(x, [(0, 0, 1)])).shape == (0,)


def test_reshape_permute_expand_concat() -> None:
    data = np.arange(6.0).reshape(2, 1, 3)
    x = ir.const(data)
    same(value(ir.permute(x, (2, 0, 1))), data.transpose(2, 0, 1))
    same(value(ir.expand(x, (2, 4, 3))), np.repeat(data, 4, 1))
    same(value(ir.reshape(ir.expand(x, (2, 2, 3)), (4, 3))), [[0, 1, 2]] * 2 + [[3, 4, 5]] * 2)
    same(value(ir.concat([x, x], 1)), np.concatenate([data, data], 1))


def test_gather_clips_and_keeps_the_shape_of_indices() -> None:
    x = ir.const(np.array([[1, 2, 3], [4, 5, 6]], np.int32))
    indices = ir.const(np.array([[-7, 1], [2, 99]]))
    same(value(ir.gather(x, indices, 1)), [[[1, 2], [3, 3]], [[4, 5], [6, 6]]])


@pytest.mark.parametrize(("mode", "wanted"), [
    ("set", [7, 30, 7]), ("add", [7, 7 + 10 + 30, 7]), ("mul", [7, 7 * 10 * 30, 7]),
    ("max", [7, 30, 7]), ("min", [7, 7, 7])])
def test_scatter_in_order_ignoring_what_is_outside(mode: str, wanted: list[float]) -> None:
    x, updates = f32(7, 7, 7), f32(10, 20, 30, 40)
    indices = ir.const(np.array([1, -1, 1, 3]))
    same(value(ir.scatter(x, indices, updates, 0, mode)), wanted)


def test_scatter_of_slices_along_an_inner_axis() -> None:
    x = ir.const(np.zeros((2, 3)))
    updates = ir.const(np.array([[1.0], [2.0]]))
    same(value(ir.scatter(x, ir.const(np.array([2])), updates, 1)), [[0, 0, 1], [0, 0, 2]])


def test_float_functions_at_special_values() -> None:
    x = f32(0.0, -0.0, INF, -INF, NAN, 4.0, -1.0)
    same(value(ir.exp2(x)), [1, 1, INF, 0, NAN, 16, 0.5])
    np.testing.assert_array_equal(value(ir.log2(x)), [-INF, -INF, INF, NAN, NAN, 2, NAN])
    np.testing.assert_array_equal(value(ir.sqrt(x)), [0, -0.0, INF, NAN, NAN, 2, NAN])
    same(value(ir.floor(f32(-0.5, 2.9, -3.0, -0.0))), [-1, 2, -3, -0.0])
    np.testing.assert_allclose(value(ir.sin(f32(0.5, 3.0))), [math.sin(0.5), math.sin(3)],
                               rtol=1e-6)


def test_max_less_equal_where() -> None:
    a, b = f32(1, NAN, 2, -INF), f32(2, 5, NAN, -INF)
    np.testing.assert_array_equal(value(ir.maximum(a, b)), [2, NAN, NAN, -INF])
    same(value(ir.less(a, b)), [True, False, False, False])
    same(value(ir.equal(a, b)), [False, False, False, True])
    same(value(ir.where(ir.less(a, b), a, b)), [1, 5, NAN, -INF])


def test_integer_division_truncates_and_by_zero_gives_zero() -> None:
    a = ir.const(np.array([7, -7, 7, -7, 5, -128], np.int8))
    b = ir.const(np.array([2, 2, -2, -2, 0, 1], np.int8))
    same(value(ir.div(a, b)), [3, -3, -3, 3, 0, -128])
    u = ir.const(np.array([200, 7], np.uint8))
    same(value(ir.div(u, ir.const(np.array([3, 0], np.uint8)))), [66, 0])
    same(value(ir.div(f32(1, -1, 0), f32(0, 0, 0))), [INF, -INF, NAN])


def test_integers_wrap_and_bools_are_logic() -> None:
    a = ir.const(np.array([250, 3], np.uint8))
    same(value(ir.add(a, a)), [244, 6])
    same(value(ir.mul(a, a)), [250 * 250 % 256, 9])
    p, q = ir.const([True, True, False]), ir.const([True, False, False])
    same(value(ir.add(p, q)), [True, True, False])
    same(value(ir.mul(p, q)), [True, False, False])
    same(value(ir.maximum(p, q)), [True, True, False])


def test_cast_saturates_floats_and_wraps_integers() -> None:
    x = f32(300, -300, 2.9, -2.9, NAN, INF, -INF, -0.5)
    same(value(ir.cast(x, DType.U8)), [255, 0, 2, 0, 0, 255, 0, 0])
    same(value(ir.cast(x, DType.I8)), [127, -128, 2, -2, 0, 127, -128, 0])
    big = f32(9.3e18, -9.3e18, 1.9e19, 2**62)
    same(value(ir.cast(big, DType.I64)), [2**63 - 1, -2**63, 2**63 - 1, 2**62])
    same(value(ir.cast(big, DType.U64)), [int(np.float32(9.3e18)), 0, 2**64 - 1, 2**62])
    same(value(ir.cast(ir.const(np.array([300, -1])), DType.U8)), [44, 255])
    same(value(ir.cast(x, DType.BOOL)), [True] * 8)
    same(value(ir.cast(f32(0, -0.0), DType.BOOL)), [False, False])


def test_bf16_and_f16_round_to_nearest_even() -> None:
    x = f32(1 + 2**-8, 1 + 3 * 2**-8, 65520)
    same(value(ir.cast(x, DType.BF16)).astype(np.float32), [1, 1 + 2**-6, 65536])
    same(value(ir.cast(x, DType.F16)), [1 + 2**-8, 1 + 3 * 2**-8, INF])
    half = ir.const(np.array([2048, 1], np.float16))
    same(value(ir.reduce(half, "sum", (0,))), np.float16(2048))
    brain = ir.const(np.array([1, 2, 3], ml_dtypes.bfloat16))
    assert value(ir.reduce(brain, "sum", (0,))).astype(np.float32) == 6


def test_reduce_rounds_once() -> None:
    x = f32(1e8, 1, -1e8, 1)
    same(value(ir.reduce(x, "sum", (0,))), 2)
    same(value(ir.reduce(f32(3e38, 3e38, -3e38), "sum", (0,))), np.float32(3e38))
    same(value(ir.reduce(f32(1e30, 1e30, 1e-30), "mul", (0,))), np.float32(1e30))


def test_reduce_of_integers_bools_and_nothing() -> None:
    x = ir.const(np.array([[200, 100], [1, 2]], np.uint8))
    same(value(ir.reduce(x, "sum", (1,))), [44, 3])
    same(value(ir.reduce(x, "max", (0, 1))), 200)
    p = ir.const(np.array([[True, False], [True, True]]))
    same(value(ir.reduce(p, "sum", (1,))), [True, True])
    same(value(ir.reduce(p, "mul", (1,))), [False, True])
    same(value(ir.reduce(p, "max", (1,))), [True, True])
    for dtype, lowest in ((np.float32, -INF), (np.int16, -2**15), (np.uint8, 0), (np.bool_, 0)):
        empty = ir.const(np.zeros((2, 0), dtype))
        same(value(ir.reduce(empty, "sum", (1,))), [0, 0])
        same(value(ir.reduce(empty, "mul", (1,))), [1, 1])
        same(value(ir.reduce(empty, "max", (1,))), [lowest, lowest])
    np.testing.assert_array_equal(value(ir.reduce(f32(1, NAN, 2), "max", (0,))), NAN)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_sum_of_products_in_pieces(axes: tuple[int, ...]) -> None:
    """Large enough to be cut into pieces, whichever axes are summed."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 1, 90)), rng.standard_normal((1, 60, 90))
    x, y = (ir.expand(ir.const(v, DType.F32), (70, 60, 90)) for v in (a, b))
    product = a.astype(np.float32) * b.astype(np.float32)
    got = value(ir.reduce(ir.mul(x, y), "sum", axes))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, product.astype(np.float64).sum(axes), rtol=1e-6, atol=1e-6)


def test_a_product_with_a_second_reader_keeps_its_value() -> None:
    x = ir.input_("x", DType.F32, (2, 3))
    square = ir.mul(x, x)
    graph = Graph("g", {"x": x}, {"sum": ir.reduce(square, "sum", (1,)), "square": square})
    out = run(graph, {"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32)})
    same(out["sum"], [14, 77])
    same(out["square"], [[1, 4, 9], [16, 25, 36]])


def test_inputs_are_checked() -> None:
    x = ir.input_("x", DType.F32, (2,))
    graph = Graph("g", {"x": x}, {"out": x})
    for feed, message in (
            ({}, r"missing: \['x'\]"), ({"x": np.zeros(2, np.float32), "y": 1}, "unknown: .'y'"),
            ({"x": np.zeros(2)}, "input 'x' must be float32"),
            ({"x": np.zeros(3, np.float32)}, r"got float32 \(3,\)")):
        with pytest.raises(GraphError, match=message):
            run(graph, feed)


def test_outputs_do_not_share_memory_with_inputs() -> None:
    x = ir.input_("x", DType.F32, (2,))
    given = np.zeros(2, np.float32)
    out = run(Graph("g", {"x": x}, {"out": x}), {"x": given})["out"]
    out[0] = 1
    assert given[0] == 0
