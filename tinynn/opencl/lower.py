"""Graph -> OpenCL program: fuse, a family for every kernel, one text, buffers."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinynn import __version__
from tinynn.algebra import fold_literals
from tinynn.cost import bytes_touched, work
from tinynn.fuse import Fusion, fuse
from tinynn.index import round_up
from tinynn.ir import DType, Graph
from tinynn.kernel import Kernel, Tensor
from tinynn.machine import TargetError
from tinynn.memory import Lifetime, plan_arena
from tinynn.opencl.contract import Tile, plan_contract, render_contract
from tinynn.opencl.cost import predict
from tinynn.opencl.halves import store_halves
from tinynn.opencl.launch import NAME, Launch
from tinynn.opencl.points import render_points
from tinynn.opencl.tuning import key_of, read_tiles
from tinynn.opencl.values import PREAMBLE
from tinynn.pack import as_exact_f16
from tinynn.program import Buffer, Step, TargetCode, Weight
from tinynn.simplify import simplify, widen_f16

ALIGNMENT = 512  # bytes: where a part of a buffer may begin on the devices of all vendors
PREAMBLES = {"f32": "", "f16": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"}
MOST_ELEMENTS = 2 ** 31 - 1  # of a tensor: kernels count in 32 bits


def lower(graph: Graph, target: str, precision: str = "f32",
          tuning: Sequence[Path] = ()) -> TargetCode:
    """Compile a graph for OpenCL devices of any vendor.

    precision: "f32"; "f16" keeps what is between kernels in half, and adds up short sums in half
    and long ones in float (tinynn/halves.py).
    tuning: records of `tinynn tune`, whose fastest tiles are taken.
    Raises TargetError for a precision or a tensor size that the target does not have, and
    TuningError.
    """
    if precision not in PREAMBLES:
        raise TargetError(f"precision {precision!r} is not available for {target}; use 'f32' or "
                          "'f16'")
    # Every tile of rows reads its factors anew: what they are computed from is stored before.
    fusion = fuse(simplify(widen_f16(graph)), gpu=True)
    tiles = read_tiles(tuning)
    kernels = [fold_literals(kernel) for kernel in fusion.kernels]
    chosen = [tiles.get(key_of(kernel)) if tiles else None for kernel in kernels]
    if precision == "f16":
        kernels = store_halves(kernels)
    launches = [render(kernel, tile, precision == "f16")
                for kernel, tile in zip(kernels, chosen, strict=True)]
    return assemble(fusion, launches, target, precision)


def render(kernel: Kernel, tile: Tile | None = None, half: bool = False) -> Launch:
    """The launch of a kernel by the family that suits it.

    tile: of a sum of products, instead of the model's choice. half: whether such sums are added up
    in half.
    """
    plan = plan_contract(kernel, tile)
    return render_points(kernel) if plan is None else render_contract(plan, half)


def assemble(fusion: Fusion, launches: Sequence[Launch], target: str,
             precision: str) -> TargetCode:
    """The program of all launches, in order."""
    source, symbols = program_text(launches)
    source = PREAMBLES[precision] + source
    buffers, weights, numbers, arena_nbytes = place(fusion, launches)
    steps = []
    for symbol, launch in zip(symbols, launches, strict=True):
        flop, nbytes = work(launch.kernel), bytes_touched(launch.kernel, launch.tensors)
        predicted_ns, bound = predict(flop, nbytes, launch.global_size)
        steps.append(Step(
            symbol, tuple(numbers[t] for t in launch.tensors), (0,), 1, flop, nbytes,
            launch.kernel.note, launch.schedule, launch.kernel.reason, predicted_ns, bound,
            launch.global_size, launch.local_size))
    return TargetCode(target, precision, f"tinynn {__version__}", source, b"", arena_nbytes,
                      tuple(buffers), tuple(steps), tuple(weights))


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
    buffers = [Buffer(t.kind, t.name, t.memory.value, t.shape, where.get(t, 0), t.nbytes)
               for t in tensors]
    return buffers, [_weight(numbers[t], t) for t in constants], numbers, arena_nbytes


def _weight(number: int, tensor: Tensor) -> Weight:
    """A constant, stored as f16 if that loses nothing; the runtime widens it again."""
    assert tensor.data is not None
    half = as_exact_f16(tensor.data) if tensor.dtype is DType.F32 and tensor.size else None
    if half is not None:
        return Weight(number, "f16", half.tobytes())
    values = tensor.data.astype(tensor.memory.numpy, copy=False)
    return Weight(number, tensor.memory.value, values.tobytes())
