"""What half precision makes of a graph, in numpy: for the bound that an artifact states.

Half targets keep what they store in f16 and add up to LONGEST_PART products with constant weights
in f16, one after the other; these parts, and all else, are computed in f32. Which tensors are
stored is what fusion for a GPU decides. Some of them stay f32 on a device (inputs and outputs, and
what fits no image), so that this errs on the side of more error.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynn import interp, ir
from tinynn.fuse import stored_nodes
from tinynn.ir import VIEWS, DType, Graph, Node, Op

LONGEST_PART = 128  # products that are added in half
MOST_PARTS = 16  # of one sum; where more would be needed, parts are longer

Array = np.ndarray[Any, Any]


def part_length(products: int) -> int:
    """Products that a half target adds up in f16, of a sum of so many."""
    return max(LONGEST_PART, -(-products // MOST_PARTS))


def run(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """`interp.run` of a graph that `round_stored` made, with sums as half targets compute them."""
    return interp.run(graph, inputs, {**interp.EVALUATE, Op.REDUCE: _reduce})


def round_stored(graph: Graph) -> Graph:
    """The graph with every f32 tensor in memory rounded to f16, but for its outputs and for what
    positions are computed from."""
    nodes = graph.nodes()
    exact = _steering(nodes) | set(graph.outputs.values())
    memory = stored_nodes(graph, gpu=True) - exact

    def rounded(old: Node, src: tuple[Node, ...]) -> Node:
        new = ir.with_sources(old, src)
        stored = old in memory and old.dtype is DType.F32
        return ir.cast(ir.cast(new, DType.F16), DType.F32) if stored else new

    return ir.rebuild(graph, rounded)


def _steering(nodes: list[Node]) -> set[Node]:
    """Nodes from which indices are computed, back to sums."""
    found = {n.src[1] for n in nodes if n.op in (Op.GATHER, Op.SCATTER)}
    for n in reversed(nodes):  # users before sources
        if n in found and n.op is not Op.REDUCE:
            found |= set(n.src)
    return found


def _reduce(n: Node, x: Any) -> Array:
    """REDUCE; x is the two factors if it sums products."""
    if isinstance(x, tuple) and n.dtype is DType.F32 and any(map(_is_constant, n.src[0].src)):
        return _sum_in_parts(n, *x)
    result: Array = interp.EVALUATE[Op.REDUCE](n, x)
    return result


def _is_constant(n: Node) -> bool:
    while n.op in VIEWS or n.op is Op.CAST:
        n = n.src[0]
    return n.op is Op.CONST


def _sum_in_parts(n: Node, a: Array, b: Array) -> Array:
    """Sum of a * b over the axes of the node: parts in f16, their sum in f32."""
    axes = n.arg[1]
    a, b = (np.moveaxis(factor, axes, range(len(axes))) for factor in (a, b))
    places = list(np.ndindex(a.shape[:len(axes)]))
    length = part_length(len(places))
    total = np.zeros(n.shape, np.float32)
    for start in range(0, len(places), length):
        part = np.zeros(n.shape, np.float32)
        for place in places[start:start + length]:
            # Products of halves are exact in f32, so each step rounds as a fused one.
            part += a[place] * b[place]
            part = part.astype(np.float16).astype(np.float32)
        total += part
    return total
