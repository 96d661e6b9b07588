"""Index expressions: which element of a buffer a loop nest touches.

An `Expr` is an integer sum of coefficient * atom plus a constant. An atom is a loop axis, a floored
quotient, a remainder, or an index read from a tensor at run time. Every atom has exact bounds, and
the bounds are what lets divisions disappear: splitting and merging axes (RESHAPE) writes quotients
and remainders that cancel again whenever the axes fit together.

Views of the graph (RESHAPE, PERMUTE, ...) are functions from the index of their result to the index
of their source; `source_index` is their table.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import TypeAlias

from tinynn.ir import Node, Op


@dataclass(frozen=True)
class Axis:
    """A loop variable that runs over 0 .. size - 1. Names are unique within a kernel."""

    name: str
    size: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        return 0, self.size - 1

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """floor(dividend / divisor); the dividend is never negative, the divisor at least 2."""

    dividend: Expr
    divisor: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        low, high = self.dividend.bounds
        return low // self.divisor, high // self.divisor

    @cached_property
    def key(self) -> str:
        return f"({self.dividend})//{self.divisor}"


@dataclass(frozen=True)
class Remainder:
    """dividend mod divisor; the dividend is never negative, the divisor at least 2."""

    dividend: Expr
    divisor: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        return 0, min(self.dividend.bounds[1], self.divisor - 1)

    @cached_property
    def key(self) -> str:
        return f"({self.dividend})%{self.divisor}"


@dataclass(frozen=True)
class RunTime:
    """An index read from a tensor and clipped to 0 .. size - 1 (`clip`), or taken as it is.

    name: a name unique within the kernel, which holds the value that is read.
    """

    name: str
    size: int
    clip: bool = True

    @property
    def bounds(self) -> tuple[int, int]:
        return (0, self.size - 1) if self.clip else (-(2 ** 63), 2 ** 63 - 1)

    @property
    def key(self) -> str:
        return f"{self.name}:{self.size}:{self.clip}"


Atom: TypeAlias = "Axis | Quotient | Remainder | RunTime"


@dataclass(frozen=True)
class Expr:
    """sum of coefficient * atom, plus const. Made by `constant`, `of` and arithmetic only."""

    terms: tuple[tuple[Atom, int], ...]
    const: int

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest value, both reached if the atoms are independent."""
        low = high = self.const
        for atom, factor in self.terms:
            ends = (atom.bounds[0] * factor, atom.bounds[1] * factor)
            low, high = low + min(ends), high + max(ends)
        return low, high

    @cached_property
    def atoms(self) -> frozenset[Atom]:
        """All atoms, also those within quotients and remainders."""
        found: set[Atom] = set()
        for atom, _ in self.terms:
            found.add(atom)
            if isinstance(atom, Quotient | Remainder):
                found |= atom.dividend.atoms
        return frozenset(found)

    @property
    def axes(self) -> set[Axis]:
        return {atom for atom in self.atoms if isinstance(atom, Axis)}

    @property
    def is_affine(self) -> bool:
        """No quotients, remainders or run-time indices."""
        return all(isinstance(atom, Axis) for atom, _ in self.terms)

    def coefficient(self, atom: Atom) -> int:
        """Factor of the atom in the sum; what a quotient or remainder hides is not seen."""
        return dict(self.terms).get(atom, 0)

    def __add__(self, other: Expr | int) -> Expr:
        if isinstance(other, int):
            return Expr(self.terms, self.const + other)
        factors = dict(self.terms)
        for atom, factor in other.terms:
            factors[atom] = factors.get(atom, 0) + factor
        return _normal(factors, self.const + other.const)

    def __mul__(self, factor: int) -> Expr:
        if factor == 0:
            return constant(0)
        return Expr(tuple((a, c * factor) for a, c in self.terms), self.const * factor)

    def __sub__(self, other: Expr) -> Expr:
        return self + other * -1

    def __floordiv__(self, divisor: int) -> Expr:
        low, high = self.bounds
        if divisor == 1 or low > high:
            return self
        if low // divisor == high // divisor:
            return constant(low // divisor)
        whole = Expr(tuple((a, c // divisor) for a, c in self.terms if c % divisor == 0),
                     self.const // divisor)
        rest = Expr(tuple((a, c) for a, c in self.terms if c % divisor), self.const % divisor)
        return whole + _quotient(rest, divisor)

    def __mod__(self, divisor: int) -> Expr:
        low, high = self.bounds
        if low > high:
            return self
        if divisor == 1:
            return constant(0)
        rest = Expr(tuple((a, c) for a, c in self.terms if c % divisor), self.const % divisor)
        return _remainder(rest, divisor)

    def substitute(self, replace: Mapping[Axis, Expr]) -> Expr:
        """The expression with axes replaced, simplified again."""
        if not any(axis in replace for axis in self.axes):
            return self
        total = constant(self.const)
        for atom, factor in self.terms:
            if isinstance(atom, Axis):
                new = replace.get(atom, of(atom))
            elif isinstance(atom, Quotient):
                new = atom.dividend.substitute(replace) // atom.divisor
            elif isinstance(atom, Remainder):
                new = atom.dividend.substitute(replace) % atom.divisor
            else:
                new = of(atom)
            total = total + new * factor
        return total

    def __str__(self) -> str:
        parts = [atom.key if factor == 1 else f"{factor}*{atom.key}" for atom, factor in self.terms]
        return " + ".join(parts + ([str(self.const)] if self.const or not parts else []))


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The smallest multiple of b that is not below a."""
    return ceil_div(a, b) * b


def constant(value: int) -> Expr:
    return Expr((), value)


def of(atom: Atom) -> Expr:
    """The atom as an expression; an axis of length 1 is 0."""
    low, high = atom.bounds
    return constant(low) if low == high else Expr(((atom, 1),), 0)


def _normal(factors: dict[Atom, int], const: int) -> Expr:
    """Sorted terms, with n * (e // n) + e % n put together as e again."""
    for atom, factor in factors.items():
        if not isinstance(atom, Remainder) or factor == 0:
            continue
        quotient = atom.dividend // atom.divisor
        if len(quotient.terms) != 1 or quotient.const or quotient.terms[0][1] != 1:
            continue
        other = quotient.terms[0][0]
        if factors.get(other, 0) == factor * atom.divisor:
            left = {a: c for a, c in factors.items() if a not in (atom, other)}
            return _normal(left, const) + atom.dividend * factor
    terms = sorted(((a, c) for a, c in factors.items() if c), key=lambda term: term[0].key)
    return Expr(tuple(terms), const)


def _low_part(expr: Expr, divisor: int) -> tuple[int, Expr] | None:
    """(n, low) with expr = n * x + low, 0 <= low < n and n a divisor of `divisor`, if there is one.

    Then expr // divisor = x // (divisor / n), and `low` does not matter for the quotient.
    """
    for n in sorted({math.gcd(c, divisor) for _, c in expr.terms} - {1}, reverse=True):
        low = Expr(tuple((a, c) for a, c in expr.terms if c % n), expr.const % n)
        if low.terms == expr.terms:
            continue
        if low.bounds[0] >= 0 and low.bounds[1] < n:
            return n, low
    return None


def _quotient(expr: Expr, divisor: int) -> Expr:
    low, high = expr.bounds
    if low // divisor == high // divisor:
        return constant(low // divisor)
    part = _low_part(expr, divisor)
    if part:
        n, rest = part
        return _exact_quotient(expr - rest, n) // (divisor // n)
    shift = low // divisor  # keeps the dividend from being negative
    expr = expr + -shift * divisor
    if len(expr.terms) == 1 and expr.const == 0 and expr.terms[0][1] == 1:
        atom = expr.terms[0][0]
        if isinstance(atom, Quotient):
            return (atom.dividend // (atom.divisor * divisor)) + shift
    return of(Quotient(expr, divisor)) + shift


def _remainder(expr: Expr, divisor: int) -> Expr:
    low, high = expr.bounds
    if low // divisor == high // divisor:
        return expr + -(low // divisor) * divisor
    part = _low_part(expr, divisor)
    if part:
        n, rest = part
        return (_exact_quotient(expr - rest, n) % (divisor // n)) * n + rest
    expr = expr + -(low // divisor) * divisor
    if len(expr.terms) == 1 and expr.const == 0 and expr.terms[0][1] == 1:
        atom = expr.terms[0][0]
        if isinstance(atom, Remainder) and atom.divisor % divisor == 0:
            return atom.dividend % divisor
    return of(Remainder(expr, divisor))


def _exact_quotient(expr: Expr, n: int) -> Expr:
    return Expr(tuple((a, c // n) for a, c in expr.terms), expr.const // n)


@dataclass(frozen=True)
class Within:
    """The condition 0 <= expr < size."""

    expr: Expr
    size: int

    @property
    def always(self) -> bool:
        low, high = self.expr.bounds
        return low > high or (low >= 0 and high < self.size)

    def substitute(self, replace: Mapping[Axis, Expr]) -> Within:
        return Within(self.expr.substitute(replace), self.size)


Index = tuple[Expr, ...]


def ravel(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """Row-major position of an index in a tensor of that shape."""
    flat = constant(0)
    for expr, size in zip(index, shape, strict=True):
        flat = flat * size + expr
    return flat


def unravel(flat: Expr, shape: Sequence[int]) -> Index:
    """Index of a row-major position; the inverse of `ravel`."""
    index: list[Expr] = []
    for i, size in enumerate(shape):
        if size == 1:
            index.append(constant(0))
            continue
        inner = math.prod(shape[i + 1:])
        outer = flat // inner if inner else constant(0)
        # The outermost axis needs no remainder: the position is inside the tensor.
        index.append(outer if math.prod(shape[:i]) == 1 or not size else outer % size)
    return tuple(index)


def reshape_index(index: Index, shape: Sequence[int], source: Sequence[int]) -> Index:
    """Index into a tensor of shape `source` of the element at `index` of its RESHAPE to `shape`.

    Each span of axes with as many elements on both sides is regrouped by itself, so that an index
    which leaves its axis (where PAD reads nothing) is not carried over into other axes.
    """
    if 0 in shape:
        return unravel(ravel(index, shape), source)
    before, source_before = (list(accumulate(s, mul, initial=1)) for s in (shape, source))
    new: list[Expr] = []
    start = source_start = 0
    for size in sorted(set(before) & set(source_before)):
        end, source_end = (bisect_right(b, size) - 1 for b in (before, source_before))
        flat = ravel(index[start:end], shape[start:end])
        new += unravel(flat, source[source_start:source_end])
        start, source_start = end, source_end
    return tuple(new)


def _reshape(node: Node, index: Index) -> tuple[Index, list[Within]]:
    return reshape_index(index, node.shape, node.src[0].shape), []


def _permute(node: Node, index: Index) -> tuple[Index, list[Within]]:
    source = [constant(0)] * len(index)
    for position, axis in enumerate(node.arg):
        source[axis] = index[position]
    return tuple(source), []


def _expand(node: Node, index: Index) -> tuple[Index, list[Within]]:
    pairs = zip(index, node.src[0].shape, strict=True)
    return tuple(constant(0) if size == 1 else expr for expr, size in pairs), []


def _pad(node: Node, index: Index) -> tuple[Index, list[Within]]:
    pads, _ = node.arg
    shape = node.src[0].shape
    source = tuple(expr + -before for expr, (before, _) in zip(index, pads, strict=True))
    inside = [Within(expr, size) for expr, size in zip(source, shape, strict=True)]
    return source, [condition for condition in inside if not condition.always]


def _slice(node: Node, index: Index) -> tuple[Index, list[Within]]:
    pairs = zip(index, node.arg, strict=True)
    return tuple(expr * step + start for expr, (start, _, step) in pairs), []


def _window(node: Node, index: Index) -> tuple[Index, list[Within]]:
    rank = len(node.src[0].shape)
    source = list(index[:rank])
    for offset, (axis, _, stride, dilation) in zip(index[rank:], node.arg, strict=True):
        source[axis] = source[axis] * stride + offset * dilation
    return tuple(source), []


ViewMap = Callable[[Node, Index], tuple[Index, list[Within]]]

# Index of the result -> index of the source, and when it lies inside the source (PAD).
VIEW_MAPS: dict[Op, ViewMap] = {
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.EXPAND: _expand,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.WINDOW: _window,
}


def source_index(node: Node, index: Index) -> tuple[Index, list[Within]]:
    """Where a view reads its source: the index there, and the conditions that it is inside."""
    return VIEW_MAPS[node.op](node, index)


def leaf(node: Node, axes: Sequence[Axis]) -> tuple[Node, Index]:
    """What views read in the end, and its element that they read at a point of the axes."""
    index: Index = tuple(of(axis) for axis in axes)
    while node.op in VIEW_MAPS:
        index, _ = source_index(node, index)
        node = node.src[0]
    return node, index


def axes_of(exprs: Iterable[Expr]) -> set[Axis]:
    """All loop axes that occur in any of the expressions."""
    return {axis for expr in exprs for axis in expr.axes}
