"""Runs compiled OpenCL programs step by step, without artifact and runtime, for tests."""
from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tinynn.index import round_up
from tinynn.ir import DType
from tinynn.program import Buffer, TargetCode

os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
Arrays = dict[str, np.ndarray[Any, Any]]


def find_device(name: str) -> Any:
    """The device of a platform whose name contains `name`; skips the test if there is none."""
    cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed")
    try:
        platforms = cl.get_platforms()
    except cl.LogicError:
        platforms = []
    found = next((p for p in platforms if name in p.name), None)
    if found is None:
        pytest.skip(f"there is no OpenCL platform {name}")
    device = found.get_devices()[0]
    try:
        cl.Program(cl.Context([device]), "__kernel void one(__global int *x) { *x = 1; }").build()
    except cl.Error as error:  # an old PoCL on a newer processor
        pytest.skip(f"{name} does not work on this machine: {error}")
    return device


def fenced(nbytes: int) -> np.ndarray[Any, Any]:
    """Memory before a page that nobody may touch. It begins at a multiple of 16 bytes."""
    size, page = round_up(nbytes, 16), mmap.PAGESIZE
    end = round_up(size, page)
    area = mmap.mmap(-1, end + page)
    fence = ctypes.addressof(ctypes.c_char.from_buffer(area)) + end
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    return np.frombuffer(area, np.uint8)[end - size:end]


def make_buffer(context: Any, device: Any, nbytes: int) -> Any:
    """A buffer; on PoCL, whose kernels run in this process, it is fenced."""
    import pyopencl as cl

    if "Portable" not in device.platform.name:
        return cl.Buffer(context, cl.mem_flags.READ_WRITE, nbytes)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
    return cl.Buffer(context, flags, hostbuf=fenced(nbytes))


def run_program(code: TargetCode, inputs: Mapping[str, np.ndarray[Any, Any]],
                device: Any, options: str = "") -> Arrays:
    """Outputs of a program whose buffers are all plain; every buffer is memory of its own size."""
    import pyopencl as cl

    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, code.source).build(options)
    memory: dict[tuple[str, str, int], Any] = {}

    def space(buffer: Buffer) -> tuple[str, str, int]:
        inner = buffer.kind in ("arena", "weight")
        return buffer.kind, "" if inner else buffer.name, buffer.offset if inner else 0

    for buffer in code.buffers:
        size = max(4, buffer.nbytes)
        known = memory.get(space(buffer))
        if known is None or known.size < size:
            memory[space(buffer)] = make_buffer(context, device, size)
        if buffer.kind in ("input", "state"):
            array = np.ascontiguousarray(inputs[buffer.name])
            if array.nbytes:
                cl.enqueue_copy(queue, memory[space(buffer)], array)
    for weight in code.weights:
        buffer = code.buffers[weight.buffer]
        stored = np.frombuffer(weight.data, DType(weight.storage).numpy)
        values = stored.astype(DType(buffer.dtype).numpy)
        if values.nbytes:
            cl.enqueue_copy(queue, memory[space(buffer)], values)
    for step in code.steps:
        kernel = cl.Kernel(program, step.kernel)
        kernel.set_args(*(memory[space(code.buffers[i])] for i in step.args))
        cl.enqueue_nd_range_kernel(queue, kernel, step.global_size, step.local_size)
    outputs = {}
    for buffer in code.buffers:
        if buffer.kind == "output":
            array = np.empty(buffer.shape, DType(buffer.dtype).numpy)
            if array.nbytes:
                cl.enqueue_copy(queue, array, memory[space(buffer)])
            outputs[buffer.name] = array
    queue.finish()
    return outputs
