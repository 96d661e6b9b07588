"""Kernels: what one launch computes, as loop axes and an expression over loads.

These types are the plumbing below the graph: `fuse.py` makes them from nodes, `schedule.py` chooses
how their loops run, a renderer writes them as source. A value is a small acyclic graph whose shared
parts are shared objects, so it is compared by identity and walked with a memo.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from tinynn.index import Axis, Expr, Index, RunTime, Within, of, ravel
from tinynn.ir import DType, Op, Shape


@dataclass(frozen=True, eq=False)
class Tensor:
    """A buffer of the program.

    kind: "input", "output", "state", "weight" or "arena", as in program.Buffer.
    data: the values of a weight, otherwise None.
    stored: its dtype in memory if that is a narrower one, which kernels widen as they read.
    """

    kind: str
    name: str
    dtype: DType
    shape: Shape
    data: np.ndarray[Any, Any] | None = None
    stored: DType | None = None

    @property
    def memory(self) -> DType:
        """Its dtype in memory."""
        return self.stored or self.dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.memory.itemsize


@dataclass(frozen=True, eq=False)
class Literal:
    """A fixed number."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, eq=False)
class Load:
    """One element of a tensor; `fill` where a condition of `when` does not hold."""

    tensor: Tensor
    index: Index
    when: tuple[Within, ...] = ()
    fill: float | int | bool = 0

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    @cached_property
    def offset(self) -> Expr:
        """Position in row-major order, in elements."""
        return ravel(self.index, self.tensor.shape)

    @property
    def exprs(self) -> list[Expr]:
        """All its index expressions: the offset and the conditions."""
        return [self.offset, *(w.expr for w in self.when)]


@dataclass(frozen=True, eq=False)
class Compute:
    """An elementwise operation of the graph on values."""

    op: Op
    dtype: DType
    src: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Guard:
    """`value` where all conditions hold, else `fill`. Loads below carry the conditions too."""

    when: tuple[Within, ...]
    value: Value
    fill: float | int | bool

    @property
    def dtype(self) -> DType:
        return self.value.dtype


@dataclass(frozen=True, eq=False)
class Reduction:
    """`body` combined over all axes. kind: sum, max or mul. A kernel has at most one."""

    kind: str
    axes: tuple[Axis, ...]
    body: Value

    @property
    def dtype(self) -> DType:
        return self.body.dtype


Value: TypeAlias = Literal | Load | Compute | Guard | Reduction


@dataclass(frozen=True, eq=False)
class Kernel:
    """For every point of `axes`: tensor[index] = value.

    axes: outermost first; different points write different elements, unless:
    scatter: a mode of SCATTER. Then points are visited in order and combined with what the tensor
        holds, and a point whose index lies outside (`when`) is skipped.
    runtime: values of the indices that are read at run time, by name.
    note, reason: for people: what it computes, and why the result is stored instead of computed
        where it is read.
    """

    axes: tuple[Axis, ...]
    value: Value
    tensor: Tensor
    index: Index
    when: tuple[Within, ...] = ()
    scatter: str | None = None
    runtime: dict[str, Value] = field(default_factory=dict)
    note: str = ""
    reason: str = ""

    @cached_property
    def offset(self) -> Expr:
        """Position of the written element in row-major order."""
        return ravel(self.index, self.tensor.shape)

    @cached_property
    def reduction(self) -> Reduction | None:
        return next((v for v in self.values() if isinstance(v, Reduction)), None)

    def values(self, below_reduction: bool = True) -> list[Value]:
        """Every value once, sources before users; with or without what is reduced."""
        hidden = self.reduction if not below_reduction else None
        return values_of([*self.runtime.values(), self.value], hidden)

    def loads(self) -> list[Load]:
        return [v for v in self.values() if isinstance(v, Load)]

    def substitute(self, replacement: Mapping[Axis, Expr], axes: tuple[Axis, ...] | None = None,
                   reduced: tuple[Axis, ...] | None = None) -> Kernel:
        """The kernel with axes replaced in every index expression.

        axes, reduced: its new parallel axes, and the new axes of its reduction, if they change.
        """
        rewrite = _Rewriter(replacement, reduced)
        return replace(
            self, axes=self.axes if axes is None else axes, value=rewrite(self.value),
            index=rewrite.exprs(self.index),
            when=tuple(w.substitute(replacement) for w in self.when),
            runtime={name: rewrite(value) for name, value in self.runtime.items()})


def sources(value: Value) -> tuple[Value, ...]:
    """The values a value is computed from."""
    if isinstance(value, Compute):
        return value.src
    if isinstance(value, Guard):
        return (value.value,)
    if isinstance(value, Reduction):
        return (value.body,)
    return ()


def with_sources(value: Value, src: Sequence[Value]) -> Value:
    """The value computed from other values; the inverse of `sources`."""
    if isinstance(value, Compute):
        return replace(value, src=tuple(src))
    if isinstance(value, Guard):
        return replace(value, value=src[0])
    return replace(value, body=src[0]) if isinstance(value, Reduction) else value


def replaced(value: Value, new: Mapping[int, Value]) -> Value:
    """The value with others in the place of some below it (by id); shared values stay shared."""
    done = dict(new)

    def rebuild(old: Value) -> Value:
        if id(old) not in done:
            done[id(old)] = with_sources(old, [rebuild(s) for s in sources(old)])
        return done[id(old)]

    return rebuild(value)


def values_of(roots: Sequence[Value], hidden: Value | None = None) -> list[Value]:
    """Every value below the roots once, sources before users; `hidden` and below it left out."""
    order: list[Value] = []
    seen = {id(hidden)}
    for root in roots:
        _collect(root, order, seen)
    return order


def _collect(root: Value, order: list[Value], seen: set[int]) -> None:
    if id(root) in seen:
        return
    seen.add(id(root))
    for source in sources(root):
        _collect(source, order, seen)
    order.append(root)


class _Rewriter:
    """Rebuilds values with axes replaced; shared values stay shared.

    reduced: new axes of the reduction, or None to keep them.
    """

    def __init__(self, replacement: Mapping[Axis, Expr], reduced: tuple[Axis, ...] | None) -> None:
        self.replacement = replacement
        self.reduced = reduced
        self.done: dict[int, tuple[Value, Value]] = {}  # old and new; the old one keeps its id

    def __call__(self, value: Value) -> Value:
        if id(value) not in self.done:
            self.done[id(value)] = value, self._rebuild(value)
        return self.done[id(value)][1]

    def exprs(self, exprs: Index) -> Index:
        return tuple(e.substitute(self.replacement) for e in exprs)

    def _conditions(self, when: tuple[Within, ...]) -> tuple[Within, ...]:
        changed = (w.substitute(self.replacement) for w in when)
        return tuple(w for w in changed if not w.always)

    def _rebuild(self, value: Value) -> Value:
        if isinstance(value, Literal):
            return value
        if isinstance(value, Load):
            when = self._conditions(value.when)
            return replace(value, index=self.exprs(value.index), when=when)
        if isinstance(value, Compute):
            return replace(value, src=tuple(self(s) for s in value.src))
        if isinstance(value, Guard):
            when = self._conditions(value.when)
            inner = self(value.value)
            return replace(value, when=when, value=inner) if when else inner
        axes = value.axes if self.reduced is None else self.reduced
        return replace(value, axes=axes, body=self(value.body))


def map_loads(kernel: Kernel, changed: Mapping[int, Load]) -> Kernel:
    """The kernel with loads replaced, by their id; shared values stay shared."""
    done: dict[int, Value] = {}
    for value in kernel.values():
        new: Value = value
        if isinstance(value, Load):
            new = changed.get(id(value), value)
        elif isinstance(value, Compute):
            new = replace(value, src=tuple(done[id(s)] for s in value.src))
        elif isinstance(value, Guard):
            new = replace(value, value=done[id(value.value)])
        elif isinstance(value, Reduction):
            new = replace(value, body=done[id(value.body)])
        done[id(value)] = new
    return replace(kernel, value=done[id(kernel.value)],
                   runtime={name: done[id(v)] for name, v in kernel.runtime.items()})


def substituted(value: Value, replacement: Mapping[Axis, Expr]) -> Value:
    """The value with axes replaced in every index expression."""
    return _Rewriter(replacement, None)(value)


def value_exprs(value: Value) -> Iterator[Expr]:
    """All index expressions of a value and below it: loads by offset, and conditions."""
    for item in values_of([value]):
        if isinstance(item, Load):
            yield from item.exprs
        elif isinstance(item, Guard):
            yield from (w.expr for w in item.when)


def value_axes(value: Value, runtime: Mapping[str, Value]) -> set[Axis]:
    """Loop axes a value depends on, also through indices read at run time."""
    found: set[Axis] = set()
    for expr in value_exprs(value):
        found |= expr.axes
        for atom in expr.atoms:
            if isinstance(atom, RunTime):
                found |= value_axes(runtime[atom.name], runtime)
    return found


def merge_axes(kernel: Kernel) -> Kernel:
    """Join neighbouring axes wherever no index expression tells them apart.

    An element-by-element kernel over (64, 32, 64) becomes one loop of 131072.
    """
    return _merge(_merge(kernel, reduced=False), reduced=True)


def _merge(kernel: Kernel, reduced: bool) -> Kernel:
    """Merge the axes of the kernel, or those of its reduction."""
    position = 0
    while True:
        reduction = kernel.reduction
        axes = kernel.axes if not reduced else reduction.axes if reduction is not None else ()
        if position + 1 >= len(axes):
            return kernel
        outer, inner = axes[position:position + 2]
        joined = Axis(outer.name, outer.size * inner.size)
        if joined.size == 0:  # nothing runs over it, and nothing can be divided by its size
            position += 1
            continue
        split = {outer: of(joined) // inner.size, inner: of(joined) % inner.size}
        exprs = [e.substitute(split) for e in _all_exprs(kernel) if e.axes & {outer, inner}]
        if any(_divides(e, joined) for e in exprs):
            position += 1
            continue
        merged = (*axes[:position], joined, *axes[position + 2:])
        kernel = (kernel.substitute(split, reduced=merged) if reduced
                  else kernel.substitute(split, axes=merged))


def _divides(expr: Expr, axis: Axis) -> bool:
    """Whether the axis hides in a quotient or remainder."""
    return any(not isinstance(atom, Axis) and not isinstance(atom, RunTime)
               and axis in atom.dividend.axes for atom, _ in expr.terms)


def _all_exprs(kernel: Kernel) -> list[Expr]:
    exprs = [kernel.offset, *(w.expr for w in kernel.when)]
    for root in (*kernel.runtime.values(), kernel.value):
        exprs += value_exprs(root)
    return exprs
