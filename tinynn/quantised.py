"""Sums of dequantised products as sums of integers.

A quantised model multiplies scale * (q - zero), with q a byte, by weights that are bytes times a
scale of their own. Both scales can stand outside of the sum, which is then exact in any order and,
up to 2^24, in f32 too; that keeps the next rounding to a byte from falling to the other side.
"""
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tinynn.index import Axis, of
from tinynn.ir import DType, Op
from tinynn.kernel import (
    Compute,
    Guard,
    Kernel,
    Literal,
    Load,
    Reduction,
    Tensor,
    Value,
    replaced,
    value_axes,
)
from tinynn.pack import Array, evaluate, is_constant

LARGEST_BYTE = 127


def integer_sums(kernel: Kernel) -> Kernel:
    """The kernel with the scales of dequantised factors outside of its sum, if it has such."""
    reduction = kernel.reduction
    if reduction is None or reduction.kind != "sum" or reduction.dtype is not DType.F32:
        return kernel
    body = reduction.body
    if not isinstance(body, Compute) or body.op is not Op.MUL:
        return kernel
    for data, weights in (body.src, body.src[::-1]):
        found = dequantised(data)
        whole = _whole_weights(kernel, reduction, weights) if found is not None else None
        if found is not None and whole is not None:
            load, scale, zero = found
            numbers, scales = whole
            scales = replace(scales, tensor=_scaled(scales.tensor, scale))
            product = Compute(Op.MUL, DType.F32, (_centred(load, zero), numbers))
            total = replace(reduction, body=product)
            scaled = Compute(Op.MUL, DType.F32, (total, scales))
            return replace(kernel, value=replaced(kernel.value, {id(reduction): scaled}))
    return kernel


def dequantised(value: Value) -> tuple[Load, float, int] | None:
    """(q, scale, zero) of a value scale * (q - zero), with q a load of bytes; 0 where the
    conditions of q do not hold."""
    if isinstance(value, Guard):
        found = dequantised(value.value)
        return found if found and found[0].when == value.when and value.fill == 0 else None
    if not isinstance(value, Compute):
        return None
    if value.op is Op.CAST and isinstance(load := value.src[0], Load):
        return (load, 1.0, 0) if load.dtype in (DType.U8, DType.I8) else None
    if value.op not in (Op.ADD, Op.MUL):
        return None
    for literal, rest in (value.src, value.src[::-1]):
        found = dequantised(rest) if isinstance(literal, Literal) else None
        if found is None or not isinstance(literal, Literal):
            continue
        load, scale, zero = found
        if value.op is Op.MUL:
            return load, scale * float(literal.value), zero
        limits = np.iinfo(load.dtype.numpy)
        shifted = zero - literal.value
        if scale == 1 and shifted == int(shifted) and limits.min <= shifted <= limits.max:
            return load, scale, int(shifted)
    return None


def _centred(load: Load, zero: int) -> Value:
    """q - zero as f32; 0 outside of the data."""
    wide = Compute(Op.CAST, DType.F32, (load,))
    value = Compute(Op.ADD, DType.F32, (wide, Literal(-zero, DType.F32)))
    return Guard(load.when, value, 0.0) if load.when else value


def _whole_weights(kernel: Kernel, reduction: Reduction,
                   weights: Value) -> tuple[Load, Load] | None:
    """Constant weights as bytes in f32, and the scale of all those of one result."""
    if not is_constant(weights) or not isinstance(weights, Load):
        return None
    used = value_axes(weights, {})
    own = tuple(a for a in kernel.axes if a in used)
    if not used >= set(reduction.axes) or weights.tensor.data is None:
        return None
    offsets = evaluate(weights.offset, (*own, *reduction.axes))
    rows = weights.tensor.data.reshape(-1)[offsets].reshape(math.prod(a.size for a in own), -1)
    found = [bytes_and_scale(row) for row in rows]
    if any(pair is None for pair in found):
        return None
    numbers, scales = zip(*(pair for pair in found if pair is not None), strict=True)
    name = weights.tensor.name
    return (constant_of(f"{name}, bytes", np.stack(numbers), (*own, *reduction.axes)),
            constant_of(f"{name}, scales", np.array(scales), own))


def constant_of(name: str, values: Array, axes: tuple[Axis, ...]) -> Load:
    """A constant with a value for every point of the axes."""
    shape = tuple(a.size for a in axes)
    data = np.ascontiguousarray(values.reshape(shape))
    return Load(Tensor("weight", name, DType.of(data.dtype), shape, data),
                tuple(of(a) for a in axes))


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    assert tensor.data is not None
    return replace(tensor, data=tensor.data * np.float32(factor))


def bytes_and_scale(row: Array) -> tuple[Array, np.float32] | None:
    """Bytes and the scale by which they are multiplied, if that gives every weight exactly.

    The largest weight is some byte times the scale, rounded. Quantisers make it 127: that is tried
    first.
    """
    largest = np.abs(row).max(initial=0)
    if largest == 0 or not np.isfinite(largest):
        return (np.zeros_like(row), np.float32(1)) if largest == 0 else None
    for byte in range(LARGEST_BYTE + 1, 0, -1):
        near = np.float32(largest / np.float32(byte))
        for scale in (near, np.nextafter(near, np.float32(0)),
                      np.nextafter(near, np.float32(np.inf))):
            numbers = np.rint(row / scale)
            if np.array_equal(numbers * scale, row) and numbers.max() <= LARGEST_BYTE:
                return numbers, scale
    return None
