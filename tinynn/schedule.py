"""Kernels -> how their loops run on a machine.

A small closed set of families; the first that fits is taken:

- Depthwise: a sliding window that keeps channels apart. The padded plane of a channel is copied to
  local memory, then every weight multiplies a vector of neighbouring outputs. (depthwise.py)
- Conv: a contraction whose columns are read through windows. (conv.py)
- Contract: a sum of products with a tile of R rows x T vectors of accumulators. (contract.py)
- Lanes: any other f32 reduction, with a few vectors of partial results.
- Rows: no reduction, but loads at indices that are computed first. (rows.py)
- Loops: nested scalar loops over anything; the compiler vectorises the innermost one.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from tinynn.contract import Contract, plan_contract
from tinynn.conv import plan_conv
from tinynn.cost import points, useful_parts
from tinynn.depthwise import Depthwise, plan_depthwise
from tinynn.index import Axis, ceil_div
from tinynn.ir import DType
from tinynn.kernel import Kernel, Load, Reduction, merge_axes, values_of
from tinynn.machine import Machine
from tinynn.rows import Rows, plan_rows

SINGLE_SHARE = 64  # elements of a single loop that are worth a share


@dataclass(frozen=True)
class Loops:
    """Every point by itself; threads share the outer axes, or ranges of a single one."""

    family: ClassVar[str] = "loops"
    kernel: Kernel
    parts: int


@dataclass(frozen=True)
class Lanes:
    """A reduction with `lanes` partial results side by side.

    axis: whose neighbouring points the lanes are: the innermost parallel axis, or an axis of the
        reduction (then the lanes are combined at the end).
    """

    family: ClassVar[str] = "lanes"
    kernel: Kernel
    parts: int
    axis: Axis
    lanes: int


Schedule: TypeAlias = Loops | Lanes | Contract | Depthwise | Rows


def schedule(kernel: Kernel, machine: Machine) -> Schedule:
    """The family and parameters that the machine model prefers for a kernel."""
    merged = merge_axes(kernel)
    return (plan_depthwise(kernel, machine) or plan_conv(merged, machine)
            or plan_contract(merged, machine) or _plan_lanes(merged, machine)
            or plan_rows(merged, machine) or _plan_loops(merged))


def describe(scheduled: Schedule) -> str:
    """Family and tile for people, for example "contract 14x2x16": rows x vectors x lanes; where a
    lane takes several products at once, also how many (explain.PRODUCTS reads that)."""
    parts = [str(getattr(scheduled, name)) for name in ("tile_rows", "tile_vectors", "lanes")
             if hasattr(scheduled, name)]
    group = getattr(scheduled, "group", 1)
    packed = f", {group} products a lane" if group > 1 else ""
    return f"{scheduled.family} {'x'.join(parts)}".strip() + packed


def _plan_loops(kernel: Kernel) -> Loops:
    axes = kernel.axes
    shares = axes[0].size // SINGLE_SHARE if len(axes) == 1 else points(axes[:-1])
    return Loops(kernel, useful_parts(kernel, shares))


def _plan_lanes(kernel: Kernel, machine: Machine) -> Lanes | None:
    """Lanes along the innermost output axis if it is contiguous, else along a reduced axis."""
    reduction = kernel.reduction
    if reduction is None or reduction.dtype is not DType.F32 or reduction.kind == "mul":
        return None
    lanes = 2 * machine.lanes
    if kernel.axes and kernel.offset.coefficient(kernel.axes[-1]) == 1:
        last = kernel.axes[-1]
        if last.size >= machine.lanes and _reads_along(reduction, last):
            shares = points(kernel.axes[:-1]) * ceil_div(last.size, lanes)
            return Lanes(kernel, useful_parts(kernel, shares), last, lanes)
    if reduction.axes:
        last = reduction.axes[-1]
        if last.size >= machine.lanes and _reads_along(reduction, last):
            return Lanes(kernel, useful_parts(kernel, points(kernel.axes)), last, lanes)
    return None


def _reads_along(reduction: Reduction, axis: Axis) -> bool:
    """Whether the loads that depend on the axis move by one or a few elements along it."""
    offsets = [v.offset for v in values_of([reduction.body]) if isinstance(v, Load)]
    steps = [e.coefficient(axis) for e in offsets if axis in e.axes]
    return bool(steps) and all(1 <= step <= 4 for step in steps)
