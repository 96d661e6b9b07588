"""Lowerings: interpolation at positions that are computed at run time, and its relatives.

Along each spatial axis a position has taps, a few neighbouring elements with weights; the value
there is the sum over all combinations of taps. That is one GATHER and one sum of products.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.ops_nn import add_channels, spatial
from tinynn.onnx.ops_shape import pad_or_crop
from tinynn.onnx.registry import Call, lowers, static_ints


@dataclass(frozen=True)
class _Taps:
    """Along one axis: indices (i64) and weights (float), both (batch, positions, taps)."""

    indices: Node
    weights: Node


def _weighted(x: Node, batch: Node, taps: Sequence[_Taps]) -> Node:
    """x (n, channels, *lengths) at the taps, times their weights.

    batch (batch,): which x each row of positions is about. Result: (batch, positions, channels,
    taps of the first axis, taps of the second, ...).
    """
    lengths, rank = x.shape[2:], len(taps)
    rows = ir.permute(x, (0, *range(2, 2 + rank), 1))
    rows = ir.reshape(rows, (x.shape[0] * math.prod(lengths), x.shape[1]))
    number = ir.reshape(batch, (batch.size, *[1] * (1 + rank)))
    weights: Node | None = None
    for i, (one, length) in enumerate(zip(taps, lengths, strict=True)):
        around = [1] * rank
        around[i] = one.indices.shape[2]
        shape = (*one.indices.shape[:2], *around)
        number = d.add(d.mul(number, length), ir.reshape(one.indices, shape))
        weight = ir.reshape(one.weights, shape)
        weights = weight if weights is None else d.mul(weights, weight)
    assert weights is not None
    values = ir.gather(rows, number, 0)
    values = ir.permute(values, (0, 1, 2 + rank, *range(2, 2 + rank)))
    return d.mul(values, d.unsqueeze(weights, 2))


def _sum_of_taps(weighted: Node) -> Node:
    """(batch, positions, channels)."""
    return ir.reduce(weighted, "sum", range(3, len(weighted.shape)))


def _linear(at: Node) -> tuple[Node, Node]:
    """Neighbours of positions `at` (batch, positions) and their weights, with a last axis of 2."""
    base = d.unsqueeze(ir.floor(at), 2)
    part = d.sub(d.unsqueeze(at, 2), base)
    indices = d.add(base, ir.const([0, 1], at.dtype))
    return indices, ir.concat([d.sub(d.scalar(1, at), part), part], 2)


def _cubic(at: Node) -> tuple[Node, Node]:
    """Four neighbours, with the weights of Keys' kernel for a = -0.75."""
    a = -0.75
    base = d.unsqueeze(ir.floor(at), 2)
    part = d.sub(d.unsqueeze(at, 2), base)
    offsets = ir.const([-1, 0, 1, 2], at.dtype)
    far = d.absolute(d.sub(part, offsets))

    def polynomial(*factors: float) -> Node:
        value = d.scalar(factors[0], far)
        for factor in factors[1:]:
            value = d.add(d.mul(far, value), factor)
        return value
    weights = d.where(d.less(d.scalar(1, far), far), polynomial(a, -5 * a, 8 * a, -4 * a),
                      polynomial(a + 2, -a - 3, 0, 1))
    return d.add(base, offsets), weights


def _nearest(at: Node) -> tuple[Node, Node]:
    indices = d.unsqueeze(d.round_even(at), 2)
    return indices, ir.full(indices.shape, 1, at.dtype)


def _zero_outside(indices: Node, weights: Node, length: int) -> _Taps:
    """Taps outside the axis weigh nothing."""
    outside = d.add(d.less(indices, 0), d.less(d.scalar(length - 1, indices), indices))
    weights = d.where(outside, d.scalar(0, weights), weights)
    return _Taps(_whole(indices, length), weights)


def _whole(indices: Node, length: int) -> Node:
    """As i64, within the axis."""
    low, high = d.scalar(0, indices), d.scalar(length - 1, indices)
    return ir.cast(d.clip(indices, low, high), DType.I64)


def _reflected(at: Node, low: float, high: float) -> Node:
    """at, mirrored at both ends as often as it takes to lie between them."""
    span = high - low
    if span == 0:
        return d.where(d.equal(at, at), d.scalar(low, at), at)
    offset = d.sub(at, low)
    rest = d.sub(offset, d.mul(ir.floor(d.div(offset, 2 * span)), 2 * span))
    return d.add(d.minimum(rest, d.sub(d.scalar(2 * span, rest), rest)), low)


_TAPS = {"linear": _linear, "cubic": _cubic, "nearest": _nearest}


@lowers("GridSample", since=16)
def grid_sample(call: Call, x: Node, grid: Node) -> Node:
    """x (N, C, *I) at grid (N, *O, rank) -> (N, C, *O). The grid's last axis has the position on
    the last axis of x first; -1 and 1 are the ends of x (the centres of the outermost elements
    with align_corners, else their outer borders)."""
    rank = len(x.shape) - 2
    mode = call.text("mode", "linear", ("linear", "nearest", "cubic", "bilinear", "bicubic"))
    padding = call.text("padding_mode", "zeros", ("zeros", "border", "reflection"))
    corners = call.flag("align_corners")
    n, out = grid.shape[0], grid.shape[1:-1]
    if rank < 1 or grid.shape[-1] != rank or x.shape[0] != n:
        raise ModelError(f"the grid {grid!r} does not fit {x!r}")
    flat = ir.cast(ir.reshape(grid, (n, math.prod(out), rank)), x.dtype)
    taps = []
    for axis, length in enumerate(x.shape[2:]):
        unit = d.mul(d.add(d.take_range(flat, 2, rank - 1 - axis, 1), 1), 0.5)
        at = d.mul(unit, length - 1) if corners else d.sub(d.mul(unit, length), 0.5)
        at = ir.reshape(at, at.shape[:2])
        low, high = (0.0, length - 1.0) if corners else (-0.5, length - 0.5)
        if padding == "border" and mode not in ("cubic", "bicubic"):  # whose taps are clipped
            at = d.clip(at, d.scalar(0, at), d.scalar(length - 1, at))
        elif padding == "reflection":
            at = _reflected(at, low, high)
        indices, weights = _TAPS[mode.removeprefix("bi")](at)
        if padding == "zeros":
            taps.append(_zero_outside(indices, weights, length))
            continue
        if padding == "reflection":
            indices = _reflected(indices, low, high)
        taps.append(_Taps(_whole(indices, length), weights))
    sampled = _sum_of_taps(_weighted(x, d.positions((n,), 0), taps))
    return ir.reshape(ir.permute(sampled, (0, 2, 1)), (n, x.shape[1], *out))


@lowers("RoiAlign", since=10)
def roi_align(call: Call, x: Node, rois: Node, batch: Node) -> Node:
    """x (N, C, H, W), rois (R, 4) as x1 y1 x2 y2, batch (R,) -> (R, C, height, width): the mean or
    the largest weighted tap of a grid of samples in each cell of each region."""
    mode = call.text("mode", "avg", ("avg", "max"))
    samples = call.integer("sampling_ratio", 0)
    if samples <= 0:
        raise UnsupportedModel("sampling_ratio 0, which adapts to the regions, is not supported")
    half = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    centred = call.text("coordinate_transformation_mode", half,
                        ("half_pixel", "output_half_pixel")) == "half_pixel"
    cells = [call.integer("output_height", 1), call.integer("output_width", 1)]
    scaled = d.mul(rois, call.number("spatial_scale", 1.0))
    scaled = d.sub(scaled, 0.5) if centred else scaled
    counts = [c * samples for c in cells]
    taps = []
    for axis, (length, cell, count) in enumerate(zip(x.shape[2:], cells, counts, strict=True)):
        start, end = (d.take_range(scaled, 1, i, 1) for i in (1 - axis, 3 - axis))
        size = d.sub(end, start)
        size = size if centred else d.maximum(size, 1)
        steps = d.positions((count,), 0, rois.dtype)
        at = d.add(start, d.mul(size, d.div(d.add(steps, 0.5), samples * cell)))
        grid = ir.reshape(at, (rois.shape[0], count, 1) if axis == 0 else (rois.shape[0], 1, count))
        at = ir.reshape(d.broadcast_to(grid, (rois.shape[0], *counts)),
                        (rois.shape[0], math.prod(counts)))
        outside = d.add(d.less(at, -1), d.less(d.scalar(length, at), at))
        indices, weights = _linear(d.clip(at, d.scalar(0, at), d.scalar(length - 1, at)))
        weights = d.where(d.unsqueeze(outside, 2), d.scalar(0, weights), weights)
        taps.append(_Taps(_whole(indices, length), weights))
    weighted = _weighted(x, ir.cast(batch, DType.I64), taps)
    values = (_sum_of_taps(weighted) if mode == "avg"
              else ir.reduce(weighted, "max", range(3, len(weighted.shape))))
    grid = ir.reshape(values, (rois.shape[0], cells[0], samples, cells[1], samples, x.shape[1]))
    pooled = d.mean(grid, (2, 4)) if mode == "avg" else ir.reduce(grid, "max", (2, 4))
    return ir.permute(pooled, (0, 3, 1, 2))


@lowers("DeformConv", since=19)
def deform_conv(call: Call, x: Node, weight: Node, offset: Node, bias: Node | None = None,
                mask: Node | None = None) -> Node:
    """A convolution whose taps are moved by offsets and scaled by a mask.

    x (N, C, H, W), weight (M, C/groups, *K), offset (N, offset groups * prod K * 2, *O), mask
    (N, offset groups * prod K, *O) -> (N, M, *O).
    """
    if len(x.shape) != 4:
        raise UnsupportedModel(f"{x!r}: only two spatial axes are supported")
    n, channels = x.shape[:2]
    filters, per_group, *kernel = weight.shape
    spatial(call, "kernel_shape", 2, kernel)
    strides, dilations = spatial(call, "strides", 2), spatial(call, "dilations", 2)
    pads, groups = call.integers("pads", [0] * 4), call.integer("group", 1)
    moved = call.integer("offset_group", 1)
    out, size = offset.shape[2:], math.prod(kernel)
    count = size * math.prod(out)
    grid = ir.reshape(offset, (n * moved, size, 2, math.prod(out)))
    taps = []
    for axis in range(2):
        at = ir.reshape(d.take_range(grid, 2, axis, 1), (n * moved, *kernel, *out))
        step = d.mul(d.positions((*kernel, 1, 1), axis, x.dtype), dilations[axis])
        start = d.sub(d.mul(d.positions(out, axis, x.dtype), strides[axis]), pads[axis])
        at = ir.reshape(d.add(d.add(at, step), start), (n * moved, count))
        taps.append(_zero_outside(*_linear(at), x.shape[2 + axis]))
    parts = ir.reshape(x, (n * moved, channels // moved, *x.shape[2:]))
    sampled = _sum_of_taps(_weighted(parts, d.positions((n * moved,), 0), taps))
    if mask is not None:
        sampled = d.mul(sampled, ir.reshape(mask, (n * moved, count, 1)))
    sampled = ir.reshape(ir.permute(sampled, (0, 2, 1)),
                         (n, groups, 1, channels // groups, size, math.prod(out)))
    w = ir.reshape(weight, (1, groups, filters // groups, per_group, size, 1))
    total = ir.reduce(d.mul(sampled, w), "sum", (3, 4))
    return add_channels(ir.reshape(total, (n, filters, *out)), bias)


@lowers("Col2Im", since=18)
def col2im(call: Call, x: Node, image_input: Node, block_input: Node) -> Node:
    """Columns (N, C * prod(block), positions) added up where they overlap: (N, C, *image)."""
    image = static_ints(image_input, "the image shape")
    block = static_ints(block_input, "the block shape")
    rank, size = len(image), math.prod(block)
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    pads = call.integers("pads", [0] * (2 * rank))
    padded = [n + pads[i] + pads[i + rank] for i, n in enumerate(image)]
    d.require_small(math.prod(padded) * size)
    places = np.arange(math.prod(padded)).reshape(padded)
    spans = [dil * (k - 1) + 1 for k, dil in zip(block, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(places, spans)
    windows = windows[(*(slice(None, None, s) for s in strides),
                       *(slice(None, None, s) for s in dilations))]
    columns = np.moveaxis(windows.reshape(-1, size), 0, 1)
    channels = x.shape[1] // size
    updates = ir.reshape(x, (x.shape[0], channels, columns.size))
    empty = ir.full((x.shape[0], channels, places.size), 0, x.dtype)
    added = ir.scatter(empty, ir.const(columns.reshape(-1)), updates, 2, "add")
    whole = ir.reshape(added, (x.shape[0], channels, *padded))
    return pad_or_crop(whole, [(0, 0), (0, 0),
                               *((-pads[i], -pads[i + rank]) for i in range(rank))], 0)
