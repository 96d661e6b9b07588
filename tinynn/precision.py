"""bf16 arithmetic: which products of a graph are rounded, and how far that moves its outputs.

Both factors of a sum of products with weights are rounded to bf16; their products and sums are f32.
Nothing else changes: residual sums, activations and windows of single channels stay f32, and so do
products of two computed tensors (attention), which are few and whose errors nothing averages out.
The roundings are CASTs of the graph, so the interpreter gives the meaning of the result and every
later pass sees which tensors may be kept in two bytes.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinynn import ir
from tinynn.cost import points
from tinynn.index import Axis, axes_of, of, source_index
from tinynn.ir import VIEWS, DType, Graph, Node, Op, toposort
from tinynn.machine import MACHINES, Machine, TargetError

FEWEST_COLUMNS = 16  # results that share a factor: with fewer, rounding it costs more than it saves
SHORTEST_SUM = 8  # products of one result


def check_precision(precision: str, machine: Machine) -> None:
    """Raise TargetError if the machine has no such arithmetic."""
    if precision not in ("f32", "bf16"):
        raise TargetError(f"precision {precision!r} is not known; use 'f32' or 'bf16'")
    if precision == "bf16" and not machine.has_bf16:
        able = ", ".join(f"cpu:{m.name}" for m in MACHINES.values() if m.has_bf16)
        raise TargetError(f"cpu:{machine.name} has no bf16 arithmetic: use precision 'f32', or "
                          f"compile for {able}")


def round_products(graph: Graph) -> Graph:
    """The graph with the factors of its large sums of products rounded to bf16."""
    done: dict[Node, Node] = {}
    for old in toposort(graph.outputs.values()):
        new = ir.node(old.op, old.dtype, old.shape, [done[s] for s in old.src], old.arg)
        done[old] = _rounded_sum(new) if _is_large_product(new) else new
    outputs = {name: done[n] for name, n in graph.outputs.items()}
    return Graph(graph.name, dict(graph.inputs), outputs, dict(graph.state), dict(graph.metadata))


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
    (left, left_axes), (right, right_axes) = (_leaf(factor, axes) for factor in product.src)
    if (left.op is Op.CONST) == (right.op is Op.CONST):
        return False
    own = left_axes - right_axes if left.op is Op.CONST else right_axes - left_axes
    return points(tuple(own)) >= FEWEST_COLUMNS


def _leaf(n: Node, axes: tuple[Axis, ...]) -> tuple[Node, set[Axis]]:
    """What views read in the end, and the axes on which the element depends that they read."""
    index = tuple(of(axis) for axis in axes)
    while n.op in VIEWS:
        index, _ = source_index(n, index)
        n = n.src[0]
    return n, axes_of(index)


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
