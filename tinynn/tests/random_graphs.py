"""Random small graphs and inputs for property tests.

    @given(graphs(), st.integers(0, 2**32 - 1))
    def test_backend(graph, seed):
        feed = random_inputs(graph, seed)
        ... compare with interp.run(graph, feed)
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinynn import derived, ir
from tinynn.ir import DType, Graph, Node, Op

DTYPES = (DType.F32, DType.F32, DType.F32, DType.I32, DType.U8, DType.BOOL, DType.F16, DType.I64)
_MOST_ELEMENTS = 400

# Values at the edges of what operations must handle. None so large that a sum of products leaves
# the range of f32 on its way, where the interpreter, which sums in f64, stays finite.
_SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e18, 1e-40])


def random_array(rng: np.random.Generator, dtype: DType, shape: Sequence[int],
                 special: bool = False) -> np.ndarray[Any, Any]:
    """Values of order one (small integers); `special` mixes in NaN, infinities and extremes."""
    shape = tuple(shape)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        low = max(limits.min, -9)
        values = np.asarray(rng.integers(low, 10, shape)).astype(dtype.numpy)
        edges = np.where(rng.random(shape) < 0.5, limits.min, limits.max).astype(dtype.numpy)
    else:
        values = np.asarray(rng.standard_normal(shape) * 2).astype(dtype.numpy)
        with np.errstate(over="ignore"):
            edges = rng.choice(_SPECIAL, shape).astype(dtype.numpy)
    return np.where(rng.random(shape) < 0.2, edges, values) if special else values


def random_inputs(graph: Graph, seed: int, special: bool = False
                  ) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded values for every input of the graph."""
    rng = np.random.default_rng(seed)
    return {name: random_array(rng, n.dtype, n.shape, special)
            for name, n in graph.inputs.items()}


def _shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


def graphs(most_nodes: int = 12, dtypes: Sequence[DType] = DTYPES,
           ops: Sequence[Op | str] | None = None, empty_axes: bool = False,
           special: bool = False) -> st.SearchStrategy[Graph]:
    """Legal graphs with one or two inputs and a few outputs.

    ops: names of steps (keys of STEPS: operations, "matmul" and "conv"), default all.
    empty_axes: also axes of length 0. special: constants with NaN, infinities, extremes.
    """
    wanted = {o.value if isinstance(o, Op) else o for o in ops or STEPS}
    return st.composite(_draw_graph)(most_nodes, tuple(dtypes), sorted(wanted), empty_axes,
                                     special)


class _Builder:
    """Nodes made so far, and draws of operands among them."""

    def __init__(self, draw: Callable[..., Any], dtypes: Sequence[DType], special: bool) -> None:
        self.draw = draw
        self.dtypes = dtypes
        self.special = special
        self.pool: list[Node] = []

    def pick(self, accept: Callable[[Node], bool] = lambda n: True) -> Node | None:
        fitting = [n for n in self.pool if accept(n)]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def const(self, dtype: DType, shape: Sequence[int]) -> Node:
        rng = np.random.default_rng(self.integer(0, 1 << 16))
        return ir.const(random_array(rng, dtype, shape, self.special), dtype)

    def like(self, x: Node, dtype: DType | None = None) -> Node:
        """Another operand of x's shape: a node, an expanded constant, or a constant."""
        dtype = dtype or x.dtype
        found = self.pick(lambda n: n.dtype is dtype and n.shape == x.shape)
        choice = self.integer(0, 2)
        if found is not None and choice > 0:
            return found
        if choice == 2:
            ones = [1 if self.draw(st.booleans()) else n for n in x.shape]
            return ir.expand(self.const(dtype, ones), x.shape)
        return self.const(dtype, x.shape)


def _draw_graph(draw: Callable[..., Any], most_nodes: int, dtypes: Sequence[DType],
                steps: Sequence[str], empty_axes: bool, special: bool) -> Graph:
    build = _Builder(draw, dtypes, special)
    inputs = {}
    for name in ("x", "y")[:draw(st.integers(1, 2))]:
        shape = draw(_shapes())
        if empty_axes and shape and draw(st.integers(0, 4)) == 0:
            shape = (0, *shape[1:])
        inputs[name] = ir.input_(name, draw(st.sampled_from(tuple(dtypes))), shape)
    build.pool += inputs.values()
    for step in draw(st.lists(st.sampled_from(steps), min_size=1, max_size=most_nodes)):
        made = STEPS[step](build)
        if made is not None and made.size <= _MOST_ELEMENTS:
            build.pool.append(made)
    outputs = {"out": build.pool[-1]}
    if draw(st.booleans()):
        outputs["other"] = draw(st.sampled_from(build.pool))
    return Graph("random", inputs, outputs)


# One step per operation: a new node on top of the pool, or None if nothing there fits.

def _reshape(b: _Builder) -> Node | None:
    x = b.pick()
    if x is None:
        return None
    shape = list(x.shape)
    if len(shape) > 1 and b.draw(st.booleans()):
        at = b.integer(0, len(shape) - 2)
        shape[at:at + 2] = [shape[at] * shape[at + 1]]
    elif len(shape) < 5:
        at = b.integer(0, len(shape))
        if at < len(shape) and shape[at] and shape[at] % 2 == 0:
            shape[at:at + 1] = [2, shape[at] // 2]
        else:
            shape.insert(at, 1)
    return ir.reshape(x, shape)


def _permute(b: _Builder) -> Node | None:
    x = b.pick(lambda n: len(n.shape) > 1)
    return x and ir.permute(x, b.draw(st.permutations(range(len(x.shape)))))


def _expand(b: _Builder) -> Node | None:
    x = b.pick(lambda n: 1 in n.shape)
    return x and ir.expand(x, [b.integer(1, 4) if n == 1 else n for n in x.shape])


def _pad(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape))
    if x is None:
        return None
    fills = [0, 1, float("-inf"), float("nan"), -0.0] if x.dtype.is_float else [0, 1]
    pads = [(b.integer(0, 2), b.integer(0, 2)) for _ in x.shape]
    return ir.pad(x, pads, b.draw(st.sampled_from(fills)))


def _slice(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape) and 0 not in n.shape)
    if x is None:
        return None
    ranges = []
    for length in x.shape:
        step = b.draw(st.sampled_from([1, 1, 2, -1, -2]))
        start = b.integer(0, length - 1)
        most = (length - 1 - start) // step + 1 if step > 0 else start // -step + 1
        ranges.append((start, b.integer(1, most), step))
    return ir.slice_(x, ranges)


def _window(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape) and 0 not in n.shape and len(n.shape) < 5)
    if x is None:
        return None
    windows = []
    for axis in sorted(b.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1, max_size=2))):
        size = b.integer(1, min(3, x.shape[axis]))
        most = (x.shape[axis] - 1) // (size - 1) if size > 1 else 2
        windows.append((axis, size, b.integer(1, 3), b.integer(1, min(2, most))))
    return ir.window(x, windows)


def _concat(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape))
    if x is None:
        return None
    parts = [x, *(b.like(x) for _ in range(b.integer(1, 2)))]
    return ir.concat(b.draw(st.permutations(parts)), b.integer(0, len(x.shape) - 1))


def _gather(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape) and 0 not in n.shape)
    if x is None:
        return None
    indices = b.pick(lambda n: n.dtype.is_integer and n.size <= 16)
    if indices is None or b.draw(st.booleans()):
        shape = b.draw(st.lists(st.integers(1, 3), max_size=2))
        indices = b.const(DType.I64, shape)
    return ir.gather(x, indices, b.integer(0, len(x.shape) - 1))


def _scatter(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape) and 0 not in n.shape)
    if x is None:
        return None
    axis, count = b.integer(0, len(x.shape) - 1), b.integer(1, 4)
    indices = b.pick(lambda n: n.dtype.is_integer and len(n.shape) == 1 and n.size == count)
    if indices is None:
        indices = b.const(DType.I64, (count,))
    updates = b.const(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1:]))
    return ir.scatter(x, indices, updates, axis, b.draw(st.sampled_from(ir.SCATTER_MODES)))


def _unary(build: Callable[[Node], Node]) -> Callable[[_Builder], Node | None]:
    def step(b: _Builder) -> Node | None:
        x = b.pick(lambda n: n.dtype.is_float)
        return x and build(x)
    return step


def _binary(build: Callable[[Node, Node], Node], booleans: bool = True
            ) -> Callable[[_Builder], Node | None]:
    def step(b: _Builder) -> Node | None:
        x = b.pick(lambda n: booleans or n.dtype is not DType.BOOL)
        return x and build(x, b.like(x))
    return step


def _where(b: _Builder) -> Node | None:
    x = b.pick()
    return x and ir.where(b.like(x, DType.BOOL), x, b.like(x))


def _cast(b: _Builder) -> Node | None:
    x = b.pick()
    return x and ir.cast(x, b.draw(st.sampled_from(tuple(b.dtypes))))


def _reduce(b: _Builder) -> Node | None:
    x = b.pick(lambda n: bool(n.shape))
    if x is None:
        return None
    axes = b.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1))
    return ir.reduce(x, b.draw(st.sampled_from(ir.REDUCE_KINDS)), sorted(axes))


def _matmul(b: _Builder) -> Node | None:
    x = b.pick(lambda n: len(n.shape) >= 2 and n.dtype.is_float)
    return x and derived.matmul(x, b.const(x.dtype, (x.shape[-1], b.integer(1, 5))))


def _conv(b: _Builder) -> Node | None:
    x = b.pick(lambda n: len(n.shape) in (3, 4) and n.dtype.is_float and 0 not in n.shape)
    if x is None:
        return None
    rank, channels = len(x.shape) - 2, x.shape[1]
    groups = b.draw(st.sampled_from([1, channels]))
    kernel = [b.integer(1, min(3, n)) for n in x.shape[2:]]
    weight = b.const(x.dtype, (groups * b.integer(1, 2), channels // groups, *kernel))
    pads = [(b.integer(0, 1), b.integer(0, 1)) for _ in range(rank)]
    return derived.conv(x, weight, [b.integer(1, 2) for _ in range(rank)], [1] * rank, pads, groups)


STEPS: dict[str, Callable[[_Builder], Node | None]] = {
    "RESHAPE": _reshape, "PERMUTE": _permute, "EXPAND": _expand, "PAD": _pad, "SLICE": _slice,
    "WINDOW": _window, "CONCAT": _concat, "GATHER": _gather, "SCATTER": _scatter,
    "EXP2": _unary(ir.exp2), "LOG2": _unary(ir.log2), "SQRT": _unary(ir.sqrt),
    "SIN": _unary(ir.sin), "FLOOR": _unary(ir.floor),
    "ADD": _binary(ir.add), "MUL": _binary(ir.mul), "DIV": _binary(ir.div, booleans=False),
    "MAX": _binary(ir.maximum), "LT": _binary(ir.less), "EQ": _binary(ir.equal),
    "WHERE": _where, "CAST": _cast, "REDUCE": _reduce, "matmul": _matmul, "conv": _conv,
}
