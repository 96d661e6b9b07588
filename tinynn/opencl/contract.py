"""Family `contract`: sums of products with a tile of R rows x V columns per work-item.

Each parallel axis is classified by which factor depends on it. The factor with the axis that is
contiguous in the output is read as vectors of V neighbours (its axes are the columns), the other
one as R scalars (its axes are the rows); axes of both are around it all. So R + 1 reads give R * V
multiply-adds. Constant factors are packed in the order they are read.

Where tiles are fewer than a GPU has room for, the work-items of a group share the sum of one tile
and each finishes one of its rows.

Sums over windows that keep channels apart have no rows. There the rows of a tile are neighbours
along another axis of the window (R lines of an image), so that what is read serves several of them.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinynn.cost import points, product
from tinynn.halves import LONGEST_PART
from tinynn.index import Axis, Expr, Within, ceil_div, of
from tinynn.ir import DType
from tinynn.kernel import Kernel, Load, Reduction, Tensor, Value, merge_axes, value_axes, values_of
from tinynn.opencl.launch import (
    Launch,
    finish,
    grid,
    group_shape,
    head,
    names_of,
    open_grid,
    store,
    widen,
)
from tinynn.opencl.values import (
    Block,
    Pointers,
    Writer,
    can_be_wide,
    condition_text,
    element,
    vector,
)
from tinynn.pack import batch_axes, is_constant, pack

FEW_ITEMS = 256  # work-items with a tile each: with fewer, the smaller tile, and shared sums
ENOUGH_ITEMS = 1024  # work-items that are worth sharing sums for
MOST_SHARES = 16


@dataclass(frozen=True)
class Tile:
    """rows (R) and columns (V) of one work-item; shares: work-items that share its sum."""

    rows: int
    columns: int
    shares: int


@dataclass(frozen=True)
class Window:
    """The columns are read at row * stride + tap, for every tap of a reduced axis."""

    stride: int
    tap: Axis


@dataclass(frozen=True)
class Contract:
    """A sum of products, with its rows joined to one axis.

    kernel: in terms of (*outer, row, *columns), with the last column padded to whole vectors.
    row: the joined axis of what only the factor number `row_side` depends on; of size 1 if there is
        none. columns: the axes of the other factor only. tail: which lanes of the last exist.
    packed_rows, packed_columns: a constant factor as [batch][block][k][place in block], or None.
    window: if the rows are neighbours along an axis of the columns' factor.
    """

    kernel: Kernel
    tile: Tile
    outer: tuple[Axis, ...]
    row: Axis
    columns: tuple[Axis, ...]
    tail: Within | None
    row_side: int
    packed_rows: Tensor | None
    packed_columns: Tensor | None
    window: Window | None = None

    @property
    def reduction(self) -> Reduction:
        reduction = self.kernel.reduction
        assert reduction is not None
        return reduction

    @property
    def blocks(self) -> int:
        """Tiles along the rows, the last one possibly partly empty."""
        return ceil_div(self.row.size, self.tile.rows)

    @property
    def pieces(self) -> int:
        """Tiles along the last column axis."""
        return self.columns[-1].size // self.tile.columns


def plan_contract(kernel: Kernel, tile: Tile | None = None) -> Contract | None:
    """The tiles of a sum of products; None for any other kernel. tile: instead of the model's."""
    kernel = merge_axes(kernel)
    factors = product(kernel)
    if factors is None or not kernel.axes:
        return None
    last = kernel.axes[-1]
    uses = [value_axes(f, kernel.runtime) for f in factors]
    if kernel.offset.coefficient(last) != 1 or (last in uses[0]) == (last in uses[1]):
        return None
    if last.size < 3 or not can_be_wide(kernel, last):
        return None
    row_side = 1 if last in uses[0] else 0
    columns = tuple(a for a in kernel.axes if a in uses[1 - row_side] and a not in uses[row_side])
    rows = tuple(a for a in kernel.axes if a in uses[row_side] and a not in uses[1 - row_side])
    outer = tuple(a for a in kernel.axes if a not in rows and a not in columns)
    found = _find_window(factors[1 - row_side], kernel, columns) if points(rows) <= 2 else None
    if found is not None:
        line, window = found
        around = tuple(a for a in kernel.axes if a not in (line, last))
        return _windows(kernel, tile or _window_tile(line, last), around, line, window, row_side)
    chosen = tile or choose_tile(kernel, outer, rows, columns)
    return _planned(kernel, chosen, outer, rows, columns, row_side)


def _find_window(value: Value, kernel: Kernel,
                 columns: tuple[Axis, ...]) -> tuple[Axis, Window] | None:
    """A column axis but the last that only occurs in a window over a reduced axis, and that."""
    reduction = kernel.reduction
    if reduction is None or not isinstance(value, Load):
        return None
    for line in columns[:-1]:
        inside = [e for e in value.index if line in e.axes]
        taps = [a for a in reduction.axes if len(inside) == 1 and inside[0].coefficient(a) == 1]
        stride = inside[0].coefficient(line) if inside else 0
        if len(taps) == 1 and stride > 0 and inside[0].is_affine and taps[0].size > 1 and not any(
                taps[0] in e.axes for e in value.index if e is not inside[0]):
            return line, Window(stride, taps[0])
    return None


def _window_tile(line: Axis, last: Axis) -> Tile:
    return Tile(min(4, line.size), _tile_width(last.size), 1)


def _windows(kernel: Kernel, tile: Tile, outer: tuple[Axis, ...], line: Axis, window: Window,
             row_side: int) -> Contract:
    """The plan of a sum over windows: the lines of an image are its rows."""
    row = Axis("row", line.size)
    last = kernel.axes[-1]
    kernel = kernel.substitute({line: of(row)}, axes=(*outer, row, last))
    kernel, lane, tail = widen(kernel, last, tile.columns)
    return Contract(kernel, tile, outer, row, (lane,), tail, row_side, None, None, window)


def _planned(kernel: Kernel, tile: Tile, outer: tuple[Axis, ...], rows: tuple[Axis, ...],
             columns: tuple[Axis, ...], row_side: int) -> Contract:
    """Pack what is constant, join the rows and pad the columns."""
    factors, reduction = product(kernel), kernel.reduction
    assert factors is not None and reduction is not None
    by_row, by_column = factors[row_side], factors[1 - row_side]
    packed_rows = packed_columns = None
    if is_constant(by_row):
        packed_rows = pack(by_row, outer, rows, reduction.axes, tile.rows, _is_half(by_row))
    if is_constant(by_column) and len(columns) == 1:
        packed_columns = pack(by_column, outer, columns, reduction.axes, tile.columns,
                              _is_half(by_column))
    row = Axis("row", points(rows))
    kernel = kernel.substitute(_parts(row, rows), axes=(*outer, row, *columns))
    kernel, lane, tail = widen(kernel, columns[-1], tile.columns)
    return Contract(kernel, tile, outer, row, (*columns[:-1], lane), tail, row_side, packed_rows,
                    packed_columns)


def _is_half(value: Value) -> bool:
    return isinstance(value, Load) and value.tensor.memory is DType.F16


def _parts(joined: Axis, axes: Sequence[Axis]) -> dict[Axis, Expr]:
    """Each of the axes in terms of the one that joins them."""
    parts, inner = {}, 1
    for axis in reversed(axes):
        parts[axis] = of(joined) // inner % axis.size
        inner *= axis.size
    return parts


def choose_tile(kernel: Kernel, outer: tuple[Axis, ...], rows: tuple[Axis, ...],
                columns: tuple[Axis, ...]) -> Tile:
    """Rows and columns that waste little and leave enough work-items, else shares of the sum."""
    reduction = kernel.reduction
    assert reduction is not None
    last, count, depth = columns[-1].size, points(rows), reduction.axes[0].size
    width = _tile_width(last)
    around = points(outer) * points(columns[:-1]) * ceil_div(last, width)
    heights = [h for h in (8, 4) if h <= count] or [count]
    height = next((h for h in heights if around * ceil_div(count, h) >= FEW_ITEMS), heights[-1])
    tiles, shares = around * ceil_div(count, height), 1
    if tiles < FEW_ITEMS:
        while shares < MOST_SHARES and tiles * shares < ENOUGH_ITEMS and depth >= 8 * shares:
            shares *= 2
    return Tile(height, width, shares)


def _tile_width(last: int) -> int:
    """8 columns, or 4 where 8 would leave many lanes empty."""
    return 8 if last >= 8 and 5 * ceil_div(last, 8) * 8 <= 6 * ceil_div(last, 4) * 4 else 4


def render_contract(plan: Contract, half: bool = False) -> Launch:
    """The launch of a contraction. half: add up to LONGEST_PART products in half, not in windows
    over single channels."""
    tile = plan.tile
    tensors = _arguments(plan)
    names = names_of(tensors)
    items = (*plan.outer, *plan.columns[:-1], Axis("block", plan.blocks),
             Axis("piece", plan.pieces))
    if tile.shares > 1:
        items = (*items, Axis("share", tile.shares))
    local = (tile.shares, 1, 1) if tile.shares > 1 else group_shape(grid(items))
    kind = f"float{tile.columns}"
    block = Block()
    block.depth = 0
    block.open(head(tensors, local))
    if tile.shares > 1:
        block.add(f"__local {kind} parts[{tile.shares * tile.rows}];")
    total = open_grid(block, items, grid(items), local)
    block.add(f"const int {plan.columns[-1].name} = piece * {tile.columns};")
    for r in range(tile.rows):
        block.add(f"{kind} total{r} = 0;")
    if plan.window:
        _window_sum(block, plan, names)
    else:
        (_sum_of_halves if half else _sum)(block, plan, names)
    if tile.shares > 1:
        _join_shares(block, plan, names, kind)
    else:
        for r in range(tile.rows):
            block.open("")
            _finish_row(block, plan, names, str(r), f"total{r}")
            block.close()
    detail = f", tile {tile.rows} x {tile.columns}" + (
        f", sum shared by {tile.shares}" if tile.shares > 1 else "")
    return finish(plan.kernel, block, tensors, "contract", (total, local), detail)


def _arguments(plan: Contract) -> tuple[Tensor, ...]:
    """Tensors of the kernel, with packed factors in the place of what they were packed from."""
    factors = product(plan.kernel)
    assert factors is not None
    roots: list[Value] = list(plan.kernel.runtime.values())
    found: dict[Tensor, None] = {plan.kernel.tensor: None}
    for side, packed in ((1 - plan.row_side, plan.packed_columns),
                         (plan.row_side, plan.packed_rows)):
        if packed is not None:
            found[packed] = None
        else:
            roots.append(factors[side])
    read = [*values_of(roots), *plan.kernel.values(below_reduction=False)]
    return tuple(found | dict.fromkeys(v.tensor for v in read if isinstance(v, Load)))


def _sum(block: Block, plan: Contract, names: dict[Tensor, str]) -> None:
    """The loops over k; each step adds one vector of columns times R scalars."""
    tile, axes = plan.tile, plan.reduction.axes
    depth = block.depth
    for axis in axes:
        start, end = _range(plan, axis)
        block.open(f"for (int {axis.name} = {start}; {axis.name} < {end}; ++{axis.name})")
    column, rows = _factors(block, plan, names)
    block.add(f"const float{tile.columns} column = {column};")
    for r, text in enumerate(rows):
        block.add(f"total{r} += {text} * column;")
    block.close(block.depth - depth)


def _sum_of_halves(block: Block, plan: Contract, names: dict[Tensor, str]) -> None:
    """The same with products added up in half; parts of LONGEST_PART of them at most are added to
    the float totals."""
    tile, axes = plan.tile, plan.reduction.axes
    kind, depth = f"half{tile.columns}", block.depth
    inner = len(axes) - 1  # the axes from here on are in one part, of the first of them a piece
    while inner and points(axes[inner - 1:]) <= LONGEST_PART:
        inner -= 1
    for axis in axes[:inner]:
        start, end = _range(plan, axis)
        block.open(f"for (int {axis.name} = {start}; {axis.name} < {end}; ++{axis.name})")
    first, *others = axes[inner:]
    start, end = _range(plan, first)
    piece = max(1, LONGEST_PART // points(tuple(others)))
    block.open(f"for (int part = {start}; part < {end}; part += {piece})")
    for r in range(tile.rows):
        block.add(f"{kind} part{r} = 0;")
    outside = block.depth
    block.open(f"for (int {first.name} = part; {first.name} < min(part + {piece}, {end}); "
               f"++{first.name})")
    for axis in others:
        block.loop(axis)
    column, rows = _factors(block, plan, names)
    block.add(f"const {kind} column = convert_{kind}({column});")
    for r, text in enumerate(rows):
        block.add(f"part{r} += convert_half({text}) * column;")
    block.close(block.depth - outside)
    for r in range(tile.rows):
        block.add(f"total{r} += convert_float{tile.columns}(part{r});")
    block.close(block.depth - depth)


def _range(plan: Contract, axis: Axis) -> tuple[str, str]:
    """Where a loop over k starts and ends: the first one is what the work-items share."""
    shares = plan.tile.shares
    if shares == 1 or axis is not plan.reduction.axes[0]:
        return "0", str(axis.size)
    return f"{axis.size} * share / {shares}", f"{axis.size} * (share + 1) / {shares}"


def _factors(block: Block, plan: Contract, names: dict[Tensor, str]) -> tuple[str, list[str]]:
    """The vector of columns and the R scalars of this step."""
    if plan.packed_rows is not None or plan.packed_columns is not None:
        block.add(f"const int k = {_position(plan.reduction.axes)};")
    column = _column(block, plan, names)
    return column, _row_factors(block, plan, names)


def _window_sum(block: Block, plan: Contract, names: dict[Tensor, str]) -> None:
    """The loops over the lines that the windows of all rows cover; each is read once per step."""
    window, tile, side = plan.window, plan.tile, plan.row_side
    assert window is not None
    taps = window.tap.size
    line = Axis("line", (tile.rows - 1) * window.stride + taps)
    first = of(Axis("block", plan.blocks)) * tile.rows
    factors = product(plan.kernel.substitute({plan.row: first, window.tap: of(line)}))
    assert factors is not None and isinstance(factors[1 - side], Load)
    column = _guarded(factors[1 - side])
    depth = block.depth
    block.loop(line)
    for axis in plan.reduction.axes:
        if axis != window.tap:
            block.loop(axis)
    writer = Writer(block, Pointers(names), plan.kernel.runtime, prefix="c",
                    lane=plan.columns[-1], width=tile.columns, tail=plan.tail)
    block.add(f"const float{tile.columns} column = {writer.vector(column)};")
    for r in range(tile.rows):
        tap = of(line) + -r * window.stride
        factors = product(plan.kernel.substitute({window.tap: tap}))
        assert factors is not None
        block.open(f"if ({condition_text([Within(tap, taps)])})")
        writer = Writer(block, Pointers(names), plan.kernel.runtime, prefix="w")
        block.add(f"total{r} += {writer.write(factors[side])} * column;")
        block.close()
    block.close(block.depth - depth)


def _guarded(value: Value) -> Value:
    """A load that also keeps inside its tensor where the lines of a tile go beyond the last row."""
    assert isinstance(value, Load)
    beyond = [Within(e, size) for e, size in zip(value.index, value.tensor.shape, strict=True)]
    beyond = [w for w in beyond if not w.always and w not in value.when and "line" in {
        a.name for a in w.expr.axes}]
    return replace(value, when=(*value.when, *beyond))


def _column(block: Block, plan: Contract, names: dict[Tensor, str]) -> str:
    """The vector of this step."""
    factors, width = product(plan.kernel), plan.tile.columns
    assert factors is not None
    value = factors[1 - plan.row_side]
    if plan.packed_columns is not None:
        place = _packed_place(plan, value, "piece", plan.pieces, width)
        return vector(names[plan.packed_columns], place, plan.packed_columns.dtype, width)
    writer = Writer(block, Pointers(names), plan.kernel.runtime, prefix="c",
                    lane=plan.columns[-1], width=width, tail=plan.tail)
    return writer.vector(value)


def _row_factors(block: Block, plan: Contract, names: dict[Tensor, str]) -> list[str]:
    """The R scalars of this step."""
    rows, factors = plan.tile.rows, product(plan.kernel)
    assert factors is not None
    if plan.packed_rows is not None:
        place = _packed_place(plan, factors[plan.row_side], "block", plan.blocks, rows)
        dtype, name = plan.packed_rows.dtype, names[plan.packed_rows]
        if rows in (2, 4, 8, 16):
            block.add(f"const float{rows} factor = {vector(name, place, dtype, rows)};")
            return [f"factor.s{r:x}" for r in range(rows)]
        return [element(name, f"{place} + {r}", dtype) for r in range(rows)]
    texts = []
    for r in range(rows):
        # A tile's rows beyond the last one repeat it; they are not stored.
        row = Axis(f"row{r}", plan.row.size)
        text = f"block * {rows} + {r}"
        block.add(f"const int {row.name} = min({text}, {row.size - 1});")
        factors = product(plan.kernel.substitute({plan.row: of(row)}))
        assert factors is not None
        writer = Writer(block, Pointers(names), plan.kernel.runtime, prefix=f"r{r}_")
        texts.append(writer.write(factors[plan.row_side]))
    return texts


def _packed_place(plan: Contract, value: Value, block: str, blocks: int, size: int) -> str:
    """Offset of the block of `size` values of this k in a packed factor."""
    batch = batch_axes(value, plan.outer)
    depth = points(plan.reduction.axes)
    place = f"{_position(batch)} * {blocks} + {block}" if batch else block
    return f"(({place}) * {depth} + k) * {size}"


def _position(axes: Sequence[Axis]) -> str:
    """Row-major position among the points of the axes."""
    sizes = [a.size for a in axes]
    terms = [f"{a.name} * {math.prod(sizes[i + 1:])}" for i, a in enumerate(axes)]
    return f"({' + '.join(terms)})"


def _join_shares(block: Block, plan: Contract, names: dict[Tensor, str], kind: str) -> None:
    """Add up what the work-items of the group have; each finishes some of the rows."""
    tile = plan.tile
    for r in range(tile.rows):
        block.add(f"parts[share * {tile.rows} + {r}] = total{r};")
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    block.open(f"for (int r = share; r < {tile.rows}; r += {tile.shares})")
    block.add(f"{kind} sum = parts[r];")
    block.add(f"for (int s = 1; s < {tile.shares}; ++s) sum += parts[s * {tile.rows} + r];")
    _finish_row(block, plan, names, "r", "sum")
    block.close()


def _finish_row(block: Block, plan: Contract, names: dict[Tensor, str], r: str,
                total: str) -> None:
    """What follows the sum, for row number r of the tile, and its store."""
    tile = plan.tile
    block.add(f"const int row = block * {tile.rows} + {r};")
    partial = plan.row.size % tile.rows != 0
    if partial:
        block.open(f"if (row < {plan.row.size})")
    writer = Writer(block, Pointers(names), plan.kernel.runtime, {id(plan.reduction): total},
                    lane=plan.columns[-1], width=tile.columns, tail=plan.tail)
    store(block, writer, plan.kernel)
    if partial:
        block.close()
