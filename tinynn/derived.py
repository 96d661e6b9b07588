"""Functions built from the 25 operations: what ONNX import and tensor code are written in.

Binary functions broadcast their operands like numpy. Functions that need more than one rounding
(exp, tanh, softmax, ...) compute in f32 when given f16 or bf16 and round once at the end.

Accuracy in f32: exp2 and log2 are the only transcendental operations, so exp(x) is 2**(x log2 e),
whose relative error grows like |x| * 6e-8 with the rounding of the exponent. tanh, sigmoid and erf
are within 4e-7 absolute of the true value; they are not relatively accurate close to 0.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinynn import ir
from tinynn.ir import DType, GraphError, Node

LOG2_E = math.log2(math.e)
LN_2 = math.log(2)


# Shapes

def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of numpy's broadcasting; raises GraphError if there is none."""
    try:
        return np.broadcast_shapes(*(tuple(s) for s in shapes))
    except ValueError:
        listed = ", ".join(str(tuple(s)) for s in shapes)
        raise GraphError(f"shapes {listed} cannot be broadcast together") from None


def broadcast_to(x: Node, shape: Sequence[int]) -> Node:
    """x with axes of length 1 repeated and new leading axes, as numpy.broadcast_to."""
    if x.shape == tuple(shape):
        return x
    if broadcast_shape(x.shape, shape) != tuple(shape):
        raise GraphError(f"{x!r} cannot be broadcast to {tuple(shape)}")
    lead = (1,) * (len(shape) - len(x.shape))
    return ir.expand(ir.reshape(x, lead + x.shape), shape)


def broadcast(*xs: Node) -> list[Node]:
    shape = broadcast_shape(*(x.shape for x in xs))
    return [broadcast_to(x, shape) for x in xs]


def scalar(value: float | int | bool, like: Node) -> Node:
    """A constant in the dtype of `like`, of shape (); broadcasting does the rest."""
    return ir.const(value, like.dtype)


def unsqueeze(x: Node, axis: int) -> Node:
    return ir.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def take_range(x: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
    """x[start], x[start + step], ... along one axis."""
    ranges = [(0, n, 1) for n in x.shape]
    ranges[axis] = (start, count, step)
    return ir.slice_(x, ranges)


# Constants with more elements are not built: the models that need them are not sane.
MOST_ELEMENTS = 1 << 24


def require_small(count: int) -> None:
    """Raise GraphError if a constant of so many elements should not be built."""
    if count > MOST_ELEMENTS:
        raise GraphError(f"a constant of {count} elements would be needed; the most is "
                         f"{MOST_ELEMENTS}")


def positions(shape: Sequence[int], axis: int, dtype: DType = DType.I64) -> Node:
    """0, 1, 2, ... along one axis of a tensor of this shape; length 1 along all others."""
    require_small(shape[axis])
    along = [n if i == axis else 1 for i, n in enumerate(shape)]
    return ir.const(np.arange(shape[axis]).reshape(along), dtype)


def reduce_keep(x: Node, kind: str, axes: Sequence[int]) -> Node:
    """REDUCE whose axes stay, with length 1."""
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return ir.reshape(ir.reduce(x, kind, axes), shape)


# Arithmetic

def _binary(build: Callable[[Node, Node], Node]) -> Callable[[Node, Node | float], Node]:
    def function(a: Node, b: Node | float) -> Node:
        other = b if isinstance(b, Node) else scalar(b, a)
        return build(*broadcast(a, other))
    return function


add = _binary(ir.add)
mul = _binary(ir.mul)
div = _binary(ir.div)
maximum = _binary(ir.maximum)
less = _binary(ir.less)
equal = _binary(ir.equal)


def negate(x: Node) -> Node:
    return mul(x, -1)


def sub(a: Node, b: Node | float) -> Node:
    """a - b; exact, because negation is."""
    other = b if isinstance(b, Node) else scalar(b, a)
    return add(a, negate(other))


def where(cond: Node, a: Node, b: Node) -> Node:
    return ir.where(*broadcast(cond, a, b))


def logical_not(x: Node) -> Node:
    return equal(x, False)


def flip(x: Node) -> Node:
    """A reversal of order that every dtype has exactly: -x for floats, -1 - x for integers."""
    if x.dtype is DType.BOOL:
        return logical_not(x)
    return negate(x) if x.dtype.is_float else sub(scalar(-1, x), x)


def minimum(a: Node, b: Node) -> Node:
    """NaN if either is NaN, as MAX."""
    return flip(maximum(flip(a), flip(b)))


def reduce_min(x: Node, axes: Sequence[int]) -> Node:
    return flip(ir.reduce(flip(x), "max", axes))


def clip(x: Node, low: Node | None, high: Node | None) -> Node:
    """min(max(x, low), high); bounds are scalars and not NaN, a NaN in x stays."""
    if low is not None:
        x = maximum(x, low)
    if high is not None:
        # One comparison instead of the three operations of minimum().
        x = where(less(high, x), high, x)
    return x


def absolute(x: Node) -> Node:
    return x if x.dtype is DType.BOOL else ir.maximum(x, negate(x))


def relu(x: Node) -> Node:
    return maximum(x, 0)


def sign(x: Node) -> Node:
    """-1, 0 or 1; NaN stays."""
    positive = where(less(scalar(0, x), x), scalar(1, x), x)
    return where(less(x, 0), scalar(-1, x), positive)


def ceil(x: Node) -> Node:
    return negate(ir.floor(negate(x)))


def round_even(x: Node) -> Node:
    """To the nearest integer, halves to the even one. Every step is exact."""
    low = ir.floor(x)
    part = sub(x, low)
    half = mul(low, 0.5)
    odd = less(ir.floor(half), half)
    up = ir.add(less(scalar(0.5, part), part), ir.mul(equal(part, 0.5), odd))
    return where(up, add(low, 1), low)


def mean(x: Node, axes: Sequence[int]) -> Node:
    """Mean over axes, which are removed."""
    count = math.prod(x.shape[a] for a in axes)
    return div(ir.reduce(x, "sum", axes), count)


# Transcendental functions

def in_f32(function: Callable[..., Node]) -> Callable[..., Node]:
    """Let `function(x, ...)` compute in f32 where x is f16 or bf16, and round its result once."""
    @functools.wraps(function)
    def wider(x: Node, *args: Any, **options: Any) -> Node:
        if not x.dtype.is_float:
            raise GraphError(f"{function.__name__} of {x!r}: needs a float tensor")
        if x.dtype not in (DType.F16, DType.BF16):
            return function(x, *args, **options)
        return ir.cast(function(ir.cast(x, DType.F32), *args, **options), x.dtype)
    return wider


@in_f32
def exp(x: Node) -> Node:
    return ir.exp2(mul(x, LOG2_E))


@in_f32
def log(x: Node) -> Node:
    return mul(ir.log2(x), LN_2)


@in_f32
def cos(x: Node) -> Node:
    return ir.sin(add(x, math.pi / 2))


@in_f32
def tan(x: Node) -> Node:
    return div(ir.sin(x), cos(x))


@in_f32
def sinh(x: Node) -> Node:
    """(e^x - e^-x) / 2; close to 0, where that loses digits, the series of x."""
    square = mul(x, x)
    series = scalar(1.0, x)
    for divisor in (72, 42, 20, 6):
        series = add(div(mul(series, square), divisor), 1)
    half = mul(sub(exp(x), exp(negate(x))), 0.5)
    return where(less(absolute(x), 1), mul(x, series), half)


@in_f32
def cosh(x: Node) -> Node:
    return mul(add(exp(x), exp(negate(x))), 0.5)


@in_f32
def log1p(x: Node) -> Node:
    """log(1 + x), accurate for small x: the rounding of 1 + x cancels in the quotient (Kahan)."""
    one_more = add(x, 1)
    rest = sub(one_more, 1)
    exact = mul(log(one_more), div(x, where(equal(rest, 0), scalar(1, x), rest)))
    infinite = equal(one_more, math.inf)
    return where(equal(rest, 0), x, where(infinite, one_more, exact))


@in_f32
def atan(x: Node) -> Node:
    """The argument is brought below 0.42 by atan x = pi/2 - atan 1/x and by one halving of the
    angle; there the series of 8 terms is exact to f32."""
    size = absolute(x)
    inverse = less(scalar(1, x), size)
    small = where(inverse, div(scalar(1, x), size), size)
    half = div(small, add(ir.sqrt(add(mul(small, small), 1)), 1))
    square = mul(half, half)
    series = scalar(1 / 17, x)
    for odd in (15, 13, 11, 9, 7, 5, 3, 1):
        series = sub(scalar(1 / odd, x), mul(series, square))
    angle = mul(mul(half, series), 2)
    angle = where(inverse, sub(scalar(math.pi / 2, x), angle), angle)
    return where(less(x, 0), negate(angle), angle)


@in_f32
def asin(x: Node) -> Node:
    """atan(x / sqrt(1 - x^2)); the quotient is infinite at +-1, which is right."""
    return atan(div(x, ir.sqrt(mul(sub(scalar(1, x), x), add(x, 1)))))


@in_f32
def acos(x: Node) -> Node:
    """2 atan(sqrt((1 - x) / (1 + x))), accurate close to 1 too."""
    return mul(atan(ir.sqrt(div(sub(scalar(1, x), x), add(x, 1)))), 2)


@in_f32
def asinh(x: Node) -> Node:
    """sign(x) log(a + sqrt(a^2 + 1)), a = |x|, written with log1p."""
    size = absolute(x)
    square = mul(size, size)
    more = add(size, div(square, add(ir.sqrt(add(square, 1)), 1)))
    value = where(less(size, 1e9), log1p(more), add(log(size), LN_2))
    return where(less(x, 0), negate(value), value)


@in_f32
def acosh(x: Node) -> Node:
    above = sub(x, 1)
    return log1p(add(above, ir.sqrt(mul(above, add(x, 1)))))


@in_f32
def atanh(x: Node) -> Node:
    """log((1 + x) / (1 - x)) / 2."""
    size = absolute(x)
    value = mul(log1p(div(mul(size, 2), sub(scalar(1, x), size))), 0.5)
    return where(less(x, 0), negate(value), value)


@in_f32
def sigmoid(x: Node) -> Node:
    """1 / (1 + e^-x); an overflow of e^-x gives 0, which is right."""
    return div(scalar(1, x), add(ir.exp2(mul(x, -LOG2_E)), 1))


@in_f32
def tanh(x: Node) -> Node:
    """1 - 2 / (1 + e^2x).

    Of the ways to write it this one needs the fewest operations and one exponential. The
    difference loses relative accuracy close to 0: the error in f32 is at most 2e-7 absolute. The
    quotient saturates instead of overflowing: no NaN for large |x|.
    """
    return sub(scalar(1, x), div(scalar(2, x), add(ir.exp2(mul(x, 2 * LOG2_E)), 1)))


@in_f32
def erf(x: Node) -> Node:
    """Abramowitz and Stegun 7.1.26: 1 - (a1 t + .. + a5 t^5) e^(-x^2), t = 1 / (1 + p |x|)."""
    size = absolute(x)
    t = div(scalar(1, x), add(mul(size, 0.3275911), 1))
    poly = scalar(0.0, x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly = mul(add(poly, factor), t)
    value = sub(scalar(1, x), mul(poly, exp(negate(mul(x, x)))))
    return where(less(x, 0), negate(value), value)


@in_f32
def softmax(x: Node, axis: int) -> Node:
    shifted = sub(x, reduce_keep(x, "max", (axis,)))
    power = exp(shifted)
    return div(power, reduce_keep(power, "sum", (axis,)))


@in_f32
def log_softmax(x: Node, axis: int) -> Node:
    shifted = sub(x, reduce_keep(x, "max", (axis,)))
    return sub(shifted, log(reduce_keep(exp(shifted), "sum", (axis,))))


@in_f32
def softplus(x: Node) -> Node:
    """log(1 + e^x) as max(x, 0) + log(1 + e^-|x|), which does not overflow."""
    return add(relu(x), log(add(exp(negate(absolute(x))), 1)))


@in_f32
def gelu(x: Node, approximate: str = "none") -> Node:
    """x Phi(x); approximate "tanh": 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    if approximate == "tanh":
        cube = mul(mul(x, mul(x, x)), 0.044715)
        gate = tanh(mul(add(x, cube), math.sqrt(2 / math.pi)))
    else:
        gate = erf(mul(x, math.sqrt(0.5)))
    return mul(mul(x, 0.5), add(gate, 1))


def power_int(x: Node, exponent: int) -> Node:
    """x ** exponent, exponent >= 1, by repeated squaring."""
    if exponent == 1:
        return x
    rest = power_int(ir.mul(x, x), exponent // 2)
    return ir.mul(rest, x) if exponent % 2 else rest


@in_f32
def power(x: Node, y: Node) -> Node:
    """x ** y = 2**(y log2 |x|) with the sign and the special cases of IEEE pow."""
    x, y = broadcast(x, y)
    size = ir.exp2(ir.mul(y, ir.log2(absolute(x))))
    half = mul(y, 0.5)
    integer = ir.equal(ir.floor(y), y)
    odd = ir.mul(integer, less(ir.floor(half), half))
    negative = less(x, 0)
    signed = where(ir.mul(negative, odd), negate(size), size)
    defined = where(ir.mul(negative, logical_not(integer)), scalar(math.nan, x), signed)
    one = ir.add(equal(x, 1), equal(y, 0))
    return where(one, scalar(1, x), defined)


def normalize(x: Node, axes: Sequence[int], epsilon: float) -> Node:
    """(x - mean) / sqrt(variance + epsilon) over the axes (population variance)."""
    keep = [1 if i in axes else n for i, n in enumerate(x.shape)]
    centred = sub(x, ir.reshape(mean(x, axes), keep))
    variance = ir.reshape(mean(mul(centred, centred), axes), keep)
    return div(centred, ir.sqrt(add(variance, epsilon)))


# Contractions: REDUCE(sum, MUL(view of a, view of b))

def matmul(a: Node, b: Node) -> Node:
    """numpy.matmul: (.., M, K) x (.., K, N) -> (.., M, N), leading axes broadcast."""
    if not a.shape or not b.shape:
        raise GraphError(f"matmul of {a!r} and {b!r}: needs at least one axis each")
    left = a if len(a.shape) > 1 else unsqueeze(a, 0)
    right = b if len(b.shape) > 1 else unsqueeze(b, 1)
    if left.shape[-1] != right.shape[-2]:
        raise GraphError(f"matmul of {a!r} and {b!r}: inner lengths differ")
    rank = len(right.shape)
    right = ir.permute(right, [*range(rank - 2), rank - 1, rank - 2])
    product = mul(unsqueeze(left, len(left.shape) - 1), unsqueeze(right, rank - 2))
    result = ir.reduce(product, "sum", (len(product.shape) - 1,))
    drop = {len(result.shape) - 2} if len(a.shape) == 1 else set()
    drop |= {len(result.shape) - 1} if len(b.shape) == 1 else set()
    return ir.reshape(result, [n for i, n in enumerate(result.shape) if i not in drop])


def conv(x: Node, weight: Node, strides: Sequence[int], dilations: Sequence[int],
         pads: Sequence[tuple[int, int]], groups: int = 1) -> Node:
    """Convolution (cross-correlation), any number of spatial axes, dense and grouped in one form.

    x (N, C, *I), weight (M, C/groups, *K) -> (N, M, *O). Both operands become views with axes
    (N, groups, M/groups, C/groups, *K, *O) and the product is summed over (C/groups, *K).
    """
    n, channels, *_ = x.shape
    filters, per_group, *kernel = weight.shape
    rank = len(kernel)
    if channels != groups * per_group or filters % groups or len(x.shape) != rank + 2:
        raise GraphError(f"convolution of {x!r} by {weight!r} in {groups} groups: "
                         f"the operands do not fit")
    x = ir.pad(x, [(0, 0), (0, 0), *pads])
    x = ir.reshape(x, (n, groups, per_group, *x.shape[2:]))
    x = ir.window(x, [(3 + i, kernel[i], strides[i], dilations[i]) for i in range(rank)])
    out = x.shape[3:3 + rank]
    x = ir.permute(x, [0, 1, 2, *range(3 + rank, 3 + 2 * rank), *range(3, 3 + rank)])
    shape = (n, groups, filters // groups, per_group, *kernel, *out)
    x = ir.expand(unsqueeze(x, 2), shape)
    w = ir.reshape(weight, (1, groups, filters // groups, per_group, *kernel, *(1 for _ in out)))
    total = ir.reduce(ir.mul(x, ir.expand(w, shape)), "sum", range(3, 4 + rank))
    return ir.reshape(total, (n, filters, *out))
