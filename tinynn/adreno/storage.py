"""What the tensors of a program are in memory: images or arrays, and the arguments of a kernel."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinynn.adreno.layout import PITCH, TEXEL, Image, plan_images
from tinynn.adreno.values import Lane, TexelWriter, Textures, coordinates
from tinynn.cost import product
from tinynn.index import of, round_up
from tinynn.ir import DType
from tinynn.kernel import Kernel, Load, Tensor
from tinynn.opencl.halves import steering
from tinynn.opencl.launch import NAME, store
from tinynn.opencl.values import STORAGE, Block
from tinynn.pack import is_constant

Array = np.ndarray[Any, Any]
View = tuple[int, int, int, str]


class Storage:
    """Images and arrays of a program; a weight is converted once for every form it is read in.

    images: which scratch tensors are images. arrays: tensors that are never read as one.
    views: image format of a stored tensor, as program.Buffer has it.
    """

    def __init__(self, kernels: Sequence[Kernel], precision: str) -> None:
        self.precision = precision
        self.channel_type = DType.F16 if precision == "f16" else DType.F32
        self.arrays = steering(kernels)
        self.images = plan_images(kernels, self.arrays)
        self.views: dict[Tensor, View] = {}
        self._stored: dict[tuple[Tensor, Image], Tensor] = {}

    def stored(self, tensor: Tensor, image: Image | None) -> Tensor:
        """The tensor as it lies in memory."""
        if image is None:
            return tensor
        if (tensor, image) not in self._stored:
            made = image.tensor(tensor, self.channel_type)
            self._stored[tensor, image] = made
            self._view(made, image.width)
        return self._stored[tensor, image]

    def packed(self, name: str, texels: Array) -> Tensor:
        """A weight image of the given (height, width, 4) numbers."""
        height, width, _ = texels.shape
        pitch = width if height == 1 else round_up(width, PITCH)
        data = np.zeros((height, pitch, TEXEL), self.channel_type.numpy)
        data[:, :width] = texels
        tensor = Tensor("weight", name, self.channel_type, data.shape, data)
        self._view(tensor, width)
        return tensor

    def _view(self, tensor: Tensor, width: int) -> None:
        height, pitch, _ = tensor.shape
        kind = "half" if self.channel_type is DType.F16 else "float"
        self.views[tensor] = width, height, pitch, kind


class Arguments:
    """The tensors of one kernel, the written one first: what they are called and how they lie.

    lane: of the vectors that the kernel computes. packed: weight images that stand for loads.
    """

    def __init__(self, storage: Storage, kernel: Kernel, lane: Lane | None,
                 packed: Sequence[Tensor] = (), instead_of: Iterable[Load] = ()) -> None:
        self.kernel = kernel
        self.lane = lane
        left_out = set(instead_of)
        loads = [v for v in kernel.loads() if v not in left_out]
        self.images: dict[Tensor, Image] = {}
        for tensor in [kernel.tensor, *(v.tensor for v in loads)]:
            if tensor in storage.images:
                self.images[tensor] = storage.images[tensor]
        for load in loads:
            if load.tensor in self.images or load.tensor in storage.arrays:
                continue
            image = _weight_image(load, lane)
            if image is not None:
                self.images[load.tensor] = image
        logical = dict.fromkeys([kernel.tensor, *(v.tensor for v in loads)])
        stored = [storage.stored(t, self.images.get(t)) for t in logical]
        self.tensors = (*stored, *packed)
        every = [*logical, *packed]
        self.names = {t: f"a{i}" if i else "out" for i, t in enumerate(every)}
        self._views: Mapping[Tensor, View] = storage.views

    def head(self, local_size: Sequence[int]) -> str:
        """The line that opens the kernel."""
        parameters = []
        for number, tensor in enumerate(self.tensors):
            name = f"a{number}" if number else "out"
            if tensor in self._views:
                access = "__read_only" if number else "__write_only"
                parameters.append(f"{access} image2d_t {name}")
            else:
                const = "const " if number else ""
                parameters.append(f"__global {const}{STORAGE[tensor.dtype]} *restrict {name}")
        size = ", ".join(map(str, local_size))
        return (f"__kernel __attribute__((reqd_work_group_size({size})))\n"
                f"void {NAME}({', '.join(parameters)})")

    def access(self, lane: Lane | None) -> Textures:
        return Textures(self.names, self.images, lane)

    def store(self, block: Block, writer: TexelWriter) -> None:
        """Write the value of the kernel: a texel of an image, or elements of an array."""
        kernel = self.kernel
        image = self.images.get(kernel.tensor)
        if image is None:
            store(block, writer, kernel)
            return
        assert self.lane is not None
        value = writer.vector(kernel.value)
        writer.prepare(kernel.index)
        index = tuple(self.lane.split(e) for e in kernel.index)
        block.add(f"WRITE(out, {coordinates(image, index)}, {value});")


def image_times_constant(kernel: Kernel, storage: Storage) -> tuple[Load, Load] | None:
    """What a sum of products multiplies, if that is an image and constant weights."""
    factors = product(kernel)
    if factors is None:
        return None
    for data, weights in (factors, factors[::-1]):
        if (isinstance(data, Load) and isinstance(weights, Load) and is_constant(weights)
                and data.tensor in storage.images):
            return data, weights
    return None


def _weight_image(load: Load, lane: Lane | None) -> Image | None:
    """The image in which a weight is read by texel along the lane, if it can be."""
    if load.tensor.kind != "weight" or lane is None or load.dtype is not DType.F32:
        return None
    for dim, expr in enumerate(load.index):
        if expr == of(lane.axis):
            image = Image(load.tensor.shape, dim)
            return image if image.fits else None
    return None
