"""`tinynn tune`: what kernels take on a device, as a text that can be kept and sent.

    # tinynn tuning record 1
    # device Portable Computing Language, pthread-AMD EPYC, driver 3.0
    tile 3f1c9b2a44d0e871 8x8x1 781000 contract_64x2048x192
    step 153000 k008_contract_64x2048x192 | contract, tile 8 x 8, work-group 64x1x1

`tile` lines come from a model: nanoseconds of every tile (rows x columns x shares) that was tried
for a kernel, named by a hash of what it computes. `tinynn compile --tuning RECORD` takes the
fastest.
`step` lines come from an artifact: every launch as it is, for people and for cost models.
"""
from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.algebra import fold_literals
from tinynn.fuse import fuse
from tinynn.ir import Graph
from tinynn.kernel import Kernel
from tinynn.opencl.contract import Tile, plan_contract, render_contract
from tinynn.opencl.launch import NAME, Launch
from tinynn.opencl.points import render_points
from tinynn.opencl.values import PREAMBLE
from tinynn.runtime import Runner
from tinynn.runtime.golden import sample_inputs
from tinynn.runtime.opencl_device import find_device
from tinynn.simplify import simplify, widen_f16

TILES = tuple(Tile(rows, columns, shares) for rows in (2, 4, 8) for columns in (4, 8)
              for shares in (1, 4, 16))
_RUNS = 9
_LINE = re.compile(r"tile ([0-9a-f]{16}) (\d+)x(\d+)x(\d+) (\d+) \w+")


class TuningError(ValueError):
    """A record that cannot be used; the message names the line."""


def key_of(kernel: Kernel) -> str:
    """Names what a kernel computes: a hash of its simplest form."""
    return hashlib.sha256(render_points(kernel).text.encode()).hexdigest()[:16]


def read_tiles(paths: Iterable[Path]) -> dict[str, Tile]:
    """The fastest tile of every kernel in the records. Raises TuningError."""
    best: dict[str, tuple[int, Tile]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = _LINE.fullmatch(line)
            if found is None:
                if line.startswith("tile"):
                    raise TuningError(f"{path}, line {number}: {line[:60]!r} is not a tile. Remove "
                                      "the line or make the record again.")
                continue
            rows, columns, shares, ns = map(int, found.groups()[1:])
            entry = ns, Tile(rows, columns, shares)
            if entry[1] not in TILES:
                raise TuningError(f"{path}, line {number}: there is no tile of {rows}x{columns}x"
                                  f"{shares}. Make the record again.")
            best[found[1]] = min(best.get(found[1], entry), entry, key=lambda e: e[0])
    return {key: tile for key, (_, tile) in best.items()}


def head(device: Any) -> list[str]:
    """The first lines of a record."""
    return ["# tinynn tuning record 1",
            f"# device {device.platform.name}, {device.name}, driver {device.driver_version}"]


def tune_model(graph: Graph) -> Iterator[str]:
    """Lines of a record for the sums of products of a graph; measures on the device."""
    import pyopencl as cl

    device = find_device()
    yield from head(device)
    context = cl.Context([device])
    profiling = cl.command_queue_properties.PROFILING_ENABLE
    queue = cl.CommandQueue(context, properties=profiling)
    seen: set[str] = set()
    for kernel in fuse(simplify(widen_f16(graph)), gpu=True).kernels:
        kernel = fold_literals(kernel)
        usual = plan_contract(kernel)
        if usual is None or usual.window is not None or key_of(kernel) in seen:
            continue
        seen.add(key_of(kernel))
        for tile in TILES:
            plan = plan_contract(kernel, tile)
            assert plan is not None
            if tile.rows <= plan.row.size and 2 * tile.shares <= plan.reduction.axes[0].size:
                launch = render_contract(plan)
                yield (f"tile {key_of(kernel)} {tile.rows}x{tile.columns}x{tile.shares} "
                       f"{_measure(context, queue, launch)} {launch.label}")


def _measure(context: Any, queue: Any, launch: Launch) -> int:
    """Median nanoseconds of a launch on memory of its own."""
    import pyopencl as cl

    program = cl.Program(context, PREAMBLE + launch.text.replace(NAME, "tuned")).build()
    kernel = cl.Kernel(program, "tuned")
    memory = []
    for tensor in launch.tensors:
        values = np.zeros(max(4, tensor.size), tensor.dtype.numpy)
        memory.append(cl.Buffer(
            context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=values))
    kernel.set_args(*memory)
    times = []
    for _ in range(_RUNS):
        event = cl.enqueue_nd_range_kernel(queue, kernel, launch.global_size, launch.local_size)
        event.wait()
        times.append(event.profile.end - event.profile.start)
    return int(statistics.median(times))


def tune_artifact(runner: Runner) -> Iterator[str]:
    """Lines of a record for the launches of an artifact that is loaded on its device."""
    yield from head(find_device())
    inputs = sample_inputs(runner.inputs.values(), 0)
    runs = [runner.profile(inputs) for _ in range(_RUNS)]
    for step, times in zip(runner.steps, zip(*runs, strict=True), strict=True):
        yield f"step {int(statistics.median(times))} {step.kernel} | {step.schedule}"
