"""Softmax divides after the product that follows it."""
from __future__ import annotations

import numpy as np
import pytest

from tinynn import derived, interp, ir
from tinynn.ir import DType, Graph, Node, Op
from tinynn.quotients import divide_last
from tinynn.simplify import simplify


def _divided(graph: Graph) -> list[tuple[int, ...]]:
    return [n.shape for n in graph.nodes() if n.op is Op.DIV]


def _attention(heads: int, length: int, width: int, axis: int) -> Graph:
    """Softmax of scores along one of their last two axes, times values."""
    scores = ir.input_("scores", DType.F32, (heads, length, length))
    values = ir.input_("values", DType.F32, (heads, length, width))
    y = derived.matmul(derived.softmax(scores, axis), values)
    return Graph("attention", {"scores": scores, "values": values}, {"y": y})


@pytest.mark.parametrize("heads", [1, 3])
def test_a_softmax_is_divided_after_the_product(heads: int) -> None:
    graph = simplify(_attention(heads, 20, 7, 2))
    moved = simplify(divide_last(graph))
    assert sum(map(np.prod, _divided(graph))) == heads * 20 * 20
    assert sum(map(np.prod, _divided(moved))) == heads * 20 * 7
    rng = np.random.default_rng(0)
    scores = 80 * rng.standard_normal((heads, 20, 20))
    values = rng.standard_normal((heads, 20, 7))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    exact = weights / weights.sum(-1, keepdims=True) @ values
    found = interp.run(moved, {"scores": scores.astype(np.float32),
                               "values": values.astype(np.float32)})["y"]
    np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-5)


def test_a_softmax_along_another_axis_than_the_sum_stays() -> None:
    graph = simplify(_attention(2, 20, 7, 1))
    assert divide_last(graph).outputs == graph.outputs


def test_only_a_softmax_is_moved() -> None:
    """Any other quotient may be small where its dividend and divisor are large."""
    x = ir.input_("x", DType.F32, (4, 6))
    y = ir.input_("y", DType.F32, (4, 1))
    product: Node = derived.matmul(ir.div(x, ir.expand(y, (4, 6))), ir.full((6, 3), 2, DType.F32))
    graph = Graph("quotient", {"x": x, "y": y}, {"z": product})
    assert divide_last(graph).outputs == graph.outputs
