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
from functools import partial

from tinynn.contract import Contract, Operand, spread
from tinynn.index import Axis, ceil_div, of, ravel
from tinynn.ir import DType
from tinynn.kernel import Load, Tensor, Value, value_axes, values_of
from tinynn.pack import batch_axes
from tinynn.packed import innermost_load, with_load
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
from tinynn.render.c_packed import (
    begin_sums,
    end_sum,
    fill_word,
    group_word,
    multiply_groups,
    open_groups,
)
from tinynn.render.c_values import VARIABLE, Block, Scope, condition_text, index_text, literal
from tinynn.render.c_vectors import finish_vectors, open_vectors, stores_vectors

FETCH_AHEAD = 8192  # bytes: weights on their way from memory while earlier ones are multiplied


def render_contract(plan: Contract) -> Function:
    """The C function of a contraction."""
    kernel = plan.kernel
    block = Block()
    tensors = argument_tensors(plan)
    names = open_function(block, kernel, tensors, fuse=True)
    pieces = [Axis(f"piece{i}", ceil_div(a.size, n))
              for i, (a, n) in enumerate(zip(plan.columns, plan.box, strict=True))]
    groups = [Axis("group", plan.groups)] if plan.groups > 1 else []
    if plan.cols.packed is None:
        pitch = spread(plan.panel_columns)
        block.add(f"_Alignas(64) {_element(plan)} panel[{plan.depth} * {pitch}];")
    rows_first = plan.rows.packed is None and _same_rows(plan)
    widen_rows(block, plan, names)
    if rows_first:
        block.add("const int64_t block = 0;")
        declare_rows(block, plan, names)
    open_items(block, [*plan.outer, *pieces, *groups])
    _declare_box(block, plan)
    if plan.cols.packed is None:
        # The groups of a panel follow one another: only the first one here copies it.
        if groups:
            block.open("if (item == begin || group == 0)")
        _stage_columns(block, plan, names)
        if groups:
            block.close()
    open_blocks(block, plan)
    if not rows_first:
        declare_rows(block, plan, names)
    kind = VARIABLE[_sum_type(plan)]
    block.add(f"_Alignas(64) {kind} total[{plan.tile_rows} * {plan.panel_columns}];")
    _tiles(block, plan, names)
    finish_block(block, plan, names)
    return finish(block, kernel, tensors, plan.family)


def open_blocks(block: Block, plan: Contract) -> None:
    """Open the loop over the row blocks of this group."""
    first, last = "0", str(plan.blocks)
    if plan.groups > 1:
        first = f"{plan.blocks} * group / {plan.groups}"
        last = f"{plan.blocks} * (group + 1) / {plan.groups}"
    block.open(f"for (int64_t block = {first}; block < {last}; ++block)")


def argument_tensors(plan: Contract) -> tuple[Tensor, ...]:
    """Tensors of the kernel, with packed operands in the place of what they were packed from."""
    found: dict[Tensor, None] = {plan.kernel.tensor: None}
    if plan.start is not None:
        found[plan.start] = None
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
        place = inside if i == 0 else f"{place} * {plan.row_pitch} + {inside}"
    return place


def _sum_type(plan: Contract) -> DType:
    """Type of a sum when it is finished."""
    assert plan.kernel.reduction is not None
    return plan.kernel.reduction.dtype


def _element(plan: Contract) -> str:
    """Type of what panels and rows hold."""
    return "float" if plan.group == 1 else "uint32_t"


def _stage_columns(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Copy the column operand into panel[k][column], zero beyond the last column."""
    pitch, depth = spread(plan.panel_columns), block.depth
    step = _open_steps(block, plan)
    block.add(f"{_element(plan)} *line = panel + ({step}) * {pitch};")
    inner = block.depth
    load = innermost_load(plan.cols.value)
    if load is not None and _is_row(load, plan):
        _stage_row(block, plan, names, load)
    else:
        place = _column_loops(block, plan)
        block.add(f"line[{place}] = {_write(block, plan, names, plan.cols.value)};")
    block.close(block.depth - inner)
    block.open(f"for (int64_t i = columns; i < {plan.panel_columns}; ++i)")
    block.add("line[i] = 0;")
    block.close(block.depth - depth)


def _open_steps(block: Block, plan: Contract) -> str:
    """Open the loops over the steps of a sum; the number of the step."""
    if plan.group > 1:
        return open_groups(block, plan)
    for axis in plan.k_axes:
        block.loop(axis)
    return _position(plan.k_axes)


def _write(block: Block, plan: Contract, names: Mapping[Tensor, str], value: Value) -> str:
    """Write one element of a panel or of rows; its name."""
    if plan.group > 1:
        return group_word(block, plan, names, value)
    return Scope(block, names, plan.kernel.runtime).write(value)


def _is_row(load: Load, plan: Contract) -> bool:
    """Whether the load is inside exactly for a range of the last column axis."""
    x = plan.columns[-1]
    grouped = {plan.k_axes[-1]} if plan.group > 1 else set()
    return bool(load.when) and all(
        w.expr.is_affine and w.expr.coefficient(x) >= 0 and not grouped & w.expr.axes
        for w in load.when)


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
    fill = literal(load.fill, load.dtype) if plan.packing is None else fill_word(plan.packing)
    fill = f"line[{place}] = {fill};"
    block.add(f"for (int64_t {x.name} = start{last}; {x.name} < low; ++{x.name}) {fill}")
    block.open(f"for (int64_t {x.name} = low; {x.name} < high; ++{x.name})")
    value = with_load(plan.cols.value, replace(load, when=()))
    block.add(f"line[{place}] = {_write(block, plan, names, value)};")
    block.close()
    block.add(f"for (int64_t {x.name} = high; {x.name} < end{last}; ++{x.name}) {fill}")


def declare_rows(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Declare `rows`: [k][row] of this block, from the packed constant or copied here."""
    packed = plan.rows.packed
    tile = plan.tile_rows
    if packed is not None:
        size = plan.depth * tile
        start = f"({_matrix(plan, plan.rows, plan.blocks)}block) * {size}"
        if plan.group > 1:
            block.add(f"const uint32_t *rows = (const uint32_t *){names[packed]} + {start};")
            return
        start = f"{names[packed]} + {start}"
        if packed.dtype is DType.F32:
            block.add(f"const float *rows = {start};")
            return
        if plan.wide_rows:
            block.add(f"const float *rows = wide + block * {size};")
            return
        block.add(f"const uint16_t *half = {start};")
        _widen(block, plan.lanes, "rows", "half", size)
        return
    depth = block.depth
    block.add(f"{_element(plan)} rows[{plan.depth} * {tile}];")
    block.open(f"for (int64_t r = 0; r < {tile}; ++r)")
    _declare_row(block, plan, clamp=True)
    step = _open_steps(block, plan)
    value = _write(block, plan, names, plan.rows.value)
    block.add(f"rows[({step}) * {tile} + r] = {value};")
    block.close(block.depth - depth)


def widen_rows(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
    """Widen all rows once, if they are few."""
    if plan.wide_rows:
        assert plan.rows.packed is not None
        _widen(block, plan.lanes, "wide", names[plan.rows.packed], plan.rows.packed.size)


def _widen(block: Block, lanes: int, wide: str, half: str, size: int) -> None:
    """Declare an array of f32 with the numbers of an array of f16."""
    whole = size - size % lanes
    block.add(f"_Alignas(64) float {wide}[{size}];")
    block.add(f"for (int64_t i = 0; i < {whole}; i += {lanes}) "
              f"store_f32x{lanes}({wide} + i, widen_f16x{lanes}({half} + i));")
    block.add(f"for (int64_t i = {whole}; i < {size}; ++i) {wide}[i] = load_f16({half}[i]);")


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
        pitch = spread(plan.panel_columns)
        block.add(f"const {_element(plan)} *cols = panel + tile;")
    else:
        pitch = plan.tile_columns
        kind = "uint16_t" if packed.dtype is DType.F16 else _element(plan)
        tiles = ceil_div(plan.columns[-1].size, pitch)
        number = f"{_matrix(plan, plan.cols, tiles)}(start0 + tile) / {pitch}"
        start = f"(const {kind} *){names[packed]} + ({number}) * {plan.depth * pitch}"
        block.add(f"const {kind} *cols = {start};")
    if plan.start is not None:
        matrix = (_matrix(plan, plan.rows, plan.blocks) + "block" if packed is None else number)
        begin_sums(block, plan, names, matrix)
    else:
        for r in range(tile):
            block.add(" ".join(f"f32x{lanes} c{r}_{t} = {{0}};" for t in range(vectors)))
    block.open(f"for (int64_t k = 0; k < {plan.depth}; ++k)")
    rows_in = plan.rows.packed
    if rows_in is not None and rows_in.dtype is not DType.F32 and not plan.wide_rows:
        # The next block, from memory to the cache while this one is computed.
        rows = "rows" if plan.group > 1 else "half"
        block.add(f"__builtin_prefetch({rows} + {plan.depth * tile} + k * {tile});")
    if packed is not None:
        nbytes = packed.dtype.itemsize * plan.group
        for line in range(0, pitch, 64 // nbytes):
            block.add(f"__builtin_prefetch(cols + {FETCH_AHEAD // nbytes + line} + k * {pitch});")
    if plan.group > 1:
        multiply_groups(block, plan, pitch)
    else:
        _multiply(block, plan, pitch)
    block.close()
    for r in range(tile):
        for t in range(vectors):
            place = f"total + {r * plan.panel_columns + t * lanes} + tile"
            block.add(f"store_f32x{lanes}({place}, c{r}_{t});" if plan.start is None
                      else end_sum(_sum_type(plan), place, f"c{r}_{t}"))
    block.close()


def _multiply(block: Block, plan: Contract, pitch: int) -> None:
    """The step of a tile: every row times every vector of columns."""
    tile, vectors, lanes, packed = (plan.tile_rows, plan.tile_vectors, plan.lanes, plan.cols.packed)
    half = packed is not None and packed.dtype is DType.F16
    load = f"widen_f16x{lanes}" if half else f"load_f32x{lanes}"
    for t in range(vectors):
        block.add(f"const f32x{lanes} b{t} = {load}(cols + k * {pitch} + {t * lanes});")
    for r in range(tile):
        block.add(f"const float s{r} = rows[k * {tile} + {r}];")
        block.add(" ".join(f"c{r}_{t} += s{r} * b{t};" for t in range(vectors)))


def finish_block(block: Block, plan: Contract, names: Mapping[Tensor, str]) -> None:
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
    last_column = plan.columns[-1]
    pieces = {min(plan.box[-1], last_column.size - start)
              for start in range(0, last_column.size, plan.box[-1])}
    if min(pieces) >= plan.lanes and stores_vectors(kernel, last_column):
        open_row = partial(open_vectors, lanes=plan.lanes)
        place = _column_loops(block, plan, open_row)
        total = f"total + r * {plan.panel_columns} + {place}"
        finish_vectors(block, names, kernel, last_column, plan.lanes, total)
        return
    ragged = plan.box[-1] % plan.lanes or plan.columns[-1].size % plan.box[-1]
    place = _column_loops(block, plan, open_vector_loop if ragged else open_loop)
    kind = VARIABLE[_sum_type(plan)]
    block.add(f"const {kind} reduced = total[r * {plan.panel_columns} + {place}];")
    store(block, Scope(block, names, kernel.runtime, {id(kernel.reduction): "reduced"}), kernel)


def _matrix(plan: Contract, operand: Operand, blocks: int) -> str:
    """First block of the matrix of a packed operand at this point of the outer axes, as a term."""
    axes = batch_axes(operand.value, plan.outer)
    return f"({_position(axes)}) * {blocks} + " if axes else ""


def _position(axes: Sequence[Axis]) -> str:
    """Row-major position of a point of the axes."""
    return index_text(ravel([of(a) for a in axes], [a.size for a in axes]))
