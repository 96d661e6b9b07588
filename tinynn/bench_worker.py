"""A process that runs one model with one engine, so that its time and memory are its own.

It reads JSON lines from standard input and answers each with one on standard output:

    {"engine", "path", "threads", "target", "specs", "trust"}  ->  {"ready": true}
    {"runs": n}  ->  {"ns": [n times], "peak": bytes}

It imports only what its engine needs: the peak memory includes that.
"""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinynn.program import TensorSpec
from tinynn.runtime.golden import Arrays, sample_inputs


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    # Not getrusage: its maximum counts the parent's memory at the time of the fork.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not say the peak memory of the process")


def tinynn_engine(setup: dict[str, Any], inputs: Arrays) -> Callable[[], Any]:
    from tinynn.runtime import load

    runner = load(setup["path"], setup["target"], setup["threads"], setup["trust"])
    given = {name: inputs[name] for name in runner.inputs}
    return lambda: runner(given)


def onnxruntime_engine(setup: dict[str, Any], inputs: Arrays) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about unused initialisers are not for here
    session = onnxruntime.InferenceSession(setup["path"], options,
                                           providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def serve() -> None:
    """Answer requests until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    specs = [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in setup["specs"]]
    inputs = sample_inputs(specs, seed=0)
    engine = {"tinynn": tinynn_engine, "onnxruntime": onnxruntime_engine}[setup["engine"]]
    run = engine(setup, inputs)
    _answer({"ready": True})
    for line in sys.stdin:
        times = []
        for _ in range(json.loads(line)["runs"]):
            started = time.perf_counter_ns()
            run()
            times.append(time.perf_counter_ns() - started)
        _answer({"ns": times, "peak": peak_memory()})


def _answer(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve()
