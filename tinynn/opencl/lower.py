"""Graph -> OpenCL program: fuse, a family for every kernel, one text, buffers."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinynn import __version__
from tinynn.algebra import fold_literals
from tinynn.cost import work
from tinynn.fuse import Fusion, fuse
from tinynn.index import round_up
from tinynn.ir import DType, Graph
from tinynn.kernel import Kernel, Tensor
from tinynn.machine import TargetError
from tinynn.memory import Lifetime, plan_arena
from tinynn.opencl.contract import Tile, plan_contract, render_contract
from tinynn.opencl.launch import NAME, Launch
from tinynn.opencl.points import render_points
from tinynn.opencl.tuning import key_of, read_tiles
from tinynn.opencl.values import PREAMBLE
from tinynn.pack import as_exact_f16
from tinynn.program import Buffer, Step, TargetCode, Weight
from tinynn.simplify import simplify, widen_f16

ALIGNMENT = 512  # bytes: where a part of a buffer may begin on the devices of all vendors
MOST_ELEMENTS = 2 ** 31 - 1  # of a tensor: kernels count in 32 bits


def lower(graph: Graph, target: str, precision: str = "f32",
          tuning: Sequence[Path] = ()) -> TargetCode:
    """Compile a graph for OpenCL devices of any vendor.

    tuning: records of `tinynn tune`, whose fastest tiles are taken.
    Raises TargetError for a precision or a tensor size that the target does not have, and
    TuningError.
    """
    if precision != "f32":
        raise TargetError(f"precision {precision!r} is not available for {target}; use 'f32'")
    # Every tile of rows reads its factors anew: what they are computed from is stored before.
    fusion = fuse(simplify(widen_f16(graph)), factors_apart=True)
    tiles = read_tiles(tuning)
    launches = [render(fold_literals(kernel), tiles) for kernel in fusion.kernels]
    return assemble(fusion, launches, target, precision)


def render(kernel: Kernel, tiles: Mapping[str, Tile] | None = None) -> Launch:
    """The launch of a kernel by the family that suits it. tiles: those to prefer, by kernel."""
    plan = plan_contract(kernel, tiles.get(key_of(kernel)) if tiles else None)
    return render_points(kernel) if plan is None else render_contract(plan)


def assemble(fusion: Fusion, launches: Sequence[Launch], target: str,
             precision: str) -> TargetCode:
    """The program of all launches, in order."""
    source, symbols = program_text(launches)
    buffers, weights, numbers, arena_nbytes = place(fusion, launches)
    steps = tuple(
        Step(symbol, tuple(numbers[t] for t in launch.tensors), (0,), 1, work(launch.kernel),
             sum(t.nbytes for t in launch.tensors), launch.kernel.note,
             schedule=launch.schedule, reason=launch.kernel.reason,
             global_size=launch.global_size, local_size=launch.local_size)
        for symbol, launch in zip(symbols, launches, strict=True))
    return TargetCode(target, precision, f"tinynn {__version__}", source, b"", arena_nbytes,
                      tuple(buffers), steps, tuple(weights))


def program_text(launches: Sequence[Launch]) -> tuple[str, list[str]]:
    """The whole source, and the symbol of each launch. Equal kernels are written once."""
    symbols: dict[str, str] = {}
    texts = [PREAMBLE]
    for launch in launches:
        if launch.text not in symbols:
            name = f"k{len(symbols):03d}_{launch.label}"
            symbols[launch.text] = name
            comment = f"/* {launch.kernel.note}\n   {launch.schedule} */"
            texts.append(f"{comment}\n{launch.text.replace(NAME, name)}\n")
    return "\n".join(texts), [symbols[launch.text] for launch in launches]


def place(fusion: Fusion, launches: Sequence[Launch]
          ) -> tuple[list[Buffer], list[Weight], dict[Tensor, int], int]:
    """Buffers in a fixed order (border, weights, arena), and the number of every tensor."""
    border = [*fusion.inputs.values(), *fusion.outputs.values()]
    spans: dict[Tensor, Lifetime] = {}
    for step, launch in enumerate(launches):
        for tensor in launch.tensors:
            first = spans[tensor].first if tensor in spans else step
            spans[tensor] = Lifetime(round_up(max(1, tensor.nbytes), ALIGNMENT), first, step)
    arena = [t for t in spans if t.kind == "arena"]
    constants = [t for t in spans if t.kind == "weight"]
    for tensor in [*border, *arena, *constants]:
        if tensor.size > MOST_ELEMENTS:
            raise TargetError(f"{tensor.name} has {tensor.size} elements; OpenCL targets take at "
                              f"most {MOST_ELEMENTS}. Split the model, or compile it for a CPU.")
    offsets, arena_nbytes = plan_arena([spans[t] for t in arena])
    where = dict(zip(arena, offsets, strict=True))
    position = 0
    for tensor in constants:
        where[tensor] = position
        position += round_up(max(1, tensor.nbytes), ALIGNMENT)
    tensors = [*border, *constants, *arena]
    numbers = {tensor: i for i, tensor in enumerate(tensors)}
    buffers = [Buffer(t.kind, t.name, t.dtype.value, t.shape, where.get(t, 0), t.nbytes)
               for t in tensors]
    return buffers, [_weight(numbers[t], t) for t in constants], numbers, arena_nbytes


def _weight(number: int, tensor: Tensor) -> Weight:
    """A constant, stored as f16 if that loses nothing; the runtime widens it again."""
    assert tensor.data is not None
    half = as_exact_f16(tensor.data) if tensor.dtype is DType.F32 and tensor.size else None
    if half is not None:
        return Weight(number, "f16", half.tobytes())
    return Weight(number, tensor.dtype.value, tensor.data.tobytes())
