"""Elementwise kernels that read out of order: gathers, nearest neighbours, depth to space.

Compilers do not vectorise a loop that finds an index, loads from there and computes. Family Rows
takes it apart, into loops over a row of results: indices, loads, arithmetic. What one loop leaves
for the next lies in local rows.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tinynn.cost import points, useful_parts
from tinynn.index import Axis, Expr, RunTime, of
from tinynn.kernel import Kernel, Load, Tensor, replaced, value_axes, values_of
from tinynn.machine import Machine

MOST_ROW = 1024  # elements of a local row
LEAST_ROW = 64  # what is not worth rows: longer ones that no divisor from here to MOST_ROW splits
MOST_REPEATS = 8  # neighbours that are loaded from one place, or by one rule, and written out


@dataclass(frozen=True)
class Step:
    """Loads of which none depends on another, and the indices read at run time that they need.

    loads: each with the local row that takes what it loads.
    """

    indices: tuple[RunTime, ...]
    loads: tuple[tuple[Load, Tensor], ...]


@dataclass(frozen=True)
class Rows:
    """An elementwise kernel in steps over rows of its last axis.

    last: the kernel with local rows in the place of the loads of all steps. lanes: of the machine.
    """

    family: ClassVar[str] = "rows"
    kernel: Kernel
    parts: int
    steps: tuple[Step, ...]
    last: Kernel
    lanes: int


def plan_rows(kernel: Kernel, machine: Machine) -> Rows | None:
    """The steps of an elementwise kernel; None for any other, and if no load is out of order.

    kernel: with its axes merged.
    """
    if kernel.reduction is not None or kernel.scatter or not kernel.axes:
        return None
    jumping = _jumping(kernel)
    only_moves = isinstance(kernel.value, Load) and not any(_indices(v, kernel) for v in jumping)
    if not jumping or only_moves:
        return None
    if kernel.axes[-1].size > MOST_ROW:
        shorter = _with_shorter_rows(kernel)
        return None if shorter is None else plan_rows(shorter, machine)
    row = kernel.axes[-1]
    rows = {id(v): Tensor("local", f"row {n}", v.dtype, (row.size,)) for n, v in enumerate(jumping)}
    inside = {id(v): Load(rows[id(v)], (of(row),)) for v in jumping}
    last = replace(kernel, value=replaced(kernel.value, inside),
                   runtime={name: replaced(v, inside) for name, v in kernel.runtime.items()})
    levels = _levels(kernel, jumping)
    steps = []
    for level in sorted(set(levels.values())):
        loads = [v for v in jumping if levels[id(v)] == level]
        indices = dict.fromkeys(index for v in loads for index in _indices(v, kernel))
        steps.append(Step(tuple(indices), tuple((v, rows[id(v)]) for v in loads)))
    parts = useful_parts(kernel, points(kernel.axes[:-1]))
    return Rows(kernel, parts, tuple(steps), last, machine.lanes)


def _jumping(kernel: Kernel) -> list[Load]:
    """Loads that neighbours in a row make at places that are not equally far apart; sources first.
    """
    row = kernel.axes[-1]
    return [v for v in kernel.loads() if _indices(v, kernel) or _hides(v.exprs, row)]


def _hides(exprs: list[Expr], axis: Axis) -> bool:
    """Whether the axis is in a quotient or remainder."""
    return any(not isinstance(atom, Axis | RunTime) and axis in atom.dividend.axes
               for e in exprs for atom, _ in e.terms)


def _indices(load: Load, kernel: Kernel) -> list[RunTime]:
    """The indices of a load that are read at run time and change along a row."""
    found = {atom for e in load.exprs for atom in e.atoms if isinstance(atom, RunTime)}
    return [atom for atom in sorted(found, key=lambda a: a.key)
            if kernel.axes[-1] in value_axes(kernel.runtime[atom.name], kernel.runtime)]


def _levels(kernel: Kernel, jumping: list[Load]) -> dict[int, int]:
    """For each load the number of loads in a chain from index to index that ends with it."""
    levels: dict[int, int] = {}
    for load in jumping:
        below = values_of([kernel.runtime[index.name] for index in _indices(load, kernel)])
        levels[id(load)] = 1 + max((levels.get(id(v), 0) for v in below), default=0)
    return levels


def _with_shorter_rows(kernel: Kernel) -> Kernel | None:
    """The kernel with its last axis split; None if no divisor gives rows of a good length."""
    last = kernel.axes[-1]
    size = next((n for n in range(MOST_ROW, LEAST_ROW - 1, -1) if last.size % n == 0), None)
    if size is None:
        return None
    outer, row = Axis(last.name, last.size // size), Axis("column", size)
    return kernel.substitute({last: of(outer) * size + of(row)},
                             axes=(*kernel.axes[:-1], outer, row))


def repeats(load: Load, row: Axis) -> tuple[Axis, Axis] | None:
    """Two axes that split a row so that each of few neighbours is loaded at equal distances."""
    divisors = {atom.divisor for e in load.exprs for atom in e.atoms
                if not isinstance(atom, Axis | RunTime) and row in atom.dividend.axes}
    for size in sorted(divisors):
        if size <= MOST_REPEATS and row.size % size == 0:
            outer, inner = Axis("group", row.size // size), Axis("place", size)
            exprs = [e.substitute({row: of(outer) * size + of(inner)}) for e in load.exprs]
            if not any(_hides(exprs, axis) for axis in (outer, inner)):
                return outer, inner
    return None
