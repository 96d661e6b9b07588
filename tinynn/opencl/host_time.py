"""Time of this side of a run: how long it takes to enqueue a list of kernels.

    TINYNN_OPENCL=Portable python -m tinynn.opencl.host_time [KERNELS]

The device's work is not waited for within the measured time, but between two of them. Kernels work
for some microseconds, as those of models do: a driver for CPUs would finish empty ones while they
are enqueued, and its threads would be measured, which want the same locks and cores.
"""
from __future__ import annotations

import statistics
import sys
import time

from tinynn.runtime.opencl_device import build_program, find_device
from tinynn.runtime.opencl_launch import (
    Launch,
    NativeLoop,
    PythonLoop,
    Sequencer,
    launcher_path,
    sequencer,
)

_SOURCE = """\
__kernel void one(__global float *x) {
    float value = x[get_global_id(0)];
    for (int i = 0; i < 300; ++i) value = value * 0.5f + 1.0f;
    x[get_global_id(0)] = value;
}
"""
_ITEMS = 64
_RUNS = 200


def measure(queue: object, way: Sequencer) -> float:
    """Median milliseconds of one enqueue."""
    times = []
    for _ in range(_RUNS):
        queue.finish()  # type: ignore[attr-defined]
        start = time.perf_counter()
        way.enqueue()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main(count: int = 120) -> None:
    import pyopencl as cl

    device = find_device()
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    program = build_program(context, device, _SOURCE)
    memory = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4 * _ITEMS)
    launches = []
    for _ in range(count):
        kernel = cl.Kernel(program, "one")
        kernel.set_args(memory)
        launches.append(Launch(kernel, (_ITEMS, 1, 1), (_ITEMS, 1, 1), (memory,)))
    ways: list[Sequencer] = [PythonLoop(queue, launches)]
    if launcher_path().exists():
        ways.append(NativeLoop(queue, launches, launcher_path()))
    best = sequencer(context, device, queue, launches)
    ways += [best] if best.name not in [way.name for way in ways] else []
    print(f"{device.platform.name}, {device.name}: {count} kernels")
    for way in ways:
        print(f"{way.name:<16} {measure(queue, way):.3f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
