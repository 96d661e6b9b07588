"""The lazy tensor: numpy-like code that becomes a graph, compiled when a value is asked for.

    a, b, c = (Tensor(array) for array in arrays)
    y = (a * b + c).relu()     # nothing has run yet
    y.numpy()                  # one kernel, compiled once for these shapes

Operands broadcast as in numpy. They must have one dtype, or be Python numbers, which take the
tensor's; nothing is converted silently. Sums and products keep the dtype of their operand.
"""
from __future__ import annotations

import itertools
import math
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinynn import derived, ir
from tinynn.evaluate import compiled, evaluate, form
from tinynn.ir import DType, Graph, GraphError, Node
from tinynn.program import Step

Array = np.ndarray[Any, Any]
Operand: TypeAlias = "Tensor | Array | np.generic | bool | int | float"
Axes: TypeAlias = "int | Sequence[int] | None"

# The array of every leaf. A leaf lives as long as an expression refers to it.
_DATA: weakref.WeakKeyDictionary[Node, Array] = weakref.WeakKeyDictionary()
_COUNT = itertools.count()


# Functions of nodes as methods

def _function(function: Callable[[Node], Node]) -> Callable[[Tensor], Tensor]:
    """The method of one tensor."""
    def method(self: Tensor) -> Tensor:
        return _apply(function, self)
    method.__doc__ = function.__doc__
    return method


def _operator(function: Callable[..., Node]) -> tuple[Callable[[Tensor, Operand], Tensor],
                                                      Callable[[Tensor, Operand], Tensor]]:
    """The methods of a tensor on the left and on the right of an operator."""
    def left(self: Tensor, other: Operand) -> Tensor:
        return _apply(function, self, other)

    def right(self: Tensor, other: Operand) -> Tensor:
        return _apply(function, other, self)
    return left, right


def _true_divide(a: Node, b: Node) -> Node:
    if not a.dtype.is_float:
        raise GraphError(f"{a!r} / {b!r} needs floats; use // or .cast('f32')")
    return derived.div(a, b)


def _quotient(a: Node, b: Node) -> tuple[Node, Node, Node]:
    """Both operands broadcast, and a / b rounded down; x / 0 is 0."""
    if not a.dtype.is_integer:
        raise GraphError(f"// and % of {a!r} and {b!r} need integers; use (a / b).floor()")
    a, b = derived.broadcast(a, b)
    truncated = ir.div(a, b)
    inexact = derived.logical_not(ir.equal(ir.mul(truncated, b), a))
    negative = derived.logical_not(ir.equal(derived.less(a, 0), derived.less(b, 0)))
    divisible = derived.logical_not(derived.equal(b, 0))
    down = ir.mul(divisible, ir.mul(inexact, negative))
    return a, b, derived.sub(truncated, ir.cast(down, a.dtype))


def _floor_divide(a: Node, b: Node) -> Node:
    return _quotient(a, b)[2]


def _remainder(a: Node, b: Node) -> Node:
    """With the sign of b; x % 0 is 0."""
    a, b, quotient = _quotient(a, b)
    rest = derived.sub(a, ir.mul(quotient, b))
    return derived.where(derived.equal(b, 0), derived.scalar(0, a), rest)


class Tensor:
    """An array that is yet to be computed: `shape`, `dtype`, and what it is computed from.

    Tensor(array) holds a copy of the array. Of Python numbers, floats become f32 and integers i32.
    dtype: converts the given values; "f32", numpy.float32 and DType.F32 mean the same.
    """

    __array_ufunc__ = None  # numpy arrays leave operators with a tensor to the tensor
    __hash__ = None  # type: ignore[assignment]  # as numpy arrays: == compares elements

    def __init__(self, value: Any, dtype: Any = None) -> None:
        array = _array(value, dtype)
        self.node = ir.input_(f"tensor {next(_COUNT)}", DType.of(array.dtype), array.shape)
        _DATA[self.node] = array

    @staticmethod
    def of(node: Node) -> Tensor:
        """The tensor of a node of a graph."""
        tensor = Tensor.__new__(Tensor)
        tensor.node = node
        return tensor

    # Constants: part of the compiled program, and folded where possible.

    @staticmethod
    def constant(value: Any, dtype: Any = None) -> Tensor:
        """A tensor whose values are compiled in."""
        return Tensor.of(ir.const(_array(value, dtype)))

    @staticmethod
    def full(shape: Sequence[int], value: bool | int | float, dtype: Any = None) -> Tensor:
        kind = _array(value, dtype).dtype
        return Tensor.of(ir.full(shape, value, DType.of(kind)))

    @staticmethod
    def zeros(*shape: Any, dtype: Any = "f32") -> Tensor:
        return Tensor.full(_sizes(shape), 0, dtype)

    @staticmethod
    def ones(*shape: Any, dtype: Any = "f32") -> Tensor:
        return Tensor.full(_sizes(shape), 1, dtype)

    @staticmethod
    def arange(start: float, stop: float | None = None, step: float = 1,
               dtype: Any = None) -> Tensor:
        """As numpy.arange: arange(n) counts from 0."""
        first, last = (0, start) if stop is None else (start, stop)
        values = np.arange(first, last, step)
        return Tensor.constant(values.tolist() if dtype is None else values, dtype)

    # Looking at it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    @property
    def size(self) -> int:
        return self.node.size

    def numpy(self, backend: str = "c") -> Array:
        """Compute it. backend: "c" compiles the expression, once for every form of it; "interp"
        runs the reference interpreter."""
        return evaluate([self.node], _DATA, backend)[0]

    def item(self) -> Any:
        """The only element, as a Python number."""
        return self.numpy().item()

    def realize(self) -> Tensor:
        """A tensor that holds the computed values: a place to cut a long expression."""
        return Tensor(self.numpy())

    def kernels(self) -> tuple[Step, ...]:
        """The kernel launches that compute it, compiled now if they are not yet."""
        return compiled(tuple(form([self.node])[0].outputs.values())).steps

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.numpy(), dtype)

    def __repr__(self) -> str:
        return f"Tensor({self.dtype.value}{list(self.shape)}, {self.node.op.name})"

    def __bool__(self) -> bool:
        raise TypeError("a lazy tensor is neither true nor false before it is computed. Use "
                        ".numpy() or .item() for an if, and where() inside an expression.")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of shape () has no length.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Arithmetic

    __add__, __radd__ = _operator(derived.add)
    __sub__, __rsub__ = _operator(derived.sub)
    __mul__, __rmul__ = _operator(derived.mul)
    __truediv__, __rtruediv__ = _operator(_true_divide)
    __floordiv__, __rfloordiv__ = _operator(_floor_divide)
    __mod__, __rmod__ = _operator(_remainder)
    __matmul__, __rmatmul__ = _operator(derived.matmul)
    __neg__ = _function(derived.negate)
    __abs__ = _function(derived.absolute)

    def __pow__(self, other: Operand) -> Tensor:
        if isinstance(other, int) and not isinstance(other, bool):
            return _integer_power(self, other)
        return _apply(derived.power, self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return _apply(derived.power, other, self)

    # Comparison; & and | are for bool

    __lt__, __gt__ = _operator(derived.less)

    def __le__(self, other: Operand) -> Tensor:
        return (self < other) | (self == other)  # not `not >`: NaN

    def __ge__(self, other: Operand) -> Tensor:
        return (self > other) | (self == other)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return _apply(derived.equal, self, other)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return ~(self == other)

    def __invert__(self) -> Tensor:
        return _apply(derived.logical_not, _bools("~", self))

    def __and__(self, other: Operand) -> Tensor:
        return _bools("&", self) * other

    def __or__(self, other: Operand) -> Tensor:
        return _bools("|", self) + other

    __rand__ = __and__
    __ror__ = __or__

    # Functions of one element

    exp = _function(derived.exp)
    exp2 = _function(ir.exp2)
    log = _function(derived.log)
    log2 = _function(ir.log2)
    sqrt = _function(ir.sqrt)
    sin = _function(ir.sin)  # of radians
    cos = _function(derived.cos)
    floor = _function(ir.floor)
    ceil = _function(derived.ceil)
    round = _function(derived.round_even)
    abs = _function(derived.absolute)
    sign = _function(derived.sign)
    relu = _function(derived.relu)
    sigmoid = _function(derived.sigmoid)
    tanh = _function(derived.tanh)
    erf = _function(derived.erf)
    softplus = _function(derived.softplus)

    def silu(self) -> Tensor:
        """x sigmoid(x)."""
        return self * self.sigmoid()

    def gelu(self, approximate: str = "none") -> Tensor:
        """x Phi(x); approximate: "none", or "tanh" for the formula with tanh."""
        return Tensor.of(derived.gelu(self.node, approximate))

    def softmax(self, axis: int = -1) -> Tensor:
        return Tensor.of(derived.softmax(self.node, _axis(axis, self.ndim)))

    def log_softmax(self, axis: int = -1) -> Tensor:
        return Tensor.of(derived.log_softmax(self.node, _axis(axis, self.ndim)))

    maximum = _operator(derived.maximum)[0]
    minimum = _operator(derived.minimum)[0]

    def clip(self, low: Operand | None = None, high: Operand | None = None) -> Tensor:
        """min(max(x, low), high); a bound that is None does not bind."""
        above = self if low is None else self.maximum(low)
        return above if high is None else (above > high).where(high, above)

    def cast(self, dtype: Any) -> Tensor:
        """Converted; floats to integers truncate and saturate, NaN becomes 0."""
        return Tensor.of(ir.cast(self.node, _dtype(dtype)))

    def where(self, a: Operand, b: Operand) -> Tensor:
        """Elements of a where this bool tensor is true, else of b; one of them is a tensor."""
        return Tensor.of(derived.where(_bools("where", self).node, *_operands(a, b)))

    # Reductions. axis: None is all of them.

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return _reduce(self, "sum", axis, keepdims)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return _reduce(self, "mul", axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return _reduce(self, "max", axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        highest_first = _apply(derived.flip, self)
        return _apply(derived.flip, _reduce(highest_first, "max", axis, keepdims))

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        if not self.dtype.is_float:
            raise GraphError(f"the mean of {self!r} needs a float tensor; use .cast('f32')")
        count = math.prod(self.shape[a] for a in _axes(axis, self.ndim))
        return self.sum(axis, keepdims) / count

    # Sums of products

    def conv2d(self, weight: Tensor | Array, bias: Tensor | Array | None = None,
               stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
               dilation: int | Sequence[int] = 1, groups: int = 1) -> Tensor:
        """(N, C, H, W) with filters (M, C / groups, KH, KW) -> (N, M, OH, OW).

        bias: (M,). stride, padding, dilation: for both directions, or (vertical, horizontal).
        """
        x, w = _operands(self, weight)
        if len(x.shape) != 4 or len(w.shape) != 4:
            raise GraphError(f"conv2d of {x!r} by {w!r}: both need four axes")
        pads = [(p, p) for p in _pair(padding)]
        y = Tensor.of(derived.conv(x, w, _pair(stride), _pair(dilation), pads, groups))
        return y if bias is None else y + _tensor(bias).reshape(-1, 1, 1)

    # Views

    def reshape(self, *shape: Any) -> Tensor:
        """Same elements in row-major order; one size may be -1."""
        sizes = _sizes(shape)
        known = math.prod(n for n in sizes if n != -1)
        if sizes.count(-1) == 1 and known:
            sizes = tuple(self.size // known if n == -1 else n for n in sizes)
        return Tensor.of(ir.reshape(self.node, sizes))

    def permute(self, *order: Any) -> Tensor:
        """Axes in another order."""
        return Tensor.of(ir.permute(self.node, [_axis(a, self.ndim) for a in _sizes(order)]))

    def transpose(self, a: int = -2, b: int = -1) -> Tensor:
        """Two axes swapped."""
        order = list(range(self.ndim))
        a, b = _axis(a, self.ndim), _axis(b, self.ndim)
        order[a], order[b] = b, a
        return self.permute(order)

    @property
    def T(self) -> Tensor:  # noqa: N802  (numpy's name)
        return self.permute(range(self.ndim)[::-1])

    def expand(self, *shape: Any) -> Tensor:
        """Broadcast to a shape, as numpy.broadcast_to."""
        return Tensor.of(derived.broadcast_to(self.node, _sizes(shape)))

    def flatten(self, start: int = 0) -> Tensor:
        """The axes from `start` on as one."""
        return self.reshape(*self.shape[:start], math.prod(self.shape[start:]))

    def unsqueeze(self, axis: int) -> Tensor:
        """A new axis of length 1."""
        return Tensor.of(derived.unsqueeze(self.node, _axis(axis, self.ndim + 1)))

    def squeeze(self, axis: int) -> Tensor:
        """Without an axis of length 1."""
        axis = _axis(axis, self.ndim)
        return self.reshape(*self.shape[:axis], *self.shape[axis + 1:])

    def pad(self, pads: Sequence[tuple[int, int]], value: bool | int | float = 0) -> Tensor:
        """Constant values around it; pads: (before, after) per axis."""
        return Tensor.of(ir.pad(self.node, pads, value))

    def __getitem__(self, key: Any) -> Tensor:
        """numpy's indexing with integers, slices, None, ..., and integer arrays or tensors.

        A constant index outside the axis raises IndexError. The values of a tensor are known
        only at run time: those below 0 count from the end, others outside are clipped.
        """
        return _index(self, key)

    # Joins

    @staticmethod
    def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
        nodes = _operands(*tensors)
        return Tensor.of(ir.concat(nodes, _axis(axis, len(nodes[0].shape))))

    @staticmethod
    def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
        """Joined along a new axis."""
        return Tensor.concat([_tensor(t).unsqueeze(axis) for t in tensors], axis)


def numpy_of(*tensors: Tensor) -> list[Array]:
    """Several tensors computed by one program: what they have in common is computed once."""
    return evaluate([t.node for t in tensors], _DATA)


def trace(function: Callable[..., Tensor | Mapping[str, Tensor]],
          inputs: Mapping[str, tuple[Any, Sequence[int]]]) -> Graph:
    """The graph of a function of tensors, for `tinynn.compile`.

    inputs: name -> (dtype, shape). The function is called once, with a tensor for every name as
    keyword argument. It returns a tensor (then the output is called "output") or tensors by name.
    Tensors it uses from outside become constants of the graph.
    """
    given = {name: ir.input_(name, _dtype(dtype), shape) for name, (dtype, shape) in inputs.items()}
    result = function(**{name: Tensor.of(node) for name, node in given.items()})
    outputs = {"output": result} if isinstance(result, Tensor) else result
    if not isinstance(outputs, Mapping) or not outputs or not all(
            isinstance(t, Tensor) for t in outputs.values()):
        raise TypeError(f"{_name(function)} returned {outputs!r:.80}. A traced function returns a "
                        "Tensor or a dict of name -> Tensor.")
    roots = {name: tensor.node for name, tensor in outputs.items()}
    bound = {leaf: ir.const(_DATA[leaf]) for leaf in ir.toposort(roots.values()) if leaf in _DATA}
    return Graph(_name(function), given, ir.substitute(roots, bound))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "function")


# Values and dtypes

def _dtype(dtype: Any) -> DType:
    if isinstance(dtype, DType):
        return dtype
    by_value = {member.value: member for member in DType}
    if isinstance(dtype, str) and dtype in by_value:
        return by_value[dtype]
    try:
        return DType.of(dtype)
    except TypeError:
        raise GraphError(f"{dtype!r} is not a dtype; known are {', '.join(by_value)}") from None


def _array(value: Any, dtype: Any) -> Array:
    """A copy as an array; Python numbers get the default dtypes f32, i32 and bool."""
    array = np.array(value)
    if dtype is not None:
        return array.astype(_dtype(dtype).numpy)
    if not isinstance(value, np.ndarray | np.generic):
        default = {"f": np.float32, "i": np.int32}.get(array.dtype.kind)
        return array if default is None else array.astype(default)
    DType.of(array.dtype)  # refuses what has no counterpart
    return array


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


def _scalar(value: Any, dtype: DType) -> Node:
    """A Python number in the dtype of the tensor it meets."""
    if dtype is DType.BOOL:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, int | float if dtype.is_float else int)
        fits = fits and not isinstance(value, bool)
    if fits and dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        fits = limits.min <= value <= limits.max
    if not fits:
        raise GraphError(f"{value!r} is not a value of a {dtype.value} tensor; convert the tensor "
                         "first, for example with .cast('f32')")
    return ir.const(value, dtype)


def _operands(*values: Any) -> list[Node]:
    """Nodes of operands that meet: tensors and arrays of one dtype, and Python numbers."""
    known = [v if isinstance(v, Tensor) else Tensor(v) if isinstance(v, np.ndarray) else None
             for v in values]
    tensors = [t for t in known if t is not None]
    if len({t.dtype for t in tensors}) != 1:
        listed = ", ".join(f"{t.dtype.value}{list(t.shape)}" for t in tensors) or "numbers alone"
        raise GraphError(f"operands must be tensors of one dtype and Python numbers, and these "
                         f"are {listed}; convert with .cast()")
    dtype = tensors[0].dtype
    values = tuple(v.item() if isinstance(v, np.generic) else v for v in values)
    return [_scalar(v, dtype) if t is None else t.node
            for t, v in zip(known, values, strict=True)]


def _apply(function: Callable[..., Node], *operands: Any) -> Tensor:
    return Tensor.of(function(*_operands(*operands)))


def _bools(what: str, tensor: Tensor) -> Tensor:
    if tensor.dtype is not DType.BOOL:
        raise GraphError(f"{what} of {tensor!r} needs a bool tensor; compare it, or use "
                         ".cast('bool')")
    return tensor


# Shapes and axes

def _sizes(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(given) == 1 and isinstance(given[0], Sequence | np.ndarray):
        given = tuple(given[0])
    return tuple(operator.index(n) for n in given)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise GraphError(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def _axes(axis: Axes, rank: int) -> list[int]:
    if axis is None:
        return list(range(rank))
    return [_axis(a, rank) for a in ([axis] if isinstance(axis, int) else axis)]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


# Arithmetic that numpy has and the graph spells with several operations

def _reduce(x: Tensor, kind: str, axis: Axes, keepdims: bool) -> Tensor:
    if x.dtype is DType.BOOL and kind != "max":
        raise GraphError(f"{kind} of {x!r} needs numbers; use .cast('i32')")
    axes = _axes(axis, x.ndim)
    if kind == "max" and x.size == 0 and any(x.shape[a] == 0 for a in axes):
        raise GraphError(f"the extreme value of {x!r} over axes {axes}: there is no element")
    if keepdims:
        return Tensor.of(derived.reduce_keep(x.node, kind, axes))
    return Tensor.of(ir.reduce(x.node, kind, axes))


def _integer_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 0:
        return Tensor.full(x.shape, 1, x.dtype)
    if exponent < 0:
        return 1 / _integer_power(x, -exponent)
    return Tensor.of(derived.power_int(x.node, exponent))


# Indexing

def _index(x: Tensor, key: Any) -> Tensor:
    """Slices and integers are one SLICE; what is left are index arrays, which become a GATHER."""
    items = _full_key(key if isinstance(key, tuple) else (key,), x)
    arrays = any(isinstance(item, Tensor) for item in items)
    ranges: list[tuple[int, int, int]] = []
    shape: list[int] = []
    picks: dict[int, Tensor] = {}  # position in `shape` -> indices along it
    for item in items:
        if item is None:
            shape.append(1)
            continue
        length = x.shape[len(ranges)]
        if isinstance(item, slice):
            start, stop, step = item.indices(length)
            count = len(range(start, stop, step))
            ranges.append((start if count else 0, count, step))
            shape.append(count)
        elif isinstance(item, Tensor) or arrays:
            # Beside an array, numpy treats an integer as an array too.
            picks[len(shape)] = _checked_indices(item, length)
            ranges.append((0, length, 1))
            shape.append(length)
        else:
            ranges.append((_checked_position(item, length), 1, 1))
    view = Tensor.of(ir.slice_(x.node, ranges)).reshape(shape)
    return _gather(view, picks) if picks else view


def _full_key(key: tuple[Any, ...], x: Tensor) -> list[Any]:
    """One item per axis: slice, int, Tensor; and None for every new axis."""
    items = [_key_item(item) for item in key]
    taken = sum(item is not None and item is not Ellipsis for item in items)
    if taken > x.ndim or sum(item is Ellipsis for item in items) > 1:
        raise IndexError(f"the index has {taken} items for the {x.ndim} axes of {x!r}, or more "
                         "than one '...'.")
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return [*items[:at], *[slice(None)] * (x.ndim - taken), *items[at + 1:]]


def _key_item(item: Any) -> Any:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, Sequence | np.ndarray) and not isinstance(item, str):
        item = Tensor.constant(item, "i64" if np.size(item) == 0 else None)
    if isinstance(item, Tensor) and item.dtype.is_integer:
        return item
    if isinstance(item, bool | np.bool_ | Tensor) or not hasattr(item, "__index__"):
        raise IndexError(f"{item!r} cannot be an index: the shape of the result must be known, so "
                         "indices are integers, slices, None, ... and integer arrays. "
                         "For a mask use where().")
    return operator.index(item)


def _checked_position(position: int, length: int) -> int:
    if not -length <= position < length:
        raise IndexError(f"index {position} is outside an axis of length {length}.")
    return position % length


def _checked_indices(indices: Tensor | int, length: int) -> Tensor:
    """Indices from 0 on. Constant ones are checked; those of run time count from the end too."""
    if isinstance(indices, int):
        return Tensor.constant(_checked_position(indices, length))
    if indices.node.op is not ir.Op.CONST:
        if indices.dtype.numpy.kind == "u":
            return indices
        return (indices < 0).where(indices + length, indices)
    values = indices.node.arg.array.astype(np.int64)
    for extreme in (values.min(), values.max()) if values.size else ():
        _checked_position(int(extreme), length)
    return Tensor.constant(values % max(length, 1))


def _gather(x: Tensor, picks: dict[int, Tensor]) -> Tensor:
    """numpy's x[.., i, .., j, ..]: the shape that the index arrays have in common takes the place
    of their axes if these are neighbours, and comes first otherwise."""
    positions = sorted(picks)
    first = positions[0]
    if positions != list(range(first, first + len(positions))):
        rest = [a for a in range(x.ndim) if a not in picks]
        x, first = x.permute([*positions, *rest]), 0
    after = first + len(positions)
    lengths = x.shape[first:after]
    merged = x.reshape(*x.shape[:first], math.prod(lengths), *x.shape[after:])
    linear = picks[positions[0]]
    if len(positions) > 1:
        # Joined into one index, a value outside its own axis would reach into another row.
        wide = [picks[p].cast("i64").clip(0, max(n - 1, 0))
                for p, n in zip(positions, lengths, strict=True)]
        linear = wide[0]
        for indices, length in zip(wide[1:], lengths[1:], strict=True):
            linear = linear * length + indices
    return Tensor.of(ir.gather(merged.node, linear.node, first))
