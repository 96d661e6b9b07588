"""How much work a kernel is, and into how many shares it is worth splitting."""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tinynn.index import Axis, RunTime, axes_of
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Kernel, Tensor, Value, values_of

SERIAL_WORK = 1 << 15  # operations below which sharing a kernel costs more than it gains
ENOUGH_SHARES = 8  # shares that keep the threads of a small machine busy to the end
MOST_LOCAL = 1 << 20  # bytes of local memory in one function; threads have stacks of several MiB


def points(axes: Sequence[Axis]) -> int:
    """Number of points of a loop nest."""
    return math.prod(a.size for a in axes)


def work(kernel: Kernel) -> int:
    """Arithmetic operations of a kernel; conversions and moves count nothing."""
    reduction = kernel.reduction
    reduced = values_of([reduction.body]) if reduction is not None else []
    inside = {id(v) for v in reduced}
    outside = [v for v in kernel.values() if id(v) not in inside]
    total = points(kernel.axes) * _operations(outside)
    if reduction is not None:
        # What the factors of a product are computed from is computed once, in local memory.
        each = 2 if product(kernel) is not None else _operations(reduced) + 1
        total += points(kernel.axes) * points(reduction.axes) * each
    return total


def _operations(values: Sequence[Value]) -> int:
    return sum(isinstance(v, Compute) and v.op is not Op.CAST for v in values)


def useful_parts(kernel: Kernel, shares: int) -> int:
    """Shares worth using out of those possible: 1 if the kernel is small or must run in order."""
    small = work(kernel) + points(kernel.axes) < SERIAL_WORK
    return 1 if kernel.scatter or small else max(1, shares)


def bytes_touched(kernel: Kernel, tensors: Iterable[Tensor]) -> int:
    """Bytes that a kernel reads and writes of these tensors, each counted once; of those that it
    reads or writes a part of, that part."""
    elements = {kernel.tensor: points(kernel.axes)}
    for load in kernel.loads():
        anywhere = any(isinstance(atom, RunTime) for expr in load.index for atom in expr.atoms)
        read = load.tensor.size if anywhere else points(tuple(axes_of(load.index)))
        elements[load.tensor] = elements.get(load.tensor, 0) + read
    return sum(min(t.nbytes, elements.get(t, t.size) * t.memory.itemsize) for t in tensors)


def product(kernel: Kernel) -> tuple[Value, Value] | None:
    """The factors, if the kernel sums two or more products of f32."""
    reduction = kernel.reduction
    if reduction is None or reduction.kind != "sum" or reduction.dtype is not DType.F32:
        return None
    body = reduction.body
    if not isinstance(body, Compute) or body.op is not Op.MUL or points(reduction.axes) < 2:
        return None
    return body.src[0], body.src[1]
