"""Constant operands of contractions, put into the order in which the inner loop reads them."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinynn.index import Atom, Axis, Expr, Quotient, Remainder, RunTime, ceil_div
from tinynn.ir import DType
from tinynn.kernel import Load, Tensor, Value

Array = np.ndarray[Any, Any]


def is_constant(value: Value) -> bool:
    """A weight read unconditionally at an index that is known at compile time."""
    return (isinstance(value, Load) and value.tensor.kind == "weight" and not value.when
            and not any(isinstance(a, RunTime) for e in value.index for a in e.atoms))


def batch_axes(value: Value, outer: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The outer axes along which a constant operand differs."""
    assert isinstance(value, Load)
    return tuple(a for a in outer if a in value.offset.axes)


def pack(value: Value, outer: tuple[Axis, ...], axes: tuple[Axis, ...], k_axes: tuple[Axis, ...],
         block: int, half: bool) -> Tensor:
    """A constant operand as [batch][block of `axes`][k][place in block], zero where it ends.

    outer: axes around the contraction; those the operand depends on are its batch.
    half: hold it in f16 if that loses nothing.
    """
    assert isinstance(value, Load) and value.tensor.data is not None
    offsets = evaluate(value.offset, (*batch_axes(value, outer), *axes, *k_axes))
    depth = math.prod(a.size for a in k_axes)
    count = math.prod(a.size for a in axes)
    blocks = ceil_div(count, block)
    values = value.tensor.data.reshape(-1)[offsets].reshape(-1, count, depth)
    padded = np.zeros((len(values), blocks * block, depth), np.float32)
    padded[:, :count] = values
    packed = padded.reshape(-1, blocks, block, depth).transpose(0, 1, 3, 2)
    packed = np.ascontiguousarray(packed)
    small = as_exact_f16(packed) if half else None
    name = f"{value.tensor.name}, packed by {block}"
    if small is not None:
        return Tensor("weight", name, DType.F16, packed.shape, small)
    return Tensor("weight", name, DType.F32, packed.shape, packed)


def as_exact_f16(values: Array) -> Array | None:
    """f32 values as f16, or None if that would change a bit of any."""
    with np.errstate(all="ignore"):
        small = values.astype(np.float16)
    same = np.array_equal(small.astype(np.float32).view(np.uint32), values.view(np.uint32))
    return small if same else None


def evaluate(expr: Expr, axes: tuple[Axis, ...]) -> Array:
    """The expression at every point of the axes: an int64 array of their sizes."""
    total = np.full([a.size for a in axes], expr.const, np.int64)
    for atom, factor in expr.terms:
        total = total + _atom_values(atom, axes) * factor
    return total


def _atom_values(atom: Atom, axes: tuple[Axis, ...]) -> Array:
    if isinstance(atom, Axis):
        shape = [atom.size if a == atom else 1 for a in axes]
        return np.arange(atom.size, dtype=np.int64).reshape(shape)
    assert isinstance(atom, Quotient | Remainder)
    inner = evaluate(atom.dividend, axes)
    return inner // atom.divisor if isinstance(atom, Quotient) else inner % atom.divisor
