"""What all kernel families share in C: head, arguments, shares of the work, the final store."""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinynn.index import Axis
from tinynn.interp import lowest
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Kernel, Reduction, Tensor
from tinynn.render.c_values import (
    STORAGE,
    VARIABLE,
    Block,
    Scope,
    combine,
    condition_text,
    index_text,
    literal,
    loaded,
    to_store,
)

EXPORT = '__attribute__((visibility("default")))'
NAME = "@name@"

OpenLoop = Callable[[Block, str, str, str], None]


@dataclass(frozen=True)
class Function:
    """One kernel in C. `text` holds the placeholder @name@ for its name.

    comment: what it computes, for the line above it. tensors: its arguments in order; the first is
    written. label: what its symbol says about it.
    """

    comment: str
    text: str
    tensors: tuple[Tensor, ...]
    label: str


def arguments(kernel: Kernel) -> tuple[Tensor, ...]:
    """The tensors of a kernel, the written one first, the others in the order they are read."""
    found: dict[Tensor, None] = {kernel.tensor: None}
    for load in kernel.loads():
        found[load.tensor] = None
    return tuple(found)


def open_function(block: Block, kernel: Kernel, tensors: tuple[Tensor, ...],
                  fuse: bool = False) -> dict[Tensor, str]:
    """Write head and pointers of a function; the C names of its tensors.

    fuse: compute products and sums that follow one another as one operation.
    """
    block.depth = 0
    block.open(f"{EXPORT} void {NAME}(void *const *args, int64_t part, int64_t parts)")
    if fuse:
        block.lines.append("#pragma clang fp contract(fast)")
    names: dict[Tensor, str] = {}
    for i, tensor in enumerate(tensors):
        name = "out" if i == 0 else f"a{i}"
        const = "" if i == 0 else "const "
        block.add(f"{const}{STORAGE[tensor.dtype]} *restrict {name} = args[{i}];")
        names[tensor] = name
    return names


def describe(kernel: Kernel, family: str) -> str:
    """The comment above a function: what it computes and its loop nest."""
    loops = " x ".join(str(a.size) for a in kernel.axes) or "1"
    reduction = kernel.reduction
    if reduction is not None:
        sizes = " x ".join(str(a.size) for a in reduction.axes) or "1"
        loops += f", each {reduction.kind} over {sizes}"
    return f"/* {kernel.note}\n   {family}: {loops} */"


def label(kernel: Kernel, family: str) -> str:
    """Part of a symbol: family and sizes."""
    sizes = [a.size for a in kernel.axes]
    if kernel.reduction is not None:
        sizes += [a.size for a in kernel.reduction.axes]
    return re.sub(r"\W", "_", "_".join([family, "x".join(map(str, sizes)) or "1"]))


def accumulator_type(reduction: Reduction) -> DType:
    """What a reduction is accumulated in: floats in a wider type than they have."""
    wider = {DType.F16: DType.F32, DType.BF16: DType.F32, DType.F32: DType.F64}
    if reduction.kind == "max":
        return reduction.dtype
    if reduction.kind == "mul" and reduction.dtype.is_float:
        return DType.F64  # a product may leave the range of a narrow type on the way
    return wider.get(reduction.dtype, reduction.dtype)


def identity(reduction: Reduction, dtype: DType) -> str:
    if reduction.kind == "max":
        return literal(lowest(dtype), dtype)
    return literal(0 if reduction.kind == "sum" else 1, dtype)


def open_shares(block: Block, axes: tuple[Axis, ...], parts: int) -> None:
    """Open the loops over all axes, restricted to share `part` of `parts`."""
    if parts == 1 or not axes:
        for axis in axes:
            block.loop(axis)
        return
    if len(axes) == 1:
        (axis,) = axes
        block.add(f"const int64_t begin = {axis.size} * part / parts;")
        block.add(f"const int64_t end = {axis.size} * (part + 1) / parts;")
        block.open(f"for (int64_t {axis.name} = begin; {axis.name} < end; ++{axis.name})")
        return
    open_items(block, axes[:-1])
    block.loop(axes[-1])


def open_items(block: Block, axes: Sequence[Axis]) -> None:
    """Open one loop over this share of all points of the axes; declares each axis."""
    count = math.prod(a.size for a in axes)
    block.add(f"const int64_t begin = {count} * part / parts;")
    block.add(f"const int64_t end = {count} * (part + 1) / parts;")
    block.open("for (int64_t item = begin; item < end; ++item)")
    declare_point(block, axes, "item")


def open_loop(block: Block, name: str, start: str, end: str) -> None:
    """Open the loop of a variable from start to end."""
    block.open(f"for (int64_t {name} = {start}; {name} < {end}; ++{name})")


def open_vector_loop(block: Block, name: str, start: str, end: str) -> None:
    """Open a loop over elements that are finished side by side. What is left at its end is done
    by one masked vector where the machine has them, not one by one."""
    block.lines.append("#pragma clang loop vectorize_predicate(enable)")
    open_loop(block, name, start, end)


def store(block: Block, scope: Scope, kernel: Kernel) -> None:
    """Write the value of a kernel and store it, or combine it with what is there (SCATTER)."""
    dtype, value = kernel.tensor.dtype, kernel.value
    if isinstance(value, Compute) and value.op is Op.CAST and value.src[0].dtype is DType.F32:
        value = value.src[0] if dtype in (DType.F16, DType.BF16) else value  # storing rounds
    text = scope.write(value)
    scope.prepare([kernel.offset, *(w.expr for w in kernel.when)])
    place = f"out[{index_text(kernel.offset)}]"
    if kernel.scatter is None:
        block.add(f"{place} = {to_store(text, dtype)};")
        return
    block.open(f"if ({condition_text(kernel.when)})")
    block.add(f"const {VARIABLE[dtype]} old = {loaded(place, dtype)};")
    block.add(f"{place} = {to_store(combine(kernel.scatter, 'old', text, dtype), dtype)};")
    block.close()


def finish(block: Block, kernel: Kernel, tensors: tuple[Tensor, ...], family: str) -> Function:
    """Close what is open and make the function of what was written."""
    block.close(block.depth)
    text = "\n".join(block.lines)
    return Function(describe(kernel, family), text, tensors, label(kernel, family))


def declare_point(block: Block, axes: Sequence[Axis], position: str) -> None:
    """Declare each axis from a row-major position among the points of all of them."""
    inner = math.prod(a.size for a in axes)
    for number, axis in enumerate(axes):
        if axis.size == 1:
            block.add(f"const int64_t {axis.name} = 0;")
            continue
        outer, inner = inner, inner // axis.size
        text = position if number == 0 else f"{position} % {outer}"
        text = f"{text} / {inner}" if inner > 1 else text
        block.add(f"const int64_t {axis.name} = {text};")
