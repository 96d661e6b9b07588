"""Family `depthwise`: sums over windows that keep channels apart.

A work-item computes PIXELS neighbours of one texel of channels. Row by row of the window it fetches
the texels that all of them need, once, and one texel of weights per tap. Where a channel of the
input serves two or four of the output, the work-item computes all of those.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn.adreno.contract import column_axis, weights_below
from tinynn.adreno.cost import Counts
from tinynn.adreno.layout import TEXEL, Image
from tinynn.adreno.storage import Arguments, Storage, image_times_constant
from tinynn.adreno.values import Lane, TexelWriter, coordinates
from tinynn.cost import points
from tinynn.index import Axis, Within, ceil_div, of
from tinynn.kernel import Compute, Kernel, Load, value_axes
from tinynn.opencl.launch import Launch, declare_point, finish, grid, group_shape, open_grid, widen
from tinynn.opencl.values import Block
from tinynn.pack import evaluate

Array = np.ndarray[Any, Any]

MOST_TAPS = 128  # products that are added up in half
MOST_PIXELS = 8
ENOUGH_ITEMS = 2048
HEAVY = 8  # operations after the sum that are too long to be written out MOST_PIXELS times


@dataclass(frozen=True)
class Window:
    """Windows over an image.

    column: the axis of the channels that are written, `repeat` of them for one that is read.
    pixel: the axis of neighbouring pixels. across: the tap along them. taps: all other taps.
    rows: all other parallel axes.
    """

    kernel: Kernel
    image: Image
    data: Load
    weights: Load
    column: Axis
    repeat: int
    pixel: Axis
    across: Axis
    rows: tuple[Axis, ...]
    taps: tuple[Axis, ...]

    @property
    def texels(self) -> int:
        """Texels of channels that are read."""
        return ceil_div(self.column.size, TEXEL * self.repeat)


def find_window(kernel: Kernel, storage: Storage) -> Window | None:
    """The parts of a sum over windows of single channels; None for any other kernel."""
    factors = image_times_constant(kernel, storage)
    return _matched(kernel, storage, *factors) if factors is not None else None


def _matched(kernel: Kernel, storage: Storage, data: Load, weights: Load) -> Window | None:
    reduction = kernel.reduction
    assert reduction is not None
    image = storage.images[data.tensor]
    column = column_axis(kernel, storage)
    if column is None or points(reduction.axes) > MOST_TAPS:
        return None
    repeat = next((n for n in (1, 2, 4) if data.index[image.channel] == of(column) // n), None)
    along = image.pixel(data.index)
    pixel = next((a for a in kernel.axes if a in along.axes), None)
    across = next((a for a in reduction.axes if a in along.axes), None)
    if repeat is None or pixel is None or across is None or (
            repeat > 1 and column.size % (TEXEL * repeat)):
        return None
    others = [e for d, e in enumerate(data.index) if d != image.channel]
    weight_uses = value_axes(weights, kernel.runtime)
    rows = tuple(a for a in kernel.axes if a not in (column, pixel))
    fits = (pixel != column and column in weight_uses and not {pixel, *rows} & weight_uses
            and all(e.is_affine and column not in e.axes for e in others)
            and min(along.coefficient(pixel), along.coefficient(across)) > 0
            and (not data.when or (data.fill == 0
                                   and image.outside_is_zero(data.index, data.when))))
    taps = tuple(a for a in reduction.axes if a != across)
    return Window(kernel, image, data, weights, column, repeat, pixel, across, rows,
                  taps) if fits else None


def _pixels(window: Window) -> int:
    """Neighbours a work-item computes."""
    operations = [v for v in window.kernel.values(below_reduction=False) if isinstance(v, Compute)]
    most = MOST_PIXELS // window.repeat
    most = most if len(operations) <= HEAVY else most // 2
    while most > 1 and (window.texels * points(window.rows)
                        * ceil_div(window.pixel.size, most) < ENOUGH_ITEMS):
        most //= 2
    return min(range(1, most + 1),
               key=lambda p: (ceil_div(window.pixel.size, p) * (p + 1), -p))


def _pack(window: Window) -> Array:
    """Weights as (tap, texel of channels written, 4)."""
    assert window.weights.tensor.data is not None
    axes = (*window.taps, window.across, window.column)
    values = window.weights.tensor.data.reshape(-1)[evaluate(window.weights.offset, axes)]
    values = values.reshape(-1, window.column.size)
    missing = window.texels * window.repeat * TEXEL - window.column.size
    return np.pad(values, ((0, 0), (0, missing))).reshape(len(values), -1, TEXEL)


def render_window(window: Window, storage: Storage) -> tuple[Launch, Counts]:
    """The kernel of a sum over windows."""
    pixels, repeat = _pixels(window), window.repeat
    kernel, column, tail = widen(window.kernel, window.column, TEXEL)
    lane = Lane(column)
    packed = storage.packed(f"{window.weights.tensor.name}, by tap", _pack(window))
    arguments = Arguments(storage, kernel, lane, [packed], [weights_below(kernel)])
    image, weights = arguments.names[window.data.tensor], arguments.names[packed]
    tile = Axis("tile", ceil_div(window.pixel.size, pixels))
    items = (*window.rows, tile, Axis("texel_in", window.texels))
    local = group_shape(grid(items))
    block = Block()
    block.depth = 0
    block.open(arguments.head(local))
    total = open_grid(block, items, grid(items), local)
    block.add(f"const int first = tile * {pixels};")
    names = [f"sum{t}_{p}" for t in range(repeat) for p in range(pixels)]
    block.add("texel " + ", ".join(f"{name} = 0" for name in names) + ";")
    depth = block.depth
    rows = points(window.taps)
    if rows > 1:
        block.open(f"for (uint row = 0; row < {rows} * ONCE; ++row)")
        declare_point(block, window.taps, "(int)row")
    _row(block, window, pixels, image, weights, "row" if rows > 1 else "0")
    block.close(block.depth - depth)
    for t in range(repeat):
        block.open("")
        lane.declare(block, f"texel_in * {repeat} + {t}" if repeat > 1 else "texel_in")
        _finish(block, window, kernel, arguments, lane, tail,
                [f"sum{t}_{p}" for p in range(pixels)])
        block.close()
    launch = finish(kernel, block, arguments.tensors, "depthwise", (total, local),
                    f" {pixels}x{TEXEL * repeat}" + (f", loops {rows}" if rows > 1 else ""))
    return launch, _counts(window, pixels)


def _counts(window: Window, pixels: int) -> Counts:
    """Estimates per work-item; the constants are read off compiled kernels."""
    rows, across = points(window.taps), window.across.size
    fetched = len(_positions(window, pixels)) + across * window.repeat
    outputs = pixels * window.repeat
    operations = sum(isinstance(v, Compute) for v in window.kernel.values(below_reduction=False))
    after = outputs * (TEXEL * operations + 20)
    slots = rows * (TEXEL * outputs * across + 5 * fetched + 20) + after
    return Counts(slots, rows * fetched + outputs, waits=2 * rows + 1, registers=19)


def _positions(window: Window, pixels: int) -> list[int]:
    """Pixels of a row that a work-item needs, from its first one on."""
    along = window.image.pixel(window.data.index)
    stride, dilation = along.coefficient(window.pixel), along.coefficient(window.across)
    return sorted({p * stride + k * dilation
                   for p in range(pixels) for k in range(window.across.size)})


def _row(block: Block, window: Window, pixels: int, image: str, weights: str, row: str) -> None:
    """Add the products of one row of the window."""
    along = window.image.pixel(window.data.index)
    stride, dilation = along.coefficient(window.pixel), along.coefficient(window.across)
    first, texel_in = Axis("first", 1 << 20), Axis("texel_in", window.texels)
    ragged = window.pixel.size % pixels  # pixels beyond the last one are not written
    read = "READ_PADDED" if window.data.when or ragged else "READ"
    dim = window.image.others[-1]
    for place in _positions(window, pixels):
        index = [e.substitute({window.pixel: of(first), window.across: of(_ZERO)})
                 for e in window.data.index]
        index[dim] = index[dim] + place
        index[window.image.channel] = of(texel_in) * TEXEL
        where = coordinates(window.image, index)
        block.add(f"const texel x{place} = {read}({image}, {where});")
    for k in range(window.across.size):
        tap = f"{row} * {window.across.size} + {k}"
        for t in range(window.repeat):
            column = f"texel_in * {window.repeat} + {t}" if window.repeat > 1 else "texel_in"
            block.add(f"const texel w{k}_{t} = READ({weights}, {column}, {tap});")
            parts = "".join("xyzw"[(TEXEL * t + c) // window.repeat] for c in range(TEXEL))
            part = "" if parts == "xyzw" else f".{parts}"
            for p in range(pixels):
                name = f"sum{t}_{p}"
                block.add(f"{name} = mad(x{p * stride + k * dilation}{part}, w{k}_{t}, {name});")


_ZERO = Axis("zero", 1)


def _finish(block: Block, window: Window, kernel: Kernel, arguments: Arguments, lane: Lane,
            tail: Within | None, sums: list[str]) -> None:
    """Write what follows the sum, pixel by pixel."""
    for p, name in enumerate(sums):
        guard = f"if (first + {p} < {window.pixel.size})" if window.pixel.size % len(sums) else ""
        block.open(guard)
        block.add(f"const int {window.pixel.name} = first + {p};")
        block.add(f"const float4 total = TO_FLOAT({name});")
        known = {id(kernel.reduction): "total"}
        writer = TexelWriter(block, arguments.access(lane), kernel.runtime, known, tail=tail)
        arguments.store(block, writer)
        block.close()
