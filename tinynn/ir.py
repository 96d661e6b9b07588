"""The graph: one immutable, hash-consed node type and the 25 operations it may hold.

A tensor program is a directed acyclic graph of `Node`. Two nodes that mean the same thing (same
operation, dtype, shape, sources and argument) are the same Python object, so `is` is equality and
common subexpressions are shared by construction.

Rules that hold for every node (`RULES` has them as code, `spec.py` checks whole graphs,
`interp.py` gives their meaning in numpy):

- Shapes are static tuples of ints; a scalar has shape (). Zero-sized dimensions are legal.
- Operands of elementwise operations have equal shapes. Broadcasting is written out with EXPAND.
- Operands of ADD, MUL, DIV, MAX, LT, EQ have equal dtypes. Conversion is written out with CAST.
- f16 and bf16 are storage types with defined rounding; a backend may compute wider.

Use the constructor functions below (`add`, `reshape`, ...): dtype and shape follow from the
rules, which raise `GraphError` with the offending values when the operands do not fit.
"""
from __future__ import annotations

import enum
import hashlib
import math
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np


class GraphError(ValueError):
    """A node that breaks the rules of the graph; the message names the operation and operands."""


class DType(enum.Enum):
    """Element types. `value` is how text and manifests spell them."""

    BOOL = "bool"
    U8 = "u8"
    I8 = "i8"
    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype that stores it (bf16 comes from ml_dtypes)."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _NUMPY[self].itemsize

    @property
    def is_float(self) -> bool:
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned integer; bool is neither."""
        return self not in _FLOATS and self is not DType.BOOL

    @staticmethod
    def of(dtype: Any) -> DType:
        """The DType of a numpy dtype; raises GraphError for one that has no counterpart."""
        found = _FROM_NUMPY.get(np.dtype(dtype))
        if found is None:
            raise GraphError(f"element type {dtype} is not supported")
        return found


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.U8: np.dtype(np.uint8),
    DType.I8: np.dtype(np.int8),
    DType.U16: np.dtype(np.uint16),
    DType.I16: np.dtype(np.int16),
    DType.U32: np.dtype(np.uint32),
    DType.I32: np.dtype(np.int32),
    DType.U64: np.dtype(np.uint64),
    DType.I64: np.dtype(np.int64),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}
_FLOATS = frozenset({DType.F16, DType.BF16, DType.F32, DType.F64})


class Op(enum.Enum):
    """All 25 operations. The comment says: sources -> result; `arg`."""

    # Leaves
    INPUT = "INPUT"  # -> tensor given at run time; arg: its name
    CONST = "CONST"  # -> fixed tensor; arg: Const
    # Views: move elements, compute nothing
    RESHAPE = "RESHAPE"  # x -> same elements in row-major order; arg: None (the shape says all)
    PERMUTE = "PERMUTE"  # x -> axes reordered as numpy.transpose; arg: permutation
    EXPAND = "EXPAND"  # x -> axes of length 1 repeated; arg: None
    PAD = "PAD"  # x -> constant added around; arg: (((before, after) per axis), fill value)
    SLICE = "SLICE"  # x -> strided range; arg: ((start, count, step) per axis), step may be < 0
    WINDOW = "WINDOW"  # x -> sliding windows; arg: ((axis, size, stride, dilation), ...)
    # Joins
    CONCAT = "CONCAT"  # x, y, ... -> joined; arg: axis
    GATHER = "GATHER"  # x, indices -> numpy.take along an axis, index clipped to range; arg: axis
    SCATTER = "SCATTER"  # x, indices (k,), updates -> x with slices replaced; arg: (axis, mode)
    # Elementwise, floats
    EXP2 = "EXP2"  # x -> 2 ** x
    LOG2 = "LOG2"  # x -> log2 x
    SQRT = "SQRT"
    SIN = "SIN"  # radians
    FLOOR = "FLOOR"
    # Elementwise, two operands
    ADD = "ADD"  # bool: logical or
    MUL = "MUL"  # bool: logical and
    DIV = "DIV"  # integers: truncated towards zero, x / 0 = 0
    MAX = "MAX"  # NaN if either is NaN
    LT = "LT"  # -> bool
    EQ = "EQ"  # -> bool; NaN equals nothing
    WHERE = "WHERE"  # bool, x, y -> x where true, else y
    CAST = "CAST"  # x -> dtype; float to integer truncates and saturates, NaN gives 0
    # Reduction
    REDUCE = "REDUCE"  # x -> axes removed; arg: (kind, axes), kind in sum, max, mul

    __hash__ = object.__hash__  # Enum's own is Python, and passes look operations up all the time


UNARY = frozenset({Op.EXP2, Op.LOG2, Op.SQRT, Op.SIN, Op.FLOOR})
BINARY = frozenset({Op.ADD, Op.MUL, Op.DIV, Op.MAX, Op.LT, Op.EQ})
ELEMENTWISE = UNARY | BINARY | {Op.WHERE, Op.CAST}
VIEWS = frozenset({Op.RESHAPE, Op.PERMUTE, Op.EXPAND, Op.PAD, Op.SLICE, Op.WINDOW})
REDUCE_KINDS = ("sum", "max", "mul")
SCATTER_MODES = ("set", "add", "mul", "max", "min")
_HASHED = 64  # elements, about

Shape = tuple[int, ...]


class Const:
    """The value of a CONST node: an immutable array, equal to another by dtype, shape and bytes."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        value = np.array(array, order="C", copy=True)
        value.setflags(write=False)
        self.array = value
        self._kind = f"{DType.of(value.dtype).value}{value.shape}"
        # A few elements tell most arrays apart; reading all of every weight would take longer than
        # compiling the rest of a model.
        some = value.reshape(-1)[::max(1, value.size // _HASHED)]
        self._hash = hash((self._kind, some.tobytes()))

    @cached_property
    def digest(self) -> str:
        """sha256 of dtype, shape and bytes."""
        found = hashlib.sha256(self._kind.encode())
        found.update(_bytes_of(self.array).data)
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Const) and (self._hash, self._kind) == (other._hash, other._kind)
            and np.array_equal(_bytes_of(self.array), _bytes_of(other.array)))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Const({self.digest[:12]})"


def _bytes_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.reshape(-1).view(np.uint8)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True, repr=False)
class Node:
    """One operation and its result. Immutable; made only by `node` so that equal nodes are one."""

    op: Op
    dtype: DType
    shape: Shape
    src: tuple[Node, ...] = ()
    arg: Any = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        dims = "x".join(map(str, self.shape))
        return f"<{self.op.name} {self.dtype.value}[{dims}]>"


_NODES: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def node(op: Op, dtype: DType, shape: Sequence[int], src: Sequence[Node] = (),
         arg: Any = None) -> Node:
    """The unique node with these fields. No checks: the constructors do them."""
    # A fill value of -0.0 or NaN must not be merged with 0.0: repr tells them apart.
    fill = "" if op is Op.CONST else repr(arg)
    key = (op, dtype, tuple(shape), tuple(id(s) for s in src), arg, fill)
    found = _NODES.get(key)
    if found is None:
        found = Node(op, dtype, tuple(int(n) for n in shape), tuple(src), arg)
        _NODES[key] = found
    return found


@dataclass
class Graph:
    """A program: named inputs and outputs, and which inputs are state.

    inputs: name -> INPUT node, in the order of the source model.
    outputs: name -> node.
    state: input name -> output name whose value becomes that input in the next run.
    metadata: plain data (str, numbers, bool, None, lists, dicts) that travels to the artifact.
    """

    name: str
    inputs: dict[str, Node]
    outputs: dict[str, Node]
    state: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def nodes(self) -> list[Node]:
        """Every node reachable from the outputs, sources before users, in a stable order."""
        return toposort(self.outputs.values())


def toposort(roots: Iterable[Node], known: Container[Node] = ()) -> list[Node]:
    """Nodes reachable from roots, sources first; iterative, so depth is no limit.

    Nodes in `known`, and what is only reachable through them, are left out.
    """
    order: list[Node] = []
    done: set[Node] = set()
    stack: list[tuple[Node, Iterator[Node]]] = []
    for root in roots:
        if root in done or root in known:
            continue
        done.add(root)
        stack.append((root, iter(root.src)))
        while stack:
            top, pending = stack[-1]
            for source in pending:
                if source not in done and source not in known:
                    done.add(source)
                    stack.append((source, iter(source.src)))
                    break
            else:
                order.append(top)
                stack.pop()
    return order


def with_sources(n: Node, src: tuple[Node, ...]) -> Node:
    """The same operation on other sources."""
    return n if src == n.src else node(n.op, n.dtype, n.shape, src, n.arg)


def substitute(roots: Mapping[str, Node], replaced: Mapping[Node, Node]) -> dict[str, Node]:
    """Rebuild the graph below the roots with some nodes replaced (sources of replacements kept)."""
    new: dict[Node, Node] = dict(replaced)
    for old in toposort(roots.values()):
        if old not in new:
            new[old] = with_sources(old, tuple(new[s] for s in old.src))
    return {name: new[root] for name, root in roots.items()}


def rebuild(graph: Graph, change: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """The graph with every node replaced by what `change` makes of it and its new sources."""
    done: dict[Node, Node] = {}
    for old in graph.nodes():
        done[old] = change(old, tuple(done[s] for s in old.src))
    return replace(graph, outputs={name: done[n] for name, n in graph.outputs.items()})


# Rules: dtype and shape of a node from its sources and argument; GraphError where they do not fit.

Result = tuple[DType, Shape]


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


def _input_rule(n: Node) -> Result:
    _sources(n, 0)
    _require(isinstance(n.arg, str) and n.arg != "", f"the name {n.arg!r} is not a text")
    return n.dtype, n.shape


def _const_rule(n: Node) -> Result:
    _sources(n, 0)
    if not isinstance(n.arg, Const):
        raise GraphError(f"the argument should be a Const, is {n.arg!r}")
    return DType.of(n.arg.array.dtype), n.arg.array.shape


def _reshape(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    _require(x.size == math.prod(n.shape), f"{n.shape} has another number of elements")
    return x.dtype, n.shape


def _permute(n: Node) -> Result:
    (x,) = _sources(n, 1)
    ok = isinstance(n.arg, tuple) and sorted(n.arg) == list(range(len(x.shape)))
    _require(ok, f"{n.arg!r} is not a permutation of the axes")
    return x.dtype, tuple(x.shape[a] for a in n.arg)


def _expand(n: Node) -> Result:
    (x,) = _sources(n, 1)
    _no_arg(n)
    _require(len(x.shape) == len(n.shape), f"{n.shape} has another number of axes")
    _require(all(a in (b, 1) for a, b in zip(x.shape, n.shape, strict=True)),
             f"to {n.shape}: only axes of length 1 can be repeated")
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
    Op.INPUT: _input_rule,
    Op.CONST: _const_rule,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.EXPAND: _expand,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.WINDOW: _window,
    Op.CONCAT: _concat,
    Op.GATHER: _gather,
    Op.SCATTER: _scatter,
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys((Op.ADD, Op.MUL, Op.MAX), _binary),
    **dict.fromkeys((Op.LT, Op.EQ), _compare),
    Op.DIV: _div,
    Op.WHERE: _where,
    Op.CAST: _cast,
    Op.REDUCE: _reduce,
}


def required(n: Node) -> Result:
    """dtype and shape a node must have; GraphError if its sources or argument are not legal."""
    _require(all(_is_int(length) and length >= 0 for length in n.shape),
             f"the shape {n.shape} is not made of integers >= 0")
    return RULES[n.op](n)


# Constructors: dtype and shape follow from the rules; what changes nothing returns its source.

def _made(op: Op, src: Sequence[Node], arg: Any = None, dtype: DType = DType.F32,
          shape: Sequence[int] = ()) -> Node:
    """The node of an operation. dtype, shape: where no rule derives them."""
    draft = Node(op, dtype, tuple(shape), tuple(src), arg)
    try:
        dtype, shape = required(draft)
    except GraphError as error:
        operands = ", ".join(map(repr, src)) + ("" if arg is None else f" by {arg!r}")
        raise GraphError(f"{op.name} of {operands}: {error}") from error
    return node(op, dtype, shape, src, arg)


def input_(name: str, dtype: DType, shape: Sequence[int]) -> Node:
    return node(Op.INPUT, dtype, shape, (), name)


def const(value: Any, dtype: DType | None = None) -> Node:
    """CONST from a number or array; `dtype` converts, otherwise the array's own is kept."""
    with np.errstate(over="ignore"):  # beyond the range of the dtype is infinity
        array = np.asarray(value) if dtype is None else np.asarray(value).astype(dtype.numpy)
    return _made(Op.CONST, (), Const(array))


def full(shape: Sequence[int], value: Any, dtype: DType) -> Node:
    """A tensor of one repeated value: a scalar CONST, reshaped and expanded."""
    return expand(reshape(const(value, dtype), (1,) * len(shape)), shape)


def reshape(x: Node, shape: Sequence[int]) -> Node:
    shape = tuple(int(n) for n in shape)
    return x if shape == x.shape else _made(Op.RESHAPE, (x,), shape=shape)


def permute(x: Node, order: Sequence[int]) -> Node:
    order = tuple(int(a) for a in order)
    return x if order == tuple(range(len(x.shape))) else _made(Op.PERMUTE, (x,), order)


def expand(x: Node, shape: Sequence[int]) -> Node:
    shape = tuple(int(n) for n in shape)
    return x if shape == x.shape else _made(Op.EXPAND, (x,), shape=shape)


def pad(x: Node, pads: Sequence[tuple[int, int]], value: float | int | bool = 0) -> Node:
    pads = tuple((int(lo), int(hi)) for lo, hi in pads)
    if len(pads) == len(x.shape) and not any(lo or hi for lo, hi in pads):
        return x
    return _made(Op.PAD, (x,), (pads, fill_value(value, x.dtype)))


def fill_value(value: float | int | bool, dtype: DType) -> float | int | bool:
    """The value as the plain number that PAD keeps; every NaN becomes the one `math.nan`."""
    if dtype.is_float:
        return math.nan if math.isnan(value) else float(value)
    return bool(value) if dtype is DType.BOOL else int(value)


def slice_(x: Node, ranges: Sequence[tuple[int, int, int]]) -> Node:
    """`ranges`: (start, count, step) per axis; element i of an axis is x[start + i * step]."""
    ranges = tuple((int(a), int(n), int(s)) for a, n, s in ranges)
    return x if ranges == tuple((0, n, 1) for n in x.shape) else _made(Op.SLICE, (x,), ranges)


def window(x: Node, windows: Sequence[tuple[int, int, int, int]]) -> Node:
    """`windows`: (axis, size, stride, dilation). Each axis becomes its number of positions; the
    window sizes are appended as new last axes, in the order given."""
    return _made(Op.WINDOW, (x,), tuple((int(a), int(k), int(s), int(d)) for a, k, s, d in windows))


def concat(xs: Sequence[Node], axis: int) -> Node:
    return xs[0] if len(xs) == 1 and 0 <= axis < len(xs[0].shape) else _made(Op.CONCAT, xs, axis)


def gather(x: Node, indices: Node, axis: int) -> Node:
    return _made(Op.GATHER, (x, indices), axis)


def scatter(x: Node, indices: Node, updates: Node, axis: int, mode: str = "set") -> Node:
    """x with x[.., indices[j], ..] combined with updates[.., j, ..] for j in order; indices
    outside the axis are ignored."""
    return _made(Op.SCATTER, (x, indices, updates), (axis, mode))


def exp2(x: Node) -> Node:
    return _made(Op.EXP2, (x,))


def log2(x: Node) -> Node:
    return _made(Op.LOG2, (x,))


def sqrt(x: Node) -> Node:
    return _made(Op.SQRT, (x,))


def sin(x: Node) -> Node:
    return _made(Op.SIN, (x,))


def floor(x: Node) -> Node:
    return _made(Op.FLOOR, (x,))


def add(a: Node, b: Node) -> Node:
    return _made(Op.ADD, (a, b))


def mul(a: Node, b: Node) -> Node:
    return _made(Op.MUL, (a, b))


def div(a: Node, b: Node) -> Node:
    return _made(Op.DIV, (a, b))


def maximum(a: Node, b: Node) -> Node:
    return _made(Op.MAX, (a, b))


def less(a: Node, b: Node) -> Node:
    return _made(Op.LT, (a, b))


def equal(a: Node, b: Node) -> Node:
    return _made(Op.EQ, (a, b))


def where(cond: Node, a: Node, b: Node) -> Node:
    return _made(Op.WHERE, (cond, a, b))


def cast(x: Node, dtype: DType) -> Node:
    return x if x.dtype is dtype else _made(Op.CAST, (x,), dtype=dtype)


def reduce(x: Node, kind: str, axes: Sequence[int]) -> Node:
    """Remove the axes. Of no elements: sum 0, mul 1, max the lowest value of the dtype."""
    axes = tuple(sorted(int(a) for a in axes))
    return _made(Op.REDUCE, (x,), (kind, axes)) if axes else x
