"""Tensors as RGBA images: four neighbours along one dimension, the channel, make a texel.

A pixel's channels lie side by side in a row of the image, then those of the next pixel. So whatever
is read left or right of a row of pixels, or above or below the first and last row, is outside the
image: the sampler returns the zeros that padding asks for. Pixels that would lie a power of two of
texels apart get one more between them, which nobody reads.
"""
from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn.cost import product
from tinynn.index import Axis, Expr, Index, Within, ceil_div, constant, of, round_up
from tinynn.ir import DType, Shape
from tinynn.kernel import Kernel, Load, Tensor, value_axes
from tinynn.opencl.values import can_be_wide
from tinynn.pack import is_constant

TEXEL = 4  # channels
MOST_TEXELS = 16384  # of a row, and rows of an image
PITCH = 64  # texels: rows of an image in a buffer begin at multiples of this
FEW = 15  # elements of a tensor that is not worth an image
FAR = 16  # texels of a pixel from which on neighbours are in different lines of a cache

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Image:
    """A tensor of `shape` as an image of (rows of pixels, pixels x texels, 4 channels).

    channel: the dimension whose neighbours share a texel. The last other one is the pixel of a row,
    those before it are the row.
    """

    shape: Shape
    channel: int

    @property
    def depth(self) -> int:
        """Texels of a pixel."""
        return ceil_div(self.shape[self.channel], TEXEL)

    @property
    def others(self) -> list[int]:
        """All dimensions but the channel."""
        return [d for d in range(len(self.shape)) if d != self.channel]

    @property
    def pixels(self) -> int:
        """Pixels of a row."""
        return self.shape[self.others[-1]] if self.others else 1

    @property
    def step(self) -> int:
        """Texels from a pixel to the next. Odd instead of a large power of two: a wave reads the
        same channel of many pixels, and a cache keeps what is such a power apart in few places."""
        far = self.pixels > 1 and self.depth >= FAR and self.depth.bit_count() == 1
        return self.depth + 1 if far else self.depth

    @property
    def width(self) -> int:
        return self.pixels * self.step

    @property
    def height(self) -> int:
        return math.prod(self.shape[d] for d in self.others[:-1])

    @property
    def pitch(self) -> int:
        """Texels from a row to the next."""
        return self.width if self.height == 1 else round_up(self.width, PITCH)

    @property
    def fits(self) -> bool:
        return max(self.pitch, self.height) <= MOST_TEXELS

    def row(self, index: Sequence[Expr]) -> Expr:
        """Row of the image in which an element lies."""
        flat = constant(0)
        for d in self.others[:-1]:
            flat = flat * self.shape[d] + index[d]
        return flat

    def pixel(self, index: Sequence[Expr]) -> Expr:
        """Pixel of the row in which an element lies."""
        return index[self.others[-1]] if self.others else constant(0)

    def texel(self, index: Sequence[Expr]) -> Expr:
        """Texel of the row in which an element lies."""
        return self.pixel(index) * self.step + index[self.channel] // TEXEL

    def tensor(self, tensor: Tensor, channel_type: DType) -> Tensor:
        """The tensor as its image lies in memory; a weight's values in that order, padded by 0."""
        shape = (self.height, self.pitch, TEXEL)
        data = None if tensor.data is None else self.arrange(tensor.data).astype(channel_type.numpy)
        return Tensor(tensor.kind, tensor.name, channel_type, shape, data)

    def arrange(self, values: Array) -> Array:
        """Values of the tensor as (height, pitch, 4)."""
        rows = np.moveaxis(values, self.channel, -1).reshape(self.height, self.pixels, -1)
        missing = self.step * TEXEL - rows.shape[-1]
        rows = np.pad(rows, ((0, 0), (0, 0), (0, missing))).reshape(self.height, -1, TEXEL)
        return np.pad(rows, ((0, 0), (0, self.pitch - self.width), (0, 0)))

    def outside_is_zero(self, index: Index, when: Iterable[Within]) -> bool:
        """Whether an element whose conditions do not hold lies outside the image, so that a
        sampler returns 0 for it."""
        for condition in when:
            dims = [d for d, expr in enumerate(index)
                    if expr == condition.expr and self.shape[d] == condition.size]
            rows = [d for d in self.others[:-1] if self.shape[d] > 1]
            if not dims or dims[0] == self.channel or (
                    dims[0] != self.others[-1] and rows != [dims[0]]):
                return False
        return True


def lane_axis(kernel: Kernel, channel: int) -> Axis | None:
    """The loop axis that runs along the channels of what a kernel writes, if whole texels are
    written: from a multiple of four on, to the end or to another multiple of four."""
    expr = kernel.index[channel]
    if len(expr.terms) != 1:
        return None
    axis, factor = expr.terms[0]
    if not isinstance(axis, Axis) or factor != 1 or expr.const % TEXEL:
        return None
    end = expr.const + axis.size
    whole = axis.size % TEXEL == 0 or end == kernel.tensor.shape[channel]
    alone = all(axis not in e.axes for d, e in enumerate(kernel.index) if d != channel)
    return axis if whole and alone else None


def plan_images(kernels: Sequence[Kernel], arrays: Container[Tensor] = ()) -> dict[Tensor, Image]:
    """Which scratch tensors become images, and along which dimension; `arrays` never do."""
    writers: dict[Tensor, list[Kernel]] = {}
    wanted: dict[Tensor, list[int]] = {}
    for kernel in kernels:
        writers.setdefault(kernel.tensor, []).append(kernel)
        for tensor, dim in _wanted_channels(kernel):
            wanted.setdefault(tensor, []).append(dim)
    images = {}
    for tensor, kernels_of in writers.items():
        if tensor.kind != "arena" or tensor.dtype is not DType.F32 or tensor.size <= FEW:
            continue
        if tensor in arrays or any(k.scatter for k in kernels_of):
            continue
        for channel in [*wanted.get(tensor, []), _usual_channel(tensor.shape)]:
            image = Image(tensor.shape, channel)
            if image.fits and all(_writes_texels(k, channel) for k in kernels_of):
                images[tensor] = image
                break
    return images


def _writes_texels(kernel: Kernel, channel: int) -> bool:
    axis = lane_axis(kernel, channel)
    return axis is not None and can_be_wide(kernel, axis)


def _wanted_channels(kernel: Kernel) -> list[tuple[Tensor, int]]:
    """The channels that suit a sum of products with constant weights: of what it reads, the
    dimension along which it sums; of what it writes, that of the weights' own axis."""
    factors = product(kernel)
    if factors is None:
        return []
    for data, weights in (factors, factors[::-1]):
        if isinstance(data, Load) and data.tensor.kind == "arena" and is_constant(weights):
            assert kernel.reduction is not None
            own = value_axes(weights, {}) - value_axes(data, kernel.runtime)
            summed = [(data.tensor, d) for d, expr in enumerate(data.index)
                      if any(expr + -expr.const == of(a) for a in kernel.reduction.axes)]
            written = [(d, max(a.size for a in expr.axes)) for d, expr in enumerate(kernel.index)
                       if expr.axes and expr.axes <= own]
            written.sort(key=lambda found: -found[1])
            return summed + [(kernel.tensor, d) for d, _ in written]
    return []


def _usual_channel(shape: Shape) -> int:
    """The first dimension of more than two that are longer than 1, else the last."""
    long = [d for d, size in enumerate(shape) if size > 1] or [len(shape) - 1]
    return long[0] if len(long) > 2 else long[-1]
