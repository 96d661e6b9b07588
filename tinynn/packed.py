"""Products of small groups: pairs of bf16 or quadruples of bytes, which a lane takes in one step.

A contraction is packed if its factors hold nothing but numbers of few bytes, whatever type the
graph computes in: bf16 numbers, or q - zero with q of 8 bits times weights of 8 bits. Groups of
neighbours along one reduced axis then lie together, four bytes to a group. Sums of bytes are exact:

    sum (q - zero) * w = sum q * w - zero * sum w
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinynn.index import Axis, of, round_up
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Reduction, Tensor, Value, value_axes
from tinynn.machine import Machine
from tinynn.pack import Array, evaluate, is_constant

GROUP_BYTES = 4  # of a group: a lane of an f32 vector
MOST_WEIGHT = 127  # largest byte of a scaled weight


@dataclass(frozen=True)
class Packing:
    """A contraction whose factors are narrow.

    kernel: reduced axes in another order: groups are neighbours along the last one.
    factors: in their narrow dtype. dtype: bf16, or u8 for bytes; signed ones are then read as
        q + 128. zero: the byte that stands for 0.
    start: what integer sums begin with, for each result that has weights of its own.
    scale: likewise, by what integer sums are multiplied; None if the sum itself is an integer.
    """

    kernel: Kernel
    factors: tuple[Value, Value]
    dtype: DType
    zero: int = 0
    start: Load | None = None
    scale: Load | None = None

    @property
    def group(self) -> int:
        return GROUP_BYTES // self.dtype.itemsize


def packing(kernel: Kernel, machine: Machine) -> Packing | None:
    """How the products of a kernel may be taken in groups; None if they may not."""
    reduction = kernel.reduction
    if reduction is None or reduction.kind != "sum" or not reduction.axes:
        return None
    if machine.has_bf16 and reduction.dtype is DType.F32:
        grouped = kernel.substitute({}, reduced=_grouped(reduction.axes, 2))
        left, right = map(as_bf16, _factors(grouped) or (None, None))
        if left is not None and right is not None and not (is_constant(left) and
                                                           is_constant(right)):
            return Packing(grouped, (left, right), DType.BF16)
    if machine.has_vnni and reduction.dtype in (DType.F32, DType.I32):
        grouped = kernel.substitute({}, reduced=_grouped(reduction.axes, 4))
        factors = _factors(grouped)
        for data, weights in (factors, factors[::-1]) if factors else ():
            found = _bytes(grouped, data, weights)
            if found is not None:
                return found
    return None


def _factors(kernel: Kernel) -> tuple[Value, Value] | None:
    assert kernel.reduction is not None
    body = kernel.reduction.body
    if isinstance(body, Compute) and body.op is Op.MUL:
        return body.src[0], body.src[1]
    return None


def _grouped(axes: tuple[Axis, ...], group: int) -> tuple[Axis, ...]:
    """The axes, last the one whose length loses least by being rounded up to whole groups."""
    last = min(axes, key=lambda a: (round_up(a.size, group) / a.size, -a.size))
    return (*(a for a in axes if a != last), last)


def as_bf16(value: Value | None) -> Value | None:
    """An f32 value as one of dtype bf16, or as a constant that loses nothing; else None."""
    if value is None or isinstance(value, Literal):
        return None
    if is_constant(value):
        return value if _on_grid(value) else None
    if isinstance(value, Compute) and value.op is Op.CAST and value.src[0].dtype is DType.BF16:
        return value.src[0]
    if isinstance(value, Guard) and value.fill == 0:
        return _guarded(value, as_bf16)
    return None


def _guarded(value: Guard, narrow: Callable[[Value], Value | None]) -> Value | None:
    """A value or 0, with the value narrow."""
    inner = narrow(value.value)
    if isinstance(inner, Load) and inner.when == value.when:
        return replace(inner, fill=0)
    if isinstance(inner, Compute) and isinstance(source := inner.src[0], Load) and (
            source.when == value.when):
        return replace(inner, src=(replace(source, fill=0),))
    return inner and replace(value, value=inner)


def _on_grid(value: Value) -> bool:
    """Whether all values of a constant are bf16 numbers."""
    assert isinstance(value, Load) and value.tensor.data is not None
    data = value.tensor.data
    return data.dtype == np.float32 and not np.any(data.view(np.uint32) & 0xFFFF)


def _bytes(kernel: Kernel, data: Value, weights: Value) -> Packing | None:
    """The packing of dequantised bytes times weights that are bytes times a scale."""
    bytes_of = _dequantised(data)
    if bytes_of is None or not is_constant(weights):
        return None
    load, scale, zero = bytes_of
    reduction = kernel.reduction
    assert isinstance(reduction, Reduction) and isinstance(weights, Load)
    assert weights.tensor.data is not None
    used = value_axes(weights, {})
    own = tuple(a for a in kernel.axes if a in used)
    inner = tuple(a for a in reduction.axes if a in used)
    if inner != reduction.axes:
        return None
    values = weights.tensor.data.reshape(-1)[evaluate(weights.offset, (*own, *inner))]
    found = _as_bytes(values.reshape(-1, int(np.prod([a.size for a in inner]))))
    if found is None:
        return None
    numbers, scales = found
    if load.dtype is DType.I8:
        zero += 128
    start = -zero * numbers.sum(axis=1, dtype=np.int64)
    if abs(start).max() + 255 * MOST_WEIGHT * numbers.shape[1] >= 2 ** 31:
        return None
    name = weights.tensor.name
    narrow = _constant(f"{name} in bytes", numbers.astype(np.int8), (*own, *inner))
    is_integer = reduction.dtype is DType.I32
    fill = zero - (128 if load.dtype is DType.I8 else 0)
    return Packing(
        kernel, (replace(load, fill=fill), narrow), DType.U8, zero,
        _constant(f"{name}: zero", start.astype(np.int32), own),
        None if is_integer else _constant(f"{name}: scale",
                                          scales * np.float32(scale), own))


def _constant(name: str, values: Array, axes: tuple[Axis, ...]) -> Load:
    shape = tuple(a.size for a in axes)
    data = np.ascontiguousarray(values.reshape(shape))
    return Load(Tensor("weight", name, DType.of(data.dtype), shape, data),
                tuple(of(a) for a in axes))


def _dequantised(value: Value) -> tuple[Load, float, int] | None:
    """(q, scale, zero) of a value scale * (q - zero), with q a load of bytes; 0 where the
    conditions of q do not hold."""
    if isinstance(value, Guard):
        found = _dequantised(value.value)
        return found if found and found[0].when == value.when and value.fill == 0 else None
    if not isinstance(value, Compute):
        return None
    if value.op is Op.CAST:
        load = value.src[0]
        known = isinstance(load, Load) and load.dtype in (DType.U8, DType.I8)
        return (load, 1.0, 0) if known and isinstance(load, Load) else None
    if value.op not in (Op.ADD, Op.MUL):
        return None
    for literal, rest in (value.src, value.src[::-1]):
        found = _dequantised(rest) if isinstance(literal, Literal) else None
        if found is None or not isinstance(literal, Literal):
            continue
        load, scale, zero = found
        if value.op is Op.MUL:
            return load, scale * float(literal.value), zero
        shifted = zero - int(literal.value)
        if scale == 1 and literal.value == int(literal.value) and 0 <= shifted + (
                128 if load.dtype is DType.I8 else 0) <= 255:
            return load, scale, shifted
    return None


def _as_bytes(rows: Array) -> tuple[Array, Array] | None:
    """Rows of weights as bytes and a scale for each row, if every weight is exactly its byte times
    the scale of its row in f32 arithmetic."""
    if rows.dtype == np.int32:
        fits = rows.min() >= -128 and rows.max() <= MOST_WEIGHT
        return (rows, np.ones(len(rows), np.float32)) if fits else None
    if rows.dtype != np.float32 or not np.isfinite(rows).all():
        return None
    numbers, scales = np.zeros(rows.shape, np.int32), np.ones(len(rows), np.float32)
    for i, row in enumerate(rows):
        found = _scale_of(row)
        if found is None:
            return None
        numbers[i], scales[i] = found
    return numbers, scales


def _scale_of(row: Array) -> tuple[Array, np.float32] | None:
    """Bytes and scale of one row of weights. The largest weight is some byte times the scale,
    rounded: quantisers make it 127, so that is tried first."""
    largest = np.abs(row).max()
    if largest == 0:
        return np.zeros(row.shape, np.int32), np.float32(1)
    for byte in range(MOST_WEIGHT + 1, 0, -1):
        near = np.float32(largest / np.float32(byte))
        for scale in (near, np.nextafter(near, np.float32(0)),
                      np.nextafter(near, np.float32(np.inf))):
            numbers = np.rint(row / scale)
            if np.array_equal(numbers * scale, row) and -128 <= numbers.min() and (
                    numbers.max() <= MOST_WEIGHT):
                return numbers.astype(np.int32), scale
    return None


def innermost_load(value: Value) -> Load | None:
    """The load of a narrow value that is a load, or one that is rounded."""
    if isinstance(value, Compute) and value.op is Op.CAST:
        value = value.src[0]
    return value if isinstance(value, Load) else None


def with_load(value: Value, load: Load) -> Value:
    """The value with its innermost load replaced."""
    return replace(value, src=(load,)) if isinstance(value, Compute) else load
