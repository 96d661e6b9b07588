"""What is legal: one rule per operation, and what must hold between nodes, inputs and outputs.

`check` is run on every imported and every parsed graph, and after passes in tests. A rule derives
dtype and shape of a node from its sources and argument, and raises GraphError where they do not
fit; `check` compares the result with what the node claims.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinynn.ir import (
    REDUCE_KINDS,
    SCATTER_MODES,
    Const,
    DType,
    Graph,
    GraphError,
    Node,
    Op,
    Shape,
    toposort,
)

Result = tuple[DType, Shape]


def numbered(graph: Graph) -> dict[Node, int]:
    """The number by which texts and errors call each node: inputs first, sources before users."""
    order = toposort([*graph.inputs.values(), *graph.outputs.values()])
    return {n: i for i, n in enumerate(order)}


def check(graph: Graph) -> None:
    """Raise GraphError, naming the node, if anything in the graph is not legal."""
    numbers = numbered(graph)
    for n, number in numbers.items():
        try:
            check_node(n)
        except GraphError as error:
            sources = " ".join(f"%{numbers[s]} {s!r}" for s in n.src)
            raise GraphError(f"graph {graph.name!r}, node %{number} = {n!r} of ({sources}): "
                             f"{error}") from error
    _check_names(graph, numbers)
    _check_state(graph)


def check_node(n: Node) -> None:
    """Raise GraphError if the node breaks the rule of its operation; sources are taken as legal."""
    _require(all(_is_int(length) and length >= 0 for length in n.shape),
             f"the shape {n.shape} is not made of integers >= 0")
    dtype, shape = RULES[n.op](n)
    _require(n.dtype is dtype, f"the dtype should be {dtype.value}, is {n.dtype.value}")
    _require(n.shape == shape, f"the shape should be {shape}, is {n.shape}")


def _check_names(graph: Graph, numbers: dict[Node, int]) -> None:
    declared = set(graph.inputs.values())
    for name, n in graph.inputs.items():
        if n.op is not Op.INPUT or n.arg != name:
            raise GraphError(f"graph {graph.name!r}: input {name!r} is {n!r} called {n.arg!r}")
    for n in numbers:
        if n.op is Op.INPUT and n not in declared:
            raise GraphError(f"graph {graph.name!r}: node %{numbers[n]} reads the input {n.arg!r}, "
                             f"which is not declared; declared are {list(graph.inputs)}")
    if not graph.outputs:
        raise GraphError(f"graph {graph.name!r} has no outputs")


def _check_state(graph: Graph) -> None:
    for name, follower in graph.state.items():
        before, after = graph.inputs.get(name), graph.outputs.get(follower)
        if before is None or after is None:
            raise GraphError(f"graph {graph.name!r}: state {name!r} -> {follower!r}: "
                             f"there is no such {'input' if before is None else 'output'}")
        if before.dtype is not after.dtype or before.shape != after.shape:
            raise GraphError(f"graph {graph.name!r}: state {name!r} is {before!r}, but its next "
                             f"value {follower!r} is {after!r}")
    if len(set(graph.state.values())) != len(graph.state):
        raise GraphError(f"graph {graph.name!r}: two states take the same output: {graph.state}")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise GraphError(problem)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sources(n: Node, count: int) -> tuple[Node, ...]:
    _require(len(n.src) == count, f"{n.op.name} takes {count} sources, has {len(n.src)}")
    return n.src


def _rows(arg: Any, width: int, what: str) -> tuple[tuple[int, ...], ...]:
    """The argument as tuples of `width` integers."""
    ok = isinstance(arg, tuple) and all(
        isinstance(row, tuple) and len(row) == width and all(map(_is_int, row)) for row in arg)
    _require(ok, f"the argument should be a tuple of {what}, is {arg!r}")
    return tuple(arg)


def _axis(arg: Any, rank: int) -> int:
    _require(_is_int(arg) and 0 <= arg < rank, f"axis {arg!r} of a source with {rank} axes")
    return int(arg)


def _no_arg(n: Node) -> None:
    _require(n.arg is None, f"takes no argument, has {n.arg!r}")


def _input(n: Node) -> Result:
    _sources(n, 0)
    _require(isinstance(n.arg, str) and n.arg != "", f"the name {n.arg!r} is not a text")
    return n.dtype, n.shape


def _const(n: Node) -> Result:
    _sources(n, 0)
    if not isinstance(n.arg, Const):
        raise GraphError(f"the argument should be a Const, is {n.arg!r}")
    return DType.of(n.arg.array.dtype), n.arg.array.shape


def _reshape(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    _require(x.size == math.prod(n.shape), "the number of elements changes")
    return x.dtype, n.shape


def _permute(n: Node) -> Result:
    (x,) = _sources(n, 1)
    ok = isinstance(n.arg, tuple) and sorted(n.arg) == list(range(len(x.shape)))
    _require(ok, f"{n.arg!r} is not a permutation of the axes")
    return x.dtype, tuple(x.shape[a] for a in n.arg)


def _expand(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    _require(len(x.shape) == len(n.shape), "the number of axes changes")
    _require(all(a in (b, 1) for a, b in zip(x.shape, n.shape, strict=True)),
             "only axes of length 1 can be repeated")
    return x.dtype, n.shape


def _pad(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _require(isinstance(n.arg, tuple) and len(n.arg) == 2, f"the argument is {n.arg!r}")
    pads = _rows(n.arg[0], 2, "(before, after)")
    _require(len(pads) == len(x.shape) and all(lo >= 0 and hi >= 0 for lo, hi in pads),
             f"pads {pads} should be one pair of counts >= 0 per axis")
    wanted = float if x.dtype.is_float else bool if x.dtype is DType.BOOL else int
    _require(type(n.arg[1]) is wanted, f"the fill value {n.arg[1]!r} should be a {wanted.__name__}")
    return x.dtype, tuple(m + lo + hi for m, (lo, hi) in zip(x.shape, pads, strict=True))


def _slice(n: Node) -> Result:
    (x,) = _sources(n, 1)
    ranges = _rows(n.arg, 3, "(start, count, step)")
    _require(len(ranges) == len(x.shape), f"{len(ranges)} ranges for {len(x.shape)} axes")
    for length, (start, count, step) in zip(x.shape, ranges, strict=True):
        last = start + (count - 1) * step
        inside = count == 0 or (0 <= start < length and 0 <= last < length)
        _require(count >= 0 and step != 0 and inside,
                 f"the range {(start, count, step)} leaves its axis of length {length}")
    return x.dtype, tuple(count for _, count, _ in ranges)


def _window(n: Node) -> Result:
    (x,) = _sources(n, 1)
    windows = _rows(n.arg, 4, "(axis, size, stride, dilation)")
    _require(len({axis for axis, *_ in windows}) == len(windows), "an axis is named twice")
    shape = list(x.shape)
    for axis, size, stride, dilation in windows:
        _axis(axis, len(x.shape))
        _require(min(size, stride, dilation) >= 1, "size, stride and dilation must be >= 1")
        free = x.shape[axis] - dilation * (size - 1) - 1
        _require(free >= 0, f"the window is wider than axis {axis}")
        shape[axis] = free // stride + 1
    return x.dtype, (*shape, *(size for _, size, _, _ in windows))


def _concat(n: Node) -> Result:
    _require(len(n.src) >= 2, "needs at least two sources")
    first = n.src[0]
    axis = _axis(n.arg, len(first.shape))

    def rest(shape: Shape) -> Shape:
        return shape[:axis] + shape[axis + 1:]
    _require(all(x.dtype is first.dtype and len(x.shape) == len(first.shape)
                 and rest(x.shape) == rest(first.shape) for x in n.src),
             "sources differ in dtype or in another axis")
    length = sum(x.shape[axis] for x in n.src)
    return first.dtype, (*first.shape[:axis], length, *first.shape[axis + 1:])


def _gather(n: Node) -> Result:
    x, indices = _sources(n, 2)
    axis = _axis(n.arg, len(x.shape))
    _require(indices.dtype.is_integer, "indices must be integers")
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1:]
    _require(x.shape[axis] > 0 or 0 in shape, "picks from an empty axis")
    return x.dtype, shape


def _scatter(n: Node) -> Result:
    x, indices, updates = _sources(n, 3)
    _require(isinstance(n.arg, tuple) and len(n.arg) == 2, f"the argument is {n.arg!r}")
    axis = _axis(n.arg[0], len(x.shape))
    _require(n.arg[1] in SCATTER_MODES, f"mode {n.arg[1]!r}; known are {SCATTER_MODES}")
    _require(indices.dtype.is_integer and len(indices.shape) == 1,
             "indices must be integers with one axis")
    _require(updates.dtype is x.dtype, "updates have another dtype")
    _require(updates.shape == x.shape[:axis] + indices.shape + x.shape[axis + 1:],
             "updates do not have the shape of the picked slices")
    return x.dtype, x.shape


def _unary(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    _require(x.dtype.is_float, "needs floats")
    return x.dtype, x.shape


def _equal_pair(n: Node) -> Node:
    a, b = _sources(n, 2)
    _no_arg(n)
    _require(a.dtype is b.dtype and a.shape == b.shape, "sources differ in dtype or shape")
    return a


def _binary(n: Node) -> Result:
    a = _equal_pair(n)
    return a.dtype, a.shape


def _div(n: Node) -> Result:
    a = _equal_pair(n)
    _require(a.dtype is not DType.BOOL, "bool cannot be divided")
    return a.dtype, a.shape


def _compare(n: Node) -> Result:
    return DType.BOOL, _equal_pair(n).shape


def _where(n: Node) -> Result:
    cond, a, b = _sources(n, 3)
    _no_arg(n)
    _require(cond.dtype is DType.BOOL, "the condition must be bool")
    _require(a.dtype is b.dtype and cond.shape == a.shape == b.shape,
             "sources differ in dtype or shape")
    return a.dtype, a.shape


def _cast(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    return n.dtype, x.shape


def _reduce(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _require(isinstance(n.arg, tuple) and len(n.arg) == 2, f"the argument is {n.arg!r}")
    kind, axes = n.arg
    _require(kind in REDUCE_KINDS, f"kind {kind!r}; known are {REDUCE_KINDS}")
    _require(isinstance(axes, tuple) and list(axes) == sorted(set(axes)) and len(axes) > 0,
             f"axes {axes!r} are not in ascending order")
    for axis in axes:
        _axis(axis, len(x.shape))
    return x.dtype, tuple(m for i, m in enumerate(x.shape) if i not in axes)


RULES: dict[Op, Callable[[Node], Result]] = {
    Op.INPUT: _input,
    Op.CONST: _const,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.EXPAND: _expand,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.WINDOW: _window,
    Op.CONCAT: _concat,
    Op.GATHER: _gather,
    Op.SCATTER: _scatter,
    Op.EXP2: _unary,
    Op.LOG2: _unary,
    Op.SQRT: _unary,
    Op.SIN: _unary,
    Op.FLOOR: _unary,
    Op.ADD: _binary,
    Op.MUL: _binary,
    Op.DIV: _div,
    Op.MAX: _binary,
    Op.LT: _compare,
    Op.EQ: _compare,
    Op.WHERE: _where,
    Op.CAST: _cast,
    Op.REDUCE: _reduce,
}
