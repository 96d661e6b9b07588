"""Every rule refuses a node that breaks it, and the error names the node."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tinynn import ir
from tinynn.ir import DType, Graph, GraphError, Node, Op, node
from tinynn.spec import check
from tinynn.tests.random_graphs import graphs

X = ir.input_("x", DType.F32, (2, 3))
I = ir.input_("i", DType.I32, (2,))  # noqa: E741
B = ir.input_("b", DType.BOOL, (2, 3))
ROW = ir.input_("r", DType.F32, (1, 3))


def one(n: Node) -> Graph:
    inputs = {x.arg: x for x in (X, I, B, ROW)}
    return Graph("g", inputs, {"out": n})


def raw(op: Op, shape: tuple[Any, ...], src: tuple[Node, ...], arg: Any = None,
        dtype: DType = DType.F32) -> Node:
    return node(op, dtype, shape, src, arg)


ILLEGAL = [
    (raw(Op.CONST, (2,), (), "not a Const"), "should be a Const"),
    (raw(Op.CONST, (2,), (), ir.Const(np.zeros(3, np.float32))), r"shape should be \(3,\)"),
    (raw(Op.CONST, (3,), (), ir.Const(np.zeros(3))), "dtype should be f64"),
    (raw(Op.RESHAPE, (5,), (X,)), "number of elements"),
    (raw(Op.RESHAPE, (6,), (X,), (6,)), "takes no argument"),
    (raw(Op.PERMUTE, (3, 2), (X,), (1, 1)), "not a permutation"),
    (raw(Op.PERMUTE, (2, 3), (X,), (1, 0)), r"shape should be \(3, 2\)"),
    (raw(Op.EXPAND, (2, 6), (X,)), "length 1"),
    (raw(Op.EXPAND, (4, 1, 3), (ROW,)), "number of axes"),
    (raw(Op.PAD, (3, 3), (X,), (((1, 0),), 0.0)), "one pair"),
    (raw(Op.PAD, (3, 3), (X,), (((1, 0), (0, 0)), 0)), "should be a float"),
    (raw(Op.PAD, (3, 3), (X,), (((1, 0), (0, 0)),)), "the argument is"),
    (raw(Op.SLICE, (2, 3), (X,), ((0, 2, 1), (1, 3, 1))), "leaves its axis"),
    (raw(Op.SLICE, (2, 3), (X,), ((0, 2, 0), (0, 3, 1))), "leaves its axis"),
    (raw(Op.WINDOW, (2, 0, 4), (X,), ((1, 4, 1, 1),)), "wider"),
    (raw(Op.WINDOW, (2, 3, 1, 1), (X,), ((1, 1, 1, 1), (1, 1, 1, 1))), "named twice"),
    (raw(Op.CONCAT, (2, 3), (X,), 0), "at least two"),
    (raw(Op.CONCAT, (4, 3), (X, B), 0), "differ in dtype"),
    (raw(Op.GATHER, (2, 3), (X, ROW), 0), "must be integers"),
    (raw(Op.GATHER, (2, 3), (X, I), 2), "axis 2"),
    (raw(Op.SCATTER, (2, 3), (X, I, X), (0, "xor")), "mode 'xor'"),
    (raw(Op.SCATTER, (2, 3), (X, I, ROW), (0, "set")), "updates do not have"),
    (raw(Op.EXP2, (2, 3), (B,), dtype=DType.BOOL), "needs floats"),
    (raw(Op.ADD, (2, 3), (X, ROW)), "differ in dtype or shape"),
    (raw(Op.DIV, (2, 3), (B, B), dtype=DType.BOOL), "bool cannot be divided"),
    (raw(Op.LT, (2, 3), (X, X)), "dtype should be bool"),
    (raw(Op.WHERE, (2, 3), (X, X, X)), "condition must be bool"),
    (raw(Op.WHERE, (2, 3), (B, X, ROW)), "differ in dtype or shape"),
    (raw(Op.CAST, (3,), (X,), dtype=DType.I8), r"shape should be \(2, 3\)"),
    (raw(Op.REDUCE, (2,), (X,), ("mean", (1,))), "kind 'mean'"),
    (raw(Op.REDUCE, (), (X,), ("sum", (1, 0))), "ascending"),
    (raw(Op.REDUCE, (2,), (X,), ("sum", (0,))), r"shape should be \(3,\)"),
    (raw(Op.SQRT, (2, 3), (X, X)), "takes 1 sources, has 2"),
    (raw(Op.SQRT, (2, -3), (X,)), "not made of integers"),
]


@pytest.mark.parametrize(("bad", "message"), ILLEGAL, ids=lambda v: v.op.name if isinstance(
    v, Node) else "")
def test_illegal_nodes_are_refused(bad: Node, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check(one(bad))


def test_every_operation_has_an_illegal_example() -> None:
    tried = {n.op for n, _ in ILLEGAL}
    same_rule = {Op.LOG2, Op.SIN, Op.FLOOR, Op.MUL, Op.MAX, Op.EQ}
    assert tried | same_rule | {Op.INPUT} == set(Op)


def test_error_names_graph_node_and_sources() -> None:
    bad = raw(Op.ADD, (2, 3), (X, ROW))
    with pytest.raises(GraphError, match=r"graph 'g', node %4 = <ADD f32\[2x3\]> of "
                                         r"\(%0 <INPUT f32\[2x3\]> %3 <INPUT f32\[1x3\]>\)"):
        check(one(bad))


def test_inputs_and_outputs() -> None:
    with pytest.raises(GraphError, match="reads the input 'x', which is not declared"):
        check(Graph("g", {}, {"out": X}))
    with pytest.raises(GraphError, match="input 'other' is"):
        check(Graph("g", {"other": X}, {"out": X}))
    with pytest.raises(GraphError, match="no outputs"):
        check(Graph("g", {"x": X}, {}))
    twin = ir.input_("x", DType.F32, (7,))
    with pytest.raises(GraphError, match="which is not declared"):
        check(Graph("g", {"x": X}, {"out": X, "twin": twin}))


def test_state_must_join_equal_tensors() -> None:
    check(Graph("g", {"x": X}, {"out": ir.add(X, X)}, {"x": "out"}))
    with pytest.raises(GraphError, match="state 'y' -> 'out': there is no such input"):
        check(Graph("g", {"x": X}, {"out": X}, {"y": "out"}))
    with pytest.raises(GraphError, match="no such output"):
        check(Graph("g", {"x": X}, {"out": X}, {"x": "gone"}))
    with pytest.raises(GraphError, match="next value 'out' is"):
        check(Graph("g", {"x": X}, {"out": ir.reshape(X, (6,))}, {"x": "out"}))
    both = {"x": X, "z": ir.input_("z", DType.F32, (2, 3))}
    with pytest.raises(GraphError, match="two states"):
        check(Graph("g", both, {"out": X}, {"x": "out", "z": "out"}))


@given(graphs(empty_axes=True, special=True))
def test_what_the_constructors_build_is_legal(graph: Graph) -> None:
    check(graph)
