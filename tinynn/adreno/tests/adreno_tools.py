"""Where the Adreno tools are, and running programs with images step by step, for tests."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinynn.ir import DType
from tinynn.opencl.dump import kernel_sources, trips_of
from tinynn.program import TargetCode

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
Arrays = dict[str, np.ndarray[Any, Any]]


def bundle() -> Path:
    """The folder of the Adreno compiler; unpacked once. Skips the test if it is nowhere."""
    given = os.environ.get("ADRENO_BUNDLE")
    if given:
        return Path(given)
    cache = Path.home() / ".cache" / "adreno"
    packed = SHARED / "adreno" / "adreno-bundle.tar.xz"
    if not (cache / "adreno-bundle").exists():
        if not packed.exists():
            pytest.skip("no Adreno compiler: set ADRENO_BUNDLE to the unpacked bundle")
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            archive.extractall(cache, filter="data")
    return cache / "adreno-bundle"


def check(source: str, gpu: str = "630") -> dict[str, dict[str, Any]]:
    """Figures of every kernel of a source, by its name; fails the test if it does not build."""
    done = subprocess.run([str(bundle() / "adreno-check"), "--gpu", gpu, "-"], input=source,
                          capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 0, result
    kernels: dict[str, dict[str, Any]] = result["kernels"]
    return kernels


def counted(code: TargetCode) -> dict[str, Any]:
    """Totals of the cost tool over all launches of a program."""
    tool = SHARED / "adreno" / "adreno-cost"
    if not tool.exists():
        pytest.skip("no cost tool")
    sources = kernel_sources(code.source)
    launches = [{"source": sources[step.kernel], "kernel": step.kernel, "bytes": step.nbytes,
                 "global": list(step.global_size), "local": list(step.local_size),
                 **trips_of(step.schedule)} for step in code.steps]
    done = subprocess.run([sys.executable, str(tool), "--json", "--check",
                           str(bundle() / "adreno-check"), "-"], input=json.dumps(launches),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_images(code: TargetCode, inputs: Mapping[str, np.ndarray[Any, Any]],
               device: Any, options: Sequence[str] = ()) -> Arrays:
    """Outputs of a program; every buffer and image is memory of its own, filled with 7 at first."""
    import pyopencl as cl

    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    program = cl.Program(context, code.source).build(["-cl-std=CL1.2", *options])
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    weights = {w.buffer: w for w in code.weights}
    memory = []
    for number, buffer in enumerate(code.buffers):
        dtype = DType(buffer.dtype).numpy
        if number in weights:
            weight = weights[number]
            host = np.frombuffer(weight.data, DType(weight.storage).numpy).astype(dtype)
        elif buffer.name in inputs and buffer.kind in ("input", "state"):
            host = np.ascontiguousarray(inputs[buffer.name]).astype(dtype)
        else:
            host = np.full(buffer.shape, 7, dtype)
        if buffer.image is None:
            memory.append(cl.Buffer(context, flags, hostbuf=host))
            continue
        width, height, pitch, channel = buffer.image
        kind = cl.channel_type.HALF_FLOAT if channel == "half" else cl.channel_type.FLOAT
        texels = np.ascontiguousarray(host.reshape(height, pitch, 4)[:, :width])
        form = cl.ImageFormat(cl.channel_order.RGBA, kind)
        image = cl.create_image(context, cl.mem_flags.READ_WRITE, form, shape=(width, height))
        cl.enqueue_copy(queue, image, texels, origin=(0, 0), region=(width, height))
        memory.append(image)
    for step in code.steps:
        kernel = cl.Kernel(program, step.kernel)
        kernel.set_args(*(memory[i] for i in step.args))
        cl.enqueue_nd_range_kernel(queue, kernel, step.global_size, step.local_size)
    outputs = {}
    for number, buffer in enumerate(code.buffers):
        if buffer.kind == "output":
            array = np.empty(buffer.shape, DType(buffer.dtype).numpy)
            cl.enqueue_copy(queue, array, memory[number])
            outputs[buffer.name] = array
    queue.finish()
    return outputs
