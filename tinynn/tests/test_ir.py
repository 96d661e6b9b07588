"""Nodes are unique, constructors infer shapes and refuse what does not fit."""
from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from tinynn import ir
from tinynn.interp import EVALUATE
from tinynn.ir import RULES, DType, GraphError, Op

X = ir.input_("x", DType.F32, (2, 3))


def test_there_are_25_operations_and_every_table_knows_all_of_them() -> None:
    assert len(Op) == 25
    assert set(RULES) == set(Op)
    assert set(EVALUATE) == set(Op)


def test_equal_nodes_are_one_object() -> None:
    assert ir.add(X, X) is ir.add(X, X)
    assert ir.const([1.0, 2.0]) is ir.const(np.array([1.0, 2.0]))
    assert ir.pad(X, [(0, 1), (0, 0)], 0) is ir.pad(X, [(0, 1), (0, 0)], False)


def test_zeros_of_either_sign_and_dtypes_are_kept_apart() -> None:
    assert ir.const(np.float32(0.0)) is not ir.const(np.float32(-0.0))
    assert ir.const(np.float32(0.0)) is not ir.const(np.int32(0))
    assert ir.pad(X, [(0, 1), (0, 0)], 0.0) is not ir.pad(X, [(0, 1), (0, 0)], -0.0)


def test_pads_with_nan_are_one_object() -> None:
    pads = [(0, 1), (0, 0)]
    assert ir.pad(X, pads, math.nan) is ir.pad(X, pads, float("nan"))


def test_nodes_nobody_holds_are_forgotten() -> None:
    gc.collect()
    before = len(ir._NODES)
    chain = ir.add(X, ir.const(np.full((2, 3), 77.0, np.float32)))
    assert len(ir._NODES) == before + 2
    del chain
    gc.collect()
    assert len(ir._NODES) == before


def test_identities_return_their_source() -> None:
    assert ir.reshape(X, (2, 3)) is X
    assert ir.permute(X, (0, 1)) is X
    assert ir.expand(X, (2, 3)) is X
    assert ir.pad(X, [(0, 0), (0, 0)]) is X
    assert ir.slice_(X, [(0, 2, 1), (0, 3, 1)]) is X
    assert ir.concat([X], 0) is X
    assert ir.cast(X, DType.F32) is X
    assert ir.reduce(X, "sum", ()) is X


def test_constants_do_not_follow_their_source_array() -> None:
    array = np.zeros(3)
    held = ir.const(array)
    array[0] = 5
    assert held.arg.array[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        held.arg.array[0] = 1


@pytest.mark.parametrize(("build", "message"), [
    (lambda: ir.reshape(X, (5,)), "RESHAPE.*number of elements"),
    (lambda: ir.reshape(X, (-2, -3)), "RESHAPE.*integers >= 0"),
    (lambda: ir.permute(X, (0, 0)), "PERMUTE.*not a permutation"),
    (lambda: ir.expand(X, (2, 6)), "EXPAND.*length 1"),
    (lambda: ir.pad(X, [(0, -1), (0, 0)]), "PAD.*counts >= 0"),
    (lambda: ir.slice_(X, [(0, 3, 1), (0, 3, 1)]), "SLICE.*leaves its axis"),
    (lambda: ir.window(X, [(1, 4, 1, 1)]), "WINDOW.*wider"),
    (lambda: ir.window(X, [(2, 1, 1, 1)]), "WINDOW.*axis"),
    (lambda: ir.concat([X, ir.input_("y", DType.F32, (3, 3))], 1), "CONCAT.*another axis"),
    (lambda: ir.gather(X, X, 0), "GATHER.*must be integers"),
    (lambda: ir.add(X, ir.input_("y", DType.F16, (2, 3))), "ADD.*differ in dtype or shape"),
    (lambda: ir.exp2(ir.input_("y", DType.I32, ())), "EXP2.*float"),
    (lambda: ir.where(X, X, X), "WHERE.*must be bool"),
    (lambda: ir.reduce(X, "mean", (0,)), "REDUCE.*kind 'mean'"),
    (lambda: ir.reduce(X, "sum", (2,)), "REDUCE.*axis 2"),
    (lambda: DType.of(np.complex64), "element type .* not supported"),
])
def test_misfits_are_refused_by_name(build: object, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        build()  # type: ignore[operator]


def test_toposort_of_a_very_deep_graph_and_of_a_part() -> None:
    node, middle = X, X
    for i in range(20_000):
        node = ir.add(node, X)
        middle = node if i == 9_999 else middle
    order = ir.toposort([node])
    assert len(order) == 20_001
    assert order[0] is X
    assert order[-1] is node
    assert len(ir.toposort([node], known={middle, X})) == 10_000
