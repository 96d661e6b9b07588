"""Convolutions in C: tiles of a sum of products over planes in local memory.

    for every point of the outer axes and every chunk of output rows
        copy the input rows they read to local planes, border included
        for every block of R output channels
            for every row of tiles
                for every tile: accumulate R x T vectors over channels and taps    <- the time
                finish the row of tiles: epilogue and store
"""
from __future__ import annotations

from tinynn.conv import Conv
from tinynn.index import Axis, ceil_div, constant, of, ravel
from tinynn.render.c_contract import (
    argument_tensors,
    declare_rows,
    finish_block,
    open_blocks,
    widen_rows,
)
from tinynn.render.c_function import Function, finish, open_function, open_items
from tinynn.render.c_planes import channel_start, element, stage
from tinynn.render.c_values import Block, index_text


def render_conv(plan: Conv) -> Function:
    """The C function of a convolution."""
    kernel, (y, x) = plan.kernel, plan.columns
    block = Block()
    tensors = argument_tensors(plan)
    names = open_function(block, kernel, tensors, fuse=True)
    block.add(f"_Alignas(64) {element(plan.group)} planes[{plan.planes.size}];")
    widen_rows(block, plan, names)
    groups = [Axis("group", plan.groups)] if plan.groups > 1 else []
    open_items(block, [*plan.outer, Axis("chunk", ceil_div(y.size, plan.chunk)), *groups])
    block.add(f"const int64_t top = chunk * {plan.chunk};")
    block.add(f"const int64_t bottom = smaller(top + {plan.chunk}, {y.size});")
    if groups:  # they follow one another: only the first one here copies the planes
        block.open("if (item == begin || group == 0)")
    stage(block, plan.planes, names, plan.lanes)
    if groups:
        block.close()
    open_blocks(block, plan)
    declare_rows(block, plan, names)
    block.add(f"_Alignas(64) float total[{plan.tile_rows} * {plan.panel_columns}];")
    block.open(f"for (int64_t start0 = top; start0 < bottom; start0 += {plan.tile_y})")
    block.add(f"const int64_t end0 = smaller(start0 + {plan.tile_y}, bottom);")
    block.add(f"const int64_t start1 = 0, end1 = {x.size};")
    _tiles(block, plan)
    finish_block(block, plan, names)
    return finish(block, kernel, tensors, plan.family)


def _tiles(block: Block, plan: Conv) -> None:
    """Accumulate every tile of a row of tiles into total[channel][row][column]."""
    tile, lanes, y, planes = plan.tile_rows, plan.lanes, plan.window.y, plan.planes
    kind, vectors = f"f32x{lanes}", range(plan.tile_vectors)
    down = y.stride * planes.pitch
    block.open(f"for (int64_t tile = 0; tile < {plan.row_pitch}; tile += {plan.tile_x * lanes})")
    block.add(f"const {element(plan.group)} *corner = planes + (start0 - top) * {down} + tile;")
    for r in range(tile):
        block.add(" ".join(f"{kind} c{r}_{t} = {{0}};" for t in vectors))
    depth = block.depth
    _taps(block, plan, [t // plan.tile_x * down + t % plan.tile_x * lanes for t in vectors])
    block.close(block.depth - depth)
    for r in range(tile):
        for t in vectors:
            place = r * plan.panel_columns + t // plan.tile_x * plan.row_pitch
            place += t % plan.tile_x * lanes
            block.add(f"store_{kind}(total + {place} + tile, c{r}_{t});")
    block.close()


def _taps(block: Block, plan: Conv, places: list[int]) -> None:
    """Products of all channels and taps; the taps of a row are written out. places: of vectors."""
    tile, (y, x), planes = plan.tile_rows, (plan.window.y, plan.window.x), plan.planes
    kind, vectors = f"{'f' if plan.group == 1 else 'u'}32x{plan.lanes}", range(plan.tile_vectors)
    for axis in plan.step_axes:
        if axis != x.tap:
            block.loop(axis)
    channels = channel_start(planes)
    block.add(f"const {element(plan.group)} *line = corner + {channels} + "
              f"{y.tap.name} * {y.dilation * planes.pitch};")
    step = ravel([of(a) for a in plan.step_axes], [a.size for a in plan.step_axes])
    first = index_text(step.substitute({x.tap: constant(0)}))
    block.add(f"const {element(plan.group)} *row = rows + ({first}) * {tile};")
    for tap in range(x.taps):
        block.open("")
        for t in vectors:
            block.add(f"const {kind} b{t} = load_{kind}(line + {planes.tap(tap) + places[t]});")
        for r in range(tile):
            factor = f"row[{tap * step.coefficient(x.tap) * tile + r}]"
            if plan.group > 1:
                block.add(f"const {kind} s{r} = {factor} + ({kind}){{0}};")
                block.add(" ".join(f"c{r}_{t} = dot_bf16(c{r}_{t}, b{t}, s{r});" for t in vectors))
                continue
            block.add(f"const float s{r} = {factor};")
            block.add(" ".join(f"c{r}_{t} += s{r} * b{t};" for t in vectors))
        block.close()
