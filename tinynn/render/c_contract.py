"""Family Contract in C: tiles of a sum of products.

    for every point of the outer axes and every panel of columns
        copy the panel to local memory, unless it is a packed constant
        for every block of R rows
            for every tile of T vectors in the panel
                accumulate R x T vectors over k                        <- nearly all of the time
            finish the block: epilogue and store
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from tinynn.contract import Contract, Operand
from tinynn.index import Axis, ceil_div, of, ravel
from tinynn.ir import DType
from tinynn.kernel import Load, Tensor, Value, value_axes, values_of
from tinynn.pack import batch_axes
from tinynn.render.c_function import (
    Function,
    OpenLoop,
    declare_point,
    finish,
    open_function,
    open_items,
    open_loop,
    open_vector_loop,
    store,
)
from tinynn.render.c_values import Block, Scope, condition_text, index_text, literal

FETCH_AHEAD = 8192  # bytes: weights on their way from memory while earlier ones are multiplied


def render_contract(plan: Contract) -> Function:
    """The C function of a contraction."""
    kernel = plan.kernel
    block = Block()
    tensors = _arguments(plan)
    names = open_function(block, kernel, tensors, fuse=True)
    pieces = [Axis(f"piece{i}", ceil_div(a.size, n))
              for i, (a, n) in enumerate(zip(plan.columns, plan.box, strict=True))]
    groups = [Axis("group", plan.groups)] if plan.groups > 1 else []
    if plan.cols.packed is None:
        block.add(f"_Alignas(64) float panel[{plan.depth} * {_pitch(plan)}];")
    rows_first = plan.rows.packed is None and _same_rows(plan)
    if rows_first:
        block.add("const int64_t block = 0;")
        _rows(block, plan, names)
    open_items(block, [*plan.outer, *pieces, *groups])
    _declare_box(block, plan)
    if plan.cols.packed is None:
        # The groups of a panel follow one another: only the first one here copies it.
        if groups:
            block.open("if (item == begin || group == 0)")
        _stage_columns(block, plan, names)
        if groups:
            block.close()
    first, last = "0", str(plan.blocks)
    if plan.groups > 1:
        first = f"{plan.blocks} * group / {plan.groups}"
        last = f"{plan.blocks} * (group + 1) / {plan.groups}"
    block.open(f"for (int64_t block = {first}; block < {last}; ++block)")
    if not rows_first:
        _rows(block, plan, names)
    block.add(f"_Alignas(64) float total[{plan.tile_rows} * {plan.panel_columns}];")
    _tiles(block, plan, names)
    _finish_block(block, plan, names)
    return finish(block, kernel, tensors, plan.family)


def _arguments(plan: Contract) -> tuple[Tensor, ...]:
    """Tensors of the kernel, with packed operands in the place of what they were packed from."""
    found: dict[Tensor, None] = {plan.kernel.tensor: None}
    for operand in (plan.cols, plan.rows):
        if operand.packed is not None:
            found[operand.packed] = None
        else:
            found |= dict.fromkeys(_tensors(values_of([operand.value])))
    found |= dict.fromkeys(_tensors(plan.kernel.values(below_reduction=False)))
    return tuple(found)


def _tensors(values: Sequence[Value]) -> list[Tensor]:
    return [v.tensor for v in values if isinstance(v, Load)]


def _declare_box(block: Block, plan: Contract) -> None:
    """Ranges start{i} .. end{i} of the columns of this panel, and their number."""
    for i, (axis, size) in enumerate(zip(plan.columns, plan.box, strict=True)):
        block.add(f"const int64_t start{i} = piece{i} * {size};")
        end = f"start{i} + {size}"
        if axis.size % size:
            end = f"start{i} + {size} < {axis.size} ? {end} : {axis.size}"
        block.add(f"const int64_t end{i} = {end};")
    counts = [f"(end{i} - start{i})" for i in range(len(plan.columns))]
    block.add(f"const int64_t columns = {' * '.join(counts)};")


def _column_loops(block: Block, plan: Contract, open_innermost: OpenLoop = open_loop) -> str:
    """Open the loops over the columns of a panel; the place of a column in it."""
    place = "0"
    for i, axis in enumerate(plan.columns):
        innermost = i == len(plan.columns) - 1
        (open_innermost if innermost else open_loop)(block, axis.name, f"start{i}", f"end{i}")
        inside = f"({axis.name} - start{i})"
        place = inside if i == 0 else f"{place} * {plan.box[i]} + {inside}"
    return place


def _pitch(plan: Contract) -> int:
    """Columns from one k to the next in a local panel: an odd number of cache lines, so that the
    lines of a tile spread over all sets of the cache."""
    lines = ceil_div(plan.panel_columns, 16)
    return 16 * (lines + 1 - lines % 2)


def _stage_columns(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Copy the column operand into panel[k][column], zero beyond the last column."""
    reduction = plan.kernel.reduction
    assert reduction is not None
    pitch, depth = _pitch(plan), block.depth
    for axis in reduction.axes:
        block.loop(axis)
    block.add(f"float *line = panel + ({_position(reduction.axes)}) * {pitch};")
    inner = block.depth
    if _is_row(plan.cols.value, plan.columns[-1]):
        _stage_row(block, plan, names, plan.cols.value)
    else:
        place = _column_loops(block, plan)
        value = Scope(block, names, plan.kernel.runtime).write(plan.cols.value)
        block.add(f"line[{place}] = {value};")
    block.close(block.depth - inner)
    block.open(f"for (int64_t i = columns; i < {plan.panel_columns}; ++i)")
    block.add("line[i] = 0;")
    block.close(block.depth - depth)


def _is_row(value: Value, x: Axis) -> TypeGuard[Load]:
    """Whether the value is read, and inside exactly for a range of x."""
    return isinstance(value, Load) and bool(value.when) and all(
        w.expr.is_affine and w.expr.coefficient(x) >= 0 for w in value.when)


def _stage_row(block: Block, plan: Contract, names: Mapping[Tensor, str], load: Load) -> None:
    """Copy rows of columns, with the fill value left and right of the range that is inside, so that
    no condition is tested in the loop that copies."""
    x, last = plan.columns[-1], len(plan.columns) - 1
    outer = replace(plan, columns=plan.columns[:-1])
    place = _column_loops(block, outer)
    offset = f"({x.name} - start{last})"
    place = f"({place}) * {plan.box[last]} + {offset}" if last else offset
    block.add(f"int64_t low = start{last}, high = end{last};")
    for w in load.when:
        step = w.expr.coefficient(x)
        rest = w.expr - of(x) * step
        if step == 0:
            block.add(f"high = {condition_text([w])} ? high : low;")
            continue
        block.add(f"low = larger(low, ({step - 1} - ({index_text(rest)})) / {step});")
        block.add(f"high = smaller(high, ({w.size + step - 1} - ({index_text(rest)})) / {step});")
    block.add(f"low = smaller(low, end{last});")
    block.add("high = larger(low, high);")
    fill = f"line[{place}] = {literal(load.fill, load.dtype)};"
    block.add(f"for (int64_t {x.name} = start{last}; {x.name} < low; ++{x.name}) {fill}")
    block.open(f"for (int64_t {x.name} = low; {x.name} < high; ++{x.name})")
    value = Scope(block, names, plan.kernel.runtime).write(replace(load, when=()))
    block.add(f"line[{place}] = {value};")
    block.close()
    block.add(f"for (int64_t {x.name} = high; {x.name} < end{last}; ++{x.name}) {fill}")


def _rows(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Declare `rows`: [k][row] of this block, from the packed constant or copied here."""
    packed = plan.rows.packed
    reduction = plan.kernel.reduction
    assert reduction is not None
    tile = plan.tile_rows
    if packed is not None:
        size = plan.depth * tile
        start = f"{names[packed]} + ({_matrix(plan, plan.rows, plan.blocks)}block) * {size}"
        if packed.dtype is DType.F32:
            block.add(f"const float *rows = {start};")
            return
        lanes, whole = plan.lanes, size - size % plan.lanes
        block.add(f"const uint16_t *half = {start};")
        block.add(f"_Alignas(64) float rows[{size}];")
        block.add(f"for (int64_t i = 0; i < {whole}; i += {lanes}) "
                  f"store_f32x{lanes}(rows + i, widen_f16x{lanes}(half + i));")
        block.add(f"for (int64_t i = {whole}; i < {size}; ++i) rows[i] = load_f16(half[i]);")
        return
    depth = block.depth
    block.add(f"float rows[{plan.depth} * {tile}];")
    block.open(f"for (int64_t r = 0; r < {tile}; ++r)")
    _declare_row(block, plan, clamp=True)
    for axis in reduction.axes:
        block.loop(axis)
    value = Scope(block, names, plan.kernel.runtime).write(plan.rows.value)
    block.add(f"rows[({_position(reduction.axes)}) * {tile} + r] = {value};")
    block.close(block.depth - depth)


def _same_rows(plan: Contract) -> bool:
    """Whether all panels use one and the same block of rows."""
    return plan.blocks == 1 and not set(plan.outer) & value_axes(plan.rows.value,
                                                                 plan.kernel.runtime)


def _declare_row(block: Block, plan: Contract, clamp: bool) -> None:
    """Declare the row axes of row r of the block. clamp: rows beyond the last repeat it."""
    count = plan.row_count
    if not plan.row_axes:
        return
    block.add(f"const int64_t at = block * {plan.tile_rows} + r;")
    if clamp and count % plan.tile_rows:
        block.add(f"const int64_t row = at < {count} ? at : {count - 1};")
        declare_point(block, plan.row_axes, "row")
    else:
        declare_point(block, plan.row_axes, "at")


def _tiles(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Accumulate every tile of the panel into total[row][column]."""
    tile, vectors, lanes = plan.tile_rows, plan.tile_vectors, plan.lanes
    packed = plan.cols.packed
    block.open(f"for (int64_t tile = 0; tile < columns; tile += {plan.tile_columns})")
    if packed is None:
        pitch = _pitch(plan)
        block.add("const float *cols = panel + tile;")
    else:
        pitch = plan.tile_columns
        kind = "uint16_t" if packed.dtype is DType.F16 else "float"
        tiles = ceil_div(plan.columns[-1].size, pitch)
        number = f"{_matrix(plan, plan.cols, tiles)}(start0 + tile) / {pitch}"
        block.add(f"const {kind} *cols = {names[packed]} + ({number}) * {plan.depth * pitch};")
    for r in range(tile):
        block.add(" ".join(f"f32x{lanes} c{r}_{t} = {{0}};" for t in range(vectors)))
    block.open(f"for (int64_t k = 0; k < {plan.depth}; ++k)")
    if plan.rows.packed is not None and plan.rows.packed.dtype is DType.F16:
        # The next block, from memory to the cache while this one is computed.
        block.add(f"__builtin_prefetch(half + {plan.depth * tile} + k * {tile});")
    if packed is not None:
        ahead = FETCH_AHEAD // packed.dtype.itemsize
        for line in range(0, pitch, 64 // packed.dtype.itemsize):
            block.add(f"__builtin_prefetch(cols + {ahead + line} + k * {pitch});")
    half = packed is not None and packed.dtype is DType.F16
    load = f"widen_f16x{lanes}" if half else f"load_f32x{lanes}"
    for t in range(vectors):
        block.add(f"const f32x{lanes} b{t} = {load}(cols + k * {pitch} + {t * lanes});")
    for r in range(tile):
        block.add(f"const float s{r} = rows[k * {tile} + {r}];")
        block.add(" ".join(f"c{r}_{t} += s{r} * b{t};" for t in range(vectors)))
    block.close()
    for r in range(tile):
        for t in range(vectors):
            place = f"total + {r * plan.panel_columns + t * lanes} + tile"
            block.add(f"store_f32x{lanes}({place}, c{r}_{t});")
    block.close()


def _finish_block(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Epilogue and store of the rows of this block that exist."""
    kernel, tile = plan.kernel, plan.tile_rows
    last = str(tile)
    if plan.row_count % tile:
        block.add(f"const int64_t left = {plan.row_count} - block * {tile};")
        last = f"left < {tile} ? left : {tile}"
        block.add(f"const int64_t count = {last};")
        last = "count"
    block.open(f"for (int64_t r = 0; r < {last}; ++r)")
    _declare_row(block, plan, clamp=False)
    ragged = plan.box[-1] % plan.lanes or plan.columns[-1].size % plan.box[-1]
    place = _column_loops(block, plan, open_vector_loop if ragged else open_loop)
    block.add(f"const float reduced = total[r * {plan.panel_columns} + {place}];")
    store(block, Scope(block, names, kernel.runtime, {id(kernel.reduction): "reduced"}), kernel)


def _matrix(plan: Contract, operand: Operand, blocks: int) -> str:
    """First block of the matrix of a packed operand at this point of the outer axes, as a term."""
    axes = batch_axes(operand.value, plan.outer)
    return f"({_position(axes)}) * {blocks} + " if axes else ""


def _position(axes: Sequence[Axis]) -> str:
    """Row-major position of a point of the axes."""
    return index_text(ravel([of(a) for a in axes], [a.size for a in axes]))
