"""What happens to kernels before they get their families.

Inputs that large sums of products read are copied first, so that they become images.

Independent kernels that differ in their data only become one: the heads of a network, mostly. They
are sorted by level (the longest way from the inputs), so that those of one level do not
depend on one another. Small ones of the same form get a common outermost axis that counts them;
what they write, and the weights they read, is stacked along it.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinynn.cost import points, product, work
from tinynn.index import Axis, constant, of
from tinynn.ir import DType
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Tensor, map_loads

MOST_RESULTS = 4096  # of a kernel: larger ones occupy the GPU by themselves

WORTH = 1 << 20  # operations of a sum of products that are worth a copy of what it reads

Place = tuple[Tensor, int]
"""A stack of tensors, and the number of one of them in it."""


def copy_inputs(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels, with inputs that large sums of products read copied to scratch tensors."""
    copies: dict[Tensor, Tensor] = {}
    result: list[Kernel] = []
    for kernel in kernels:
        changed = {}
        for value in product(kernel) or ():
            if (isinstance(value, Load) and value.tensor.kind in ("input", "state")
                    and value.dtype is DType.F32 and work(kernel) >= WORTH):
                source = value.tensor
                if source not in copies:
                    copies[source] = Tensor("arena", f"copy of {source.name}", source.dtype,
                                            source.shape)
                    result.append(_copy(source, copies[source]))
                changed[id(value)] = replace(value, tensor=copies[source])
        result.append(map_loads(kernel, changed))
    return result


def _copy(source: Tensor, target: Tensor) -> Kernel:
    axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(source.shape))
    index = tuple(of(a) for a in axes)
    return Kernel(tuple(a for a in axes if a.size > 1), Load(source, index), target, index,
                  note=f"copy of {source.name}")


def merge_alike(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels sorted by level, with small ones of equal form put together."""
    writers: dict[Tensor, int] = {}
    for kernel in kernels:
        writers[kernel.tensor] = writers.get(kernel.tensor, 0) + 1
    levels: dict[int, list[Kernel]] = {}
    for kernel, level in zip(kernels, _levels(kernels), strict=True):
        levels.setdefault(level, []).append(kernel)
    places: dict[Tensor, Place] = {}
    merged: list[Kernel] = []
    for level in sorted(levels):
        groups: dict[object, list[Kernel]] = {}
        for kernel in levels[level]:
            alone = (kernel.tensor.kind != "arena" or writers[kernel.tensor] > 1 or kernel.scatter
                     or kernel.runtime or points(kernel.axes) > MOST_RESULTS)
            key = id(kernel) if alone else _form(kernel, places)
            groups.setdefault(key, []).append(kernel)
        for group in groups.values():
            for part in _parts(group, places):
                if len(part) > 1:
                    merged.append(_merged(part, places))
                else:
                    moved = {id(v): _moved(v, places) for v in part[0].loads()}
                    merged.append(map_loads(part[0], moved))
    return merged


def _levels(kernels: Sequence[Kernel]) -> list[int]:
    """For each kernel one more than the highest level it must come after."""
    written: dict[Tensor, int] = {}
    read: dict[Tensor, int] = {}
    levels = []
    for kernel in kernels:
        tensors = {v.tensor for v in kernel.loads()}
        before = [written.get(t, -1) for t in tensors]
        before += [written.get(kernel.tensor, -1), read.get(kernel.tensor, -1)]
        level = 1 + max(before)
        levels.append(level)
        written[kernel.tensor] = max(level, written.get(kernel.tensor, -1))
        for tensor in tensors:
            read[tensor] = max(level, read.get(tensor, -1))
    return levels


def _form(kernel: Kernel, places: dict[Tensor, Place]) -> tuple[object, ...]:
    """What kernels have in common that differ in their data only: weights of one shape, and
    tensors that are the same or lie in the same stack."""
    parts: list[object] = [kernel.axes, kernel.tensor.shape, kernel.tensor.dtype, kernel.index,
                           kernel.when]
    numbers: dict[int, int] = {}
    for value in kernel.values():
        if isinstance(value, Load):
            tensor = value.tensor
            data: object = places[tensor][0] if tensor in places else tensor
            if tensor.kind == "weight":
                data = tensor.shape
            parts.append((data, tensor.dtype, value.index, value.when, value.fill))
        elif isinstance(value, Literal):
            parts.append((value.value, value.dtype))
        elif isinstance(value, Compute):
            parts.append((value.op, value.dtype, *(numbers[id(s)] for s in value.src)))
        elif isinstance(value, Guard):
            parts.append((value.when, value.fill, numbers[id(value.value)]))
        else:
            parts.append((value.kind, value.axes, numbers[id(value.body)]))
        numbers[id(value)] = len(numbers)
    return tuple(parts)


def _parts(group: list[Kernel], places: dict[Tensor, Place]) -> list[list[Kernel]]:
    """The kernels of one form, apart where what they read from stacks is neither the same nor lies
    there in their order."""
    numbers = [[places[v.tensor][1] for v in k.loads() if v.tensor in places] for k in group]
    steps = [[n - own for n in row] for own, row in enumerate(numbers)]
    if all(step == steps[0] for step in steps):
        return [group]
    parts: dict[tuple[int, ...], list[Kernel]] = {}
    for kernel, row in zip(group, numbers, strict=True):
        parts.setdefault(tuple(row), []).append(kernel)
    return list(parts.values())


def _merged(group: list[Kernel], places: dict[Tensor, Place]) -> Kernel:
    """One kernel for all of a group; their results are stacked."""
    count = Axis("b", len(group))
    changed: dict[int, Load] = {}
    for loads in zip(*(k.loads() for k in group), strict=True):
        load = loads[0]
        if load.tensor in places:
            stack, first = places[load.tensor]
            same = places[loads[1].tensor][1] == first
            place = constant(first) if same else of(count) + first
            changed[id(load)] = replace(load, tensor=stack, index=(place, *load.index))
        elif len({v.tensor for v in loads}) > 1:
            stack = _stacked_weights([v.tensor for v in loads])
            changed[id(load)] = replace(load, tensor=stack, index=(of(count), *load.index))
    kernel = map_loads(group[0], changed)
    tensor = group[0].tensor
    result = Tensor("arena", f"{len(group)} x {tensor.name}", tensor.dtype,
                    (len(group), *tensor.shape))
    for number, member in enumerate(group):
        places[member.tensor] = result, number
    return replace(kernel, axes=(count, *kernel.axes), tensor=result,
                   index=(of(count), *kernel.index), note=f"{len(group)} x {kernel.note}")


def _stacked_weights(tensors: list[Tensor]) -> Tensor:
    data = np.stack([t.data for t in tensors if t.data is not None])
    return Tensor("weight", f"{len(tensors)} x {tensors[0].name}", tensors[0].dtype, data.shape,
                  data)


def _moved(load: Load, places: dict[Tensor, Place]) -> Load:
    """A load from where its tensor is now."""
    if load.tensor not in places:
        return load
    stack, number = places[load.tensor]
    return replace(load, tensor=stack, index=(constant(number), *load.index))
