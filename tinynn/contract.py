"""Sums of products: which axes are rows, columns and batch, and the tile that fits the machine.

Each parallel axis is classified by which factor depends on it: both, one or the other. The factor
with the axis that is contiguous in the output is read as vectors (its axes are the columns), the
other one as scalars (its axes are the rows). Dense convolution, matrix product, matrix-vector
product and attention are points of this one scheme.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from tinynn.cost import ENOUGH_SHARES, MOST_LOCAL, points, product, useful_parts
from tinynn.index import Axis, ceil_div, round_up
from tinynn.ir import DType
from tinynn.kernel import Kernel, Tensor, Value, value_axes
from tinynn.machine import Machine
from tinynn.pack import is_constant, pack, pack_results
from tinynn.packed import Packing, packing

Shape = TypeVar("Shape")

MOST_COLUMNS = 256  # of a panel: keeps the accumulated block in the L1 cache
ROWS_PER_COPY = 32  # of a panel: fewer do not outweigh that every share copies it
MOST_WIDE = 64 * 1024  # bytes of rows that are widened once


@dataclass(frozen=True)
class Operand:
    """A factor of a contraction. packed: its values in the order they are read, if constant."""

    value: Value
    packed: Tensor | None


@dataclass(frozen=True)
class Contract:
    """Tiles of a sum of products.

    outer: axes every point of which is a contraction of its own: those of both operands, and all
        column axes but the last one or two.
    row_axes, columns: the axes of one operand only; the last column is contiguous in the output.
    rows, cols: the operands that depend on them; `cols` is read as vectors, `rows` as scalars.
    tile_rows (R), tile_vectors (T), lanes (V): accumulators are R x T vectors of V.
    box: columns of one panel along each column axis. groups: shares of the row blocks.
    packing: how a lane takes groups of products (packed.py); None for plain f32. start: of sums of
        integers, packed like the weights.
    """

    family: ClassVar[str] = "contract"
    kernel: Kernel
    parts: int
    outer: tuple[Axis, ...]
    row_axes: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    rows: Operand
    cols: Operand
    tile_rows: int
    tile_vectors: int
    lanes: int
    box: tuple[int, ...]
    groups: int
    packing: Packing | None = None
    start: Tensor | None = None

    @property
    def row_count(self) -> int:
        return points(self.row_axes)

    @property
    def blocks(self) -> int:
        """Row blocks, the last one possibly partly empty."""
        return ceil_div(self.row_count, self.tile_rows)

    @property
    def group(self) -> int:
        """Products that a lane takes in one step."""
        return self.packing.group if self.packing is not None else 1

    @property
    def k_axes(self) -> tuple[Axis, ...]:
        """The axes of the sum; groups are neighbours along the last one."""
        reduction = self.kernel.reduction
        assert reduction is not None
        return reduction.axes

    @property
    def depth(self) -> int:
        """Steps of a sum: products, or groups of them."""
        return steps(self.k_axes, self.group)

    @property
    def tile_columns(self) -> int:
        return self.tile_vectors * self.lanes

    @property
    def panel_columns(self) -> int:
        """Columns of a panel, rounded up to whole tiles."""
        return round_up(math.prod(self.box), self.tile_columns)

    @property
    def row_pitch(self) -> int:
        """Columns of a panel from one point of the last but one column axis to the next."""
        return self.box[-1]

    @property
    def wide_rows(self) -> bool:
        """Whether all rows are few enough to be widened from f16 once, for all panels."""
        packed = self.rows.packed
        return (packed is not None and packed.dtype is DType.F16 and packed.shape[0] == 1
                and 4 * packed.size <= MOST_WIDE)


@dataclass(frozen=True)
class Roles:
    """What the factors and axes of a sum of products are to each other; as in Contract."""

    kernel: Kernel
    row: Value
    col: Value
    row_axes: tuple[Axis, ...]
    col_axes: tuple[Axis, ...]
    packing: Packing | None


def plan_contract(kernel: Kernel, machine: Machine) -> Contract | None:
    """The tiles of a sum of products with rows and columns; None for any other kernel.

    kernel: with its axes merged.
    """
    roles = find_roles(kernel, machine)
    return None if roles is None else _tiled(roles, machine)


def find_roles(kernel: Kernel, machine: Machine) -> Roles | None:
    """Rows and columns of a sum of products; None for any other kernel."""
    factors, packed = product(kernel), packing(kernel, machine)
    if packed is not None:
        kernel, factors = packed.kernel, packed.factors
    if factors is None or not kernel.axes:
        return None
    uses = [value_axes(f, kernel.runtime) for f in factors]
    of_one = [tuple(a for a in kernel.axes if a in uses[i] and a not in uses[1 - i])
              for i in (0, 1)]
    last = kernel.axes[-1]
    if kernel.offset.coefficient(last) != 1 or not any(last in axes for axes in of_one):
        return None
    col = 0 if last in of_one[0] else 1
    if points(of_one[col]) < machine.lanes // 2:
        col = 1 - col  # too few to fill vectors: the other axes do, and are stored with a stride
    row_axes, col_axes = of_one[1 - col], of_one[col]
    few_columns = points(col_axes) < machine.lanes // 2
    if few_columns or (points(row_axes) < 2 and not is_constant(factors[col])):
        return None
    return Roles(kernel, factors[1 - col], factors[col], row_axes, col_axes, packed)


def steps(k_axes: tuple[Axis, ...], group: int) -> int:
    """Groups in a sum; the last one along the last axis may be partly empty."""
    return points(k_axes[:-1]) * ceil_div(k_axes[-1].size, group)


def _tiled(roles: Roles, machine: Machine) -> Contract | None:
    """Choose tile and panel, and pack constant operands; None if the sums are too long for what
    must be copied to local memory."""
    kernel, row, col, packing = roles.kernel, roles.row, roles.col, roles.packing
    row_axes, col_axes = roles.row_axes, roles.col_axes
    reduction = kernel.reduction
    assert reduction is not None
    k_axes, group = reduction.axes, packing.group if packing is not None else 1
    depth = steps(k_axes, group)
    constant = is_constant(col)
    # A panel of short rows covers several of them; packed columns are not copied to panels.
    single = constant or col_axes[-1].size >= MOST_COLUMNS
    columns = col_axes[-1:] if single else col_axes[-2:]
    outer = tuple(a for a in kernel.axes if a not in row_axes and a not in columns)
    near_columns = max(machine.lanes, machine.near_bytes // (4 * depth))
    most = MOST_COLUMNS if constant else min(MOST_COLUMNS, near_columns)
    widest = 4 if constant else max(1, 2 * near_columns // machine.lanes)
    tile_rows, vectors = _tile(machine, points(row_axes), columns, most, widest)
    tile = vectors * machine.lanes
    box = _box(columns, most, tile)
    if constant and _panels(outer, columns, box) < 2 * ENOUGH_SHARES:
        box = _box(columns, tile, tile)
    copied = 0 if constant else spread(round_up(math.prod(box), tile))
    copied += 0 if is_constant(row) else tile_rows
    if 4 * depth * copied > MOST_LOCAL:
        return None
    panels = _panels(outer, columns, box)
    blocks = ceil_div(points(row_axes), tile_rows)
    groups = row_groups(points(row_axes), blocks, panels, copied=not constant)
    # Rows in f16 are widened into local memory, a block at a time.
    half = machine.has_half and 4 * depth * (copied + tile_rows) <= MOST_LOCAL
    rows = Operand(row, pack(row, outer, row_axes, k_axes, tile_rows, half, group)
                   if is_constant(row) else None)
    cols = Operand(col, pack(col, outer, columns, k_axes, tile, machine.has_half, group)
                   if constant else None)
    start = pack_results(packing.start if packing is not None else None, outer,
                         columns if constant else row_axes, tile if constant else tile_rows)
    return Contract(kernel, useful_parts(kernel, panels * groups), outer, row_axes, columns, rows,
                    cols, tile_rows, vectors, machine.lanes, box, groups, packing, start)


def row_groups(rows: int, blocks: int, panels: int, copied: bool) -> int:
    """Shares of the rows of a panel: where there are few panels, the row blocks are shared too.

    copied: each share copies its panel; this takes as long as four rows of products.
    """
    enough = ENOUGH_SHARES
    if copied:
        enough = min(enough, max(enough // 2, panels * (rows // ROWS_PER_COPY)))
    return max(1, min(blocks // 2, ceil_div(enough, panels)))


def spread(columns: int) -> int:
    """Columns from one k to the next in a local panel: an odd number of cache lines, so that the
    lines of a tile spread over all sets of the cache."""
    lines = ceil_div(columns, 16)
    return 16 * (lines + 1 - lines % 2)


def _panels(outer: tuple[Axis, ...], columns: tuple[Axis, ...], box: tuple[int, ...]) -> int:
    pieces = (ceil_div(a.size, n) for a, n in zip(columns, box, strict=True))
    return points(outer) * math.prod(pieces)


def _tile(machine: Machine, rows: int, columns: tuple[Axis, ...], most: int,
          widest: int) -> tuple[int, int]:
    """Rows and vectors of accumulators with the fewest estimated cycles, with at most `widest`
    vectors, for panels of at most `most` columns."""
    shapes = []
    for vectors in range(1, min(4, widest) + 1):
        tile = vectors * machine.lanes
        box = _box(columns, most, tile)
        tiles = _panels((), columns, box) * ceil_div(math.prod(box), tile)
        shapes.append((vectors, vectors, tiles))
    return fastest_tile(machine, rows, shapes, reads=1)


def fastest_tile(machine: Machine, rows: int, shapes: Iterable[tuple[Shape, int, int]],
                 reads: int) -> tuple[int, Shape]:
    """Rows and shape of accumulators with the fewest estimated cycles.

    shapes: what to choose from, each with its vectors and how many such tiles the columns take.
    Per step of the sum, a core starts two multiply-adds and two loads per cycle, and each
    accumulator takes one product per four cycles. reads: loads of a vector, two where most cross a
    cache line.
    """
    found = []
    for shape, vectors, tiles in shapes:
        for tile_rows in range(1, min(rows, 16) + 1):
            accumulators = tile_rows * vectors
            if accumulators + operand_registers(machine, tile_rows, vectors) <= machine.registers:
                cycles = max(accumulators / 2, (tile_rows + reads * vectors) / 2, 4)
                cost = ceil_div(rows, tile_rows) * tiles * (cycles + 0.5)
                found.append((cost, tile_rows, shape))
    _, tile_rows, shape = min(found, key=lambda one: one[0])
    return tile_rows, shape


def operand_registers(machine: Machine, rows: int, vectors: int) -> int:
    """Registers beside the accumulators: the vectors of columns, and what the rows are read to.

    AVX-512 multiplies by a number in memory. NEON loads four rows to a register, and multiplies by
    one of its lanes; the others fill a register with copies of one number, and reserve the next.
    """
    if machine.name == "aarch64":
        return vectors + ceil_div(rows, 4)
    return vectors + (1 if machine.registers == 32 else 2)


def _box(columns: tuple[Axis, ...], limit: int, tile: int) -> tuple[int, ...]:
    """Columns per panel along each of one or two axes: whole rows if they fit, else part of one."""
    last = columns[-1].size
    if len(columns) == 1 or last >= limit:
        pieces = ceil_div(last, max(limit, tile))
        part = min(last, round_up(ceil_div(last, pieces), tile))
        return (part,) if len(columns) == 1 else (1, part)
    pieces = ceil_div(columns[0].size, limit // last)
    return ceil_div(columns[0].size, pieces), last
