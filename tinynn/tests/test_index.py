"""Index expressions compared with what numpy does to the same indices."""
from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynn import ir
from tinynn.index import (
    Axis,
    Expr,
    RunTime,
    Within,
    constant,
    of,
    ravel,
    reshape_index,
    source_index,
    unravel,
)
from tinynn.ir import DType
from tinynn.pack import evaluate


def test_splitting_and_joining_an_axis_cancels() -> None:
    flat = Axis("i", 24)
    assert ravel(unravel(of(flat), (2, 3, 4)), (2, 3, 4)) == of(flat)
    axes = [of(Axis("a", 2)), of(Axis("b", 3)), of(Axis("c", 4))]
    assert list(unravel(ravel(axes, (2, 3, 4)), (2, 3, 4))) == axes


def test_reshape_that_regroups_axes_has_no_division() -> None:
    a, b, c, d = (of(Axis(n, s)) for n, s in zip("abcd", (2, 3, 4, 5), strict=True))
    index = reshape_index((a, b * 4 + c, d), (2, 12, 5), (6, 20))
    assert index == (a * 3 + b, c * 5 + d)


def test_an_index_that_leaves_its_axis_stays_a_sum() -> None:
    row, column = of(Axis("y", 4)) + -1, of(Axis("x", 5)) + -2
    channel = of(Axis("c", 6))
    index = reshape_index((constant(0), channel, row, column), (1, 6, 4, 5), (2, 3, 1, 4, 5))
    assert index == (channel // 3, channel % 3, constant(0), row, column)


def test_partly_aligned_reshape_keeps_one_division() -> None:
    i = of(Axis("i", 12))
    assert str(reshape_index((i,), (12,), (4, 3))[0]) == "(i)//3"
    assert (i // 3) // 2 == i // 6
    assert (i % 6) % 3 == i % 3
    assert (i * 5) // 10 == i // 2


def test_negative_positions_follow_floor_division() -> None:
    i = of(Axis("i", 8))
    shifted = i + -3
    for n in (2, 3, 5):
        expected = [(v - 3) // n for v in range(8)]
        assert _values(shifted // n, (Axis("i", 8),)).tolist() == expected
        assert _values(shifted % n, (Axis("i", 8),)).tolist() == [(v - 3) % n for v in range(8)]


def test_bounds_decide_conditions() -> None:
    i = of(Axis("i", 8))
    assert Within(i, 8).always
    assert not Within(i, 7).always
    assert not Within(i + -1, 8).always


def test_clipped_index_has_the_bounds_of_its_axis() -> None:
    assert of(RunTime("g0", 5)).bounds == (0, 4)
    assert of(RunTime("g0", 1)) == constant(0)


def _values(expr: Expr, axes: tuple[Axis, ...]) -> np.ndarray:
    return np.broadcast_to(evaluate(expr, axes), [a.size for a in axes])


_FACTORS = st.integers(-7, 7)


@given(st.lists(st.tuples(st.integers(1, 6), _FACTORS), min_size=1, max_size=3), _FACTORS,
       st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(1, 3)), max_size=3))
@settings(deadline=None)
def test_division_and_remainder_keep_their_value(
        axes: list[tuple[int, int]], const: int, steps: list[tuple[bool, int, int]]) -> None:
    loops = tuple(Axis(f"i{n}", size) for n, (size, _) in enumerate(axes))
    expr = constant(const)
    value = np.full([a.size for a in loops], const)
    for n, (axis, (_, factor)) in enumerate(zip(loops, axes, strict=True)):
        expr = expr + of(axis) * factor
        place = [1] * len(loops)
        place[n] = axis.size
        value = value + factor * np.arange(axis.size).reshape(place)
    for divide, n, factor in steps:
        expr = (expr // n if divide else expr % n) * factor + 1
        value = (value // n if divide else value % n) * factor + 1
    np.testing.assert_array_equal(_values(expr, loops), value)
    low, high = expr.bounds
    assert low <= value.min() and value.max() <= high


@given(st.data())
@settings(deadline=None)
def test_chains_of_views_read_the_element_numpy_reads(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    source = ir.input_("x", DType.I64, shape)
    node, array = source, np.arange(math.prod(shape)).reshape(shape)
    chain = []
    for _ in range(data.draw(st.integers(1, 5))):
        node, array = _view(data, node, array)
        chain.append(node)
    axes = tuple(Axis(f"i{n}", size) for n, size in enumerate(node.shape))
    index = tuple(of(a) for a in axes)
    for step in reversed(chain):
        if step.op in (ir.Op.INPUT,):
            continue
        index, conditions = source_index(step, index)
        assert not conditions
    np.testing.assert_array_equal(_values(ravel(index, shape), axes), array)


def _view(data: st.DataObject, node: ir.Node, array: np.ndarray) -> tuple[ir.Node, np.ndarray]:
    kind = data.draw(st.sampled_from(["reshape", "permute", "slice", "window"]))
    if kind == "reshape":
        size = node.size
        first = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        second = data.draw(st.sampled_from(
            [n for n in range(1, size // first + 1) if (size // first) % n == 0]))
        shape = (first, second, size // first // second)
        return _same_or(ir.reshape(node, shape), node), array.reshape(shape)
    if kind == "permute":
        order = data.draw(st.permutations(range(len(node.shape))))
        return _same_or(ir.permute(node, order), node), array.transpose(order)
    if kind == "slice":
        starts = [data.draw(st.integers(0, n - 1)) for n in node.shape]
        ranges = [(s, n - s, 1) for s, n in zip(starts, node.shape, strict=True)]
        return (_same_or(ir.slice_(node, ranges), node),
                array[tuple(slice(s, None) for s in starts)])
    size = data.draw(st.integers(1, node.shape[0]))
    view = np.lib.stride_tricks.sliding_window_view(array, size, 0)
    return ir.window(node, [(0, size, 1, 1)]), view


def _same_or(view: ir.Node, node: ir.Node) -> ir.Node:
    """Constructors return the operand itself for a view that changes nothing; make it explicit."""
    return view if view is not node else ir.node(ir.Op.RESHAPE, node.dtype, node.shape, (node,))
