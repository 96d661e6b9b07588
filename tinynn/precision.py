"""bf16 arithmetic: which products of a graph are rounded.

Both factors of a sum of products with weights are rounded to bf16; their products and sums are f32.
Nothing else changes: residual sums, activations and windows of single channels stay f32, and so do
products of two computed tensors (attention), which are few and whose errors nothing averages out.
The roundings are CASTs of the graph, so the interpreter gives the meaning of the result and every
later pass sees which tensors may be kept in two bytes.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinynn import ir
from tinynn.cost import points
from tinynn.index import Axis, Index, axes_of, leaf
from tinynn.ir import ELEMENTWISE, VIEWS, DType, Graph, Node, Op, toposort
from tinynn.machine import MACHINES, Machine, TargetError
from tinynn.quantised import bytes_and_scale

FEWEST_COLUMNS = 16  # results that share a factor: with fewer, rounding it costs more than it saves
SHORTEST_SUM = 8  # products of one result
MOST_EXACT = 0.05  # of all products, by which the last sums of a graph may stay exact


def check_precision(precision: str, machine: Machine) -> None:
    """Raise TargetError if the machine has no such arithmetic."""
    if precision not in ("f32", "bf16"):
        raise TargetError(f"precision {precision!r} is not known; use 'f32' or 'bf16'")
    if precision == "bf16" and not machine.has_bf16:
        able = ", ".join(f"cpu:{m.name}" for m in MACHINES.values() if m.has_bf16)
        raise TargetError(f"cpu:{machine.name} has no bf16 arithmetic: use precision 'f32', or "
                          f"compile for {able}")


def round_products(graph: Graph) -> Graph:
    """The graph with the factors of its large sums of products rounded to bf16.

    The last sums before the outputs stay exact if they are few: nothing averages out their errors.
    """
    nodes = toposort(graph.outputs.values())
    products = {n: n.src[0].size for n in nodes if _is_large_product(n)}
    last = _last_sums(graph) & set(products)
    if sum(products[n] for n in last) > MOST_EXACT * sum(products.values()):
        last = set()

    def rounded(old: Node, src: tuple[Node, ...]) -> Node:
        new = ir.with_sources(old, src)
        return _rounded_sum(new) if old in products and old not in last else new

    return ir.rebuild(graph, rounded)


def _last_sums(graph: Graph) -> set[Node]:
    """The sums that nothing but views, elementwise operations and joins lead to outputs."""
    seen: set[Node] = set()
    left = list(graph.outputs.values())
    while left:
        n = left.pop()
        if n not in seen:
            seen.add(n)
            if n.op in VIEWS or n.op in ELEMENTWISE or n.op is Op.CONCAT:
                left += n.src
    return {n for n in seen if n.op is Op.REDUCE}


def _is_large_product(n: Node) -> bool:
    """Whether the node sums products of a computed f32 tensor and weights that many results share.

    Told by axes: the weights have some that the other factor lacks, in which a depthwise
    convolution differs from a dense one.
    """
    if n.op is not Op.REDUCE or n.arg[0] != "sum" or n.dtype is not DType.F32:
        return False
    product = n.src[0]
    if product.op is not Op.MUL or n.size == 0 or product.size < SHORTEST_SUM * n.size:
        return False
    axes = tuple(Axis(f"i{i}", size) for i, size in enumerate(product.shape))
    leaves = [leaf(factor, axes) for factor in product.src]
    if leaves[0][0].op is not Op.CONST:
        leaves.reverse()
    (weights, weight_index), (data, data_index) = leaves
    if weights.op is not Op.CONST or data.op is Op.CONST:
        return False
    own = axes_of(weight_index) - axes_of(data_index)
    return points(tuple(own)) >= FEWEST_COLUMNS and not _are_bytes(weights, weight_index, own)


def _are_bytes(weights: Node, index: Index, own: set[Axis]) -> bool:
    """Whether weights are quantised: their sums are exact and fast without rounding."""
    first = [i for i, expr in enumerate(index) if expr.axes & own]
    array = np.moveaxis(weights.arg.array, first, range(len(first)))
    rows = array.reshape(math.prod(array.shape[:len(first)]), -1)
    return rows.shape[1] > 1 and all(bytes_and_scale(row) is not None for row in rows)


def _rounded_sum(n: Node) -> Node:
    factors = [_below_views(factor, _rounded) for factor in n.src[0].src]
    return ir.reduce(ir.mul(*factors), *n.arg)


def _below_views(n: Node, change: Callable[[Node], Node]) -> Node:
    """The node with what its views read in the end changed."""
    if n.op not in VIEWS:
        return change(n)
    return ir.node(n.op, n.dtype, n.shape, (_below_views(n.src[0], change),), n.arg)


def _rounded(n: Node) -> Node:
    """The nearest bf16 numbers, as f32."""
    if n.op is Op.CONST:
        return ir.const(n.arg.array.astype(DType.BF16.numpy).astype(np.float32))
    return ir.cast(ir.cast(n, DType.BF16), DType.F32)
