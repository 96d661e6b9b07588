"""Rules of simplify: each fires where it should, and none changes a value."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynn import derived, ir
from tinynn.interp import run
from tinynn.ir import DType, Graph, Node, Op
from tinynn.simplify import RULES, simplify, widen_f16
from tinynn.spec import check
from tinynn.tests.random_graphs import graphs, random_inputs

X = ir.input_("x", DType.F32, (4, 6))
Y = ir.input_("y", DType.F32, (4, 6))
ROW = ir.input_("r", DType.F32, (1, 6))
I = ir.input_("i", DType.I32, (4, 6))  # noqa: E741
B = ir.input_("b", DType.BOOL, (4, 6))
INPUTS = {n.arg: n for n in (X, Y, ROW, I, B)}


def graph_of(n: Node) -> Graph:
    return Graph("g", INPUTS, {"out": n})


def full(value: float, like: Node = X) -> Node:
    return ir.full(like.shape, value, like.dtype)


def table(value: float, like: Node = X) -> Node:
    """The same as a constant of many elements."""
    return ir.const(np.full(like.shape, value), like.dtype)


def assert_same_values(before: Graph, after: Graph, seeds: range = range(3)) -> None:
    """Equal bits; NaNs only have to be NaNs."""
    for seed in seeds:
        for special in (False, True):
            feed = random_inputs(before, seed, special)
            wanted, got = run(before, feed), run(after, feed)
            for name, array in wanted.items():
                assert got[name].dtype == array.dtype
                np.testing.assert_array_equal(got[name], array)
                if array.dtype.kind == "f":
                    signs = np.signbit(got[name]) == np.signbit(array)
                    assert np.all(signs | np.isnan(array))


# (what is built, what must come out)
CASES: dict[str, tuple[Callable[[], Node], Callable[[], Node]]] = {
    "fold": (lambda: ir.add(X, ir.add(ir.const(np.arange(24.0).reshape(4, 6), DType.F32),
                                      full(1))),
             lambda: ir.add(X, ir.const(np.arange(1.0, 25.0).reshape(4, 6), DType.F32))),
    "uniform constant": (lambda: ir.add(X, table(3)), lambda: ir.add(X, ir.expand(
        ir.const([[3.0]], DType.F32), (4, 6)))),
    "reshape of reshape": (lambda: ir.reshape(ir.reshape(X, (24,)), (3, 8)),
                           lambda: ir.reshape(X, (3, 8))),
    "reshape back": (lambda: ir.reshape(ir.reshape(X, (24,)), (4, 6)), lambda: X),
    "permute of permute": (lambda: ir.permute(ir.permute(X, (1, 0)), (1, 0)), lambda: X),
    "permute of a unit axis": (lambda: ir.permute(ROW, (1, 0)), lambda: ir.reshape(ROW, (6, 1))),
    "expand of expand": (
        lambda: ir.expand(ir.expand(ir.reshape(ROW, (1, 1, 6)), (1, 4, 6)), (3, 4, 6)),
        lambda: ir.expand(ir.reshape(ROW, (1, 1, 6)), (3, 4, 6))),
    "slice of slice": (
        lambda: ir.slice_(ir.slice_(X, [(0, 2, 2), (5, 3, -2)]), [(1, 1, 1), (2, 2, -1)]),
        lambda: ir.slice_(X, [(2, 1, 2), (1, 2, 2)])),
    "pad of pad": (lambda: ir.pad(ir.pad(X, [(1, 0), (0, 2)], 7), [(0, 1), (1, 0)], 7),
                   lambda: ir.pad(X, [(1, 1), (1, 2)], 7)),
    "cast there and back": (lambda: ir.cast(ir.cast(I, DType.F64), DType.I32), lambda: I),
    "exact cast of cast": (lambda: ir.cast(ir.cast(B, DType.I64), DType.F32),
                           lambda: ir.cast(B, DType.F32)),
    "times one": (lambda: ir.mul(full(1), X), lambda: X),
    "divided by one": (lambda: ir.div(X, full(1)), lambda: X),
    "plus minus zero": (lambda: ir.add(X, full(-0.0)), lambda: X),
    "integer plus zero": (lambda: ir.add(full(0, I), I), lambda: I),
    "bool or false": (lambda: ir.add(B, full(0, B)), lambda: B),
    "max with the lowest": (lambda: ir.maximum(X, full(-math.inf)), lambda: X),
    "max with itself": (lambda: ir.maximum(X, X), lambda: X),
    "integer times zero": (lambda: ir.mul(I, full(0, I)), lambda: full(0, I)),
    "divided by a power of two": (lambda: ir.div(X, full(8)), lambda: ir.mul(X, full(0.125))),
    "where with equal branches": (lambda: ir.where(B, X, X), lambda: X),
    "where always true": (lambda: ir.where(full(1, B), X, Y), lambda: X),
    "where of a negation": (lambda: ir.where(derived.logical_not(B), X, Y),
                            lambda: ir.where(B, Y, X)),
    "double negation": (lambda: derived.logical_not(derived.logical_not(B)), lambda: B),
    "elementwise before expand": (lambda: ir.exp2(ir.expand(ROW, (4, 6))),
                                  lambda: ir.expand(ir.exp2(ROW), (4, 6))),
    "pair before expand": (
        lambda: ir.add(ir.expand(ROW, (4, 6)), ir.expand(ir.sin(ROW), (4, 6))),
        lambda: ir.expand(ir.add(ROW, ir.sin(ROW)), (4, 6))),
    "reshape before expand": (
        lambda: ir.add(X, ir.reshape(ir.expand(ir.reshape(ir.reduce(X, "sum", (0, 1)), (1,)),
                                               (24,)), (4, 6))),
        lambda: ir.add(X, ir.expand(ir.reshape(ir.reduce(X, "sum", (0, 1)), (1, 1)), (4, 6)))),
    "concat of concat": (lambda: ir.concat([ir.concat([X, Y], 0), ROW], 0),
                         lambda: ir.concat([X, Y, ROW], 0)),
    "concat of nothing": (lambda: ir.concat([X, ir.slice_(Y, [(0, 0, 1), (0, 6, 1)])], 0),
                          lambda: X),
    "gather of a range": (lambda: ir.gather(X, ir.const(np.array([[5], [3], [1]])), 1),
                          lambda: ir.reshape(ir.slice_(X, [(0, 4, 1), (5, 3, -2)]), (4, 3, 1))),
    "gather of one": (lambda: ir.gather(X, ir.const(np.array(9)), 0),
                      lambda: ir.reshape(ir.slice_(X, [(3, 1, 1), (0, 6, 1)]), (6,))),
    "gather of repeats": (
        lambda: ir.gather(X, ir.const(np.repeat(np.arange(4), 2)), 0),
        lambda: ir.reshape(ir.expand(ir.reshape(X, (4, 1, 6)), (4, 2, 6)), (8, 6))),
    "reduce of unit axes": (lambda: ir.reduce(ROW, "sum", (0,)), lambda: ir.reshape(ROW, (6,))),
}


@pytest.mark.parametrize("name", CASES)
def test_rule_fires_and_keeps_every_bit(name: str) -> None:
    build, wanted = CASES[name]
    before = graph_of(build())
    after = simplify(before)
    check(after)
    assert after.outputs["out"] is simplify(graph_of(wanted())).outputs["out"]
    assert len(after.nodes()) < len(before.nodes()) or after.outputs["out"] is wanted()
    assert_same_values(before, after)


@pytest.mark.parametrize("kept", [
    ir.add(X, full(0.0)),  # -0.0 + 0.0 is 0.0
    ir.mul(X, full(0.0)),  # NaN * 0 is NaN
    ir.div(X, full(3.0)),
    ir.div(X, full(2.0**130)),  # the reciprocal is not a normal number
    ir.cast(ir.cast(I, DType.F32), DType.I32),  # loses bits
    ir.cast(ir.cast(I, DType.F64), DType.U8),  # saturates, where u8 of i32 wraps
    ir.cast(ir.cast(X, DType.F16), DType.F32),
    ir.permute(X, (1, 0)),
    ir.pad(ir.pad(X, [(1, 0), (0, 0)], 0.0), [(1, 0), (0, 0)], -0.0),
    ir.reduce(ir.reduce(X, "sum", (1,)), "sum", (0,)),  # rounds twice
    ir.gather(X, ir.const(np.array([0, 2, 1])), 0),
], ids=lambda n: n.op.name)
def test_what_would_change_a_value_stays(kept: Node) -> None:
    kept_ops = sorted(n.op.name for n in ir.toposort([kept]) if n.op not in (
        Op.CONST, Op.RESHAPE, Op.EXPAND))
    after = simplify(graph_of(kept)).outputs["out"]
    assert sorted(n.op.name for n in ir.toposort([after]) if n.op not in (
        Op.CONST, Op.RESHAPE, Op.EXPAND)) == kept_ops


def test_large_expansions_of_constants_stay_small() -> None:
    column, row = (ir.const(np.arange(100.0).reshape(s), DType.F32) for s in ((100, 1), (1, 100)))
    product = ir.mul(ir.expand(column, (100, 100)), ir.expand(row, (100, 100)))
    after = simplify(Graph("g", {}, {"out": product})).outputs["out"]
    assert after is product


@given(graphs(empty_axes=True, special=True), st.integers(0, 2**32 - 1), st.booleans())
def test_random_graphs_keep_every_bit(graph: Graph, seed: int, special: bool) -> None:
    after = simplify(graph)
    check(after)
    assert simplify(after).outputs == after.outputs
    assert len(after.nodes()) <= len(graph.nodes()) + 8
    feed = random_inputs(graph, seed, special)
    wanted, got = run(graph, feed), run(after, feed)
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_state_and_metadata_stay() -> None:
    graph = Graph("g", {"x": X}, {"out": ir.mul(X, full(1))}, {"x": "out"}, {"note": [1]})
    after = simplify(graph)
    assert (after.name, after.inputs, after.state, after.metadata) == (
        "g", {"x": X}, {"x": "out"}, {"note": [1]})


def test_rules_exist_for_every_operation_but_inputs() -> None:
    assert set(RULES) == set(Op) - {Op.INPUT}


# widen_f16

HALF = ir.input_("h", DType.F16, (3, 5))


def test_widening_leaves_halves_only_at_the_border() -> None:
    weight = ir.const(np.linspace(-1, 1, 20).reshape(5, 4), DType.F16)
    graph = Graph("g", {"h": HALF}, {"out": derived.tanh(derived.matmul(HALF, weight)),
                                     "same": HALF})
    wide = simplify(widen_f16(graph))
    check(wide)
    halves = [n for n in wide.nodes() if n.dtype is DType.F16]
    assert [n.op for n in halves] == [Op.INPUT, Op.CAST]
    assert wide.outputs["out"].dtype is DType.F16
    assert wide.outputs["same"] is HALF

    feed = random_inputs(graph, 0)
    product = feed["h"].astype(np.float64) @ weight.arg.array.astype(np.float64)
    exact = np.tanh(product)
    np.testing.assert_allclose(run(wide, feed)["out"], exact.astype(np.float16), rtol=1e-3)
    # Rounding once is at least as good as rounding every product.
    error = [np.abs(run(g, feed)["out"].astype(np.float64) - exact).max() for g in (graph, wide)]
    assert error[1] <= error[0]


def test_widening_drops_roundings_inside() -> None:
    x = ir.input_("x", DType.F32, (2,))
    graph = Graph("g", {"x": x}, {"out": ir.cast(ir.cast(x, DType.F16), DType.F32)})
    assert widen_f16(graph).outputs["out"] is x


@given(graphs(dtypes=(DType.F32, DType.I32, DType.BOOL)))
def test_widening_changes_nothing_without_halves(graph: Graph) -> None:
    assert widen_f16(graph) == graph
