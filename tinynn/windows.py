"""Two-dimensional windows: how a factor of a sum is read by convolutions and the like.

A dimension of what is read depends on a position (an output row or column) and on a tap (a place in
the window) as position * stride + tap * dilation. What neighbouring positions read overlaps, so it
is copied to local memory once, border included, instead of once per tap.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tinynn.index import Axis, Expr, Within, of
from tinynn.kernel import Compute, Guard, Literal, Load, Value, values_of


@dataclass(frozen=True)
class WindowAxis:
    """A dimension read as position * stride + tap * dilation + start."""

    position: Axis
    stride: int
    tap: Axis
    dilation: int
    start: int = 0

    @property
    def taps(self) -> int:
        return self.tap.size

    def span(self, positions: int) -> int:
        """Elements that windows at so many positions in a row cover."""
        return (positions - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    def at(self, first: Expr, place: Expr) -> dict[Axis, Expr]:
        """What position and tap become for element number `place` that the windows from position
        `first` on read."""
        if self.dilation == 1:
            return {self.position: first, self.tap: place}
        return {self.position: first + place, self.tap: of(self.tap) * 0}


@dataclass(frozen=True)
class Window:
    """A value read through a window.

    value: as it is inside; below, loads have no conditions. when: where it is inside, each
    condition on y or on x alone; fill: the value elsewhere.
    channels: axes of the sum that are not taps.
    """

    value: Value
    when: tuple[Within, ...]
    fill: float | int | bool
    channels: tuple[Axis, ...]
    y: WindowAxis
    x: WindowAxis


def find_window(value: Value, y: Axis, x: Axis, reduced: tuple[Axis, ...]) -> Window | None:
    """The window through which a sum over `reduced` reads a value at positions y and x; None if
    there is none or its windows do not overlap."""
    inner, when, fill = _without_border(value)
    if not all(isinstance(v, Load | Compute | Literal) for v in values_of([inner])):
        return None
    loads = [v for v in values_of([inner]) if isinstance(v, Load)]
    exprs = [e for load in loads for e in load.index] + [w.expr for w in when]
    if any(load.when for load in loads) or not all(e.is_affine for e in exprs):
        return None
    axes = [_window_axis(exprs, position, reduced) for position in (y, x)]
    if axes[0] is None or axes[1] is None or axes[0].tap == axes[1].tap:
        return None
    taps = {axes[0].tap, axes[1].tap}
    inside = all(len({y, x} & w.expr.axes) == 1 and w.expr.axes <= {y, x, *taps} for w in when)
    if not inside or axes[0].taps * axes[1].taps < axes[0].stride * axes[1].stride * 2:
        return None
    channels = tuple(a for a in reduced if a not in taps)
    return Window(inner, when, fill, channels, axes[0], axes[1])


def _without_border(value: Value) -> tuple[Value, tuple[Within, ...], float | int | bool]:
    """The value without the conditions that the whole of it has, these, and what it is outside."""
    if isinstance(value, Load):
        return replace(value, when=()), value.when, value.fill
    if isinstance(value, Guard):
        return _unconditional(value.value, value.when), value.when, value.fill
    return value, (), 0


def _unconditional(value: Value, when: tuple[Within, ...]) -> Value:
    """The value with the conditions taken off the loads below it."""
    if isinstance(value, Load):
        return replace(value, when=tuple(w for w in value.when if w not in when))
    if isinstance(value, Compute):
        return replace(value, src=tuple(_unconditional(s, when) for s in value.src))
    return value


def _window_axis(exprs: list[Expr], position: Axis, reduced: tuple[Axis, ...]) -> WindowAxis | None:
    """How all expressions move with the position and with one tap of the reduction."""
    using = [e for e in exprs if position in e.axes]
    taps = {a for e in using for a in e.axes if a in reduced}
    if len(taps) != 1:
        return None
    (tap,) = taps
    using = [e for e in exprs if {position, tap} & e.axes]
    first = using[0]
    common = math.gcd(first.coefficient(position), first.coefficient(tap))
    stride, dilation = (first.coefficient(a) // max(1, common) for a in (position, tap))
    moves = ((e.coefficient(position), e.coefficient(tap)) for e in using)
    together = all(s * dilation == d * stride and s > 0 and d > 0 for s, d in moves)
    if not together or min(stride, dilation) < 1 or (stride > 1 and dilation > 1):
        return None
    return WindowAxis(position, stride, tap, dilation)
