"""Windows over single planes: depthwise convolution, pooling, and what has their shape.

The sum, or the maximum, runs over the taps of a two-dimensional window and over nothing else, so
every plane of the input is read by few outputs and there is nothing to tile but the plane itself.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tinynn.cost import MOST_LOCAL, points, product, useful_parts
from tinynn.index import Axis, Expr, axes_of, ceil_div, of, round_up
from tinynn.ir import DType
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Value, value_axes, values_of
from tinynn.machine import Machine
from tinynn.windows import WindowAxis

MOST_TAPS = 81  # products of one output, which are written out one by one
MOST_INNER = 4  # outputs per plane; more are better off as a contraction
PLANE_BYTES = 64 * 1024  # of input in local memory
BATCH_BYTES = 8 * 1024  # of small planes that are copied together


@dataclass(frozen=True)
class Plane:
    """What windows move over: `value`, computed from the one `load`, and `fill` where the
    conditions of the load do not hold."""

    load: Load
    value: Value
    fill: float


@dataclass(frozen=True)
class Depthwise:
    """Windows over planes. outer: axes that choose the plane. inner: axes of outputs that
    read the same plane.

    data: its load has the last two window dimensions y and x. weights: the other factor, none for
        pooling.
    epilogue: the kernel in whose terms results are stored. flat: its axis that joins y and x, if
        what follows the sum does not tell them apart.
    chunk: output rows computed from one local plane. batch: planes copied together.
    tile_rows x tile_vectors: accumulators. lanes: of those, fewer than `wide` for short rows.
    wide, registers: lanes and registers of the machine.
    """

    family: ClassVar[str] = "depthwise"
    kernel: Kernel
    parts: int
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    flat: Axis | None
    epilogue: Kernel
    data: Plane
    weights: Value | None
    y: WindowAxis
    x: WindowAxis
    dims: tuple[int, int]
    tile_rows: int
    tile_vectors: int
    lanes: int
    wide: int
    registers: int
    chunk: int
    batch: int

    @property
    def taps_fit(self) -> bool:
        """Whether registers hold all taps beside a tile."""
        used = (self.tile_rows + 1) * self.tile_vectors + self.y.taps * self.x.taps
        return used + 2 <= self.registers

    @property
    def width(self) -> int:
        """Output columns, rounded up to whole tiles."""
        return round_up(self.x.position.size, self.tile_vectors * self.lanes)


def plan_depthwise(kernel: Kernel, machine: Machine) -> Depthwise | None:
    """Planes and tiles of a sum or maximum over windows; None for any other kernel.

    kernel: with its axes as fusion made them, so that y and x are apart.
    """
    reduction, factors = kernel.reduction, product(kernel)
    if reduction is None or reduction.dtype is not DType.F32 or len(kernel.axes) < 2:
        return None
    pairs: list[tuple[Value, Value | None]] = []
    if factors is not None:
        pairs = [factors, factors[::-1]]
    elif reduction.kind in ("sum", "max"):
        pairs = [(reduction.body, None)]
    for factor, weights in pairs:
        plane = plane_of(factor)
        found = _window_plane(kernel, plane.load, weights) if plane is not None else None
        if found is not None and plane is not None:
            return _tiled(kernel, machine, plane, weights, *found)
    return None


def plane_of(factor: Value) -> Plane | None:
    """A factor as elements of a plane: loads, or what one load is converted to."""
    inside = factor.value if isinstance(factor, Guard) else factor
    below = values_of([inside])
    loads = [v for v in below if isinstance(v, Load)]
    if len(loads) != 1 or not all(isinstance(v, Load | Literal | Compute) for v in below):
        return None
    (load,) = loads
    if isinstance(factor, Guard):
        return Plane(load, inside, factor.fill) if factor.when == load.when else None
    return Plane(load, inside, load.fill) if inside is load or not load.when else None


def _tiled(kernel: Kernel, machine: Machine, data: Plane, weights: Value | None, y: WindowAxis,
           x: WindowAxis, dims: tuple[int, int]) -> Depthwise | None:
    """Choose tile and chunk; None if the planes are too narrow, or the windows too large."""
    used = axes_of(data.load.index)
    outer = tuple(a for a in kernel.axes if a in used and a not in (y.position, x.position))
    inner = tuple(a for a in kernel.axes if a not in used)
    height, length = y.position.size, x.position.size
    lanes = min(machine.lanes, 1 << (length - 1).bit_length())
    if points(inner) > MOST_INNER or lanes < 4 or y.taps * x.taps > MOST_TAPS:
        return None
    vectors = 2 if length >= 2 * lanes else 1
    most_rows = 8 if machine.registers == 32 else 4 // vectors
    tile_rows = ceil_div(height, ceil_div(height, most_rows))
    width = round_up(length, vectors * lanes)
    row_bytes = 4 * (x.span(width) + x.stride)
    rows = (PLANE_BYTES // row_bytes - y.taps * y.dilation) // y.stride
    chunk = round_up(max(1, min(height, rows)), tile_rows)
    plane_bytes = row_bytes * y.span(chunk)
    if plane_bytes > MOST_LOCAL:
        return None
    batch = max(1, BATCH_BYTES // plane_bytes)
    flat = _flat_plane(kernel, y.position, x.position)
    parts = useful_parts(kernel, points(outer) * ceil_div(height, chunk))
    return Depthwise(kernel, parts, outer, inner, flat[0] if flat else None,
                     flat[1] if flat else kernel, data, weights, y, x, dims, tile_rows, vectors,
                     lanes, machine.lanes, machine.registers, chunk, batch)


def _flat_plane(kernel: Kernel, y: Axis, x: Axis) -> tuple[Axis, Kernel] | None:
    """The axis that joins y and x, and the kernel in its terms, if what follows the reduction does
    not tell y and x apart."""
    flat = Axis("flat", y.size * x.size)
    split = {y: of(flat) // x.size, x: of(flat) % x.size}
    joined = kernel.substitute(split)
    after = [joined.offset]
    for value in joined.values(below_reduction=False):
        if isinstance(value, Load):
            after.append(value.offset)
        if isinstance(value, Load | Guard):
            after += [w.expr for w in value.when]
    if all(e.is_affine or flat not in e.axes for e in after):
        return flat, joined
    return None


def _window_plane(kernel: Kernel, data: Load,
                  weights: Value | None) -> tuple[WindowAxis, WindowAxis, tuple[int, int]] | None:
    """The two window dimensions of `data`, if the sum runs over windows of two-dimensional planes
    only: every reduced axis is a tap, and the weights do not depend on the position."""
    reduction = kernel.reduction
    assert reduction is not None
    parallel, reduced = set(kernel.axes), set(reduction.axes)
    windows: list[tuple[int, WindowAxis]] = []
    for dim, expr in enumerate(data.index):
        if not expr.is_affine:
            return None
        taps = [a for a in expr.axes if a in reduced]
        if not taps:
            continue
        positions = [a for a in expr.axes if a in parallel]
        if len(taps) != 1 or len(positions) != 1:
            return None
        windows.append((dim, WindowAxis(positions[0], expr.coefficient(positions[0]), taps[0],
                                        expr.coefficient(taps[0]), expr.const)))
    if len(windows) != 2 or {w.tap for _, w in windows} != reduced:
        return None
    (dy, y), (dx, x) = windows
    weight_axes = set() if weights is None else value_axes(weights, kernel.runtime)
    last = kernel.axes[-1]
    fits = (x.position is not y.position and x.position == last
            and kernel.offset.coefficient(last) == 1 and dx == len(data.index) - 1
            and not {x.position, y.position} & weight_axes
            and min(x.stride, y.stride, x.dilation, y.dilation) > 0
            and all(w.expr in (data.index[dy], data.index[dx]) for w in data.when)
            and _alone(data.index, dy, y) and _alone(data.index, dx, x))
    return (y, x, (dy, dx)) if fits else None


def _alone(index: tuple[Expr, ...], dim: int, window: WindowAxis) -> bool:
    """Whether no other dimension depends on the position of the window."""
    return all(window.position not in e.axes for d, e in enumerate(index) if d != dim)
