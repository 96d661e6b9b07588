"""Families `points`, `split` and `copy`: a work-item per element, or a work-group per sum.

points: every work-item computes one element, or a vector of four neighbours where they lie side by
side in all that is read and written. Any kernel can be written this way.
split: for sums, products and maxima with too few results to occupy a GPU, or with so many terms
that adding them one after the other would lose accuracy. The work-items of a group share the terms
of one result and combine what they have in halves, in local memory.
copy: what only moves whole runs of 16 bytes, whatever they hold.
scatter: one work-item visits all points in order, because later ones overwrite earlier ones.
"""
from __future__ import annotations

from tinynn.cost import points
from tinynn.index import Axis, Within, of
from tinynn.kernel import Kernel, Load, Reduction, merge_axes
from tinynn.opencl.launch import (
    GROUP,
    Launch,
    accumulate,
    accumulator_type,
    arguments,
    declare_point,
    finish,
    grid,
    group_shape,
    head,
    identity,
    names_of,
    open_grid,
    open_kernel,
    store,
    widen,
)
from tinynn.opencl.values import VARIABLE, Block, Pointers, Writer, can_be_wide, combine
from tinynn.render.lines import index_text

ENOUGH_ITEMS = 4096  # work-items that occupy a GPU
SHORT_SUM = 32  # terms that are not worth sharing
LONG_SUM = 4096  # terms that one f32 variable should not add up alone
VECTOR = 4
RUN = 16  # bytes


def render_points(kernel: Kernel) -> Launch:
    """Any kernel, by the family among those above that suits it."""
    kernel = merge_axes(kernel)
    if kernel.scatter:
        return _serial(kernel)
    if copies_runs(kernel):
        return render_copy(kernel)
    reduction = kernel.reduction
    if reduction is not None:
        terms, results = points(reduction.axes), points(kernel.axes)
        if terms > LONG_SUM or (terms > SHORT_SUM and results < ENOUGH_ITEMS):
            return _split(kernel, reduction, terms)
    return _points(kernel)


def copies_runs(kernel: Kernel) -> bool:
    """Whether a kernel with merged axes moves elements in runs of RUN bytes, unchanged."""
    load = kernel.value
    if (not isinstance(load, Load) or load.when or kernel.scatter or kernel.runtime
            or not kernel.axes or load.tensor.memory is not kernel.tensor.memory):
        return False
    last, step = kernel.axes[-1], RUN // load.tensor.memory.itemsize
    return last.size % step == 0 and all(
        offset.const % step == 0 and offset.coefficient(last) == 1
        and all(factor % step == 0 and last not in of(atom).axes
                for atom, factor in offset.terms if atom != last)
        for offset in (kernel.offset, load.offset))


def render_copy(kernel: Kernel) -> Launch:
    """The launch of a kernel that `copies_runs`."""
    load = kernel.value
    assert isinstance(load, Load)
    last, step = kernel.axes[-1], RUN // load.tensor.memory.itemsize
    tensors = arguments(kernel)
    items = (*kernel.axes[:-1], Axis("run", last.size // step))
    local = group_shape(grid(items))
    block = Block()
    open_kernel(block, head(tensors, local), kernel)
    total = open_grid(block, items, grid(items), local)
    block.add(f"const int {last.name} = run * {step};")
    source = f"{names_of(tensors)[load.tensor]} + {index_text(load.offset)}"
    target = f"out + {index_text(kernel.offset)}"
    block.add(f"vstore4(vload4(0, (__global const uint *)({source})), 0, "
              f"(__global uint *)({target}));")
    return finish(kernel, block, tensors, "copy", (total, local))


def _serial(kernel: Kernel) -> Launch:
    tensors = arguments(kernel)
    block = Block()
    block.depth = 0
    block.open(head(tensors, (1, 1, 1)))
    for axis in kernel.axes:
        block.loop(axis)
    writer = Writer(block, Pointers(names_of(tensors)), kernel.runtime)
    store(block, writer, kernel)
    return finish(kernel, block, tensors, "scatter", ((1, 1, 1), (1, 1, 1)))


def _points(kernel: Kernel) -> Launch:
    lane, tail, width = None, None, _width(kernel)
    if width > 1:
        kernel, lane, tail = widen(kernel, kernel.axes[-1], width)
    block = Block()
    tensors = arguments(kernel)
    items = _items(kernel.axes, width)
    local = group_shape(grid(items))
    open_kernel(block, head(tensors, local), kernel)
    total = open_grid(block, items, grid(items), local)
    if lane is not None:
        block.add(f"const int {lane.name} = tile * {width};")
    _value(block, kernel, tensors, lane, width, tail)
    return finish(kernel, block, tensors, "points", (total, local),
                  f", {width} elements per work-item" if width > 1 else "")


def _items(axes: tuple[Axis, ...], width: int) -> tuple[Axis, ...]:
    """Axes of the work-items: the last one in tiles of the vector."""
    return (*axes[:-1], Axis("tile", axes[-1].size // width)) if width > 1 else axes


def _width(kernel: Kernel) -> int:
    """Elements per work-item: VECTOR if the innermost axis is contiguous, else 1."""
    if not kernel.axes:
        return 1
    last = kernel.axes[-1]
    if last.size < VECTOR or kernel.offset.coefficient(last) != 1 or not can_be_wide(kernel, last):
        return 1
    moving = [load.offset for load in kernel.loads() if last in load.offset.axes]
    together = sum(offset.coefficient(last) == 1 for offset in moving)
    return VECTOR if 2 * together >= len(moving) else 1


def _value(block: Block, kernel: Kernel, tensors: tuple, lane: Axis | None, width: int,
           tail: Within | None) -> None:
    """Compute one element or vector, with the loops of its reduction, and store it."""
    access, runtime = Pointers(names_of(tensors)), kernel.runtime
    writer = Writer(block, access, runtime, lane=lane, width=width, tail=tail)
    reduction = kernel.reduction
    if reduction is not None:
        kind = f"{VARIABLE[accumulator_type(reduction)]}{width if width > 1 else ''}"
        block.add(f"{kind} total = {identity(reduction)};")
        depth = block.depth
        for axis in reduction.axes:
            block.loop(axis)
        inner = Writer(block, access, runtime, prefix="e", lane=lane, width=width, tail=tail)
        accumulate(block, reduction, inner, "total")
        block.close(block.depth - depth)
        writer = Writer(block, access, runtime, {id(reduction): "total"}, lane=lane, width=width,
                        tail=tail)
    store(block, writer, kernel)


def _split(kernel: Kernel, reduction: Reduction, terms: int) -> Launch:
    group = GROUP
    while group > terms // 2:
        group //= 2
    block = Block()
    tensors = arguments(kernel)
    dtype = accumulator_type(reduction)
    kind = VARIABLE[dtype]
    items = (*kernel.axes, Axis("share", group))
    local = (group, 1, 1)
    block.depth = 0
    block.open(head(tensors, local))
    block.add(f"__local {kind} parts[{group}];")
    total = open_grid(block, items, grid(items), local)
    access = Pointers(names_of(tensors))
    block.add(f"{kind} total = {identity(reduction)};")
    block.open(f"for (int term = share; term < {terms}; term += {group})")
    declare_point(block, reduction.axes, "term")
    accumulate(block, reduction, Writer(block, access, kernel.runtime, prefix="e"), "total")
    block.close()
    block.add("parts[share] = total;")
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    block.open(f"for (int middle = {group // 2}; middle > 0; middle /= 2)")
    joined = combine(reduction.kind, "parts[share]", "parts[share + middle]", dtype)
    block.add(f"if (share < middle) parts[share] = {joined};")
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    block.close()
    block.open("if (share == 0)")
    writer = Writer(block, access, kernel.runtime, {id(reduction): "parts[0]"})
    store(block, writer, kernel)
    return finish(kernel, block, tensors, "split", (total, local))
