"""One kernel launch as text, and what all families share: head, work-items, the final store."""
from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tinynn.index import Axis, Within, of, round_up
from tinynn.interp import lowest
from tinynn.ir import DType
from tinynn.kernel import Kernel, Reduction, Tensor
from tinynn.opencl.values import (
    STORAGE,
    VARIABLE,
    Block,
    Writer,
    combine,
    condition_text,
    element,
    index_text,
    literal,
    store_element,
    store_vector,
)

NAME = "@name@"
GROUP = 64  # work-items in a work-group: a wave of most GPUs


@dataclass(frozen=True)
class Launch:
    """A kernel in OpenCL C. `text` holds the placeholder @name@ for its name.

    tensors: its arguments in order; the first is written, all others are read.
    global_size, local_size: work-items, three numbers each. label: what its symbol says about it.
    schedule: family and parameters, for people.
    """

    kernel: Kernel
    text: str
    tensors: tuple[Tensor, ...]
    global_size: tuple[int, int, int]
    local_size: tuple[int, int, int]
    label: str
    schedule: str


def arguments(kernel: Kernel, instead: dict[Tensor, Tensor] | None = None) -> tuple[Tensor, ...]:
    """The tensors of a kernel, the written one first, the others in the order they are read.

    instead: tensors that take the place of others, such as packed weights.
    """
    replaced = instead or {}
    found: dict[Tensor, None] = {kernel.tensor: None}
    for load in kernel.loads():
        found[replaced.get(load.tensor, load.tensor)] = None
    return tuple(found)


def names_of(tensors: Sequence[Tensor]) -> dict[Tensor, str]:
    """Their names as parameters."""
    return {tensor: f"a{i}" if i else "out" for i, tensor in enumerate(tensors)}


def head(tensors: Sequence[Tensor], local_size: Sequence[int]) -> str:
    """The line that opens a kernel over plain memory."""
    parameters = []
    for tensor, name in names_of(tensors).items():
        const = "" if name == "out" else "const "
        parameters.append(f"__global {const}{STORAGE[tensor.memory]} *restrict {name}")
    size = ", ".join(map(str, local_size))
    return (f"__kernel __attribute__((reqd_work_group_size({size})))\n"
            f"void {NAME}({', '.join(parameters)})")


def open_kernel(block: Block, head_line: str, kernel: Kernel) -> None:
    """Begin the body. What computes positions is rounded as it is written, without fused products,
    so that the same pixel is picked everywhere."""
    block.depth = 0
    block.open(head_line)
    if kernel.runtime:
        block.add("#pragma OPENCL FP_CONTRACT OFF")


def group_shape(items: Sequence[int], most: int = GROUP) -> tuple[int, int, int]:
    """Work-items per group along three dimensions: powers of two, at most `most` in all."""
    shape = []
    for size in items:
        part = min(most, 1 << (size - 1).bit_length())
        shape.append(part)
        most //= part
    return shape[0], shape[1], shape[2]


def grid(axes: Sequence[Axis]) -> tuple[int, int, int]:
    """Points of the axes on three dimensions: innermost first, all outer ones on the third."""
    sizes = [a.size for a in axes]
    inner = [*reversed(sizes[-2:]), 1, 1]
    return inner[0], inner[1], math.prod(sizes[:-2])


def open_grid(block: Block, axes: Sequence[Axis], items: Sequence[int],
              local: Sequence[int]) -> tuple[int, int, int]:
    """Declare the axes from the place of a work-item on the `grid` of them; its global size.

    Work-items that only fill up the last work-groups return.
    """
    total = tuple(round_up(n, size) for n, size in zip(items, local, strict=True))
    over = [f"get_global_id({d}) >= {n}" for d, n in enumerate(items) if total[d] > n]
    if over:
        block.add(f"if ({' || '.join(over)}) return;")
    for dimension, axis in enumerate(reversed(axes[-2:])):
        block.add(f"const int {axis.name} = get_global_id({dimension});")
    declare_point(block, axes[:-2], "(int)get_global_id(2)")
    return total[0], total[1], total[2]


def declare_point(block: Block, axes: Sequence[Axis], position: str) -> None:
    """Declare each axis from a row-major position among the points of all of them."""
    inner = math.prod(a.size for a in axes)
    for number, axis in enumerate(axes):
        outer, inner = inner, inner // axis.size
        text = position if number == 0 else f"{position} % {outer}"
        text = f"{text} / {inner}" if inner > 1 else text
        block.add(f"const int {axis.name} = {text if axis.size > 1 else 0};")


def store(block: Block, writer: Writer, kernel: Kernel, pointer: str = "out") -> None:
    """Write the value of a kernel and store it, or combine it with what is there (SCATTER)."""
    dtype, memory = kernel.tensor.dtype, kernel.tensor.memory
    if writer.width > 1:
        _store_vector(block, writer, kernel, pointer)
        return
    text = writer.write(kernel.value)
    writer.prepare([kernel.offset, *(w.expr for w in kernel.when)])
    offset = index_text(kernel.offset)
    if kernel.scatter is None:
        block.add(store_element(pointer, offset, text, memory))
        return
    block.open(f"if ({condition_text(kernel.when)})")
    block.add(f"const {VARIABLE[dtype]} old = {element(pointer, offset, memory)};")
    total = combine(kernel.scatter, "old", text, dtype)
    block.add(store_element(pointer, offset, total, memory))
    block.close()


def _store_vector(block: Block, writer: Writer, kernel: Kernel, pointer: str) -> None:
    """Store neighbours at once, or those that exist one by one in the last vector of an axis."""
    lane, width = writer.lane, writer.width
    dtype, memory = kernel.tensor.dtype, kernel.tensor.memory
    assert lane is not None
    text = writer.vector(kernel.value)
    if not text.isidentifier():
        text = writer.variable(f"{VARIABLE[dtype]}{width}", text)
    writer.prepare([kernel.offset])
    whole = store_vector(pointer, index_text(kernel.offset), text, memory, width)
    step = kernel.offset.coefficient(lane)
    single = []
    for i in range(width):
        part = f"{text}.s{i:x}"
        part = f"-{part}" if dtype is DType.BOOL else part
        offset = index_text(kernel.offset.substitute({lane: of(lane) + i}))
        single.append((i, store_element(pointer, offset, part, memory)))
    if writer.tail is None:
        for line in [whole] if step == 1 else [s for _, s in single]:
            block.add(line)
        return
    if step == 1:
        block.add(f"if ({lane.name} + {width} <= {writer.tail.size}) {{ {whole} }}")
        block.open("else")
    for i, line in single:
        block.add(f"if ({lane.name} + {i} < {writer.tail.size}) {{ {line} }}")
    if step == 1:
        block.close()


def widen(kernel: Kernel, axis: Axis, width: int) -> tuple[Kernel, Axis, Within | None]:
    """The kernel with an axis long enough for whole vectors of `width`, the axis as it is then, and
    if it grew, the condition that a lane exists."""
    if axis.size % width == 0:
        return kernel, axis, None
    padded = Axis(axis.name, round_up(axis.size, width))
    axes = tuple(padded if a == axis else a for a in kernel.axes)
    return kernel.substitute({axis: of(padded)}, axes=axes), padded, Within(of(padded), axis.size)


def accumulator_type(reduction: Reduction) -> DType:
    """What a reduction is accumulated in: f16 and bf16 in f32."""
    narrow = reduction.kind != "max" and reduction.dtype in (DType.F16, DType.BF16)
    return DType.F32 if narrow else reduction.dtype


def identity(reduction: Reduction) -> str:
    """What a reduction starts from."""
    if reduction.kind == "max":
        return literal(lowest(reduction.dtype), reduction.dtype)
    return literal(0 if reduction.kind == "sum" else 1, accumulator_type(reduction))


def accumulate(block: Block, reduction: Reduction, writer: Writer, total: str) -> None:
    """Combine the body of a reduction into the variable `total`."""
    body = writer.vector(reduction.body)
    dtype = accumulator_type(reduction)
    text = combine(reduction.kind, total, body, dtype, writer.width > 1)
    block.add(f"{total} = {text};")


def finish(kernel: Kernel, block: Block, tensors: tuple[Tensor, ...], family: str,
           sizes: tuple[tuple[int, int, int], tuple[int, int, int]], detail: str = "") -> Launch:
    """Close what is open and make the launch of what was written. sizes: global and local."""
    block.close(block.depth)
    axes = [a.size for a in kernel.axes]
    if kernel.reduction is not None:
        axes += [a.size for a in kernel.reduction.axes]
    label = re.sub(r"\W", "_", "_".join([family, "x".join(map(str, axes)) or "1"]))
    schedule = f"{family}{detail}, work-group {'x'.join(map(str, sizes[1]))}"
    return Launch(kernel, "\n".join(block.lines), tensors, *sizes, label, schedule)
