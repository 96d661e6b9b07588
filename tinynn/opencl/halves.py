"""Half precision over plain buffers: which tensors are stored as f16."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinynn.ir import DType
from tinynn.kernel import Kernel, Load, Tensor, map_loads, values_of

FEW = 15  # elements of a tensor that is not worth storing in half


def store_halves(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels with f32 weights and scratch tensors stored in half; they compute in float.

    Inputs, outputs, state and what positions are computed from stay as they are.
    """
    exact = steering(kernels)
    halves: dict[Tensor, Tensor] = {}

    def stored(tensor: Tensor) -> Tensor:
        if (tensor.kind not in ("arena", "weight") or tensor.dtype is not DType.F32
                or tensor.size <= FEW or tensor in exact):
            return tensor
        if tensor not in halves:
            data = tensor.data
            if data is not None:
                data = data.astype(np.float16).astype(np.float32)
            halves[tensor] = replace(tensor, data=data, stored=DType.F16)
        return halves[tensor]

    changed = []
    for kernel in kernels:
        loads = {id(v): replace(v, tensor=stored(v.tensor)) for v in kernel.loads()}
        changed.append(replace(map_loads(kernel, loads), tensor=stored(kernel.tensor)))
    return changed


def steering(kernels: Sequence[Kernel]) -> set[Tensor]:
    """Tensors from which positions follow that are computed at run time, such as those of a warp.

    They stay in their own type: half has no room for the coordinates of camera pixels.
    """
    found = {v.tensor for kernel in kernels for v in values_of(list(kernel.runtime.values()))
             if isinstance(v, Load)}
    for kernel in reversed(kernels):  # readers before writers
        if kernel.tensor in found and kernel.reduction is None:
            found |= {load.tensor for load in kernel.loads()}
    return found
