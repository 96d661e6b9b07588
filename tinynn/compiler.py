"""Graph -> machine code: the passes in order.

    simplify -> divide last -> fuse -> fold literals, integer sums -> schedule -> render -> build

Every tensor gets a place in memory on the way.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinynn.algebra import fold_literals
from tinynn.cache import build_units
from tinynn.cost import work
from tinynn.fuse import Fusion, fuse
from tinynn.ir import DType, Graph
from tinynn.kernel import Tensor
from tinynn.machine import OPENCL_TARGETS, Machine, TargetError, machine_of, resolve_target
from tinynn.memory import Lifetime, aligned, plan_arena
from tinynn.pack import as_exact_f16
from tinynn.precision import check_precision, round_products
from tinynn.program import Buffer, Step, TargetCode, Weight
from tinynn.quantised import integer_sums
from tinynn.quotients import divide_last
from tinynn.render.c import Function, compile_units, render_kernel, render_program
from tinynn.schedule import Schedule, describe, schedule
from tinynn.simplify import simplify, widen_f16

__all__ = ["Plan", "TargetError", "generate", "lower", "plan", "resolve_target"]


@dataclass(frozen=True)
class Plan:
    """A graph before it becomes machine code: for `explain`, and for tests."""

    fusion: Fusion
    schedules: list[Schedule]
    functions: list[Function]


def plan(graph: Graph, machine: Machine, exact: bool = False) -> Plan:
    """Fuse, schedule and render every kernel of a graph that is simplified already.

    exact: keep every operation; otherwise literals are put together.
    """
    fusion = fuse(graph)
    if not exact:
        fusion.kernels = [integer_sums(fold_literals(kernel)) for kernel in fusion.kernels]
    schedules = [schedule(kernel, machine) for kernel in fusion.kernels]
    return Plan(fusion, schedules, [render_kernel(s) for s in schedules])


def lower(graph: Graph, target: str = "cpu", precision: str = "f32", *, compiler: str | None = None,
          machine_code: bool = True, tuning: Sequence[Path] = ()) -> TargetCode:
    """Compile a graph for one target.

    target: "cpu" for this host, or a resolved name such as "cpu:aarch64". precision: "f32", or
    "bf16" for products with weights (precision.py).
    compiler: C compiler to use instead of the default.
    tuning: records of `tinynn tune`, for OpenCL targets.
    machine_code: False leaves it out, for those who want to see the source.
    Raises TargetError and ToolchainError.
    """
    resolved = resolve_target(target)
    if resolved in OPENCL_TARGETS:
        return _lower_opencl(graph, resolved, precision, tuning)
    check_precision(precision, machine_of(resolved))
    graph = simplify(divide_last(simplify(widen_f16(graph))))
    if precision == "bf16":
        graph = round_products(graph)
    code = generate(graph, resolved, exact=False, compiler=compiler, machine_code=machine_code)
    return replace(code, precision=precision)


def _lower_opencl(graph: Graph, target: str, precision: str,
                  tuning: Sequence[Path]) -> TargetCode:
    # Imported here: those who compile for a CPU need none of it.
    if target == "opencl":
        from tinynn.opencl.lower import lower as lower_buffers

        return lower_buffers(graph, target, precision, tuning)
    from tinynn.adreno.lower import lower as lower_images

    return lower_images(graph, target, precision)


def generate(graph: Graph, target: str, *, exact: bool = True, compiler: str | None = None,
             machine_code: bool = True) -> TargetCode:
    """Compile a graph as it is: every operation in its own dtype, and if exact, nothing simplified.
    """
    machine = machine_of(target)
    planned = plan(graph, machine, exact)
    pieces, symbols = render_program(planned.functions)
    code, version = b"", ""
    if machine_code:
        code, version = build_units(compile_units(pieces), machine, compiler)
    buffers, weights, numbers, arena_nbytes = _place(planned)
    steps = tuple(
        Step(symbol, tuple(numbers[t] for t in function.tensors), (0,), scheduled.parts,
             work(scheduled.kernel), sum(t.nbytes for t in function.tensors),
             scheduled.kernel.note, describe(scheduled), scheduled.kernel.reason)
        for symbol, function, scheduled
        in zip(symbols, planned.functions, planned.schedules, strict=True))
    return TargetCode(resolve_target(target), "f32", version, "\n".join(pieces), code,
                      arena_nbytes, tuple(buffers), steps, tuple(weights))


def _place(planned: Plan) -> tuple[list[Buffer], list[Weight], dict[Tensor, int], int]:
    """Buffers in a fixed order (border, weights, arena), and the number of every tensor."""
    border = [*planned.fusion.inputs.values(), *planned.fusion.outputs.values()]
    spans = _lifetimes(planned.functions)
    inner = [t for t in spans if t.kind in ("weight", "arena")]
    arena = [t for t in inner if t.kind == "arena"]
    constants = [t for t in inner if t.kind == "weight"]
    offsets, arena_nbytes = plan_arena([spans[t] for t in arena])
    place = dict(zip(arena, offsets, strict=True))
    position = 0
    for tensor in constants:
        place[tensor] = position
        position += aligned(tensor.nbytes)
    tensors = [*border, *constants, *arena]
    numbers = {tensor: i for i, tensor in enumerate(tensors)}
    buffers = [Buffer(t.kind, t.name, t.dtype.value, t.shape, place.get(t, 0), t.nbytes)
               for t in tensors]
    weights = [_weight(numbers[t], t) for t in constants]
    return buffers, weights, numbers, arena_nbytes


def _lifetimes(functions: list[Function]) -> dict[Tensor, Lifetime]:
    """First and last step of every tensor that a step touches, in order of first use."""
    spans: dict[Tensor, Lifetime] = {}
    for step, function in enumerate(functions):
        for tensor in function.tensors:
            first = spans[tensor].first if tensor in spans else step
            spans[tensor] = Lifetime(tensor.nbytes, first, step)
    return spans


def _weight(number: int, tensor: Tensor) -> Weight:
    """A constant, stored as f16 if that loses nothing."""
    data = tensor.data
    assert data is not None
    half = as_exact_f16(data) if tensor.dtype is DType.F32 and data.size else None
    if half is not None:
        return Weight(number, "f16", half.tobytes())
    return Weight(number, tensor.dtype.value, data.tobytes())
