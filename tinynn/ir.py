"""The graph: one immutable, hash-consed node type and the 25 operations it may hold.

A tensor program is a directed acyclic graph of `Node`. Two nodes that mean the same thing (same
operation, dtype, shape, sources and argument) are the same Python object, so `is` is equality and
common subexpressions are shared by construction.

Rules that hold for every node (`spec.py` checks them, `interp.py` gives their meaning in numpy):

- Shapes are static tuples of ints; a scalar has shape (). Zero-sized dimensions are legal.
- Operands of elementwise operations have equal shapes. Broadcasting is written out with EXPAND.
- Operands of ADD, MUL, DIV, MAX, LT, EQ have equal dtypes. Conversion is written out with CAST.
- f16 and bf16 are storage types with defined rounding; a backend may compute wider.

Use the constructor functions below (`add`, `reshape`, ...): they infer dtype and shape and raise
`GraphError` with the offending values when the operands do not fit.
"""
from __future__ import annotations

import enum
import hashlib
import math
import weakref
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


UNARY = frozenset({Op.EXP2, Op.LOG2, Op.SQRT, Op.SIN, Op.FLOOR})
BINARY = frozenset({Op.ADD, Op.MUL, Op.DIV, Op.MAX, Op.LT, Op.EQ})
ELEMENTWISE = UNARY | BINARY | {Op.WHERE, Op.CAST}
VIEWS = frozenset({Op.RESHAPE, Op.PERMUTE, Op.EXPAND, Op.PAD, Op.SLICE, Op.WINDOW})
REDUCE_KINDS = ("sum", "max", "mul")
SCATTER_MODES = ("set", "add", "mul", "max", "min")

Shape = tuple[int, ...]


class Const:
    """The value of a CONST node: an immutable array, equal to another by dtype, shape and bytes."""

    __slots__ = ("__weakref__", "array", "digest")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        value = np.array(array, order="C", copy=True)
        value.setflags(write=False)
        self.array = value
        self.digest = hashlib.sha256(
            f"{DType.of(value.dtype).value}{value.shape}".encode() + value.tobytes()
        ).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Const({self.digest[:12]})"


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
    """The unique node with these fields. No checks: constructors and `spec.py` do them."""
    # A fill value of -0.0 or NaN must not be merged with 0.0: repr tells them apart.
    key = (op, dtype, tuple(shape), tuple(id(s) for s in src), arg, repr(arg))
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


def substitute(roots: Mapping[str, Node], replace: Mapping[Node, Node]) -> dict[str, Node]:
    """Rebuild the graph below the roots with some nodes replaced (sources of replacements kept)."""
    new: dict[Node, Node] = dict(replace)
    for old in toposort(roots.values()):
        if old not in new:
            src = tuple(new[s] for s in old.src)
            same = all(a is b for a, b in zip(src, old.src, strict=True))
            new[old] = old if same else node(old.op, old.dtype, old.shape, src, old.arg)
    return {name: new[root] for name, root in roots.items()}


# Constructors: infer shape and dtype, refuse what does not fit.

def input_(name: str, dtype: DType, shape: Sequence[int]) -> Node:
    return node(Op.INPUT, dtype, shape, (), name)


def const(value: Any, dtype: DType | None = None) -> Node:
    """CONST from a number or array; `dtype` converts, otherwise the array's own is kept."""
    with np.errstate(over="ignore"):  # beyond the range of the dtype is infinity
        array = np.asarray(value) if dtype is None else np.asarray(value).astype(dtype.numpy)
    held = Const(array)
    return node(Op.CONST, DType.of(array.dtype), array.shape, (), held)


def full(shape: Sequence[int], value: Any, dtype: DType) -> Node:
    """A tensor of one repeated value: a scalar CONST, reshaped and expanded."""
    scalar = const(value, dtype)
    return expand(reshape(scalar, (1,) * len(shape)), shape)


def reshape(x: Node, shape: Sequence[int]) -> Node:
    shape = tuple(int(n) for n in shape)
    if math.prod(shape) != x.size or any(n < 0 for n in shape):
        raise GraphError(f"RESHAPE of {x!r} to {shape}: the number of elements differs")
    return x if shape == x.shape else node(Op.RESHAPE, x.dtype, shape, (x,))


def permute(x: Node, order: Sequence[int]) -> Node:
    order = tuple(int(a) for a in order)
    if sorted(order) != list(range(len(x.shape))):
        raise GraphError(f"PERMUTE of {x!r} by {order}: not a permutation of its axes")
    if order == tuple(range(len(order))):
        return x
    return node(Op.PERMUTE, x.dtype, [x.shape[a] for a in order], (x,), order)


def expand(x: Node, shape: Sequence[int]) -> Node:
    shape = tuple(int(n) for n in shape)
    if len(shape) != len(x.shape) or any(
            a not in (b, 1) for a, b in zip(x.shape, shape, strict=True)):
        raise GraphError(f"EXPAND of {x!r} to {shape}: only axes of length 1 can be repeated")
    return x if shape == x.shape else node(Op.EXPAND, x.dtype, shape, (x,))


def pad(x: Node, pads: Sequence[tuple[int, int]], value: float | int | bool = 0) -> Node:
    pads = tuple((int(lo), int(hi)) for lo, hi in pads)
    if len(pads) != len(x.shape) or any(lo < 0 or hi < 0 for lo, hi in pads):
        raise GraphError(f"PAD of {x!r} by {pads}: needs one pair of counts >= 0 per axis")
    if not any(lo or hi for lo, hi in pads):
        return x
    shape = [n + lo + hi for n, (lo, hi) in zip(x.shape, pads, strict=True)]
    return node(Op.PAD, x.dtype, shape, (x,), (pads, fill_value(value, x.dtype)))


def fill_value(value: float | int | bool, dtype: DType) -> float | int | bool:
    """The value as the plain number that PAD keeps; every NaN becomes the one `math.nan`."""
    if dtype.is_float:
        return math.nan if math.isnan(value) else float(value)
    return bool(value) if dtype is DType.BOOL else int(value)


def slice_(x: Node, ranges: Sequence[tuple[int, int, int]]) -> Node:
    """`ranges`: (start, count, step) per axis; element i of an axis is x[start + i * step]."""
    ranges = tuple((int(a), int(n), int(s)) for a, n, s in ranges)
    if len(ranges) != len(x.shape):
        raise GraphError(f"SLICE of {x!r} by {ranges}: needs one range per axis")
    for length, (start, count, step) in zip(x.shape, ranges, strict=True):
        last = start + (count - 1) * step
        inside = count == 0 or (0 <= start < length and 0 <= last < length)
        if count < 0 or step == 0 or not inside:
            raise GraphError(f"SLICE of {x!r} by {ranges}: leaves the axis of length {length}")
    if all(r == (0, n, 1) for r, n in zip(ranges, x.shape, strict=True)):
        return x
    return node(Op.SLICE, x.dtype, [count for _, count, _ in ranges], (x,), ranges)


def window(x: Node, windows: Sequence[tuple[int, int, int, int]]) -> Node:
    """`windows`: (axis, size, stride, dilation). Each axis becomes its number of positions; the
    window sizes are appended as new last axes, in the order given."""
    windows = tuple((int(a), int(k), int(s), int(d)) for a, k, s, d in windows)
    shape = list(x.shape)
    if len({axis for axis, *_ in windows}) != len(windows):
        raise GraphError(f"WINDOW of {x!r} by {windows}: an axis is named twice")
    for axis, size, stride, dilation in windows:
        if not 0 <= axis < len(x.shape) or size < 1 or stride < 1 or dilation < 1:
            raise GraphError(f"WINDOW of {x!r} by {windows}: axis, size, stride or dilation is off")
        span = dilation * (size - 1) + 1
        if x.shape[axis] < span:
            raise GraphError(f"WINDOW of {x!r} by {windows}: wider than axis {axis}")
        shape[axis] = (x.shape[axis] - span) // stride + 1
    return node(Op.WINDOW, x.dtype, [*shape, *(w[1] for w in windows)], (x,), windows)


def concat(xs: Sequence[Node], axis: int) -> Node:
    if not xs or not 0 <= axis < len(xs[0].shape):
        raise GraphError(f"CONCAT of {list(xs)!r} along axis {axis}: no such axis")
    for x in xs[1:]:
        same = [a == b for a, b in zip(x.shape, xs[0].shape, strict=False)]
        if x.dtype is not xs[0].dtype or len(x.shape) != len(xs[0].shape) or not all(
                ok for i, ok in enumerate(same) if i != axis):
            raise GraphError(f"CONCAT of {list(xs)!r} along axis {axis}: operands do not fit")
    if len(xs) == 1:
        return xs[0]
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return node(Op.CONCAT, xs[0].dtype, shape, xs, axis)


def gather(x: Node, indices: Node, axis: int) -> Node:
    if not 0 <= axis < len(x.shape) or not indices.dtype.is_integer:
        raise GraphError(f"GATHER of {x!r} by {indices!r} along axis {axis}: operands do not fit")
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1:]
    if x.shape[axis] == 0 and 0 not in shape:
        raise GraphError(f"GATHER of {x!r} along empty axis {axis}")
    return node(Op.GATHER, x.dtype, shape, (x, indices), axis)


def scatter(x: Node, indices: Node, updates: Node, axis: int, mode: str = "set") -> Node:
    """x with x[.., indices[j], ..] combined with updates[.., j, ..] for j in order; indices
    outside the axis are ignored."""
    fits = (0 <= axis < len(x.shape) and len(indices.shape) == 1 and indices.dtype.is_integer
            and updates.dtype is x.dtype and mode in SCATTER_MODES
            and updates.shape == x.shape[:axis] + indices.shape + x.shape[axis + 1:])
    if not fits:
        raise GraphError(f"SCATTER of {updates!r} into {x!r} by {indices!r} along axis {axis}, "
                         f"mode {mode!r}: operands do not fit")
    return node(Op.SCATTER, x.dtype, x.shape, (x, indices, updates), (axis, mode))


def _unary(op: Op, x: Node) -> Node:
    if not x.dtype.is_float:
        raise GraphError(f"{op.name} of {x!r}: needs a float tensor")
    return node(op, x.dtype, x.shape, (x,))


def exp2(x: Node) -> Node:
    return _unary(Op.EXP2, x)


def log2(x: Node) -> Node:
    return _unary(Op.LOG2, x)


def sqrt(x: Node) -> Node:
    return _unary(Op.SQRT, x)


def sin(x: Node) -> Node:
    return _unary(Op.SIN, x)


def floor(x: Node) -> Node:
    return _unary(Op.FLOOR, x)


def _binary(op: Op, a: Node, b: Node) -> Node:
    if a.dtype is not b.dtype or a.shape != b.shape:
        raise GraphError(f"{op.name} of {a!r} and {b!r}: dtypes and shapes must be equal")
    dtype = DType.BOOL if op in (Op.LT, Op.EQ) else a.dtype
    return node(op, dtype, a.shape, (a, b))


def add(a: Node, b: Node) -> Node:
    return _binary(Op.ADD, a, b)


def mul(a: Node, b: Node) -> Node:
    return _binary(Op.MUL, a, b)


def div(a: Node, b: Node) -> Node:
    if a.dtype is DType.BOOL:
        raise GraphError(f"DIV of {a!r} and {b!r}: bool cannot be divided")
    return _binary(Op.DIV, a, b)


def maximum(a: Node, b: Node) -> Node:
    return _binary(Op.MAX, a, b)


def less(a: Node, b: Node) -> Node:
    return _binary(Op.LT, a, b)


def equal(a: Node, b: Node) -> Node:
    return _binary(Op.EQ, a, b)


def where(cond: Node, a: Node, b: Node) -> Node:
    if (cond.dtype is not DType.BOOL or a.dtype is not b.dtype
            or not cond.shape == a.shape == b.shape):
        raise GraphError(f"WHERE of {cond!r}, {a!r}, {b!r}: operands do not fit")
    return node(Op.WHERE, a.dtype, a.shape, (cond, a, b))


def cast(x: Node, dtype: DType) -> Node:
    return x if x.dtype is dtype else node(Op.CAST, dtype, x.shape, (x,))


def reduce(x: Node, kind: str, axes: Sequence[int]) -> Node:
    """Remove the axes. Of no elements: sum 0, mul 1, max the lowest value of the dtype."""
    axes = tuple(sorted(int(a) for a in axes))
    if kind not in REDUCE_KINDS or len(set(axes)) != len(axes) or any(
            not 0 <= a < len(x.shape) for a in axes):
        raise GraphError(f"REDUCE {kind!r} of {x!r} over axes {axes}: operands do not fit")
    if not axes:
        return x
    shape = [n for i, n in enumerate(x.shape) if i not in axes]
    return node(Op.REDUCE, x.dtype, shape, (x,), (kind, axes))
