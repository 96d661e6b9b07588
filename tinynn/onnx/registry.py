"""The table of ONNX operators, and what a lowering function is given.

A lowering function turns one ONNX node into nodes of our graph:

    @lowers("Add", since=7)
    def add(call: Call, a: Node, b: Node) -> Node: ...

Its parameters behind `call` are the ONNX inputs in order; inputs that may be absent have None as
default. It returns one value, or a list with one per ONNX output (None for outputs that it cannot
produce; asking for one of those is an error).

A value is a Node, or TensorList for what ONNX calls a sequence, or Absent for an optional without
value. Lengths of sequences are always known at compile time, so neither of the latter two reaches
the graph. Lowerings that take sequences say `sequences=True`.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn import interp, ir
from tinynn.ir import Graph, Node, Op
from tinynn.onnx.errors import ModelError, UnsupportedModel


@dataclass(frozen=True)
class TensorList:
    """A sequence of tensors."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Absent:
    """An optional without a value. A lowering that is given one sees None."""


Value = Node | TensorList | Absent
Result = Value | Sequence[Value | None]
Function = Callable[..., Any]  # (call, *inputs) -> Result

# More elements than this are not a shape, a list of axes or a range of a sane model.
_MOST_STATIC_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Lowering:
    """How one operator is imported: from opset version `since` of its domain on. sequences: its
    inputs may be sequences."""

    function: Function
    since: int
    sequences: bool = False


# Attributes that mean nothing for a result we produce, or only together with another attribute.
# Any other attribute that a lowering does not look at is an error: it would change the result.
_MAY_STAY_UNREAD = frozenset({
    "axis", "pads", "then_branch", "else_branch", "keep_aspect_ratio_policy", "stash_type",
    "storage_order", "saturate", "round_mode", "momentum", "seed", "ratio", "output_padding"})

# Operator -> lowering. Operators outside the standard domain are spelt "domain::Name".
LOWER: dict[str, Lowering] = {}


def lowers(*names: str, since: int = 1, sequences: bool = False
           ) -> Callable[[Function], Function]:
    """Enter the decorated function in LOWER under each name."""
    def enter(function: Function) -> Function:
        for name in names:
            if name in LOWER:
                raise ValueError(f"two lowerings for {name}")
            LOWER[name] = Lowering(function, since, sequences)
        return function
    return enter


class Call:
    """One ONNX node on its way into the graph: its attributes, opset and number of outputs."""

    def __init__(self, op: str, opset: int, attributes: dict[str, Any], outputs: int,
                 lower_graph: Callable[[Any, Sequence[Value | None]], list[Value]]) -> None:
        self.op = op
        self.opset = opset
        self.outputs = outputs
        self._attributes = attributes
        self._read: set[str] = set()
        self._lower_graph = lower_graph

    def apply(self, lowering: Lowering, inputs: Sequence[Value | None]) -> list[Value | None]:
        """Run the lowering function; one result per output of the ONNX node."""
        if not lowering.sequences and any(isinstance(x, TensorList) for x in inputs):
            raise ModelError("it takes tensors, but an input is a sequence")
        given = [None if isinstance(x, Absent) else x for x in inputs]
        while given and given[-1] is None:
            given.pop()
        parameters = list(inspect.signature(lowering.function).parameters.values())[1:]
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            least = sum(p.default is p.empty for p in parameters)
            missing = any(x is None for x in given[:least])
            if missing or not least <= len(given) <= len(parameters):
                raise ModelError(f"takes {least} to {len(parameters)} inputs, has {len(given)}")
        result = lowering.function(self, *given)
        unread = sorted(set(self._attributes) - self._read - _MAY_STAY_UNREAD)
        if unread:
            raise UnsupportedModel(f"attributes {unread} are not supported")
        results = [result] if isinstance(result, Value) else list(result)
        wanted = results[:self.outputs]
        return wanted + [None] * (self.outputs - len(wanted))

    def has(self, name: str) -> bool:
        self._read.add(name)
        return name in self._attributes

    def _get(self, name: str, default: Any, kinds: tuple[type, ...], wanted: str) -> Any:
        self._read.add(name)
        value = self._attributes.get(name, default)
        if value is None:
            raise ModelError(f"attribute {name!r} is missing")
        if name in self._attributes and not isinstance(value, kinds):
            raise ModelError(f"attribute {name!r} should be {wanted}, is {value!r:.60}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._get(name, default, (int,), "an integer"))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.integer(name, int(default)))

    def number(self, name: str, default: float | None = None) -> float:
        return float(self._get(name, default, (float, int), "a number"))

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        return [int(v) for v in self._get(name, default, (list, tuple), "a list of integers")]

    def numbers(self, name: str, default: Sequence[float] | None = None) -> list[float]:
        return [float(v) for v in self._get(name, default, (list, tuple), "a list of numbers")]

    def texts(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        values = self._get(name, default, (list, tuple), "a list of texts")
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def text(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        value = self._get(name, default, (bytes, str), "a text")
        value = value.decode() if isinstance(value, bytes) else value
        if choices and value not in choices:
            raise UnsupportedModel(
                f"attribute {name!r} is {value!r}; supported: {', '.join(choices)}")
        return str(value)

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """A tensor attribute."""
        return np.asarray(self._get(name, None, (np.ndarray,), "a tensor"))

    def subgraph(self, name: str) -> Any:
        """A graph attribute, as the file has it."""
        return self._get(name, None, (object,), "a graph")

    def branch(self, name: str, inputs: Sequence[Value | None] = ()) -> list[Value]:
        """Lower a graph attribute, which sees the values around this node; its outputs."""
        return self._lower_graph(self.subgraph(name), inputs)

    def axis(self, rank: int, default: int | None = None, inclusive: bool = False) -> int:
        """An axis attribute counted from the front; `inclusive` allows `rank` itself."""
        return normal_axis(self.integer("axis", default), rank, inclusive)

    def axes(self, source: Node | None, rank: int) -> list[int] | None:
        """Axes given as an input (newer opsets) or as an attribute (older ones); None if absent."""
        if source is not None:
            values = static_ints(source, "axes")
        elif self.has("axes"):
            values = self.integers("axes")
        else:
            return None
        axes = [normal_axis(a, rank) for a in values]
        if len(set(axes)) != len(axes):
            raise ModelError(f"axes {values} name an axis twice")
        return axes


def normal_axis(axis: int, rank: int, inclusive: bool = False) -> int:
    """Count an axis from the front; raises ModelError if a tensor of this rank has no such axis."""
    if not -rank <= axis < rank + inclusive:
        raise ModelError(f"axis {axis} of a tensor with {rank} axes")
    return axis + rank if axis < 0 else axis


def is_static(x: Node) -> bool:
    """Whether the value does not depend on inputs."""
    return x.op is Op.CONST or all(n.op is not Op.INPUT for n in ir.toposort([x]))


def static(x: Node, what: str) -> np.ndarray[Any, Any]:
    """The value of a node that does not depend on inputs; raises ModelError if it does."""
    if x.op is Op.CONST:
        return np.asarray(x.arg.array)
    if not is_static(x):
        raise UnsupportedModel(
            f"{what} must be known at compile time, but depends on the model's inputs")
    if max(n.size for n in ir.toposort([x])) > _MOST_STATIC_ELEMENTS:
        raise UnsupportedModel(f"{what} comes from a constant tensor of more than "
                               f"{_MOST_STATIC_ELEMENTS} elements")
    return interp.run(Graph("static", {}, {"x": x}), {})["x"]


def static_ints(x: Node, what: str) -> list[int]:
    """A static node of integers, as a flat list."""
    if not x.dtype.is_integer:
        raise ModelError(f"{what} must be integers, not {x.dtype.value}")
    return [int(v) for v in static(x, what).reshape(-1)]


def static_scalar(x: Node, what: str) -> Any:
    """A static node with one element, as a Python number."""
    if x.size != 1:
        raise ModelError(f"{what} must have one element, has shape {x.shape}")
    return static(x, what).reshape(()).item()
