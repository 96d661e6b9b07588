"""Family Depthwise in C: windows over a plane that lies, padded, in local memory.

    for every batch of planes (each a chunk of output rows of one input plane)
        copy the input rows they need, with their border, to local memory
        for every output of a plane (usually one)
            for every tile of rows x vectors: add up the products of all taps in registers,
                or keep the largest
        for every output of a plane: epilogue and store

Small planes come in batches, because a processor waits when it reads in pieces of another size what
it has only just written.

With a stride, columns of equal remainder are stored together, so that a vector of neighbouring
outputs always reads neighbouring numbers.
"""
from __future__ import annotations

from dataclasses import replace

from tinynn.cost import points
from tinynn.depthwise import Depthwise
from tinynn.index import Axis, ceil_div, of, ravel, round_up
from tinynn.interp import lowest
from tinynn.ir import DType, Op
from tinynn.kernel import Tensor, Value, replaced
from tinynn.render.c_function import (
    Function,
    arguments,
    declare_point,
    finish,
    open_function,
    open_vector_loop,
    store,
)
from tinynn.render.c_planes import copy_columns, variable
from tinynn.render.c_values import Block, Scope, index_text, literal
from tinynn.render.c_vectors import OPERATIONS, finish_vectors, open_vectors, stores_vectors


def render_depthwise(plan: Depthwise) -> Function:
    """The C function of a depthwise convolution or of pooling."""
    kernel, y = plan.kernel, plan.y
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors, fuse=True)
    pieces = ceil_div(y.position.size, plan.chunk)
    items = [*plan.outer, Axis("piece", pieces)]
    block.add(f"_Alignas(64) float planes[{plan.batch} * {_plane_size(plan)}];")
    sums = plan.batch * points(plan.inner)
    block.add(f"_Alignas(64) float totals[{sums} * {_total_size(plan)}];")
    _fill(block, plan, "planes", "0", f"{plan.batch} * {plan.y.span(plan.chunk)}")
    count = points(items)
    block.add(f"const int64_t begin = {count} * part / parts;")
    block.add(f"const int64_t end = {count} * (part + 1) / parts;")
    block.open(f"for (int64_t first = begin; first < end; first += {plan.batch})")
    block.add(f"const int64_t last = smaller(first + {plan.batch}, end);")
    for write in (_stage_plane, _multiply, _finish_plane):
        block.open("for (int64_t item = first; item < last; ++item)")
        declare_point(block, items, "item")
        block.add(f"const int64_t start = piece * {plan.chunk};")
        block.add(f"const int64_t stop = smaller(start + {plan.chunk}, {y.position.size});")
        depth = block.depth
        write(block, plan, names)
        block.close(block.depth - depth + 1)
    return finish(block, kernel, tensors, plan.family)


def _multiply(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """All tiles of the outputs of one plane."""
    block.add(f"const float *plane = planes + (item - first) * {_plane_size(plan)};")
    for axis in plan.inner:
        block.loop(axis)
    _declare_total(block, plan)
    if plan.weights is not None:
        _stage_weights(block, plan, plan.weights, names)
    block.open(f"for (int64_t top = start; top < stop; top += {plan.tile_rows})")
    step = plan.tile_vectors * plan.lanes
    # From right to left: what a tile stores beyond the end of its row is overwritten.
    block.open(f"for (int64_t left = {plan.width - step}; left >= 0; left -= {step})")
    _tile(block, plan)


def _finish_plane(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """Epilogue and store of the rows of this chunk."""
    kernel, x, y, pitch = plan.epilogue, plan.x.position, plan.y.position, _total_pitch(plan)
    for inner in plan.inner:
        block.loop(inner)
    _declare_total(block, plan)
    axis = plan.flat or x
    rows = min(plan.chunk, (plan.y.position.size - 1) % plan.chunk + 1) if plan.flat else 1
    if rows * x.size >= plan.wide and stores_vectors(kernel, axis):
        place = f"total + {axis.name} - start * {x.size}"
        if plan.flat is None:
            block.open(f"for (int64_t {y.name} = start; {y.name} < stop; ++{y.name})")
            place = f"total + ({y.name} - start) * {pitch} + {x.name}"
            open_vectors(block, x.name, "0", str(x.size), plan.wide)
        else:
            open_vectors(block, axis.name, f"start * {x.size}", f"stop * {x.size}", plan.wide)
        finish_vectors(block, names, kernel, axis, plan.wide, place)
        return
    if plan.flat is not None:
        open_vector_loop(block, axis.name, f"start * {x.size}", f"stop * {x.size}")
        block.add(f"const float reduced = total[{axis.name} - start * {x.size}];")
    else:
        block.open(f"for (int64_t {y.name} = start; {y.name} < stop; ++{y.name})")
        open_vector_loop(block, x.name, "0", str(x.size))
        block.add(f"const float reduced = total[({y.name} - start) * {pitch} + {x.name}];")
    store(block, Scope(block, names, kernel.runtime, {id(kernel.reduction): "reduced"}), kernel)


def _declare_total(block: Block, plan: Depthwise) -> None:
    """The sums of this plane and this point of the inner axes."""
    place = ravel([of(a) for a in plan.inner], [a.size for a in plan.inner])
    number = f"(item - first) * {points(plan.inner)} + {index_text(place)}"
    block.add(f"float *total = totals + ({number}) * {_total_size(plan)};")


def _plane_size(plan: Depthwise) -> int:
    return plan.y.span(plan.chunk) * _pitch(plan)


def _total_size(plan: Depthwise) -> int:
    """Sums of one plane, and what the last tile stores beyond the end of its row."""
    return round_up(plan.chunk * _total_pitch(plan) + plan.width, 16)


def _total_pitch(plan: Depthwise) -> int:
    """Results from one row to the next; a flat plane has no gaps."""
    return plan.x.position.size if plan.flat is not None else plan.width


def _phase_pitch(plan: Depthwise) -> int:
    """Columns of equal remainder by the stride in one row of the plane."""
    return ceil_div(plan.x.span(plan.width), plan.x.stride)


def _pitch(plan: Depthwise) -> int:
    return _phase_pitch(plan) * plan.x.stride


def _fill(block: Block, plan: Depthwise, plane: str, first: str, last: str) -> None:
    """Set rows of a plane to the value outside of the input."""
    pitch, fill = _pitch(plan), literal(plan.data.fill, DType.F32)
    block.add(f"for (int64_t i = ({first}) * {pitch}; i < ({last}) * {pitch}; ++i) "
              f"{plane}[i] = {fill};")


def _stage_plane(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """Copy rows of the input into its plane, and set those outside of the input. The columns of the
    border stay as they are: every item has the same."""
    data, (dim_y, dim_x) = plan.data.load, plan.dims
    height, length = (data.tensor.shape[d] for d in plan.dims)
    for condition in data.when:
        if condition.expr == data.index[dim_y]:
            height = condition.size
        if condition.expr == data.index[dim_x]:
            length = condition.size
    rows, pitch, phase_pitch = plan.y.span(plan.chunk), _pitch(plan), _phase_pitch(plan)
    stride, column = plan.x.stride, variable("column")
    block.add(f"float *plane = planes + (item - first) * {_plane_size(plan)};")
    block.add(f"const int64_t above = start * {plan.y.stride} + {plan.y.start};")
    block.add(f"const int64_t low = smaller({rows}, larger(0, -above));")
    block.add(f"const int64_t high = larger(low, smaller({rows}, {height} - above));")
    if plan.chunk < plan.y.position.size:  # else every plane has the same rows outside
        _fill(block, plan, "plane", "0", "low")
        _fill(block, plan, "plane", "high", str(rows))
    block.open("for (int64_t py = low; py < high; ++py)")
    block.add("const int64_t iy = above + py;")
    block.add(f"float *line = plane + py * {pitch};")
    for phase in range(stride):
        # A column of this phase is input column `column * stride + shift`.
        shift = phase + plan.x.start
        first = min(phase_pitch, max(0, -(shift // stride)))
        last = min(phase_pitch, max(first, -(-(length - shift) // stride)))
        index = list(data.index)
        index[dim_y] = of(variable("iy"))
        index[dim_x] = of(column) * stride + shift
        load = replace(data, index=tuple(index), when=())
        value = replaced(plan.data.value, {id(data): load})
        copy_columns(block, [value], names, column, (phase * phase_pitch, first, last), plan.wide)
    block.close()


def _stage_weights(block: Block, plan: Depthwise, weights: Value,
                   names: dict[Tensor, str]) -> None:
    """Copy the weights of all taps into `taps`."""
    block.add(f"float taps[{plan.y.taps * plan.x.taps}];")
    block.loop(plan.y.tap)
    block.loop(plan.x.tap)
    value = Scope(block, names, plan.kernel.runtime).write(weights)
    block.add(f"taps[{plan.y.tap.name} * {plan.x.taps} + {plan.x.tap.name}] = {value};")
    block.close(2)


def _tile(block: Block, plan: Depthwise) -> None:
    """The taps of one tile put together, written out; each vector is loaded once for all rows."""
    y, x, lanes = plan.y, plan.x, plan.lanes
    vectors = range(plan.tile_vectors)
    kind = f"f32x{lanes}"
    start = "{0}"
    if _kind(plan) != "sum":
        start = f"({kind}){{0}} + {literal(lowest(DType.F32), DType.F32)}"
    block.add(f"const float *corner = plane + (top - start) * {y.stride * _pitch(plan)} + left;")
    for r in range(plan.tile_rows):
        block.add(" ".join(f"{kind} c{r}_{t} = {start};" for t in vectors))
    barrier = _barrier(plan)
    for py in range(y.span(plan.tile_rows)):
        users = [(r, (py - r * y.stride) // y.dilation) for r in range(plan.tile_rows)
                 if (py - r * y.stride) % y.dilation == 0
                 and 0 <= py - r * y.stride <= (y.taps - 1) * y.dilation]
        for kx in range(x.taps if users else 0):
            column, phase = divmod(kx * x.dilation, x.stride)
            place = py * _pitch(plan) + phase * _phase_pitch(plan) + column
            block.open("")
            if barrier:
                block.add(barrier)
            for t in vectors:
                block.add(f"const {kind} v{t} = load_{kind}(corner + {place + t * lanes});")
            for r, ky in users:
                block.add(" ".join(_tap(plan, kind, f"c{r}_{t}", ky * x.taps + kx, f"v{t}")
                                   for t in vectors))
            block.close()
    for r in range(plan.tile_rows):
        row = f"total + (top - start + {r}) * {_total_pitch(plan)} + left"
        for t in vectors:
            block.add(f"store_{kind}({row} + {t * lanes}, c{r}_{t});")


def _barrier(plan: Depthwise) -> str:
    """What keeps compilers from loading taps and vectors long before they use them, and from
    keeping sums on the stack for that. With AVX-512 only the taps are too many for registers, and
    only in large windows."""
    read = [] if plan.taps_fit else ['"r"(taps)']
    sums = ""
    if plan.wide < 16:
        read.append('"r"(corner)')
        sums = ", ".join(f"KEEP(c{r}_{t})" for r in range(plan.tile_rows)
                         for t in range(plan.tile_vectors))
    if plan.weights is None or not read:
        return ""
    return f'__asm__ volatile("" : {sums} : {", ".join(read)} : "memory");'


def _kind(plan: Depthwise) -> str:
    reduction = plan.kernel.reduction
    assert reduction is not None
    return reduction.kind


def _tap(plan: Depthwise, kind: str, total: str, tap: int, vector: str) -> str:
    """The statement that puts one tap into an accumulator."""
    if _kind(plan) == "max":
        return f"{total} = {OPERATIONS[Op.MAX](kind, total, vector)};"
    factor = "" if plan.weights is None else f"taps[{tap}] * "
    return f"{total} += {factor}{vector};"
