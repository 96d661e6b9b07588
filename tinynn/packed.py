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

from tinynn.cost import points
from tinynn.index import Axis, round_up
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Value, value_axes
from tinynn.machine import Machine
from tinynn.pack import evaluate, is_constant
from tinynn.quantised import constant_of, dequantised

GROUP_BYTES = 4  # of a group: a lane of an f32 vector
LONGEST_EXACT = (1 << 31) // (255 * 128)  # products of bytes whose sum is below 2^31


@dataclass(frozen=True)
class Packing:
    """A contraction whose factors are narrow.

    kernel: reduced axes in another order: groups are neighbours along the last one.
    factors: in their narrow dtype. dtype: bf16, or u8 for bytes; signed ones are then read as
        q + 128. zero: the byte that stands for 0.
    start: what integer sums begin with, for each result that has weights of its own.
    """

    kernel: Kernel
    factors: tuple[Value, Value]
    dtype: DType
    zero: int = 0
    start: Load | None = None

    @property
    def group(self) -> int:
        return GROUP_BYTES // self.dtype.itemsize


def packing(kernel: Kernel, machine: Machine) -> Packing | None:
    """How the products of a kernel may be taken in groups; None if they may not."""
    reduction = kernel.reduction
    if reduction is None or reduction.kind != "sum" or points(reduction.axes) < 2:
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
    """The packing of (q - zero) times whole weights of a byte."""
    found = dequantised(data)
    reduction = kernel.reduction
    if found is None or found[1] != 1 or not is_constant(weights) or reduction is None:
        return None
    load, _, zero = found
    assert isinstance(weights, Load) and weights.tensor.data is not None
    values = weights.tensor.data
    numbers = values.astype(np.int8)
    used = value_axes(weights, {})
    overflows = reduction.dtype is DType.F32 and points(reduction.axes) > LONGEST_EXACT
    if overflows or not np.array_equal(numbers, values) or not used >= set(reduction.axes):
        return None
    own = tuple(a for a in kernel.axes if a in used)
    narrow = replace(weights, tensor=replace(weights.tensor, dtype=DType.I8, data=numbers))
    sums = numbers.reshape(-1)[evaluate(weights.offset, (*own, *reduction.axes))].sum(
        axis=tuple(range(len(own), len(own) + len(reduction.axes))), dtype=np.int32)
    unsigned = zero + 128 if load.dtype is DType.I8 else zero
    start = constant_of(f"{weights.tensor.name}, zeros", -unsigned * sums, own)
    return Packing(kernel, (replace(load, fill=zero), narrow), DType.U8, unsigned, start)


def innermost_load(value: Value) -> Load | None:
    """The load of a narrow value that is a load, or one that is rounded."""
    if isinstance(value, Compute) and value.op is Op.CAST:
        value = value.src[0]
    return value if isinstance(value, Load) else None


def with_load(value: Value, load: Load) -> Value:
    """The value with its innermost load replaced."""
    return replace(value, src=(load,)) if isinstance(value, Compute) else load
