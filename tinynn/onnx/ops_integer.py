"""Lowerings: quantisation, and products of quantised tensors.

A quantised value q with scale s and zero point z stands for (q - z) * s. Scale and zero point are
one number, one per element of an axis, or one per block of an axis.
"""
from __future__ import annotations

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError
from tinynn.onnx.ops_nn import convolution
from tinynn.onnx.protos import element_type
from tinynn.onnx.registry import Call, lowers

_LAST_PLACE_1 = 1.5 * 2.0 ** 23  # f32 numbers of this size are whole


def _fitted(call: Call, x: Node, values: Node) -> Node:
    """Scale or zero point of x, ready to broadcast against it."""
    axis = call.axis(len(x.shape), 1) if len(x.shape) > 1 else 0
    block = call.integer("block_size", 0)
    if values.size == 1:
        return ir.reshape(values, ())
    if len(values.shape) == 1:
        return _along(values, x, axis)
    if not block or len(values.shape) != len(x.shape):
        raise ModelError(f"{values!r} is no scale or zero point of {x!r}")
    spread = ir.expand(d.unsqueeze(values, axis + 1),
                       (*values.shape[:axis + 1], block, *values.shape[axis + 1:]))
    length = values.shape[axis] * block
    flat = ir.reshape(spread, (*values.shape[:axis], length, *values.shape[axis + 1:]))
    return d.take_range(flat, axis, 0, x.shape[axis])


def _along(values: Node, x: Node, axis: int) -> Node:
    """(n,) as an axis of x, or one number, ready to broadcast."""
    if values.size == 1:
        return ir.reshape(values, ())
    return ir.reshape(values, [values.size if i == axis else 1 for i in range(len(x.shape))])


@lowers("QuantizeLinear", since=10)
def quantize(call: Call, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """saturate(round_half_even(x / scale) + zero)."""
    wanted = call.integer("output_dtype", 0)
    target = element_type(wanted) if wanted else DType.U8
    value = d.div(ir.cast(x, DType.F32), ir.cast(_fitted(call, x, scale), DType.F32))
    if zero is None:
        return _saturated(value, None, target)
    return _saturated(value, ir.cast(_fitted(call, x, zero), DType.F32), zero.dtype)


def _saturated(value: Node, zero: Node | None, target: DType) -> Node:
    """saturate(round_half_even(value) + zero), for integers of up to 16 bits."""
    limits = np.iinfo(target.numpy)
    low, high = (d.scalar(float(limit), value) for limit in (limits.min, limits.max))
    if zero is not None:
        low, high = d.sub(low, zero), d.sub(high, zero)
    # What is clamped to whole numbers first is small, and adding to a small number one whose last
    # place is 1 rounds it.
    clamped = d.maximum(d.where(d.less(high, value), high, value), low)
    rounded = d.sub(d.add(clamped, _LAST_PLACE_1), _LAST_PLACE_1)
    return ir.cast(rounded if zero is None else d.add(rounded, zero), target)


@lowers("DequantizeLinear", since=10)
def dequantize(call: Call, x: Node, scale: Node, zero: Node | None = None) -> Node:
    """(x - zero) * scale."""
    value = ir.cast(x, DType.F32)
    if zero is not None:
        value = d.sub(value, ir.cast(_fitted(call, x, zero), DType.F32))
    return ir.cast(d.mul(value, ir.cast(_fitted(call, x, scale), DType.F32)), scale.dtype)


def _centred(x: Node, zero: Node | None, axis: int) -> Node:
    """x - zero as i32; the zero point is one number or one per element of the axis."""
    wide = ir.cast(x, DType.I32)
    return wide if zero is None else d.sub(wide, _along(ir.cast(zero, DType.I32), x, axis))


def _requantised(total: Node, factor: Node, zero: Node) -> Node:
    """saturate(round(total * factor) + zero) in the dtype of zero."""
    value = d.mul(ir.cast(total, DType.F32), factor)
    return _saturated(value, ir.cast(ir.reshape(zero, ()), DType.F32), zero.dtype)


@lowers("MatMulInteger", since=10)
def matmul_integer(call: Call, a: Node, b: Node, a_zero: Node | None = None,
                   b_zero: Node | None = None) -> Node:
    """Zero points per row of a, per column of b."""
    return d.matmul(_centred(a, a_zero, len(a.shape) - 2), _centred(b, b_zero, len(b.shape) - 1))


@lowers("QLinearMatMul", since=10)
def qlinear_matmul(call: Call, a: Node, a_scale: Node, a_zero: Node, b: Node, b_scale: Node,
                   b_zero: Node, y_scale: Node, y_zero: Node) -> Node:
    total = matmul_integer(call, a, b, a_zero, b_zero)
    left = _along(ir.cast(a_scale, DType.F32), a, len(a.shape) - 2)
    right = _along(ir.cast(b_scale, DType.F32), b, len(b.shape) - 1)
    factor = d.div(d.mul(left, right), ir.cast(ir.reshape(y_scale, ()), DType.F32))
    return _requantised(total, factor, y_zero)


@lowers("ConvInteger", since=10)
def conv_integer(call: Call, x: Node, weight: Node, x_zero: Node | None = None,
                 weight_zero: Node | None = None) -> Node:
    """Zero point of the weight per filter."""
    return convolution(call, _centred(x, x_zero, 1), _centred(weight, weight_zero, 0))


@lowers("QLinearConv", since=10)
def qlinear_conv(call: Call, x: Node, x_scale: Node, x_zero: Node, weight: Node, w_scale: Node,
                 w_zero: Node, y_scale: Node, y_zero: Node, bias: Node | None = None) -> Node:
    """The bias is i32, with the scale x_scale * w_scale."""
    total = convolution(call, _centred(x, x_zero, 1), _centred(weight, w_zero, 0), bias)
    factor = d.div(d.mul(x_scale, _along(w_scale, total, 1)), ir.reshape(y_scale, ()))
    return _requantised(total, factor, y_zero)
