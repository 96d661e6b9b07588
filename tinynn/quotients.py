"""Softmax divides after the product that follows it, not before.

    sum over k of (e[q, k] / s[q]) * v[k, c]  =  (sum over k of e[q, k] * v[k, c]) / s[q]

The quotient, as large as all scores of an attention, is then neither computed nor stored. Only
rounding differs. Nothing overflows that did not: s is the sum of all e, which are powers of two.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinynn import ir
from tinynn.index import Axis, axes_of, leaf
from tinynn.ir import VIEWS, DType, Graph, Node, Op
from tinynn.simplify import rewrite


def divide_last(graph: Graph) -> Graph:
    """The graph with the quotients of softmax behind the sums of products they are factors of."""
    roots = rewrite(list(graph.outputs.values()), {},
                    lambda op: (_divided_sum,) if op is Op.REDUCE else ())
    return replace(graph, outputs=dict(zip(graph.outputs, roots, strict=True)))


def _divided_sum(n: Node) -> Node | None:
    """A sum of products with a softmax as the quotient of two sums; None for any other."""
    product = n.src[0]
    if n.arg[0] != "sum" or n.dtype is not DType.F32 or product.op is not Op.MUL or not n.size:
        return None
    for factor, other in (product.src, product.src[::-1]):
        views, quotient = _views(factor)
        if not _is_softmax(quotient):
            continue
        dividend, divisor = (_seen(views, source) for source in quotient.src)
        axes = [Axis(f"i{i}", size) for i, size in enumerate(product.shape)]
        if axes_of(leaf(divisor, axes)[1]) & {axes[a] for a in n.arg[1]}:
            continue  # it changes along the sum
        first = [(0, 1 if a in n.arg[1] else size, 1) for a, size in enumerate(product.shape)]
        return ir.div(ir.reduce(ir.mul(dividend, other), *n.arg),
                      ir.reshape(ir.slice_(divisor, first), n.shape))
    return None


def _views(n: Node) -> tuple[list[Node], Node]:
    """The views that read a node, the last one first, and the node."""
    views: list[Node] = []
    while n.op in VIEWS and n.op is not Op.PAD:
        views.append(n)
        n = n.src[0]
    return views, n


def _seen(views: Sequence[Node], n: Node) -> Node:
    """What the same views show of another node."""
    for view in reversed(views):
        n = ir.node(view.op, n.dtype, view.shape, (n,), view.arg)
    return n


def _is_softmax(n: Node) -> bool:
    """Whether the node divides powers by their sum."""
    if n.op is not Op.DIV or n.src[0].op is not Op.EXP2:
        return False
    total = _views(n.src[1])[1]
    return (total.op is Op.REDUCE and total.arg[0] == "sum"
            and _views(total.src[0])[1] is n.src[0])
