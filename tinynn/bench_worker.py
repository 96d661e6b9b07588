"""A process that runs one model with one engine, so that its time and memory are its own.

It reads JSON lines from standard input and answers each with one on standard output:

    {"engine", "path", "threads", "target", "trust", "precision", "device", "specs"}
                            ->  {"version", "first_ns"}
    {"runs": n, "warm": m}  ->  {"ns": [n times], "peak": bytes}
    {"save": path}          ->  {}, after the outputs of a run were written there as .npz

`first_ns` is the time from opening the file to the first outputs; importing libraries is not in it.
`warm` runs come before the measured ones. It imports only what its engine needs: the peak memory
includes that.
"""
from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tinynn.program import TensorSpec
from tinynn.runtime.golden import Arrays, sample_inputs

Run = Callable[[], Any]
# (setup, inputs) -> a function that runs the model once. Imports are done before.
Open = Callable[[dict[str, Any], Arrays], Run]
_PR_SET_PDEATHSIG = 1  # prctl(2)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    # Not getrusage: its maximum counts the parent's memory at the time of the fork.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not say the peak memory of the process")


def tinynn_engine() -> tuple[str, Open]:
    from tinynn import __version__
    from tinynn.runtime import load

    def open_model(setup: dict[str, Any], inputs: Arrays) -> Run:
        runner = load(setup["path"], setup["target"], setup["threads"], setup["trust"])
        given = {name: inputs[name] for name in runner.inputs}
        return lambda: runner(given)

    return __version__, open_model


def onnxruntime_engine() -> tuple[str, Open]:
    import onnxruntime

    def open_model(setup: dict[str, Any], inputs: Arrays) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setup["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings about unused initialisers are not for here
        session = onnxruntime.InferenceSession(setup["path"], options,
                                               providers=["CPUExecutionProvider"])
        used = {value.name for value in session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in used}
        return lambda: session.run(None, given)

    return onnxruntime.__version__, open_model


def openvino_engine() -> tuple[str, Open]:
    openvino: Any = importlib.import_module("openvino")  # optional, and without types

    def open_model(setup: dict[str, Any], inputs: Arrays) -> Run:
        core = openvino.Core()
        model = core.read_model(setup["path"])
        model.reshape({name: array.shape for name, array in inputs.items()})
        # On CPUs that have bf16 its default precision would be that.
        compiled = core.compile_model(model, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": setup["precision"],
            "INFERENCE_NUM_THREADS": setup["threads"], "NUM_STREAMS": 1})
        request = compiled.create_infer_request()
        return lambda: request.infer(inputs, share_inputs=True)

    return openvino.__version__.split("-")[0], open_model


def tinygrad_engine() -> tuple[str, Open]:
    tinygrad: Any = importlib.import_module("tinygrad")  # optional, and without types
    onnx: Any = importlib.import_module("tinygrad.nn.onnx")

    def open_model(setup: dict[str, Any], inputs: Arrays) -> Run:
        runner = onnx.OnnxRunner(setup["path"])
        given = {name: tinygrad.Tensor(inputs[name]).realize() for name in runner.graph_inputs}

        @tinygrad.TinyJit
        def replay(**tensors: Any) -> list[Any]:
            return [tensor.realize() for tensor in runner(tensors).values()]

        return lambda: [tensor.numpy() for tensor in replay(**given)]

    return importlib.metadata.version("tinygrad"), open_model


ENGINES = {"tinynn": tinynn_engine, "onnxruntime": onnxruntime_engine,
           "openvino": openvino_engine, "tinygrad": tinygrad_engine}


def serve() -> None:
    """Answer requests until standard input ends."""
    # The parent stops this process between measurements; it must not outlive the parent stopped.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries may print; answers keep standard output to themselves.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setup = json.loads(sys.stdin.readline())
    specs = [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in setup["specs"]]
    inputs = sample_inputs(specs, seed=0)
    os.environ.setdefault("DEV", setup["device"])  # of tinygrad; it may be told CPU:LLVM instead
    os.environ["CPU_COUNT"] = str(setup["threads"])
    version, open_model = ENGINES[setup["engine"]]()
    started = time.perf_counter_ns()
    run = open_model(setup, inputs)
    run()
    _answer(answers, {"version": version, "first_ns": time.perf_counter_ns() - started})
    for line in sys.stdin:
        request = json.loads(line)
        if "save" in request:
            outputs = run()
            np.savez(request["save"], *(outputs if isinstance(outputs, list) else outputs.values()))
            _answer(answers, {})
            continue
        for _ in range(request["warm"]):
            run()
        times = [_timed(run) for _ in range(request["runs"])]
        _answer(answers, {"ns": times, "peak": peak_memory()})


def _timed(run: Run) -> int:
    started = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - started


def _answer(answers: TextIO, reply: dict[str, Any]) -> None:
    print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    serve()
