"""Lowerings: arithmetic, comparisons, activations, reductions."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError
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


@lowers(*_BINARY, since=7)
def binary(call: Call, a: Node, b: Node) -> Node:
    return _BINARY[call.op](a, b)


_UNARY: dict[str, Callable[[Node], Node]] = {
    "Identity": lambda x: x, "Neg": d.negate, "Abs": d.absolute, "Sign": d.sign,
    "Sqrt": ir.sqrt, "Floor": ir.floor, "Ceil": d.ceil, "Round": d.round_even,
    "Exp": d.exp, "Log": d.log, "Sin": ir.sin, "Cos": d.cos, "Not": d.logical_not,
    "Relu": d.relu, "Sigmoid": d.sigmoid, "Tanh": d.tanh, "Erf": d.erf, "Softplus": d.softplus,
    "Reciprocal": lambda x: d.div(d.scalar(1, x), x),
    "Softsign": lambda x: d.div(x, d.add(d.absolute(x), 1)),
    "HardSwish": lambda x: d.mul(x, hard_sigmoid(x, 1 / 6, 0.5)),
    "Mish": d.in_f32(lambda x: d.mul(x, d.tanh(d.softplus(x)))),
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


@lowers("Pow", since=7)
def power(call: Call, x: Node, y: Node) -> Node:
    """Constant exponents become multiplications and square roots where they can."""
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


@lowers("CastLike", since=15)
def cast_like(call: Call, x: Node, target: Node) -> Node:
    return ir.cast(x, target.dtype)


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


@lowers("PRelu", since=7)
def prelu(call: Call, x: Node, slope: Node) -> Node:
    return d.where(d.less(x, 0), d.mul(x, d.broadcast_to(slope, x.shape)), x)


@lowers("ThresholdedRelu", since=10)
def thresholded_relu(call: Call, x: Node) -> Node:
    alpha = d.scalar(call.number("alpha", 1.0), x)
    return d.where(d.less(alpha, x), x, d.scalar(0, x))


def elu_like(x: Node, alpha: float, gamma: float = 1.0) -> Node:
    """gamma * x for x > 0, else gamma * alpha * (e^x - 1)."""
    below = d.mul(d.sub(d.exp(x), 1), alpha)
    value = d.where(d.less(x, 0), below, x)
    return value if gamma == 1.0 else d.mul(value, gamma)


@lowers("Elu", since=6)
def elu(call: Call, x: Node) -> Node:
    return d.in_f32(elu_like)(x, call.number("alpha", 1.0))


@lowers("Selu", since=6)
def selu(call: Call, x: Node) -> Node:
    alpha = call.number("alpha", 1.67326319217681884765625)
    return d.in_f32(elu_like)(x, alpha, call.number("gamma", 1.05070102214813232421875))


@lowers("Celu", since=12)
def celu(call: Call, x: Node) -> Node:
    """max(x, 0) + min(alpha (e^(x / alpha) - 1), 0)."""
    alpha = call.number("alpha", 1.0)
    return d.where(d.less(x, 0), d.mul(d.sub(d.exp(d.div(x, alpha)), 1), alpha), x)


def hard_sigmoid(x: Node, alpha: float, beta: float) -> Node:
    return d.clip(d.add(d.mul(x, alpha), beta), d.scalar(0, x), d.scalar(1, x))


@lowers("HardSigmoid", since=6)
def hard_sigmoid_op(call: Call, x: Node) -> Node:
    return hard_sigmoid(x, call.number("alpha", 0.2), call.number("beta", 0.5))


@lowers("Gelu", since=20)
def gelu(call: Call, x: Node) -> Node:
    return d.gelu(x, call.text("approximate", "none", ("none", "tanh")))


@lowers("Swish", since=24)
def swish(call: Call, x: Node) -> Node:
    return d.in_f32(lambda v: d.mul(v, d.sigmoid(d.mul(v, call.number("alpha", 1.0)))))(x)


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
    positions = d.broadcast_to(_positions(x, axis), x.shape)
    return ir.cast(d.equal(positions, first), x.dtype)


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


def _positions(x: Node, axis: int) -> Node:
    """0, 1, 2, ... along the axis, length 1 along all others."""
    shape = [n if i == axis else 1 for i, n in enumerate(x.shape)]
    return ir.const(np.arange(x.shape[axis], dtype=np.int64).reshape(shape))


def _arg_extreme(x: Node, axis: int, last: bool) -> Node:
    """Position (i64) of the largest element along the axis, which is removed."""
    found = d.equal(x, d.reduce_keep(x, "max", (axis,)))
    positions = d.broadcast_to(_positions(x, axis), x.shape)
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


@lowers("CumSum", since=11)
def cumsum(call: Call, x: Node, axis_input: Node) -> Node:
    """Sum over windows that end at each element, on x padded in front with zeros."""
    rank = len(x.shape)
    axis = normal_axis(int(static_scalar(axis_input, "the axis")), rank)
    length = x.shape[axis]
    if length == 0:
        return x
    reverse, exclusive = call.flag("reverse"), call.flag("exclusive")
    front, back = (0, length - 1) if reverse else (length - 1, 0)
    padded = ir.pad(x, [(front, back) if i == axis else (0, 0) for i in range(rank)])
    sums = ir.reduce(ir.window(padded, [(axis, length, 1, 1)]), "sum", (rank,))
    return d.sub(sums, x) if exclusive else sums


# Quantisation

def _per_axis(call: Call, x: Node, values: Node, name: str = "axis") -> Node:
    """A scale or zero point per tensor or per element of an axis, ready to broadcast."""
    if values.size == 1:
        return ir.reshape(values, ())
    if len(values.shape) != 1 or call.integer("block_size", 0):
        raise ModelError("blocked quantisation is not supported")
    axis = call.axis(len(x.shape), 1)
    return ir.reshape(values, [n if i == axis else 1 for i, n in enumerate(x.shape)])


@lowers("QuantizeLinear", since=10)
def quantize(call: Call, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """saturate(round_half_even(x / scale) + zero)."""
    wanted = call.integer("output_dtype", 0)
    target = element_type(wanted) if wanted else DType.U8
    if zero is not None:
        target = zero.dtype
    wide = ir.cast(x, DType.F32)
    value = d.round_even(d.div(wide, ir.cast(_per_axis(call, x, scale), DType.F32)))
    if zero is not None:
        value = d.add(value, ir.cast(_per_axis(call, x, zero), DType.F32))
    return ir.cast(value, target)


@lowers("DequantizeLinear", since=10)
def dequantize(call: Call, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """(x - zero) * scale."""
    value = ir.cast(x, DType.F32)
    if zero is not None:
        value = d.sub(value, ir.cast(_per_axis(call, x, zero), DType.F32))
    return ir.cast(d.mul(value, ir.cast(_per_axis(call, x, scale), DType.F32)), scale.dtype)


@lowers("DynamicQuantizeLinear", since=11)
def dynamic_quantize(call: Call, x: Node) -> list[Node]:
    """To u8 with the scale that just holds the range of x and 0: values, scale, zero point."""
    axes = range(len(x.shape))
    low = d.minimum(d.reduce_min(x, list(axes)), d.scalar(0, x))
    high = d.maximum(ir.reduce(x, "max", axes), 0)
    scale = d.div(d.sub(high, low), 255)
    scale = d.where(d.equal(scale, 0), d.scalar(1, x), scale)
    zero = d.round_even(d.div(d.negate(low), scale))
    values = d.add(d.round_even(d.div(x, scale)), zero)
    return [ir.cast(values, DType.U8), scale, ir.cast(zero, DType.U8)]


@lowers("Range", since=11)
def range_(call: Call, start: Node, limit: Node, delta: Node) -> Node:
    first, stop, step = (static(v, "the bounds of Range").reshape(())[()]
                         for v in (start, limit, delta))
    if step == 0:
        raise ModelError("the step is 0")
    count = max(0, math.ceil((float(stop) - float(first)) / float(step)))
    if count > 1 << 24:
        raise ModelError(f"a range of {count} elements")
    return ir.const((first + np.arange(count) * step).astype(first.dtype))
