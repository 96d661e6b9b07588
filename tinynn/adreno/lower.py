"""Graph -> program for an Adreno GPU: fuse, choose images, a family for every kernel, buffers."""
from __future__ import annotations

import math
from dataclasses import replace

from tinynn import __version__
from tinynn.adreno.batch import copy_inputs, merge_alike
from tinynn.adreno.contract import find_sum, render_contract
from tinynn.adreno.cost import Counts, Prediction, predict
from tinynn.adreno.depthwise import find_window, render_window
from tinynn.adreno.points import render_points
from tinynn.adreno.storage import Storage
from tinynn.adreno.values import COMMON, PREAMBLES
from tinynn.algebra import fold_literals
from tinynn.cost import bytes_touched, product, work
from tinynn.fuse import Fusion, fuse
from tinynn.index import Axis, Quotient, Remainder, of
from tinynn.ir import Graph
from tinynn.kernel import Kernel
from tinynn.machine import TargetError
from tinynn.opencl.launch import Launch
from tinynn.opencl.lower import place, program_text
from tinynn.program import Step, TargetCode
from tinynn.simplify import simplify, widen_f16


def lower(graph: Graph, target: str, precision: str = "f16") -> TargetCode:
    """Compile a graph for an Adreno GPU.

    precision: "f16" keeps tensors in half and adds up short sums in half, long ones in float;
    "f32" is float throughout. Raises TargetError for any other precision.
    """
    if precision not in PREAMBLES:
        raise TargetError(f"precision {precision!r} is not available for {target}; use 'f16' or "
                          "'f32'")
    fusion = fuse(simplify(widen_f16(graph)), gpu=True)
    kernels = merge_alike(copy_inputs(fusion.kernels))
    kernels = [split_axes(fold_literals(kernel)) for kernel in kernels]
    storage = Storage(kernels, precision)
    return _assemble(fusion, [render(kernel, storage) for kernel in kernels], storage, target)


def render(kernel: Kernel, storage: Storage) -> tuple[Launch, Counts]:
    """The launch of a kernel by the family that suits it, and what it costs."""
    total = find_sum(kernel, storage)
    if total is not None:
        return render_contract(total, storage)
    window = find_window(kernel, storage)
    if window is not None:
        return render_window(window, storage)
    return render_points(kernel, storage)


def _assemble(fusion: Fusion, rendered: list[tuple[Launch, Counts]], storage: Storage,
              target: str) -> TargetCode:
    """The program of all launches, in order."""
    launches = [launch for launch, _ in rendered]
    source, symbols = program_text(launches)
    source = PREAMBLES[storage.precision] + COMMON + source
    buffers, weights, numbers, arena_nbytes = place(fusion, launches)
    for tensor, view in storage.views.items():
        if tensor in numbers:
            buffers[numbers[tensor]] = replace(buffers[numbers[tensor]], image=view)
    steps = []
    for symbol, (launch, counts) in zip(symbols, rendered, strict=True):
        nbytes = bytes_touched(launch.kernel, launch.tensors)
        cost = predict(counts, launch.global_size, launch.local_size, nbytes)
        steps.append(Step(
            symbol, tuple(numbers[t] for t in launch.tensors), (0,), 1, work(launch.kernel),
            nbytes, launch.kernel.note, _describe(launch, counts, cost), launch.kernel.reason,
            round(cost.ns), cost.bound, launch.global_size, launch.local_size))
    return TargetCode(target, storage.precision, f"tinynn {__version__}", source, b"", arena_nbytes,
                      tuple(buffers), tuple(steps), tuple(weights))


def _describe(launch: Launch, counts: Counts, cost: Prediction) -> str:
    """Schedule, registers and waves as estimated, texels per multiply-add."""
    text = f"{launch.schedule}, ~{counts.registers} registers, ~{cost.waves} waves"
    if product(launch.kernel) is not None:
        fetched = counts.texels * math.prod(launch.global_size)
        text += f", {2 * fetched / work(launch.kernel):.3f} texels per MAC"
    return text


def split_axes(kernel: Kernel) -> Kernel:
    """The kernel with every reduced axis that is read by quotient and remainder as two axes, and
    with two axes that count one dimension of the result together as one."""
    split = _split_once(kernel)
    while split is not None:
        kernel, split = split, _split_once(split)
    for expr in kernel.index:
        terms = [(a, c) for a, c in expr.terms if isinstance(a, Axis)]
        if len(terms) == len(expr.terms) == 2:
            (inner_axis, one), (outer_axis, count) = sorted(terms, key=lambda t: t[1])
            if one == 1 and count == inner_axis.size:
                kernel = _joined(kernel, outer_axis, inner_axis)
    return kernel


def _split_once(kernel: Kernel) -> Kernel | None:
    """The kernel with one reduced axis as two, None if none is read by quotient and remainder."""
    reduction = kernel.reduction
    for at, axis in enumerate(reduction.axes if reduction is not None else ()):
        inner = _divisor(kernel, axis)
        if inner is not None:
            assert reduction is not None
            high, low = Axis(f"{axis.name}h", axis.size // inner), Axis(f"{axis.name}l", inner)
            axes = (*reduction.axes[:at], high, low, *reduction.axes[at + 1:])
            return kernel.substitute({axis: of(high) * inner + of(low)}, reduced=axes)
    return None


def _divisor(kernel: Kernel, axis: Axis) -> int | None:
    """The number by which the axis alone is divided somewhere, if it divides its size."""
    for load in kernel.loads():
        for expr in load.index:
            for atom in expr.atoms:
                if isinstance(atom, Quotient | Remainder) and atom.dividend == of(axis) \
                        and axis.size % atom.divisor == 0:
                    return atom.divisor
    return None


def _joined(kernel: Kernel, outer: Axis, inner: Axis) -> Kernel:
    """The kernel with one axis in the place of two."""
    axis = Axis(outer.name, outer.size * inner.size)
    axes = tuple(axis if a == outer else a for a in kernel.axes if a != inner)
    split = {outer: of(axis) // inner.size, inner: of(axis) % inner.size}
    return kernel.substitute(split, axes=axes)
