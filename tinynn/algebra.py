"""Arithmetic with literals put together: GELU loses a third of its operations.

What is written as 1 + (1 - 2 / d), times x, times a half, becomes x * (1 - 1 / d). Results differ
by the roundings that are left out and are never less accurate; sums are put together only if they
cannot cancel, because code that adds and subtracts a number wants the rounding.
"""
from __future__ import annotations

import math
from dataclasses import replace

from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Guard, Kernel, Literal, Reduction, Value, sources

LARGEST = 2.0 ** 40  # of a factor, and of its inverse: keeps results from leaving the range of f32


def fold_literals(kernel: Kernel) -> Kernel:
    """The kernel with literals of f32 arithmetic put together."""
    if kernel.scatter:
        return kernel
    return replace(kernel, value=_Folder(kernel)(kernel.value))


class _Folder:
    """Rebuilds values, sources first; shared values stay shared."""

    def __init__(self, kernel: Kernel) -> None:
        self.done: dict[int, Value] = {}
        self.users: dict[int, int] = {}
        for value in kernel.values():
            for source in sources(value):
                self.users[id(source)] = self.users.get(id(source), 0) + 1

    def __call__(self, value: Value) -> Value:
        if id(value) not in self.done:
            new = self.done[id(value)] = self._rebuild(value)
            self.users[id(new)] = self.users.get(id(value), 0)
        return self.done[id(value)]

    def _once(self, value: Value) -> bool:
        """Whether nothing but one operation needs the value."""
        return self.users.get(id(value)) == 1

    def _rebuild(self, value: Value) -> Value:
        if isinstance(value, Guard):
            return replace(value, value=self(value.value))
        if isinstance(value, Reduction):
            return replace(value, body=self(value.body))
        if not isinstance(value, Compute):
            return value
        new = replace(value, src=tuple(self(s) for s in value.src))
        if value.dtype is not DType.F32:
            return new
        if value.op is Op.DIV and isinstance(new.src[1], Literal):
            divisor = float(new.src[1].value)
            if _moderate(divisor):
                return self._times(1 / divisor, new.src[0])
        if value.op is Op.MUL:
            factor, rest = _split(new)
            return new if factor is None else self._times(factor, rest)
        if value.op is Op.ADD:
            term, rest = _split(new)
            return new if term is None else _plus(term, rest)
        return new

    def _times(self, factor: float, value: Value) -> Value:
        """factor * value."""
        plain = Compute(Op.MUL, DType.F32, (_number(factor), value))
        if not isinstance(value, Compute):
            return plain
        if value.op is Op.DIV and isinstance(value.src[0], Literal):
            product = factor * float(value.src[0].value)
            if _moderate(factor, product):
                return replace(value, src=(_number(product), value.src[1]))
        if value.op is not Op.MUL:
            return plain
        other, rest = _split(value)
        if other is not None:
            if not _moderate(factor, other, factor * other):
                return plain
            return Compute(Op.MUL, DType.F32, (_number(factor * other), rest))
        # A power of two goes exactly into a sum with a literal and a multiple.
        if abs(math.frexp(factor)[0]) == 0.5 and _moderate(factor) and self._once(value):
            for rest, inner in (value.src, value.src[::-1]):
                term, multiple = _affine(inner)
                if term is not None and self._once(inner) and self._once(multiple):
                    total = _plus(factor * term, self._times(factor, multiple))
                    return replace(value, src=(rest, total))
        return plain


def _split(value: Compute) -> tuple[float | None, Value]:
    """The literal operand of a sum or product, or None, and the other one."""
    a, b = value.src
    for literal, rest in ((a, b), (b, a)):
        if isinstance(literal, Literal):
            return float(literal.value), rest
    return None, value


def _number(value: float) -> Literal:
    return Literal(value, DType.F32)


def _plus(term: float, value: Value) -> Value:
    """term + value."""
    if isinstance(value, Compute) and value.op is Op.ADD:
        other, rest = _split(value)
        if other is not None and (term > 0) == (other > 0) and _moderate(term, other):
            return _plus(term + other, rest)
    return Compute(Op.ADD, DType.F32, (_number(term), value))


def _affine(value: Value) -> tuple[float | None, Value]:
    """Literal and multiple of a sum of the two; None for anything else."""
    if isinstance(value, Compute) and value.op is Op.ADD:
        term, multiple = _split(value)
        if isinstance(multiple, Compute) and (
                (multiple.op is Op.DIV and isinstance(multiple.src[0], Literal))
                or (multiple.op is Op.MUL and _split(multiple)[0] is not None)):
            return term, multiple
    return None, value


def _moderate(*factors: float) -> bool:
    return all(1 / LARGEST <= abs(f) <= LARGEST for f in factors)
