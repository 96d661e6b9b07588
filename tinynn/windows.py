"""Two-dimensional windows: how a factor of a sum is read by convolutions and the like.

A dimension of what is read depends on a position (an output row or column) and on a tap (a place in
the window) as position * stride + tap * dilation. What neighbouring positions read overlaps, so it
is copied to local memory once, border included, instead of once per tap.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tinynn.cost import points
from tinynn.index import Axis, Expr, RunTime, Within, ceil_div, constant, of, round_up
from tinynn.kernel import Compute, Guard, Literal, Load, Value, values_of

LINE = 16  # numbers in a cache line


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
        return {self.position: first + place, self.tap: constant(0)}


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


@dataclass(frozen=True)
class Planes:
    """Where a window's elements are. rows: of a plane. width: output columns, in whole tiles.
    group: neighbours along the last channel axis that lie together as one word."""

    window: Window
    rows: int
    width: int
    group: int = 1

    @property
    def channels(self) -> tuple[Axis, ...]:
        """The axes of the channels, the last one that of groups."""
        axes = self.window.channels
        return axes if self.group == 1 else (*axes[:-1], Axis("word", axes[-1].size // self.group))

    @property
    def phase_pitch(self) -> int:
        """Numbers from one phase of a row to the next."""
        x = self.window.x
        return round_up(ceil_div(x.span(self.width), x.stride), LINE)

    @property
    def pitch(self) -> int:
        """Numbers from one row to the next."""
        return self.phase_pitch * self.window.x.stride

    @property
    def plane(self) -> int:
        """Numbers from one channel to the next: an odd number of cache lines, so that the channels
        of a tile spread over all sets of the cache."""
        lines = self.rows * self.pitch // LINE
        return LINE * (lines + 1 - lines % 2)

    @property
    def size(self) -> int:
        return points(self.channels) * self.plane

    def tap(self, number: int) -> int:
        """Where in a row the columns are that tap `number` multiplies."""
        column, phase = divmod(number * self.window.x.dilation, self.window.x.stride)
        return phase * self.phase_pitch + column


def find_window(value: Value, positions: tuple[Axis, ...],
                reduced: tuple[Axis, ...]) -> Window | None:
    """The window through which a sum over `reduced` reads a value at two positions, y and x; None
    if there is none or its windows do not overlap."""
    y, x = positions
    inner, when, fill = _without_border(value)
    if not all(isinstance(v, Load | Compute | Literal) for v in values_of([inner])):
        return None
    loads = [v for v in values_of([inner]) if isinstance(v, Load)]
    exprs = [e for load in loads for e in load.index] + [w.expr for w in when]
    hidden = {a for e in exprs for atom, _ in e.terms if not isinstance(atom, Axis)
              for a in of(atom).axes}
    if any(load.when for load in loads) or any(isinstance(a, RunTime) for e in exprs
                                               for a in e.atoms):
        return None
    down, along = (_window_axis(exprs, position, reduced) for position in positions)
    if down is None or along is None or down.tap == along.tap:
        return None
    taps = {down.tap, along.tap}
    if hidden & {y, x, *taps}:  # they move by more than a factor
        return None
    inside = all(len({y, x} & w.expr.axes) == 1 and w.expr.axes <= {y, x, *taps} for w in when)
    if not inside or down.taps * along.taps < 2 * down.stride * along.stride:
        return None
    channels = tuple(a for a in reduced if a not in taps)
    return Window(inner, when, fill, channels, down, along)


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
    """The tap that moves with the position in all expressions; of several, the one with the
    smallest stride."""
    found = []
    for tap in reduced:
        moves = [(e.coefficient(position), e.coefficient(tap)) for e in exprs
                 if {position, tap} & e.axes]
        common = math.gcd(*moves[0]) if moves else 0
        if not common or min(min(move) for move in moves) < 1:
            continue
        stride, dilation = (n // common for n in moves[0])
        together = all(s * dilation == d * stride for s, d in moves)
        if together and (stride == 1 or dilation == 1):
            found.append(WindowAxis(position, stride, tap, dilation))
    return min(found, key=lambda axis: axis.stride, default=None)
