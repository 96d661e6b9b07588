"""The meaning of the operations: a graph evaluated in numpy, one node after the other.

This is the reference that every backend is compared with, so it prefers accuracy and plainness
to speed: sums and products of floats are accumulated in float64 and rounded once to the dtype of
the node, every other operation rounds as numpy does. Views stay numpy views, and a value is
dropped when its last user has run, so that a driving model fits in memory.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinynn.ir import DType, Graph, GraphError, Node, Op

Array = np.ndarray[Any, Any]

# Elements of a product that are held at once while a sum of products is computed.
_PIECE = 1 << 18


def run(graph: Graph, inputs: Mapping[str, Any],
        evaluate: Mapping[Op, Callable[..., Array]] | None = None) -> dict[str, Array]:
    """Evaluate the graph: input name -> array gives output name -> array.

    evaluate: the meaning of the operations if it is not EVALUATE.
    Raises GraphError if an input is missing, unknown, or of another dtype or shape.
    """
    feed = _checked_inputs(graph, inputs)
    meaning = EVALUATE if evaluate is None else evaluate
    order = graph.nodes()
    users = Counter(source for n in order for source in n.src)
    users.update(graph.outputs.values())
    summed = {n.src[0] for n in order if n.op is Op.REDUCE and n.arg[0] == "sum"}
    values: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for n in order:
            sources = [values[source] for source in n.src]
            if n.op is Op.INPUT:
                values[n] = feed[n.arg]
            elif n.op is Op.MUL and n in summed and users[n] == 1 and n.dtype.is_float:
                # The product of a contraction is too large to be held: REDUCE gets the factors.
                values[n] = tuple(sources)
            else:
                values[n] = meaning[n.op](n, *sources)
            for source in n.src:
                users[source] -= 1
                if not users[source]:
                    del values[source]
    return {name: np.array(values[n], order="C") for name, n in graph.outputs.items()}


def _checked_inputs(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Array]:
    unknown = sorted(set(inputs) - set(graph.inputs))
    missing = sorted(set(graph.inputs) - set(inputs))
    if unknown or missing:
        raise GraphError(f"graph {graph.name!r}: inputs missing: {missing}, unknown: {unknown}; "
                         f"it takes {list(graph.inputs)}")
    feed = {name: np.asarray(value) for name, value in inputs.items()}
    for name, n in graph.inputs.items():
        given = feed[name]
        if given.dtype != n.dtype.numpy or given.shape != n.shape:
            raise GraphError(f"input {name!r} must be {n.dtype.numpy} {n.shape}, "
                             f"got {given.dtype} {given.shape}")
    return feed


def _pad(n: Node, x: Array) -> Array:
    pads, fill = n.arg
    out = np.full(n.shape, fill, x.dtype)
    out[tuple(slice(lo, lo + length) for (lo, _), length in zip(pads, x.shape, strict=True))] = x
    return out


def _slice(n: Node, x: Array) -> Array:
    index = []
    for start, count, step in n.arg:
        stop: int | None = start + count * step
        if stop is not None and stop < 0:
            stop = None  # a descending range that includes element 0
        index.append(slice(start, stop, step) if count else slice(0, 0))
    return x[tuple(index)]


def _window(n: Node, x: Array) -> Array:
    steps, window_steps = list(x.strides), []
    for axis, _, stride, dilation in n.arg:
        window_steps.append(x.strides[axis] * dilation)
        steps[axis] = x.strides[axis] * stride
    return np.lib.stride_tricks.as_strided(x, n.shape, (*steps, *window_steps), writeable=False)


def _scatter(n: Node, x: Array, indices: Array, updates: Array) -> Array:
    axis, mode = n.arg
    out = np.array(x)
    rows, new = np.moveaxis(out, axis, 0), np.moveaxis(updates, axis, 0)
    inside = (indices >= 0) & (indices < x.shape[axis])
    indices, new = indices[inside].astype(np.int64), new[inside]
    if mode == "set":
        rows[indices] = new  # numpy lets the last of equal indices win
    else:
        combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[mode]
        combine.at(rows, indices, new)
    return out


def _div(n: Node, a: Array, b: Array) -> Array:
    if n.dtype.is_float:
        return np.divide(a, b)
    divisor = np.where(b == 0, b.dtype.type(1), b)
    quotient = np.floor_divide(a, divisor)
    # Floor and truncation differ by one where the signs differ and a remainder is left.
    inexact = (quotient * divisor != a) & ((a < 0) != (divisor < 0))
    return np.where(b == 0, 0, quotient + inexact.astype(a.dtype)).astype(a.dtype)


def _where(n: Node, cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


def _cast(n: Node, x: Array) -> Array:
    source = DType.of(x.dtype)
    if not (source.is_float and n.dtype.is_integer):
        return x.astype(n.dtype.numpy)
    limits = np.iinfo(n.dtype.numpy)
    # float(limits.max) of 64-bit types rounds up to a power of two: everything below it fits.
    low, high = float(limits.min), float(limits.max)
    value = np.trunc(x.astype(np.float64))
    inside = np.where((value > low) & (value < high), value, 0).astype(n.dtype.numpy)
    return np.where(value >= high, n.dtype.numpy.type(limits.max),
                    np.where(value <= low, n.dtype.numpy.type(limits.min), inside))


def lowest(dtype: DType) -> float | int | bool:
    """The identity of max: what a maximum over no elements gives."""
    if dtype.is_float:
        return -np.inf
    return False if dtype is DType.BOOL else int(np.iinfo(dtype.numpy).min)


def _reduce(n: Node, x: Any) -> Array:
    kind, axes = n.arg
    if isinstance(x, tuple):
        return _sum_of_products(n, *x)
    if kind == "max":
        return np.asarray(np.maximum.reduce(x, axis=axes, initial=lowest(n.dtype)), x.dtype)
    ufunc = np.add if kind == "sum" else np.multiply
    wide = np.dtype(np.float64) if n.dtype.is_float else x.dtype
    x = np.asarray(x, order="C")  # numpy adds in the order of memory
    return np.asarray(ufunc.reduce(x, axis=axes, dtype=wide), wide).astype(x.dtype)


def _sum_of_products(n: Node, a: Array, b: Array) -> Array:
    """REDUCE sum of a * b, in pieces along the first axis of the result that is long enough."""
    axes = n.arg[1]
    kept = [i for i in range(a.ndim) if i not in axes]
    axis = next((i for i in kept if a.shape[i] > 1), None)
    if axis is None:
        return np.multiply(a, b, order="C").sum(axes, dtype=np.float64).astype(n.dtype.numpy)
    out = np.empty(n.shape, n.dtype.numpy)
    rows = np.moveaxis(out, kept.index(axis), 0)
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    axes = tuple(i if i > axis else i + 1 for i in axes)
    step = max(1, _PIECE * len(a) // max(a.size, 1))
    for i in range(0, len(a), step):
        rows[i:i + step] = np.multiply(a[i:i + step], b[i:i + step],
                                      order="C").sum(axes, dtype=np.float64)
    return out


EVALUATE: dict[Op, Callable[..., Array]] = {
    Op.INPUT: lambda n: n.arg,  # not used: the value comes from the caller
    Op.CONST: lambda n: n.arg.array,
    Op.RESHAPE: lambda n, x: x.reshape(n.shape),
    Op.PERMUTE: lambda n, x: x.transpose(n.arg),
    Op.EXPAND: lambda n, x: np.broadcast_to(x, n.shape),
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.WINDOW: _window,
    Op.CONCAT: lambda n, *xs: np.concatenate(xs, n.arg),
    # Clipped before take, which would make large u64 indices negative.
    Op.GATHER: lambda n, x, indices: np.take(
        x, np.clip(indices, 0, max(x.shape[n.arg] - 1, 0)).astype(np.int64), n.arg),
    Op.SCATTER: _scatter,
    Op.EXP2: lambda n, x: np.exp2(x),
    Op.LOG2: lambda n, x: np.log2(x),
    Op.SQRT: lambda n, x: np.sqrt(x),
    Op.SIN: lambda n, x: np.sin(x),
    Op.FLOOR: lambda n, x: np.floor(x),
    Op.ADD: lambda n, a, b: np.add(a, b),
    Op.MUL: lambda n, a, b: np.multiply(a, b),
    Op.DIV: _div,
    Op.MAX: lambda n, a, b: np.maximum(a, b),
    Op.LT: lambda n, a, b: np.less(a, b),
    Op.EQ: lambda n, a, b: np.equal(a, b),
    Op.WHERE: _where,
    Op.CAST: _cast,
    Op.REDUCE: _reduce,
}
