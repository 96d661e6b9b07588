"""Dense convolutions: contractions whose columns are read through windows.

The columns of a general contraction are copied to a panel once per tap. Here the rows of the input
that a chunk of output rows reads are copied to local planes, once, and every tap multiplies vectors
of them at another place.
"""
from __future__ import annotations

from dataclasses import dataclass

from tinynn.contract import (
    Contract,
    Operand,
    Roles,
    fastest_tile,
    find_roles,
    row_groups,
    steps,
)
from tinynn.cost import ENOUGH_SHARES, MOST_LOCAL, points, useful_parts
from tinynn.index import Axis, ceil_div, round_up
from tinynn.ir import DType
from tinynn.kernel import Kernel
from tinynn.machine import Machine
from tinynn.pack import is_constant, pack
from tinynn.windows import Planes, Window, find_window

MOST_WASTE = 1.3  # columns computed for each one that is needed; more, and a panel is better
_SHAPES = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))  # of tiles


@dataclass(frozen=True, kw_only=True)
class Conv(Contract):
    """Tiles of a convolution.

    columns: the output row and column; box: those of one row of tiles.
    tile_y x tile_x: output rows x vectors of columns in a tile. chunk: output rows that are
    computed from one set of planes.
    """

    window: Window
    tile_y: int
    tile_x: int
    chunk: int

    @property
    def row_pitch(self) -> int:
        return round_up(self.columns[-1].size, self.tile_x * self.lanes)

    @property
    def panel_columns(self) -> int:
        return self.tile_y * self.row_pitch

    @property
    def planes(self) -> Planes:
        return Planes(self.window, self.window.y.span(self.chunk), self.row_pitch, self.group)

    @property
    def step_axes(self) -> tuple[Axis, ...]:
        """The axes of the sum, the last one that of groups."""
        return self.k_axes if self.group == 1 else (*self.k_axes[:-1], self.planes.channels[-1])


def plan_conv(kernel: Kernel, machine: Machine) -> Conv | None:
    """The tiles of a sum over windows of several planes; None for any other kernel.

    kernel: with its axes merged.
    """
    roles = find_roles(kernel, machine)
    if roles is None or not is_constant(roles.row) or len(roles.col_axes) < 2:
        return None
    reduction, packing = roles.kernel.reduction, roles.packing
    assert reduction is not None
    window = find_window(roles.col, roles.col_axes[-2:], reduction.axes)
    if window is None:
        return None
    if packing is not None:
        last = reduction.axes[-1]
        whole = last in window.channels and last.size % packing.group == 0
        if packing.dtype is not DType.BF16 or not whole:
            return None
    return _tiled(roles, machine, window, reduction.axes)


def _tiled(roles: Roles, machine: Machine, window: Window, k_axes: tuple[Axis, ...]) -> Conv | None:
    """Choose tile and chunk; None for images too narrow or planes too large."""
    kernel, columns = roles.kernel, roles.col_axes[-2:]
    outer = tuple(a for a in kernel.axes if a not in roles.row_axes and a not in columns)
    rows, height, width = points(roles.row_axes), columns[0].size, columns[1].size
    shapes = [((y, x), y * x, ceil_div(height, y) * ceil_div(width, x * machine.lanes))
              for y, x in _SHAPES]
    tile_rows, (tile_y, tile_x) = fastest_tile(machine, rows, shapes, reads=2)
    pitch = round_up(width, tile_x * machine.lanes)
    group = roles.packing.group if roles.packing is not None else 1
    depth = steps(k_axes, group)

    def local_nbytes(chunk: int) -> int:
        return 4 * (Planes(window, window.y.span(chunk), pitch, group).size + depth * tile_rows)

    enough = max(1, points(outer) * height // (2 * ENOUGH_SHARES))
    chunks = [tile_y * n for n in range(1, ceil_div(enough, tile_y) + 1)]
    chunk = max((c for c in chunks if local_nbytes(c) <= machine.near_bytes), default=tile_y)
    if pitch > MOST_WASTE * width or local_nbytes(chunk) > MOST_LOCAL:
        return None
    panels = points(outer) * ceil_div(height, chunk)
    groups = row_groups(rows, ceil_div(rows, tile_rows), panels, copied=True)
    packed = pack(roles.row, outer, roles.row_axes, k_axes, tile_rows, machine.has_half,
                  group)
    return Conv(kernel, useful_parts(kernel, panels * groups), outer, roles.row_axes, columns,
                Operand(roles.row, packed), Operand(roles.col, None), tile_rows, tile_y * tile_x,
                machine.lanes, (tile_y, width), groups, roles.packing, window=window, tile_y=tile_y,
                tile_x=tile_x, chunk=chunk)
