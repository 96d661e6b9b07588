"""Lowerings: constants, shapes, moving and picking elements."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.protos import element_type
from tinynn.onnx.registry import (
    Call,
    lowers,
    static,
    static_ints,
    static_scalar,
)

# Constants and shapes

@lowers("Constant")
def constant(call: Call) -> Node:
    if call.has("value"):
        return ir.const(call.array("value"))
    if call.has("value_float"):
        return ir.const(call.number("value_float"), DType.F32)
    if call.has("value_int"):
        return ir.const(call.integer("value_int"), DType.I64)
    if call.has("value_floats"):
        return ir.const(call.numbers("value_floats"), DType.F32)
    if call.has("value_ints"):
        return ir.const(call.integers("value_ints"), DType.I64)
    raise UnsupportedModel("a constant without a numeric value (texts and sparse tensors are "
                           "not supported)")


@lowers("ConstantOfShape", since=9)
def constant_of_shape(call: Call, shape: Node) -> Node:
    value = call.array("value") if call.has("value") else np.zeros(1, np.float32)
    if value.size != 1:
        raise ModelError(f"`value` must have one element, has shape {value.shape}")
    return d.broadcast_to(ir.const(value.reshape(())), _lengths(shape, "the shape"))


@lowers("Shape")
def shape_of(call: Call, x: Node) -> Node:
    shape = x.shape[call.integer("start", 0):call.integer("end", len(x.shape))]
    return ir.const(np.asarray(shape, np.int64))


@lowers("Size")
def size(call: Call, x: Node) -> Node:
    return ir.const(x.size, DType.I64)


def _lengths(x: Node, what: str) -> list[int]:
    lengths = static_ints(x, what)
    if any(n < 0 for n in lengths):
        raise ModelError(f"{what} has negative lengths: {lengths}")
    return lengths


@lowers("Reshape", since=5)
def reshape(call: Call, x: Node, shape_input: Node) -> Node:
    """0 keeps the length of that axis (unless allowzero), -1 takes what is left."""
    shape = static_ints(shape_input, "the new shape")
    if not call.flag("allowzero"):
        if any(n == 0 and i >= len(x.shape) for i, n in enumerate(shape)):
            raise ModelError(f"the new shape {shape} keeps an axis that {x!r} does not have")
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    if shape.count(-1) == 1:
        known = math.prod(n for n in shape if n != -1)
        if known == 0 or x.size % known:
            raise ModelError(f"{x!r} cannot be reshaped to {shape}")
        shape[shape.index(-1)] = x.size // known
    return ir.reshape(x, shape)


@lowers("Flatten")
def flatten(call: Call, x: Node) -> Node:
    axis = call.axis(len(x.shape), 1, inclusive=True)
    return ir.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@lowers("Squeeze")
def squeeze(call: Call, x: Node, axes_input: Node | None = None) -> Node:
    axes = call.axes(axes_input, len(x.shape))
    if axes is None:
        axes = [i for i, n in enumerate(x.shape) if n == 1]
    if any(x.shape[a] != 1 for a in axes):
        raise ModelError(f"axes {axes} of {x!r} are not all of length 1")
    return ir.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])


@lowers("Unsqueeze")
def unsqueeze(call: Call, x: Node, axes_input: Node | None = None) -> Node:
    count = axes_input.size if axes_input is not None else len(call.integers("axes"))
    axes = call.axes(axes_input, len(x.shape) + count) or []
    kept = iter(x.shape)
    return ir.reshape(x, [1 if i in axes else next(kept) for i in range(len(x.shape) + count)])


@lowers("Expand", since=8)
def expand(call: Call, x: Node, shape_input: Node) -> Node:
    shape = d.broadcast_shape(x.shape, _lengths(shape_input, "the shape"))
    return d.broadcast_to(x, shape)


@lowers("Tile", since=6)
def tile(call: Call, x: Node, repeats_input: Node) -> Node:
    """(a, b) repeated (r, s) times: (1, a, 1, b) expanded to (r, a, s, b)."""
    repeats = _lengths(repeats_input, "the repeats")
    if len(repeats) != len(x.shape):
        raise ModelError(f"{len(repeats)} repeats for {x!r}")
    shape = [m for r, n in zip(repeats, x.shape, strict=True) for m in (r, n)]
    spread = ir.reshape(x, [m for n in x.shape for m in (1, n)])
    return ir.reshape(ir.expand(spread, shape),
                      [r * n for r, n in zip(repeats, x.shape, strict=True)])


@lowers("Transpose")
def transpose(call: Call, x: Node) -> Node:
    order = call.integers("perm", list(reversed(range(len(x.shape)))))
    return ir.permute(x, order)


@lowers("Concat", since=4)
def concat(call: Call, *xs: Node) -> Node:
    return ir.concat(xs, call.axis(len(xs[0].shape) if xs else 0))


@lowers("Split", since=2)
def split(call: Call, x: Node, sizes_input: Node | None = None) -> list[Node]:
    """Equal parts (the last may be smaller) unless the sizes are given."""
    axis = call.axis(len(x.shape), 0)
    length, count = x.shape[axis], call.integer("num_outputs", call.outputs)
    if sizes_input is not None:
        sizes = _lengths(sizes_input, "the sizes")
    elif call.has("split"):
        sizes = call.integers("split")
    else:
        each = -(-length // count)
        sizes = [max(0, min(each, length - i * each)) for i in range(count)]
    if sum(sizes) != length or len(sizes) != call.outputs:
        raise ModelError(f"sizes {sizes} do not divide axis {axis} of {x!r} into "
                         f"{call.outputs} outputs")
    return [d.take_range(x, axis, sum(sizes[:i]), n) for i, n in enumerate(sizes)]


@lowers("Slice")
def slice_(call: Call, x: Node, starts_input: Node | None = None, ends_input: Node | None = None,
           axes_input: Node | None = None, steps_input: Node | None = None) -> Node:
    """numpy's x[start:end:step] on some axes."""
    rank = len(x.shape)
    if starts_input is None or ends_input is None:
        starts, ends = call.integers("starts"), call.integers("ends")
    else:
        starts = static_ints(starts_input, "the starts")
        ends = static_ints(ends_input, "the ends")
    axes = call.axes(axes_input, rank) or list(range(len(starts)))
    steps = [1] * len(starts) if steps_input is None else static_ints(steps_input, "the steps")
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(axes) > rank:
        raise ModelError("starts, ends, axes and steps differ in length")
    ranges = [(0, n, 1) for n in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise ModelError("a step is 0")
        first, stop, _ = slice(start, end, step).indices(x.shape[axis])
        # An end below -length means "to the front" when going backwards, as slice() has it.
        ranges[axis] = (first, len(range(first, stop, step)), step)
    return ir.slice_(x, [(a if n else 0, n, s) for a, n, s in ranges])


@lowers("Pad", since=2)
def pad(call: Call, x: Node, pads_input: Node | None = None, value_input: Node | None = None,
        axes_input: Node | None = None) -> Node:
    """Constant, edge, reflect and wrap padding; negative counts cut off."""
    rank = len(x.shape)
    mode = call.text("mode", "constant", ("constant", "edge", "reflect", "wrap"))
    counts = call.integers("pads") if pads_input is None else static_ints(pads_input, "the pads")
    axes = list(range(rank)) if axes_input is None else call.axes(axes_input, rank) or []
    if len(counts) != 2 * len(axes):
        raise ModelError(f"{len(counts)} pads for {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[axis] = (counts[i], counts[i + len(axes)])
    if mode != "constant":
        for axis, (lo, hi) in enumerate(pairs):
            x = _pad_by_copy(x, axis, lo, hi, mode)
        return x
    fill: float = call.number("value", 0.0) if call.opset < 11 else 0
    if value_input is not None:
        fill = static_scalar(value_input, "the fill value")
    return pad_or_crop(x, pairs, fill)


def pad_or_crop(x: Node, pairs: Sequence[tuple[int, int]], fill: float) -> Node:
    """PAD where counts are positive, SLICE where they are negative."""
    ranges = []
    for n, (lo, hi) in zip(x.shape, pairs, strict=True):
        first = max(0, -lo)
        ranges.append((first, max(0, n - first - max(0, -hi)), 1))
    kept = ir.slice_(x, ranges)
    return ir.pad(kept, [(max(0, lo), max(0, hi)) for lo, hi in pairs], fill)


def _pad_by_copy(x: Node, axis: int, lo: int, hi: int, mode: str) -> Node:
    """Padding that repeats elements of x: a GATHER with constant indices."""
    n = x.shape[axis]
    if (lo, hi) == (0, 0):
        return x
    d.require_small(lo + n + hi)
    positions = np.arange(-lo, n + hi)
    if mode == "edge":
        indices = np.clip(positions, 0, n - 1)
    elif mode == "wrap":
        indices = positions % n
    else:  # reflect: the border element is not repeated
        period = max(1, 2 * (n - 1))
        indices = positions % period
        indices = np.minimum(indices, period - indices) if n > 1 else indices * 0
    return ir.gather(x, ir.const(indices.astype(np.int64)), axis)


@lowers("DepthToSpace")
def depth_to_space(call: Call, x: Node) -> Node:
    n, c, h, w = x.shape
    block = call.integer("blocksize")
    mode = call.text("mode", "DCR", ("DCR", "CRD"))
    if c % (block * block):
        raise ModelError(f"{c} channels are not a multiple of {block} x {block}")
    c //= block * block
    if mode == "DCR":
        y = ir.permute(ir.reshape(x, (n, block, block, c, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = ir.permute(ir.reshape(x, (n, c, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return ir.reshape(y, (n, c, h * block, w * block))


@lowers("SpaceToDepth")
def space_to_depth(call: Call, x: Node) -> Node:
    n, c, h, w = x.shape
    block = call.integer("blocksize")
    if h % block or w % block:
        raise ModelError(f"{h} x {w} is not a multiple of {block}")
    y = ir.reshape(x, (n, c, h // block, block, w // block, block))
    depth_first = call.text("mode", "DCR", ("DCR", "CRD")) == "DCR"
    y = ir.permute(y, (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4))
    return ir.reshape(y, (n, c * block * block, h // block, w // block))


# Indices

def _counted_from_front(indices: Node, length: int | Node) -> Node:
    """Negative indices of ONNX count from the end."""
    if indices.dtype not in (DType.I32, DType.I64):
        raise ModelError(f"indices must be i32 or i64, not {indices.dtype.value}")
    return d.where(d.less(indices, 0), d.add(indices, length), indices)


@lowers("Gather")
def gather(call: Call, x: Node, indices: Node) -> Node:
    axis = call.axis(len(x.shape), 0)
    return ir.gather(x, _counted_from_front(indices, x.shape[axis]), axis)


def _element_positions(shape: Sequence[int], whole: Sequence[int], axis: int,
                       indices: Node) -> Node:
    """Row-major position in a tensor of shape `whole` of each element that GatherElements and
    ScatterElements address: own coordinates, with `indices` along the axis."""
    strides = [math.prod(whole[i + 1:]) for i in range(len(whole))]
    position = d.mul(ir.cast(indices, DType.I64), strides[axis])
    for i in range(len(shape)):
        if i != axis:
            position = d.add(position, d.mul(d.positions(shape, i), strides[i]))
    return position


def take_along(x: Node, indices: Node, axis: int) -> Node:
    """numpy.take_along_axis: of x with these indices along the axis."""
    front = _counted_from_front(indices, x.shape[axis])
    positions = _element_positions(indices.shape, x.shape, axis, front)
    return ir.gather(ir.reshape(x, (x.size,)), positions, 0)


@lowers("GatherElements", since=11)
def gather_elements(call: Call, x: Node, indices: Node) -> Node:
    return take_along(x, indices, call.axis(len(x.shape), 0))


_SCATTER_MODE = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


@lowers("ScatterElements", "Scatter", since=9)
def scatter_elements(call: Call, x: Node, indices: Node, updates: Node) -> Node:
    mode = _SCATTER_MODE[call.text("reduction", "none", list(_SCATTER_MODE))]
    return scatter_along(x, indices, updates, call.axis(len(x.shape), 0), mode)


def scatter_along(x: Node, indices: Node, updates: Node, axis: int, mode: str = "set") -> Node:
    """numpy.put_along_axis: x combined with updates at these indices along the axis."""
    front = _counted_from_front(indices, x.shape[axis])
    positions = _element_positions(indices.shape, x.shape, axis, front)
    flat = ir.scatter(ir.reshape(x, (x.size,)), ir.reshape(positions, (positions.size,)),
                      ir.reshape(updates, (updates.size,)), 0, mode)
    return ir.reshape(flat, x.shape)


def _row_numbers(indices: Node, lengths: Sequence[int]) -> Node:
    """(.., k) coordinates on axes of these lengths -> (count,) row-major numbers."""
    strides = [math.prod(lengths[i + 1:]) for i in range(len(lengths))]
    front = _counted_from_front(indices, ir.const(np.asarray(lengths), indices.dtype))
    numbers = d.mul(front, ir.const(np.asarray(strides), indices.dtype))
    count = math.prod(indices.shape[:-1])
    return ir.reshape(ir.reduce(numbers, "sum", (len(indices.shape) - 1,)), (count,))


@lowers("GatherND", since=11)
def gather_nd(call: Call, x: Node, indices: Node) -> Node:
    """Batch axes, which x and indices share, become coordinates in front of the others."""
    batch = call.integer("batch_dims", 0)
    if batch:
        lead = indices.shape[:-1]
        own = [d.broadcast_to(d.unsqueeze(d.positions(lead, i, indices.dtype), len(lead)),
                              (*lead, 1)) for i in range(batch)]
        indices = ir.concat([*own, indices], len(lead))
    k = indices.shape[-1]
    rows = ir.reshape(x, (math.prod(x.shape[:k]), *x.shape[k:]))
    picked = ir.gather(rows, _row_numbers(indices, x.shape[:k]), 0)
    return ir.reshape(picked, (*indices.shape[:-1], *x.shape[k:]))


@lowers("ScatterND", since=11)
def scatter_nd(call: Call, x: Node, indices: Node, updates: Node) -> Node:
    mode = _SCATTER_MODE[call.text("reduction", "none", list(_SCATTER_MODE))]
    k = indices.shape[-1]
    rows = ir.reshape(x, (math.prod(x.shape[:k]), *x.shape[k:]))
    numbers = _row_numbers(indices, x.shape[:k])
    new = ir.reshape(updates, (numbers.size, *x.shape[k:]))
    return ir.reshape(ir.scatter(rows, numbers, new, 0, mode), x.shape)


@lowers("OneHot", since=9)
def one_hot(call: Call, indices: Node, depth: Node, values: Node) -> Node:
    """values = (off, on)."""
    count = int(static_scalar(depth, "the depth"))
    axis = call.axis(len(indices.shape) + 1, -1)
    front = ir.cast(indices, DType.I64)
    front = d.unsqueeze(d.where(d.less(front, 0), d.add(front, count), front), axis)
    shape = [count if i == axis else 1 for i in range(len(front.shape))]
    hot = d.equal(front, d.positions(shape, axis))
    off, on = (ir.reshape(d.take_range(values, 0, i, 1), ()) for i in (0, 1))
    return d.where(hot, on, off)


@lowers("Trilu", since=14)
def trilu(call: Call, x: Node, k_input: Node | None = None) -> Node:
    k = int(static_scalar(k_input, "k")) if k_input is not None else 0
    diagonal = d.add(d.positions(x.shape[-2:], 0), k)
    column = d.positions(x.shape[-2:], 1)
    dropped = (d.less(column, diagonal) if call.flag("upper", True)
               else d.less(diagonal, column))
    return d.where(dropped, d.scalar(0, x), x)


@lowers("EyeLike", since=9)
def eye_like(call: Call, x: Node) -> Node:
    dtype = element_type(call.integer("dtype")) if call.has("dtype") else x.dtype
    diagonal = d.add(d.positions(x.shape, 0), call.integer("k", 0))
    return ir.cast(d.equal(d.positions(x.shape, 1), diagonal), dtype)


@lowers("ReverseSequence", since=10)
def reverse_sequence(call: Call, x: Node, lengths_input: Node) -> Node:
    """The first lengths[b] elements of each batch row b in reverse order; lengths static."""
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    lengths = static(lengths_input, "the lengths").reshape(-1)
    rows = []
    for b, length in enumerate(int(n) for n in lengths):
        row = d.take_range(x, batch, b, 1)
        front = d.take_range(row, time, length - 1, length, -1) if length else None
        back = d.take_range(row, time, length, x.shape[time] - length)
        parts = [p for p in (front, back) if p is not None and p.shape[time]]
        rows.append(ir.concat(parts, time))
    return ir.concat(rows, batch)
