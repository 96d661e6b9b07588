"""Lowerings: picking elements by their values."""
from __future__ import annotations

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.ops_shape import scatter_along, take_along
from tinynn.onnx.registry import Call, lowers, static, static_scalar

# TopK compares every pair of elements of the axis.
_LONGEST_SORTED = 4096


@lowers("TopK", since=1)
def top_k(call: Call, x: Node, k_input: Node | None = None) -> list[Node]:
    """Values and indices of the k largest or smallest along an axis, in order; of equal ones the
    first comes first.

    The rank of an element is how many others come before it; the element of rank j is j-th.
    """
    k = call.integer("k") if k_input is None else int(static_scalar(k_input, "k"))
    call.flag("sorted", True)  # unsorted may be in any order, so also sorted
    rank = len(x.shape)
    axis = call.axis(rank, -1)
    n = x.shape[axis]
    if n > _LONGEST_SORTED or not 0 <= k <= n:
        raise UnsupportedModel(f"the first {k} of {n} elements; at most {_LONGEST_SORTED}")
    keys = x if call.flag("largest", True) else d.flip(x)
    mine, other = d.unsqueeze(keys, axis + 1), d.unsqueeze(keys, axis)
    tail = [1] * (rank - axis - 1)
    square = (n, n, *tail)
    earlier = d.less(d.positions(square, 1), d.positions(square, 0))
    before = d.add(d.less(mine, other), d.mul(d.equal(mine, other), earlier))
    ranks = ir.reduce(ir.cast(before, DType.I64), "sum", (axis + 1,))
    chosen = d.equal(d.unsqueeze(ranks, axis), d.positions((k, 1, *tail), 0))
    positions = d.positions((n, *tail), 0)
    indices = ir.reduce(d.where(chosen, positions, d.scalar(0, positions)), "sum", (axis + 1,))
    return [take_along(x, indices, axis), indices]


@lowers("Compress", since=9)
def compress(call: Call, x: Node, condition: Node) -> Node:
    """Where the condition, a constant, holds; of the flattened tensor without an axis."""
    chosen = np.flatnonzero(static(condition, "the condition").reshape(-1))
    if not call.has("axis"):
        return ir.gather(ir.reshape(x, (x.size,)), ir.const(chosen), 0)
    return ir.gather(x, ir.const(chosen), call.axis(len(x.shape)))


@lowers("NonZero", since=9)
def non_zero(call: Call, x: Node) -> Node:
    """Coordinates (rank, count) of what is not 0, of a constant."""
    return ir.const(np.array(np.nonzero(static(x, "the operand")), np.int64))


@lowers("Unique", since=11)
def unique(call: Call, x: Node) -> list[Node]:
    """Of a constant: values, first positions, positions in the values, counts."""
    axis = call.axis(len(x.shape)) if call.has("axis") else None
    values, first, inverse, counts = np.unique(
        static(x, "the operand"), return_index=True, return_inverse=True, return_counts=True,
        axis=axis)
    inverse = inverse.reshape(-1)
    if not call.flag("sorted", True):
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts = first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return [ir.const(values), *(ir.const(v, DType.I64) for v in (first, inverse, counts))]


@lowers("TensorScatter", since=24)
def tensor_scatter(call: Call, past: Node, update: Node, start: Node | None = None) -> Node:
    """Write the update into the cache along an axis, from position start[batch] on."""
    axis = call.axis(len(past.shape), -2)
    if axis == 0:
        raise ModelError("the axis is the one of the batch")
    circular = call.text("mode", "linear", ("linear", "circular")) == "circular"
    at = d.broadcast_to(d.positions(update.shape, axis), update.shape)
    if start is not None:
        at = d.add(at, ir.reshape(start, (start.size, *[1] * (len(past.shape) - 1))))
    if circular:
        length = past.shape[axis]
        at = d.where(d.less(at, length), at, d.sub(at, length))
    return scatter_along(past, at, update, axis)


@lowers("ai.onnx.ml::ArrayFeatureExtractor")
def array_feature_extractor(call: Call, x: Node, indices: Node) -> Node:
    picked = ir.gather(x, ir.reshape(indices, (indices.size,)), len(x.shape) - 1)
    return ir.reshape(picked, (1, picked.size)) if len(x.shape) == 1 else picked


@lowers("ai.onnx.ml::Binarizer")
def binarizer(call: Call, x: Node) -> Node:
    threshold = d.scalar(call.number("threshold", 0.0), x)
    return ir.cast(d.less(threshold, x), x.dtype)
