"""Family Depthwise in C: windows over a plane that lies, padded, in local memory.

    for every plane and every chunk of its output rows
        copy the input rows it needs, with their border, to local memory
        for every output of the plane (usually one)
            for every tile of rows x vectors: add up the products of all taps in registers

With a stride, columns of equal remainder are stored together, so that a vector of neighbouring
outputs always reads neighbouring numbers.
"""
from __future__ import annotations

from dataclasses import replace

from tinynn.depthwise import Depthwise
from tinynn.index import Axis, Expr, ceil_div
from tinynn.kernel import Tensor
from tinynn.render.c_function import (
    Function,
    arguments,
    finish,
    open_function,
    open_items,
    store,
)
from tinynn.render.c_values import Block, Scope, literal


def render_depthwise(plan: Depthwise) -> Function:
    """The C function of a depthwise convolution or another sum over windows of a plane."""
    kernel, y = plan.kernel, plan.y
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors)
    open_items(block, [*plan.outer, Axis("piece", ceil_div(y.position.size, plan.chunk))])
    block.add(f"const int64_t start = piece * {plan.chunk};")
    rest = y.position.size - plan.chunk
    end = f"start < {rest} ? start + {plan.chunk} : {y.position.size}" if rest > 0 else str(
        y.position.size)
    block.add(f"const int64_t end = {end};")
    _stage_plane(block, plan, names)
    for axis in plan.inner:
        block.loop(axis)
    _stage_weights(block, plan, names)
    block.add(f"_Alignas(64) float total[{plan.chunk * _total_pitch(plan) + plan.width}];")
    block.open(f"for (int64_t top = start; top < end; top += {plan.tile_rows})")
    step = plan.tile_vectors * plan.lanes
    block.open(f"for (int64_t left = 0; left < {plan.width}; left += {step})")
    _tile(block, plan)
    block.close(2)
    _finish_plane(block, plan, names)
    return finish(block, kernel, tensors, plan.family)


def _finish_plane(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """Epilogue and store of the rows of this chunk."""
    kernel, x, y, pitch = plan.epilogue, plan.x.position, plan.y.position, _total_pitch(plan)
    if plan.flat is not None:
        axis = plan.flat.name
        block.open(f"for (int64_t {axis} = start * {x.size}; {axis} < end * {x.size}; ++{axis})")
        block.add(f"const float reduced = total[{axis} - start * {x.size}];")
    else:
        block.open(f"for (int64_t {y.name} = start; {y.name} < end; ++{y.name})")
        block.loop(x)
        block.add(f"const float reduced = total[({y.name} - start) * {pitch} + {x.name}];")
    store(block, Scope(block, names, kernel.runtime, {id(kernel.reduction): "reduced"}), kernel)


def _total_pitch(plan: Depthwise) -> int:
    """Results from one row to the next. A flat plane has no gaps: what a tile stores beyond the end
    of its row is overwritten by the next row."""
    return plan.x.position.size if plan.flat is not None else plan.width


def _phase_pitch(plan: Depthwise) -> int:
    """Columns of equal remainder by the stride in one row of the plane."""
    return ceil_div(plan.x.span(plan.width), plan.x.stride)


def _pitch(plan: Depthwise) -> int:
    return _phase_pitch(plan) * plan.x.stride


def _stage_plane(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """Copy rows of the input into `plane`, the fill value where there is no input."""
    data, (dim_y, dim_x) = plan.data, plan.dims
    height, length = (data.tensor.shape[d] for d in plan.dims)
    for condition in data.when:
        if condition.expr == data.index[dim_y]:
            height = condition.size
        if condition.expr == data.index[dim_x]:
            length = condition.size
    fill = literal(data.fill, data.dtype)
    rows, pitch, phase_pitch = plan.y.span(plan.chunk), _pitch(plan), _phase_pitch(plan)
    stride = plan.x.stride
    block.add(f"_Alignas(64) float plane[{rows} * {pitch}];")
    block.open(f"for (int64_t py = 0; py < {rows}; ++py)")
    block.add(f"const int64_t iy = start * {plan.y.stride} + py + {plan.y.start};")
    block.add(f"float *line = plane + py * {pitch};")
    block.open(f"if (iy < 0 || iy >= {height})")
    block.open(f"for (int64_t px = 0; px < {pitch}; ++px)")
    block.add(f"line[px] = {fill};")
    block.close()
    block.add("continue;")
    block.close()
    row = _variable("iy")
    for phase in range(stride):
        # Column q of this phase is input column q * stride + shift.
        shift = phase + plan.x.start
        first = min(phase_pitch, max(0, -(shift // stride)))
        last = min(phase_pitch, max(first, -(-(length - shift) // stride)))
        at = phase * phase_pitch
        if first > 0:
            block.add(f"for (int64_t q = 0; q < {first}; ++q) line[{at} + q] = {fill};")
        block.open(f"for (int64_t q = {first}; q < {last}; ++q)")
        index = list(data.index)
        index[dim_y] = row
        index[dim_x] = _variable("q") * stride + shift
        load = replace(data, index=tuple(index), when=())
        value = Scope(block, names, plan.kernel.runtime).write(load)
        block.add(f"line[{at} + q] = {value};")
        block.close()
        if last < phase_pitch:
            block.add(f"for (int64_t q = {last}; q < {phase_pitch}; ++q) line[{at} + q] = {fill};")
    block.close()


def _variable(name: str) -> Expr:
    """A C variable as an index; nothing is known about its bounds."""
    return Expr(((Axis(name, 1 << 62), 1),), 0)


def _stage_weights(block: Block, plan: Depthwise, names: dict[Tensor, str]) -> None:
    """Copy the weights of all taps into `taps`."""
    block.add(f"float taps[{plan.y.taps * plan.x.taps}];")
    block.loop(plan.y.tap)
    block.loop(plan.x.tap)
    value = Scope(block, names, plan.kernel.runtime).write(plan.weights)
    block.add(f"taps[{plan.y.tap.name} * {plan.x.taps} + {plan.x.tap.name}] = {value};")
    block.close(2)


def _tile(block: Block, plan: Depthwise) -> None:
    """Products of all taps for one tile, written out; each vector is loaded once for all rows."""
    y, x, lanes = plan.y, plan.x, plan.lanes
    vectors = range(plan.tile_vectors)
    kind = f"f32x{lanes}"
    block.add(f"const float *corner = plane + (top - start) * {y.stride * _pitch(plan)} + left;")
    for r in range(plan.tile_rows):
        block.add(" ".join(f"{kind} c{r}_{t} = {{0}};" for t in vectors))
    for py in range(y.span(plan.tile_rows)):
        users = [(r, (py - r * y.stride) // y.dilation) for r in range(plan.tile_rows)
                 if (py - r * y.stride) % y.dilation == 0
                 and 0 <= py - r * y.stride <= (y.taps - 1) * y.dilation]
        for kx in range(x.taps if users else 0):
            column, phase = divmod(kx * x.dilation, x.stride)
            place = py * _pitch(plan) + phase * _phase_pitch(plan) + column
            block.open("")
            for t in vectors:
                block.add(f"const {kind} v{t} = load_{kind}(corner + {place + t * lanes});")
            for r, ky in users:
                block.add(" ".join(f"c{r}_{t} += taps[{ky * x.taps + kx}] * v{t};"
                                   for t in vectors))
            block.close()
    for r in range(plan.tile_rows):
        row = f"total + (top - start + {r}) * {_total_pitch(plan)} + left"
        for t in vectors:
            block.add(f"store_{kind}({row} + {t * lanes}, c{r}_{t});")
