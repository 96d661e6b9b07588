"""Families `points` and `split` on images: a work-item per texel, or a work-group per sum.

points: every work-item computes the four channels of a texel, or four neighbours in plain memory,
with the loops of its reduction if there is one. Any kernel can be written this way.
split: for reductions with too few results to occupy the GPU. The work-items of a group share the
terms of one result and combine what they have in local memory; where the terms lie along the
channels of an image, each of them takes whole texels.
"""
from __future__ import annotations

from tinynn.adreno.cost import Counts
from tinynn.adreno.layout import TEXEL, lane_axis
from tinynn.adreno.storage import Arguments, Storage
from tinynn.adreno.values import Lane, TexelWriter
from tinynn.cost import points
from tinynn.index import Axis, Within, of
from tinynn.ir import DType
from tinynn.kernel import Kernel, Load, Reduction, merge_axes, values_of
from tinynn.opencl.launch import (
    GROUP,
    Launch,
    accumulate,
    accumulator_type,
    declare_point,
    finish,
    grid,
    group_shape,
    identity,
    open_grid,
    open_kernel,
    widen,
)
from tinynn.opencl.points import copies_runs, render_copy
from tinynn.opencl.values import VARIABLE, Block, can_be_wide, combine

FEW_RESULTS = 64  # results of a reduction that leave most of the GPU idle
MOST_WRITTEN_OUT = 128  # values of a reduction
SHORT_SUM = 16  # terms that are not worth sharing


def render_points(kernel: Kernel, storage: Storage) -> tuple[Launch, Counts]:
    """Any kernel, by the family among those above that suits it."""
    if kernel.scatter:
        return _serial(kernel, storage), _counts(kernel, storage, points(kernel.axes))
    reduction = kernel.reduction
    merged = merge_axes(kernel)
    tensors = {kernel.tensor, *(v.tensor for v in kernel.loads())}
    if copies_runs(merged) and not tensors & storage.images.keys():
        return render_copy(merged), _counts(kernel, storage, 1)
    if (reduction is not None and kernel.tensor not in storage.images
            and points(reduction.axes) > SHORT_SUM and points(kernel.axes) <= FEW_RESULTS):
        return _split(kernel, storage, reduction), _counts(kernel, storage, 1 / GROUP)
    return _points(kernel, storage), _counts(kernel, storage, 1)


def _counts(kernel: Kernel, storage: Storage, share: float) -> Counts:
    """Estimates per work-item, which does so many times the terms of one result."""
    reduction = kernel.reduction
    inside = values_of([reduction.body]) if reduction is not None else []
    terms = points(reduction.axes) * share if reduction is not None else 0
    outside = kernel.values(below_reduction=False)
    texels, nbytes = 0.0, 0.0
    for times, values in ((terms, inside), (1, outside)):
        loads = [v.tensor for v in values if isinstance(v, Load)]
        texels += times * sum(t in storage.images for t in loads)
        nbytes += times * sum(t.dtype.itemsize for t in loads if t not in storage.images)
    slots = terms * TEXEL * (len(inside) + 4) + max(share, 1) * TEXEL * (len(outside) + 8)
    return Counts(slots, texels, waits=terms + 1, buffer_bytes=nbytes)


def _serial(kernel: Kernel, storage: Storage) -> Launch:
    """One work-item visits all points in order, because later ones overwrite earlier ones."""
    arguments = Arguments(storage, kernel, None)
    block = Block()
    block.depth = 0
    block.open(arguments.head((1, 1, 1)))
    for axis in kernel.axes:
        block.loop(axis)
    arguments.store(block, TexelWriter(block, arguments.access(None), kernel.runtime))
    return finish(kernel, block, arguments.tensors, "scatter", ((1, 1, 1), (1, 1, 1)))


def _points(kernel: Kernel, storage: Storage) -> Launch:
    kernel, lane, tail = _with_lane(kernel, storage)
    arguments = Arguments(storage, kernel, lane)
    access = arguments.access(lane)
    items = kernel.axes
    if lane is not None:
        items = (*(a for a in kernel.axes if a != lane.axis), lane.texel)
    local = group_shape(grid(items))
    block = Block()
    open_kernel(block, arguments.head(local), kernel)
    total = open_grid(block, items, grid(items), local)
    if lane is not None:
        lane.declare(block)
    known = {}
    reduction = kernel.reduction
    kept = reduction is not None and _long_written_out(reduction, lane, tail, storage)
    if reduction is not None:
        kind = f"{VARIABLE[accumulator_type(reduction)]}{TEXEL if lane else ''}"
        block.add(f"{kind} total = {identity(reduction)};")
        depth = block.depth
        for axis in reduction.axes:
            if kept:
                block.open(f"for (int {axis.name} = 0; {axis.name} < {axis.size} * (int)ONCE; "
                           f"++{axis.name})")
            else:
                block.loop(axis)
        inner = TexelWriter(block, access, kernel.runtime, prefix="e", tail=tail)
        accumulate(block, reduction, inner, "total")
        block.close(block.depth - depth)
        known[id(reduction)] = "total"
    arguments.store(block, TexelWriter(block, access, kernel.runtime, known, tail=tail))
    return finish(kernel, block, arguments.tensors, "points", (total, local),
                  " loops " + " ".join(str(a.size) for a in reduction.axes)
                  if reduction is not None and kept else "")


def _long_written_out(reduction: Reduction, lane: Lane | None, tail: Within | None,
                      storage: Storage) -> bool:
    """Whether the loops of a reduction would be too long if the compiler wrote them out."""
    length = 0
    for value in values_of([reduction.body]):
        by_element = (lane is not None and isinstance(value, Load)
                      and lane.axis in value.offset.axes
                      and not _by_texel(value, lane.axis, storage))
        length += TEXEL * (2 if tail else 1) if by_element else 1
    return points(reduction.axes) * length > MOST_WRITTEN_OUT


def _with_lane(kernel: Kernel, storage: Storage) -> tuple[Kernel, Lane | None, Within | None]:
    """The kernel with the axis of its vectors made a multiple of four, that axis, and the condition
    under which an element exists. Images are written by texel; arrays by element if vectors of what
    is read cannot be made."""
    image = storage.images.get(kernel.tensor)
    if image is not None:
        axis = lane_axis(kernel, image.channel)
    else:
        axis = kernel.axes[-1] if kernel.axes else None
        if axis is None or axis.size < TEXEL or kernel.offset.coefficient(axis) != 1 \
                or not can_be_wide(kernel, axis):
            axis = None
    if axis is None:
        return kernel, None, None
    kernel, axis, tail = widen(kernel, axis, TEXEL)
    return kernel, Lane(axis), tail


def _split(kernel: Kernel, storage: Storage, reduction: Reduction) -> Launch:
    """A work-group per result."""
    axis = _channel_axis(reduction, storage)
    lane = Lane(axis) if axis is not None else None
    arguments = Arguments(storage, kernel, lane)
    terms = points(reduction.axes) // (TEXEL if lane else 1)
    group = GROUP
    while group > terms:
        group //= 2
    kind = VARIABLE[accumulator_type(reduction)]
    wide = f"{kind}{TEXEL}" if lane else kind
    items, local = (*kernel.axes, Axis("share", group)), (group, 1, 1)
    block = Block()
    block.depth = 0
    block.open(arguments.head(local))
    block.add(f"__local {wide} parts[{group}];")
    total = open_grid(block, items, grid(items), local)
    block.add(f"{wide} total = {identity(reduction)};")
    block.open(f"for (int term = share; term < {terms}; term += {group})")
    axes = tuple(lane.texel if lane and a == lane.axis else a for a in reduction.axes)
    declare_point(block, axes, "term")
    if lane is not None:
        lane.declare(block)
    writer = TexelWriter(block, arguments.access(lane), kernel.runtime, prefix="e")
    accumulate(block, reduction, writer, "total")
    block.close()
    block.add("parts[share] = total;")
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    middle = group // 2
    while middle:
        joined = combine(reduction.kind, "parts[share]", f"parts[share + {middle}]",
                         accumulator_type(reduction), lane is not None)
        block.add(f"if (share < {middle}) parts[share] = {joined};")
        block.add("barrier(CLK_LOCAL_MEM_FENCE);")
        middle //= 2
    block.open("if (share == 0)")
    block.add(f"const {wide} all = parts[0];")
    result = "all"
    if lane is not None:
        result = "all.x"
        for part in "yzw":
            result = combine(reduction.kind, result, f"all.{part}", DType.F32)
    block.add(f"const {kind} reduced = {result};")
    known = {id(reduction): "reduced"}
    arguments.store(block, TexelWriter(block, arguments.access(None), kernel.runtime, known))
    return finish(kernel, block, arguments.tensors, "split", (total, local))


def _channel_axis(reduction: Reduction, storage: Storage) -> Axis | None:
    """The axis of a reduction along which everything that depends on it is read by texel."""
    loads = [v for v in values_of([reduction.body]) if isinstance(v, Load)]
    for axis in reduction.axes:
        moving = [v for v in loads if axis in v.offset.axes]
        if axis.size % TEXEL == 0 and moving and all(_by_texel(v, axis, storage) for v in moving):
            return axis
    return None


def _by_texel(load: Load, axis: Axis, storage: Storage) -> bool:
    image = storage.images.get(load.tensor)
    return image is not None and all(
        expr == of(axis) if dim == image.channel else axis not in expr.axes
        for dim, expr in enumerate(load.index))
