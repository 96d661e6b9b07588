"""Family `contract`: sums of products of an image with constant weights, in tiles.

Convolution and matrix product, recognised by which loop axes the factors depend on: one factor is
an image read along its channels by a reduced axis, the other one is constant and depends on the
channel that is written. A work-item computes a tile of PIXELS neighbours x TEXELS texels of
channels. Per step of four input channels it fetches PIXELS texels of the image, and TEXELS x 4 of
weights from local memory, where its work-group has put them: that is what lifts a tile above the
rate of the texture units.

The sum is shared among SPLITS work-items of the group, each of which adds up a bounded number of
products in the type of the image; their parts are added in float, in local memory. So the error of
half arithmetic is bounded by the length of a part, and layers with few pixels occupy the GPU.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn.adreno.cost import Counts
from tinynn.adreno.layout import MOST_TEXELS, TEXEL, Image, lane_axis
from tinynn.adreno.storage import Arguments, Storage, image_times_constant
from tinynn.adreno.values import Lane, TexelWriter, coordinates
from tinynn.cost import points
from tinynn.halves import LONGEST_PART, MOST_PARTS
from tinynn.index import Axis, Within, ceil_div, of, round_up
from tinynn.kernel import Compute, Kernel, Load, value_axes, values_of
from tinynn.opencl.launch import Launch, declare_point, finish, widen
from tinynn.opencl.values import Block
from tinynn.pack import evaluate, is_constant
from tinynn.render.lines import index_text

GROUP = 64  # work-items of a group: one wave
ENOUGH_WAVES = 32  # that keep the GPU busy
SUMMED_AT_ONCE = 8  # parts whose sum is written out
MOST_PADDED = 1.1  # steps with the zeros that make splits equal, over steps

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sum:
    """A sum of products over an image.

    data: the load of the image; weights: the constant factor. column: the axis of the channels that
    are written, pixel: that of neighbouring pixels or None. batch: axes of both factors, each point
    of which is a sum of its own. rows: all other parallel axes.
    depth: the reduced axis along the channels of the image; taps: all other reduced axes.
    half: whether images and arithmetic are in half.
    """

    kernel: Kernel
    image: Image
    data: Load
    weights: Load
    column: Axis
    pixel: Axis | None
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    depth: Axis
    taps: tuple[Axis, ...]
    half: bool

    @property
    def steps(self) -> int:
        """Texels of the image along the channels that are summed."""
        return ceil_div(self.depth.size, TEXEL)

    @property
    def columns(self) -> int:
        """Texels of the channels that are written."""
        return ceil_div(self.column.size, TEXEL)

    def weight_matrix(self, steps: int) -> Array:
        """Weights as (batch, texels written, 4 channels written, taps, steps, 4 channels read),
        padded by zeros. steps: at least those there are."""
        assert self.weights.tensor.data is not None
        axes = (*self.batch, self.column, *self.taps, self.depth)
        values = self.weights.tensor.data.reshape(-1)[evaluate(self.weights.offset, axes)]
        batch, taps = points(self.batch), points(self.taps)
        values = values.reshape(batch, self.column.size, taps, self.depth.size)
        padded = np.zeros((batch, self.columns * TEXEL, taps, steps * TEXEL), np.float32)
        padded[:, :self.column.size, :, :self.depth.size] = values
        return padded.reshape(batch, self.columns, TEXEL, taps, steps, TEXEL)


def find_sum(kernel: Kernel, storage: Storage) -> Sum | None:
    """The parts of a sum of products over an image with constant weights; None for any other."""
    factors = image_times_constant(kernel, storage)
    total = _matched(kernel, storage, *factors) if factors is not None else None
    return total if total is not None and _fits(total, choose_tile(total)) else None


def _fits(total: Sum, tile: Tile) -> bool:
    """Whether the packed weights fit an image."""
    width = tile.taps * tile.steps * tile.texels * TEXEL
    height = points(total.batch) * block_count(total, tile) * tile.splits
    return max(width, height) <= MOST_TEXELS


def _matched(kernel: Kernel, storage: Storage, data: Load, weights: Load) -> Sum | None:
    reduction = kernel.reduction
    assert reduction is not None
    image = storage.images[data.tensor]
    depth = next((a for a in reduction.axes
                  if data.index[image.channel] == of(a) + data.index[image.channel].const), None)
    column = column_axis(kernel, storage)
    if depth is None or column is None or data.index[image.channel].const % TEXEL:
        return None
    uses = value_axes(data, kernel.runtime)
    weight_uses = value_axes(weights, kernel.runtime)
    batch = tuple(a for a in kernel.axes if a != column and a in weight_uses)
    rows = tuple(a for a in kernel.axes if a != column and a not in batch)
    others = [e for d, e in enumerate(data.index) if d != image.channel]
    fits = (column not in uses and column in weight_uses
            and all(e.is_affine and depth not in e.axes for e in others)
            and (not data.when or (data.fill == 0
                                   and image.outside_is_zero(data.index, data.when))))
    if not fits:
        return None
    pixel = max(rows, key=lambda a: (a in image.pixel(data.index).axes, a.size), default=None)
    taps = tuple(a for a in reduction.axes if a != depth)
    return Sum(kernel, image, data, weights, column, pixel, batch,
               tuple(a for a in rows if a != pixel), depth, taps, storage.precision == "f16")


def column_axis(kernel: Kernel, storage: Storage) -> Axis | None:
    """The axis along which results are written by four: the channels of an image, or neighbours."""
    output = storage.images.get(kernel.tensor)
    if output is not None:
        return lane_axis(kernel, output.channel)
    if kernel.axes and kernel.offset.coefficient(kernel.axes[-1]) == 1:
        return kernel.axes[-1]
    return None


@dataclass(frozen=True)
class Tile:
    """pixels x texels of channels a work-item; a group is tiles x columns x splits of them.

    splits: depth_splits, which share the channels, x those that share the taps. taps, steps: taps
    that a split sums, and texels of channels of each. unroll: how many of these the body of the
    loop takes.
    """

    pixels: int
    texels: int
    tiles: int
    columns: int
    splits: int
    depth_splits: int
    taps: int
    steps: int
    unroll: int

    @property
    def items(self) -> int:
        return self.tiles * self.columns * self.splits


def choose_tile(total: Sum) -> Tile:
    """The tile that the texture units like best, and the splits that keep the GPU busy."""
    width = total.pixel.size if total.pixel is not None else 1
    most = min(8 if total.half else 4, width)  # float takes twice the registers
    pixels = min(range(1, most + 1), key=lambda p: (ceil_div(width, p) * (p + 1), -p))
    texels = 2 if total.columns % 2 == 0 else 1
    tiles = ceil_div(width, pixels) * points(total.rows)
    outputs = tiles * ceil_div(total.columns, texels) * points(total.batch)
    depth_splits = tap_splits = splits = 1
    taps = points(total.taps)
    while splits < MOST_PARTS and (total.depth.size * taps > LONGEST_PART * splits
                                   or outputs * splits < ENOUGH_WAVES * GROUP):
        if _divides(total, 2 * depth_splits):
            depth_splits *= 2
        elif taps % (2 * tap_splits) == 0:
            tap_splits *= 2
        else:
            break
        splits = depth_splits * tap_splits
    across = min(GROUP // splits, 1 << (tiles - 1).bit_length())
    columns = max(1, GROUP // splits // across)
    steps = ceil_div(total.steps, depth_splits)
    # Two steps of a window, whose fetches go through the sampler, overflow the instruction cache.
    unroll = 2 if steps % 2 == 0 and not total.taps else 1
    return Tile(pixels, texels, across, columns, splits, depth_splits, taps // tap_splits, steps,
                unroll)


def _divides(total: Sum, splits: int) -> bool:
    """Whether the steps can be shared with few that only add zeros, or with none of those where
    they could meet the texel between two pixels, which nobody wrote and may hold anything."""
    steps = total.steps
    most = MOST_PADDED if total.image.step == total.image.depth else 1
    return steps >= splits and round_up(steps, splits) <= most * steps


def tiles_across(total: Sum, tile: Tile) -> int:
    """Tiles in a row of pixels."""
    return ceil_div(total.pixel.size, tile.pixels) if total.pixel is not None else 1


def block_count(total: Sum, tile: Tile) -> int:
    """Blocks of `texels` texels of channels, filled up to whole groups."""
    return round_up(ceil_div(total.columns, tile.texels), tile.columns)


def tile_count(total: Sum, tile: Tile) -> int:
    return tiles_across(total, tile) * points(total.rows)


def render_contract(total: Sum, storage: Storage) -> tuple[Launch, Counts]:
    """The kernel of a sum of products."""
    tile = choose_tile(total)
    kernel, column, tail = widen(total.kernel, total.column, TEXEL)
    lane = Lane(column)
    packed = storage.packed(f"{total.weights.tensor.name}, tiles of {tile.texels} x {tile.splits}",
                            _pack(total, tile))
    arguments = Arguments(storage, kernel, lane, [packed], [weights_below(kernel)])
    block = Block()
    block.depth = 0
    local = (tile.tiles, tile.columns, tile.splits)
    block.open(arguments.head(local))
    _open(block, total, tile)
    _sum(block, total, tile, arguments.names[total.data.tensor], arguments.names[packed])
    _finish(block, kernel, total, tile, arguments, lane, tail)
    global_size = (round_up(tile_count(total, tile), tile.tiles),
                   points(total.batch) * block_count(total, tile), tile.splits)
    detail = (f" {tile.pixels}x{tile.texels * TEXEL}, {tile.splits} splits, "
              + _loops(total, tile))
    launch = finish(kernel, block, arguments.tensors, "contract", (global_size, local), detail)
    return launch, _counts(total, tile)


def _counts(total: Sum, tile: Tile) -> Counts:
    """Estimates per work-item; the constants are read off compiled kernels."""
    steps = tile.taps * tile.steps
    outputs = tile.pixels * tile.texels
    weights = tile.texels * TEXEL
    finished = outputs / tile.splits
    operations = sum(isinstance(v, Compute) for v in total.kernel.values(below_reduction=False))
    after = finished * (TEXEL * (operations + 2 * tile.splits) + 40)
    padded = 3 * tile.pixels if total.data.when else 0
    slots = steps * (TEXEL * TEXEL * outputs + 3 * tile.pixels + padded + weights + 20) + after
    texels = steps * (tile.pixels + weights / tile.tiles) + finished
    local = 8 * (steps * weights * (1 + 1 / tile.tiles) + 2 * outputs)
    registers = 24 if tile.unroll > 1 else 19
    memory = 8 * (tile.items * tile.pixels + tile.columns * tile.splits * tile.unroll * weights)
    return Counts(slots, texels, local, steps / tile.unroll * 2 + finished, registers, memory)


def _add_parts(block: Block, tile: Tile, stride: int) -> None:
    """Declare the sum over the splits; many of them in a loop, which is shorter."""
    if tile.splits <= SUMMED_AT_ONCE:
        terms = [f"TO_FLOAT(mine[{s * stride}])" for s in range(tile.splits)]
        block.add(f"const float4 total = {' + '.join(terms)};")
        return
    block.add("float4 total = 0;")
    block.open(f"for (uint s = 0; s < {tile.splits} * ONCE; s += {SUMMED_AT_ONCE})")
    terms = [f"TO_FLOAT(mine[(s + {s}) * {stride}])" for s in range(SUMMED_AT_ONCE)]
    block.add(f"total += {' + '.join(terms)};")
    block.close()


def _loops(total: Sum, tile: Tile) -> str:
    """How often each loop runs: the compiler is not told, see ONCE."""
    turns = ceil_div(tile.pixels, tile.splits)
    after = [turns] if turns > 1 else []
    if tile.splits > SUMMED_AT_ONCE:
        after.append(tile.splits // SUMMED_AT_ONCE)
    trips = [tile.taps * tile.steps // tile.unroll, *after * tile.texels]
    return "loops " + " ".join(map(str, trips))


def weights_below(kernel: Kernel) -> Load:
    """The constant factor of the sum."""
    assert kernel.reduction is not None
    return next(v for v in values_of([kernel.reduction.body])
                if isinstance(v, Load) and is_constant(v))


def _pack(total: Sum, tile: Tile) -> Array:
    """Weights as (batch, block of texels, split; tap, step, texel of the block, channel read; 4
    channels written)."""
    matrix = total.weight_matrix(tile.steps * tile.depth_splits)
    batch, columns, _, taps, _, _ = matrix.shape
    blocks = block_count(total, tile)
    padded = np.zeros((batch, blocks * tile.texels, *matrix.shape[2:]), np.float32)
    padded[:, :columns] = matrix
    shaped = padded.reshape(batch * blocks, tile.texels, TEXEL, taps // tile.taps, tile.taps,
                            tile.depth_splits, tile.steps, TEXEL)
    ordered = shaped.transpose(0, 3, 5, 4, 6, 1, 7, 2)
    return np.ascontiguousarray(ordered).reshape(batch * blocks * tile.splits, -1, TEXEL)


def _open(block: Block, total: Sum, tile: Tile) -> None:
    """Declare local memory, the place of the work-item, and the pixels of its tile."""
    staged = tile.columns * tile.splits * tile.unroll * tile.texels * TEXEL
    parts = tile.items * tile.pixels
    block.add(f"__local texel weights[{staged}];")
    block.add(f"__local texel parts[{parts}];")
    block.add("const uint tile = get_local_id(0), column = get_local_id(1), "
              "split = get_local_id(2);")
    block.add(f"const uint item = (split * {tile.columns} + column) * {tile.tiles} + tile;")
    across = tiles_across(total, tile)
    count = tile_count(total, tile)
    place = "(uint)get_global_id(0)"
    if count % tile.tiles:
        # Work-items beyond the last tile repeat it and write nothing.
        place = f"min({place}, {count - 1}u)"
    block.add(f"const uint place = {place};")
    if total.pixel is not None:
        block.add(f"const int first = place % {across} * {tile.pixels};")
    declare_point(block, total.rows, f"(int)(place / {across})")
    block.add("const uint line = get_global_id(1), group = get_group_id(1);")
    blocks = block_count(total, tile)
    block.add(f"const int block = line{f' % {blocks}' if total.batch else ''};")
    declare_point(block, total.batch, f"(int)(line / {blocks})")


def _sum(block: Block, total: Sum, tile: Tile, image: str, weights: str) -> None:
    """Add up the products of this work-item in the variables sum0, sum1, ..."""
    taps, steps = tile.taps, tile.steps
    step_texels = tile.texels * TEXEL
    block.add("texel " + ", ".join(f"sum{i} = 0" for i in range(tile.pixels * tile.texels)) + ";")
    block.open(f"for (uint step = 0; step < {taps * steps} * ONCE; step += {tile.unroll})")
    size = tile.unroll * step_texels  # of the weights of one column and split
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    staged = tile.columns * tile.splits * size
    item, group = of(Axis("item", tile.items)), of(Axis("group", 1 << 20))
    for start in range(0, staged, tile.items):
        at = item + start
        guard = f"if ({index_text(at)} < {staged}) " if start + tile.items > staged else ""
        row = ((group * tile.columns + at // size % tile.columns) * tile.splits
               + at // (size * tile.columns))
        block.add(f"{guard}weights[{index_text(at)}] = READ({weights}, "
                  f"step * {step_texels} + {index_text(at % size)}, {index_text(row)});")
    block.add("barrier(CLK_LOCAL_MEM_FENCE);")
    block.add(f"__local const texel *w = weights + (split * {tile.columns} + column) * {size};")
    if total.taps:
        first = f"split / {tile.depth_splits} * {taps} + " if taps < points(total.taps) else ""
        declare_point(block, total.taps, f"(int)({first}step / {steps})")
    depth4 = Axis(f"{total.depth.name}_4", steps * tile.depth_splits)
    inside = f"step % {steps}" if taps > 1 else "step"
    share = "split" if tile.depth_splits == tile.splits else f"split % {tile.depth_splits}"
    first = f"{share} * {steps} + " if tile.depth_splits > 1 else ""
    block.add(f"const int {depth4.name} = {first}{inside};")
    data = total.data
    # Steps beyond the last one read what follows, if anything, and multiply it by zero; pixels
    # beyond the last one are not written.
    ragged = total.pixel is not None and total.pixel.size % tile.pixels
    beyond = steps * tile.depth_splits > total.steps or ragged
    read = "READ_PADDED" if data.when or beyond else "READ"
    for unrolled in range(tile.unroll):
        for p in range(tile.pixels):
            moved = {total.depth: of(depth4) * TEXEL + TEXEL * unrolled}
            if total.pixel is not None:
                moved[total.pixel] = of(_FIRST) + p
            index = tuple(e.substitute(moved) for e in data.index)
            block.add(f"const texel x{unrolled}_{p} = "
                      f"{read}({image}, {coordinates(total.image, index)});")
        for t in range(tile.texels):
            for c, part in enumerate("xyzw"):
                place = (unrolled * tile.texels + t) * TEXEL + c
                name = f"w{unrolled}_{t}{c}"
                block.add(f"const texel {name} = w[{place}];")
                for p in range(tile.pixels):
                    total_name = f"sum{t * tile.pixels + p}"
                    block.add(f"{total_name} = mad((texel)(x{unrolled}_{p}.{part}), {name}, "
                              f"{total_name});")
    block.close()


_FIRST = Axis("first", 1 << 20)  # the first pixel of a tile


def _finish(block: Block, kernel: Kernel, total: Sum, tile: Tile, arguments: Arguments,
            lane: Lane, tail: Within | None) -> None:
    """Add the parts of all splits in float and write what follows the sum, texel by texel."""
    for texel in range(tile.texels):
        if texel:
            block.add("barrier(CLK_LOCAL_MEM_FENCE);")
        for p in range(tile.pixels):
            block.add(f"parts[item * {tile.pixels} + {p}] = sum{texel * tile.pixels + p};")
        block.add("barrier(CLK_LOCAL_MEM_FENCE);")
        _finish_texel(block, kernel, total, tile, arguments, lane, tail, texel)


def _finish_texel(block: Block, kernel: Kernel, total: Sum, tile: Tile, arguments: Arguments,
                  lane: Lane, tail: Within | None, texel: int) -> None:
    """The same for one texel of channels; the splits share its pixels."""
    turns = ceil_div(tile.pixels, tile.splits)
    block.open(f"for (uint turn = 0; turn < {turns} * ONCE; ++turn)" if turns > 1 else "")
    block.add(f"const uint part = turn * {tile.splits} + split;" if turns > 1
              else "const uint part = split;")
    lane.declare(block, f"block * {tile.texels} + {texel}")
    guards = []
    if tile.pixels % tile.splits:
        guards.append(f"part < {tile.pixels}")
    if total.columns % (tile.texels * tile.columns):
        guards.append(f"{lane.texel.name} < {total.columns}")
    if total.pixel is not None:
        block.add(f"const int {total.pixel.name} = first + part;")
        if total.pixel.size % tile.pixels:
            guards.append(f"{total.pixel.name} < {total.pixel.size}")
    if tile_count(total, tile) % tile.tiles:
        guards.append("place == get_global_id(0)")
    block.open(f"if ({' && '.join(guards)})" if guards else "")
    each = tile.pixels
    block.add(f"__local const texel *mine = parts + (column * {tile.tiles} + tile) * {each} "
              "+ part;")
    stride = tile.columns * tile.tiles * each
    _add_parts(block, tile, stride)
    assert kernel.reduction is not None
    known = {id(kernel.reduction): "total"}
    writer = TexelWriter(block, arguments.access(lane), kernel.runtime, known, tail=tail)
    arguments.store(block, writer)
    block.close(2)
