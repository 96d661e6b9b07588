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
         block: int, half: bool, group: int = 1) -> Tensor:
    """A constant operand as [batch][block of `axes`][step of k][place in block][place in group],
    zero where it ends.

    outer: axes around the contraction; those the operand depends on are its batch.
    half: hold it in f16 if that loses nothing. group: of neighbours along the last axis of k; f32
    operands that are packed so are held in bf16, whose numbers they are.
    """
    assert isinstance(value, Load) and value.tensor.data is not None
    offsets = evaluate(value.offset, (*batch_axes(value, outer), *axes, *k_axes))
    count, last = math.prod(a.size for a in axes), k_axes[-1].size
    blocks, groups = ceil_div(count, block), ceil_div(last, group)
    values = value.tensor.data.reshape(-1)[offsets].reshape(*offsets.shape[:-1], last)
    values = values.reshape(math.prod(a.size for a in batch_axes(value, outer)), count, -1, last)
    batch, _, rest, _ = values.shape
    padded = np.zeros((batch, blocks * block, rest, groups * group), values.dtype)
    padded[:, :count, :, :last] = values
    packed = padded.reshape(batch, blocks, block, rest * groups, group).swapaxes(2, 3)
    name = f"{value.tensor.name}, packed by {block}"
    if group > 1:
        dtype = DType.BF16 if values.dtype == np.float32 else DType.of(values.dtype)
        narrow = np.ascontiguousarray(packed).astype(dtype.numpy)
        return Tensor("weight", f"{name} x {group}", dtype, narrow.shape, narrow)
    packed = np.ascontiguousarray(packed[..., 0])
    small = as_exact_f16(packed) if half else None
    if small is not None:
        return Tensor("weight", name, DType.F16, packed.shape, small)
    return Tensor("weight", name, DType.of(packed.dtype), packed.shape, packed)


def pack_results(value: Load | None, outer: tuple[Axis, ...], axes: tuple[Axis, ...],
                 block: int) -> Tensor | None:
    """A constant for each result as [batch][block of `axes`][place in block]; None stays None."""
    if value is None:
        return None
    return pack(value, outer, axes, (Axis("one", 1),), block, half=False)


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
