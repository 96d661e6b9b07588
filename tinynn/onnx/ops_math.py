"""Lowerings: arithmetic, comparisons, activations, reductions."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.protos import element_type
from tinynn.onnx.registry import Call, is_static, lowers, normal_axis, static, static_scalar

# Arithmetic

_BINARY: dict[str, Callable[[Node, Node], Node]] = {
    "Add": d.add, "Sub": d.sub, "Mul": d.mul, "Div": d.div,
    "Less": d.less, "Equal": d.equal, "And": d.mul, "Or": d.add,
    "Greater": lambda a, b: d.less(b, a),
    "LessOrEqual": lambda a, b: d.add(d.less(a, b), d.equal(a, b)),
    "GreaterOrEqual": lambda a, b: d.add(d.less(b, a), d.equal(a, b)),
    "Xor": lambda a, b: d.logical_not(d.equal(a, b)),
}


@lowers(*_BINARY)
def binary(call: Call, a: Node, b: Node) -> Node:
    return _BINARY[call.op](a, _old_broadcast(call, a, b))


def _old_broadcast(call: Call, a: Node, b: Node) -> Node:
    """b, whose axes before opset 7 may start at an axis of a instead of ending with its last."""
    if call.opset >= 7 or not call.flag("broadcast") or not call.has("axis"):
        return b
    behind = len(a.shape) - call.axis(len(a.shape)) - len(b.shape)
    return ir.reshape(b, (*b.shape, *[1] * behind))


_UNARY: dict[str, Callable[[Node], Node]] = {
    "Neg": d.negate, "Abs": d.absolute, "Sign": d.sign,
    "Sqrt": ir.sqrt, "Floor": ir.floor, "Ceil": d.ceil, "Round": d.round_even,
    "Exp": d.exp, "Log": d.log, "Sin": ir.sin, "Cos": d.cos, "Not": d.logical_not,
    "Relu": d.relu, "Sigmoid": d.sigmoid, "Tanh": d.tanh, "Erf": d.erf, "Softplus": d.softplus,
    "Reciprocal": lambda x: d.div(d.scalar(1, x), x),
    "Softsign": lambda x: d.div(x, d.add(d.absolute(x), 1)),
    "Sinh": d.sinh, "Cosh": d.cosh, "Tan": d.tan, "Asin": d.asin, "Acos": d.acos,
    "Atan": d.atan, "Asinh": d.asinh, "Acosh": d.acosh, "Atanh": d.atanh,
    "IsNaN": lambda x: d.logical_not(ir.equal(x, x)),
}


@lowers(*_UNARY, since=1)
def unary(call: Call, x: Node) -> Node:
    return _UNARY[call.op](x)


@lowers("Max", since=6)
def maximum(call: Call, first: Node, *rest: Node) -> Node:
    for x in rest:
        first = d.maximum(first, x)
    return first


@lowers("Min", since=6)
def minimum(call: Call, first: Node, *rest: Node) -> Node:
    for x in rest:
        first = d.minimum(first, x)
    return first


@lowers("Sum", "Mean", since=6)
def total(call: Call, first: Node, *rest: Node) -> Node:
    for x in rest:
        first = d.add(first, x)
    return d.div(first, 1 + len(rest)) if call.op == "Mean" else first


@lowers("Pow")
def power(call: Call, x: Node, y: Node) -> Node:
    """Constant exponents become multiplications and square roots where they can."""
    y = _old_broadcast(call, x, y)
    shape = d.broadcast_shape(x.shape, y.shape)
    if y.size == 1 and is_static(y):
        exponent = float(static_scalar(y, "the exponent"))
        base = d.broadcast_to(x, shape)
        if exponent == int(exponent) and 1 <= exponent <= 16:
            return d.power_int(base, int(exponent)) if x.dtype.is_float else _int_power(
                base, int(exponent))
        if x.dtype.is_float and exponent == 0.5:
            return ir.sqrt(base)
        if x.dtype.is_float and -16 <= exponent < 0 and exponent == int(exponent):
            return d.div(d.scalar(1, x), d.power_int(base, -int(exponent)))
    if x.dtype.is_float:
        return d.power(x, ir.cast(y, x.dtype))
    # Integers go through f64: exact while the result has fewer than about 50 bits.
    wide = d.power(ir.cast(x, DType.F64), ir.cast(y, DType.F64))
    return ir.cast(d.round_even(wide), x.dtype)


def _int_power(x: Node, exponent: int) -> Node:
    result = x
    for _ in range(exponent - 1):
        result = ir.mul(result, x)
    return result


@lowers("Mod", since=10)
def mod(call: Call, a: Node, b: Node) -> Node:
    """fmod=1: the sign of a (C); fmod=0: the sign of b (Python)."""
    a, b = d.broadcast(a, b)
    quotient = ir.div(a, b)
    if a.dtype.is_float:
        toward_zero = d.mul(d.sign(quotient), ir.floor(d.absolute(quotient)))
        # A finite a modulo infinity is a, where the formula would have 0 * inf.
        rest = d.where(d.equal(toward_zero, 0), a, d.sub(a, ir.mul(toward_zero, b)))
    else:
        rest = d.sub(a, ir.mul(quotient, b))
    if call.flag("fmod"):
        return rest
    differ = d.logical_not(ir.equal(d.less(rest, 0), d.less(b, 0)))
    fix = ir.mul(d.logical_not(d.equal(rest, 0)), differ)
    return d.where(fix, ir.add(rest, b), rest)


@lowers("Clip", since=6)
def clip(call: Call, x: Node, low: Node | None = None, high: Node | None = None) -> Node:
    if call.opset < 11:
        low = d.scalar(call.number("min"), x) if call.has("min") else None
        high = d.scalar(call.number("max"), x) if call.has("max") else None
    return d.clip(x, low, high)


@lowers("Where", since=9)
def where(call: Call, cond: Node, a: Node, b: Node) -> Node:
    return d.where(cond, a, b)


@lowers("Cast", since=6)
def cast(call: Call, x: Node) -> Node:
    return ir.cast(x, element_type(call.integer("to")))


@lowers("IsInf", since=10)
def is_inf(call: Call, x: Node) -> Node:
    found = ir.const(False)
    if call.flag("detect_positive", True):
        found = d.add(d.equal(x, math.inf), found)
    if call.flag("detect_negative", True):
        found = d.add(d.equal(x, -math.inf), found)
    return d.broadcast_to(found, x.shape)


# Activations

@lowers("LeakyRelu", since=6)
def leaky_relu(call: Call, x: Node) -> Node:
    return d.where(d.less(x, 0), d.mul(x, call.number("alpha", 0.01)), x)


@lowers("PRelu")
def prelu(call: Call, x: Node, slope: Node) -> Node:
    """Before opset 7 a slope with one axis has an element per channel."""
    if call.opset < 7 and slope.size > 1:
        slope = ir.reshape(slope, (slope.size, *[1] * (len(x.shape) - 2)))
    return d.where(d.less(x, 0), d.mul(x, d.broadcast_to(slope, x.shape)), x)


@d.in_f32
def elu(x: Node, alpha: float) -> Node:
    """x where it is not negative, else alpha (e^x - 1)."""
    return d.where(d.less(x, 0), d.mul(d.sub(d.exp(x), 1), alpha), x)


@lowers("Elu", since=6)
def elu_op(call: Call, x: Node) -> Node:
    return elu(x, call.number("alpha", 1.0))


def hard_sigmoid(x: Node, alpha: float, beta: float) -> Node:
    return d.clip(d.add(d.mul(x, alpha), beta), d.scalar(0, x), d.scalar(1, x))


@lowers("HardSigmoid", since=6)
def hard_sigmoid_op(call: Call, x: Node) -> Node:
    return hard_sigmoid(x, call.number("alpha", 0.2), call.number("beta", 0.5))


@lowers("Gelu", since=20)
def gelu(call: Call, x: Node) -> Node:
    return d.gelu(x, call.text("approximate", "none", ("none", "tanh")))


@lowers("Softmax", "LogSoftmax", "Hardmax", since=1)
def softmax(call: Call, x: Node) -> Node:
    """Before opset 13 the axes from `axis` on are one axis."""
    function = {"Softmax": d.softmax, "LogSoftmax": d.log_softmax, "Hardmax": _hardmax}[call.op]
    if call.opset >= 13:
        return function(x, call.axis(len(x.shape), -1))
    axis = call.axis(len(x.shape), 1, inclusive=True)
    flat = ir.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    return ir.reshape(function(flat, 1), x.shape)


def _hardmax(x: Node, axis: int) -> Node:
    """1 at the first largest element, 0 elsewhere."""
    first = d.unsqueeze(_arg_extreme(x, axis, last=False), axis)
    return ir.cast(d.equal(d.positions(x.shape, axis), first), x.dtype)


# Reductions

def _sum_square(x: Node, axes: list[int]) -> Node:
    return ir.reduce(ir.mul(x, x), "sum", axes)


def _log_sum_exp(x: Node, axes: list[int]) -> Node:
    """log(sum(e^x)), the maximum taken out so that nothing overflows."""
    top = d.reduce_keep(x, "max", axes)
    finite = d.where(d.equal(d.absolute(top), math.inf), d.scalar(0, x), top)
    rest = d.log(d.reduce_keep(d.exp(d.sub(x, finite)), "sum", axes))
    kept = [n for i, n in enumerate(x.shape) if i not in axes]
    return ir.reshape(d.add(rest, finite), kept)


_REDUCE: dict[str, Callable[[Node, list[int]], Node]] = {
    "ReduceSum": lambda x, axes: ir.reduce(x, "sum", axes),
    "ReduceMax": lambda x, axes: ir.reduce(x, "max", axes),
    "ReduceProd": lambda x, axes: ir.reduce(x, "mul", axes),
    "ReduceMin": d.reduce_min,
    "ReduceMean": d.mean,
    "ReduceL1": lambda x, axes: ir.reduce(d.absolute(x), "sum", axes),
    "ReduceL2": d.in_f32(lambda x, axes: ir.sqrt(_sum_square(x, axes))),
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": d.in_f32(lambda x, axes: d.log(ir.reduce(x, "sum", axes))),
    "ReduceLogSumExp": d.in_f32(_log_sum_exp),
}


@lowers(*_REDUCE, since=1)
def reduce(call: Call, x: Node, axes_input: Node | None = None) -> Node:
    rank = len(x.shape)
    empty_means_none = call.flag("noop_with_empty_axes")
    axes = call.axes(axes_input, rank) or ([] if empty_means_none else list(range(rank)))
    result = _REDUCE[call.op](x, axes)
    if call.flag("keepdims", True):
        return ir.reshape(result, [1 if i in axes else n for i, n in enumerate(x.shape)])
    return result


def _arg_extreme(x: Node, axis: int, last: bool) -> Node:
    """Position (i64) of the largest element along the axis, which is removed."""
    found = d.equal(x, d.reduce_keep(x, "max", (axis,)))
    positions = d.positions(x.shape, axis)
    if last:
        return ir.reduce(d.where(found, positions, d.scalar(-1, positions)), "max", (axis,))
    beyond = d.scalar(x.shape[axis], positions)
    return d.reduce_min(d.where(found, positions, beyond), (axis,))


@lowers("ArgMax", "ArgMin", since=1)
def arg_extreme(call: Call, x: Node) -> Node:
    axis = call.axis(len(x.shape), 0)
    values = d.flip(x) if call.op == "ArgMin" else x
    found = _arg_extreme(values, axis, call.flag("select_last_index"))
    return d.unsqueeze(found, axis) if call.flag("keepdims", True) else found


@lowers("CumSum", "CumProd", since=11)
def cumulative(call: Call, x: Node, axis_input: Node) -> Node:
    """Sum or product over windows that end at each element, on x padded in front."""
    rank = len(x.shape)
    axis = normal_axis(int(static_scalar(axis_input, "the axis")), rank)
    length = x.shape[axis]
    if length == 0:
        return x
    reverse, exclusive = call.flag("reverse"), call.flag("exclusive")
    kind, neutral = ("sum", 0) if call.op == "CumSum" else ("mul", 1)
    reach = length - 1 + exclusive
    front, back = (0, reach) if reverse else (reach, 0)
    padded = ir.pad(x, [(0, 0)] * axis + [(front, back)] + [(0, 0)] * (rank - axis - 1), neutral)
    results = ir.reduce(ir.window(padded, [(axis, length, 1, 1)]), kind, (rank,))
    return d.take_range(results, axis, int(exclusive and reverse), length)


@lowers("Range", since=11)
def range_(call: Call, start: Node, limit: Node, delta: Node) -> Node:
    first, stop, step = (static(v, "the bounds of Range").reshape(())[()]
                         for v in (start, limit, delta))
    if step == 0:
        raise ModelError("the step is 0")
    count = max(0, math.ceil((float(stop) - float(first)) / float(step)))
    d.require_small(count)
    return ir.const((first + np.arange(count) * step).astype(first.dtype))


@lowers("Det", since=11)
def determinant(call: Call, x: Node) -> Node:
    """Of the last two axes, expanded by minors: exact enough and small up to 4 x 4."""
    n = x.shape[-1]
    if x.shape[-2] != n or not 1 <= n <= 4:
        raise UnsupportedModel(f"determinants of {x!r}; supported are 1 x 1 to 4 x 4")
    result = _minor(x, list(range(n)))
    return ir.reshape(result, x.shape[:-2])


def _minor(x: Node, columns: list[int]) -> Node:
    """Determinant (.., 1, 1) of the last rows of x in these columns."""
    rank, n = len(x.shape), x.shape[-1]
    row = d.take_range(x, rank - 2, n - len(columns), 1)
    terms = []
    for i, column in enumerate(columns):
        factor = d.take_range(row, rank - 1, column, 1)
        rest = columns[:i] + columns[i + 1:]
        term = ir.mul(factor, _minor(x, rest)) if rest else factor
        terms.append(d.negate(term) if i % 2 else term)
    return functools.reduce(ir.add, terms)


@lowers("Einsum", since=12)
def einsum(call: Call, *operands: Node) -> Node:
    """All operands with one axis per letter, multiplied, summed over letters not in the result."""
    terms, arrow, result = call.text("equation").replace(" ", "").partition("->")
    given = terms.split(",")
    if len(given) != len(operands):
        raise ModelError(f"{len(given)} terms for {len(operands)} operands")
    given = [_without_dots(t, len(x.shape)) for t, x in zip(given, operands, strict=True)]
    every = "".join(given)
    dots = "".join(sorted(filter(str.isdigit, set(every)), reverse=True))
    once = "".join(sorted(c for c in set(every) if every.count(c) == 1 and not c.isdigit()))
    wanted = result.replace("...", dots) if arrow else dots + once
    letters = wanted + "".join(sorted(set(every) - set(wanted)))
    if not set(wanted) <= set(every):
        raise ModelError(f"the result {wanted!r} has letters that no operand has")
    aligned = [_aligned(x, t, letters) for x, t in zip(operands, given, strict=True)]
    product = functools.reduce(d.mul, aligned)
    return ir.reduce(product, "sum", range(len(wanted), len(letters)))


def _without_dots(term: str, rank: int) -> str:
    """The letters of a term; the axes of an ellipsis are digits, counted from the last one."""
    count = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(map(str, reversed(range(count)))))


def _aligned(x: Node, term: str, letters: str) -> Node:
    """x with an axis for each of the letters, of length 1 where it has none."""
    if len(term) != len(x.shape):
        raise ModelError(f"the term {term!r} does not fit {x!r}")
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:  # a letter twice: the diagonal
            first = term.index(letter)
            second = term.index(letter, first + 1)
            x = _diagonal(x, first, second)
            term = term[:second] + term[second + 1:]
    present = [c for c in letters if c in term]
    x = ir.permute(x, [term.index(c) for c in present])
    lengths = dict(zip(present, x.shape, strict=True))
    return ir.reshape(x, [lengths.get(c, 1) for c in letters])


def _diagonal(x: Node, first: int, second: int) -> Node:
    """x[.., i, .., i, ..] with i at the first axis."""
    n = x.shape[first]
    order = [a for a in range(len(x.shape)) if a not in (first, second)]
    flat = ir.permute(x, [*order, first, second])
    flat = ir.reshape(flat, (*flat.shape[:-2], n * x.shape[second]))
    picked = d.take_range(flat, len(order), 0, n, n + 1)
    return ir.permute(picked, [*range(first), len(order), *range(first, len(order))])
