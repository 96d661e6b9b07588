"""Derived functions against float64 numpy and the math module."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynn import derived as d
from tinynn import ir
from tinynn.interp import run
from tinynn.ir import DType, Graph, GraphError, Node

Array = np.ndarray[Any, Any]


def value(n: Node) -> Array:
    return run(Graph("g", {}, {"out": n}), {})["out"]


def on(function: Callable[[Node], Node], x: Any, dtype: DType = DType.F32) -> Array:
    return value(function(ir.const(np.asarray(x), dtype)))


POINTS = np.concatenate([np.linspace(-12, 12, 2401), [0.0, 1e-4, -1e-4, 30, -30, 100, -100]]
                        ).astype(np.float32)
WIDE = POINTS.astype(np.float64)
ERF = np.array([math.erf(x) for x in WIDE])


@pytest.mark.parametrize(("function", "exact", "tolerance"), [
    (d.tanh, np.tanh(WIDE), 2e-7),
    (d.sigmoid, 1 / (1 + np.exp(-WIDE)), 1.5e-7),
    (d.erf, ERF, 4e-7),
    (d.gelu, 0.5 * WIDE * (1 + np.array([math.erf(x / math.sqrt(2)) for x in WIDE])), 3e-6),
    (lambda x: d.gelu(x, "tanh"), 0.5 * WIDE * (1 + np.tanh(
        math.sqrt(2 / math.pi) * (WIDE + 0.044715 * WIDE**3))), 2e-6),
    (d.softplus, np.logaddexp(0, WIDE), 4e-6),
    (d.cos, np.cos(WIDE), 1e-5),
], ids=["tanh", "sigmoid", "erf", "gelu", "gelu tanh", "softplus", "cos"])
def test_absolute_error(function: Callable[[Node], Node], exact: Array, tolerance: float) -> None:
    got = on(function, POINTS)
    assert got.dtype == np.float32
    assert np.abs(got - exact).max() <= tolerance


def test_exp_and_log_relative_error() -> None:
    x = np.linspace(-80, 80, 999).astype(np.float32)
    wanted = np.exp(x.astype(np.float64))
    assert np.abs(on(d.exp, x) / wanted - 1).max() < 80 * 1.2e-7
    np.testing.assert_allclose(on(d.log, wanted.astype(np.float32)), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("function", "at_infinity", "at_minus_infinity"), [
    (d.tanh, 1, -1), (d.sigmoid, 1, 0), (d.erf, 1, -1), (d.exp, math.inf, 0)])
def test_limits(function: Callable[[Node], Node], at_infinity: float,
                at_minus_infinity: float) -> None:
    got = on(function, [math.inf, -math.inf, math.nan])
    np.testing.assert_array_equal(got, [at_infinity, at_minus_infinity, math.nan])


UNIT = np.concatenate([np.linspace(-1, 1, 401), [1e-5, -1e-3, 0.999999]]).astype(np.float32)


@pytest.mark.parametrize(("function", "exact", "x"), [
    (d.sinh, np.sinh, POINTS[np.abs(POINTS) < 80]), (d.cosh, np.cosh, POINTS[np.abs(POINTS) < 80]),
    (d.tan, np.tan, UNIT), (d.atan, np.arctan, POINTS), (d.asin, np.arcsin, UNIT),
    (d.acos, np.arccos, UNIT[:-1]), (d.asinh, np.arcsinh, POINTS), (d.log1p, np.log1p, UNIT[1:]),
    (d.acosh, np.arccosh, np.linspace(1, 50, 500, dtype=np.float32)),
    (d.atanh, np.arctanh, UNIT[1:-1]),
], ids=["sinh", "cosh", "tan", "atan", "asin", "acos", "asinh", "log1p", "acosh", "atanh"])
def test_relative_error(function: Callable[[Node], Node], exact: Callable[[Array], Array],
                        x: Array) -> None:
    got = on(function, x)
    assert got.dtype == np.float32
    with np.errstate(divide="ignore"):
        wanted = exact(x.astype(np.float64))
    # e^x has the error of its exponent, which grows with x; all others stay within 2e-6.
    tolerance = 1e-5 if function in (d.sinh, d.cosh) else 2e-6
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=1e-7)


def test_ends_of_inverse_functions() -> None:
    infinity = math.inf
    np.testing.assert_allclose(on(d.atan, [infinity, -infinity]), [math.pi / 2, -math.pi / 2])
    np.testing.assert_allclose(on(d.asinh, [1e30, infinity, -infinity]),
                               [math.asinh(1e30), infinity, -infinity], rtol=1e-6)
    np.testing.assert_array_equal(on(d.log1p, [infinity, -1]), [infinity, -infinity])
    for function, outside in ((d.asin, 1.5), (d.acos, -1.5), (d.acosh, 0.5), (d.atanh, 2.0)):
        assert np.isnan(on(function, [outside, math.nan])).all()


def test_positions() -> None:
    np.testing.assert_array_equal(value(d.positions((2, 3), 1)), [[0, 1, 2]])
    with pytest.raises(GraphError, match="a constant of 1099511627776 elements would be needed"):
        d.positions((2**40,), 0)


def test_halves_are_rounded_once() -> None:
    x = np.linspace(-4, 4, 801).astype(np.float16)
    for function, exact in ((d.tanh, np.tanh), (d.exp, np.exp)):
        got = on(function, x, DType.F16)
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, exact(x.astype(np.float64)).astype(np.float16))


def test_rounding_is_exact() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 8388609.0, -2.6, math.inf, -math.inf,
                  math.nan], np.float32)
    np.testing.assert_array_equal(on(d.round_even, x), np.round(x))
    np.testing.assert_array_equal(on(d.ceil, x), np.ceil(x))
    np.testing.assert_array_equal(on(d.sign, x), np.sign(x))
    np.testing.assert_array_equal(on(d.absolute, x), np.abs(x))


@pytest.mark.parametrize("dtype", [DType.I8, DType.U8, DType.F32, DType.BOOL])
def test_minimum_at_the_ends_of_the_range(dtype: DType) -> None:
    if dtype.is_integer:
        ends = np.array([np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max, 0, 1])
    else:
        ends = np.array([-math.inf, math.inf, 0, 1]) if dtype.is_float else np.array([0, 1, 0, 1])
    a, b = (v.astype(dtype.numpy) for v in np.meshgrid(ends, ends))
    np.testing.assert_array_equal(value(d.minimum(ir.const(a), ir.const(b))), np.minimum(a, b))
    np.testing.assert_array_equal(value(d.reduce_min(ir.const(a), (1,))), a.min(1))


def test_power_is_that_of_ieee() -> None:
    values = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -3.0, 2.5, math.inf, math.nan],
                      np.float64)
    x, y = np.meshgrid(values, values)
    with np.errstate(all="ignore"):
        wanted = np.power(x, y)
    got = value(d.power(ir.const(x), ir.const(y)))
    # A negative base of infinite exponent: pow calls infinity an even integer.
    finite = ~(np.isinf(y) & (x <= 0)) & ~(np.isinf(y) & (np.abs(x) == 1))
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=1e-12)
    for exponent in (1, 2, 3, 7, 16):
        x7 = np.linspace(-2, 2, 9)
        np.testing.assert_allclose(value(d.power_int(ir.const(x7), exponent)), x7**exponent,
                                   rtol=1e-14)


def test_clip_keeps_nan() -> None:
    low, high = ir.const(-1.0, DType.F32), ir.const(2.0, DType.F32)
    got = on(lambda x: d.clip(x, low, high), [-5, 0.5, 7, math.nan, math.inf])
    np.testing.assert_array_equal(got, [-1, 0.5, 2, math.nan, 2])


def test_softmax_of_large_values() -> None:
    x = np.array([[1000, 1001, 1002], [-1000, 0, 1000], [1, 1, 1]], np.float32)
    shifted = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    wanted = shifted / shifted.sum(1, keepdims=True)
    np.testing.assert_allclose(on(lambda n: d.softmax(n, 1), x), wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(on(lambda n: d.softmax(n, 0), x.T), wanted.T, rtol=1e-6,
                               atol=1e-12)


def test_normalize() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 3 + 7
    wanted = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(on(lambda n: d.normalize(n, (1, 2), 1e-5), x, DType.F64), wanted,
                               rtol=1e-12)


@given(st.sampled_from([((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
                        ((2, 1, 3, 4), (6, 4, 5)), ((1, 1), (1, 1)), ((7, 2, 0), (0, 3)),
                        ((2, 3, 4), (4,)), ((4,), (2, 4, 3))]))
def test_matmul(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) for s in shapes)
    np.testing.assert_allclose(value(d.matmul(ir.const(a), ir.const(b))), np.matmul(a, b),
                               rtol=1e-12, atol=1e-12)


def conv_by_loops(x: Array, w: Array, strides: list[int], dilations: list[int],
                  pads: list[tuple[int, int]], groups: int) -> Array:
    """The definition, one output element at a time."""
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel = w.shape[2:]
    out = [(n - dil * (k - 1) - 1) // s + 1
           for n, k, s, dil in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_group, each = w.shape[1], w.shape[0] // groups
    for n, m, *at in np.ndindex(*y.shape):
        first = m // each * per_group
        for c, *k in np.ndindex(*w.shape[1:]):
            place = tuple(i * s + j * dil for i, j, s, dil
                          in zip(at, k, strides, dilations, strict=True))
            y[(n, m, *at)] += x[(n, first + c, *place)] * w[(m, c, *k)]
    return y


@pytest.mark.parametrize(("x_shape", "w_shape", "strides", "dilations", "pads", "groups"), [
    ((2, 3, 5, 6), (4, 3, 3, 2), [1, 2], [1, 1], [(1, 1), (0, 1)], 1),
    ((1, 4, 7, 5), (6, 2, 3, 3), [2, 1], [2, 1], [(2, 2), (1, 1)], 2),
    ((1, 3, 4, 4), (6, 1, 3, 3), [1, 1], [1, 1], [(1, 1), (1, 1)], 3),
    ((2, 4, 3, 3), (5, 4, 1, 1), [1, 1], [1, 1], [(0, 0), (0, 0)], 1),
    ((2, 2, 9), (3, 2, 4), [3], [2], [(2, 0)], 1),
    ((1, 2, 3, 4, 3), (2, 1, 2, 2, 2), [1, 1, 1], [1, 1, 1], [(0, 0)] * 3, 2),
])
def test_conv(x_shape: tuple[int, ...], w_shape: tuple[int, ...], strides: list[int],
              dilations: list[int], pads: list[tuple[int, int]], groups: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    got = value(d.conv(ir.const(x), ir.const(w), strides, dilations, pads, groups))
    np.testing.assert_allclose(got, conv_by_loops(x, w, strides, dilations, pads, groups),
                               rtol=1e-12, atol=1e-12)


def test_contractions_have_one_form() -> None:
    """REDUCE of a MUL of two expanded views, with nothing in between."""
    x, w = ir.input_("x", DType.F32, (1, 4, 8, 8)), ir.input_("w", DType.F32, (8, 2, 3, 3))
    product = d.conv(x, w, [1, 1], [1, 1], [(1, 1), (1, 1)], 2).src[0]
    assert product.op is ir.Op.REDUCE
    assert product.src[0].op is ir.Op.MUL
    assert [s.op for s in product.src[0].src] == [ir.Op.EXPAND, ir.Op.EXPAND]
    assert all(n.op in ir.VIEWS | {ir.Op.INPUT} for n in ir.toposort(product.src[0].src))


def test_misfits_are_refused() -> None:
    x = ir.input_("x", DType.F32, (2, 3))
    with pytest.raises(GraphError, match=r"shapes \(2, 3\), \(4,\) cannot be broadcast"):
        d.add(x, ir.input_("y", DType.F32, (4,)))
    with pytest.raises(GraphError, match="inner lengths differ"):
        d.matmul(x, x)
    with pytest.raises(GraphError, match=r"convolution of .* in 2 groups"):
        d.conv(ir.input_("z", DType.F32, (1, 3, 4)), ir.input_("w", DType.F32, (2, 1, 1)),
               [1], [1], [(0, 0)], 2)
    with pytest.raises(GraphError, match=r"tanh of .* needs a float"):
        d.tanh(ir.input_("i", DType.I32, (2,)))
