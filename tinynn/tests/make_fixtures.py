"""Write small artifacts of the present format into tinynn/tests/data: see test_fixtures.py.

    python -m tinynn.tests.make_fixtures
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tinynn.artifact import Artifact, build
from tinynn.compiler import lower
from tinynn.golden import make_golden
from tinynn.onnx.reader import import_model
from tinynn.pipeline import declare_state
from tinynn.program import Program, TensorSpec
from tinynn.runtime.layout import VERSION, sha256_hex

DATA = Path(__file__).parent / "data"
TARGETS = ("x86-64-v2", "x86-64-v3", "aarch64")
Array = np.ndarray[Any, Any]


def constants() -> dict[str, Array]:
    """Weights that formulas give: those of the convolution are f16 numbers, those of the matrix
    are not."""
    kernel = (np.arange(8 * 3 * 3 * 3) * 37 % 101 - 50) / 256
    matrix = (np.arange(8 * 8) * 53 % 97 - 48) / 300
    return {"kernel": kernel.reshape(8, 3, 3, 3).astype(np.float32),
            "matrix": matrix.reshape(8, 8).astype(np.float32),
            "bias": (np.arange(8) / 7 - 0.5).astype(np.float32)}


def model() -> onnx.ModelProto:
    """next = mean over pixels of relu(conv(x)) times matrix, plus bias, plus memory / 2."""
    values = {**constants(), "half": np.float32(0.5).reshape(1)}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
         helper.make_node("Relu", ["c"], ["r"]),
         helper.make_node("ReduceMean", ["r"], ["m"], axes=[2, 3], keepdims=0),
         helper.make_node("Gemm", ["m", "matrix", "bias"], ["g"]),
         helper.make_node("Mul", ["memory", "half"], ["old"]),
         helper.make_node("Add", ["g", "old"], ["next"])],
        "fixture", [_value("x", [1, 3, 8, 8]), _value("memory", [1, 8])],
        [_value("next", [1, 8])],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, {"model_checkpoint": "fixture/1"})
    return made


def reference(x: Array, memory: Array) -> Array:
    """The meaning of the model in float64; x: [1, 3, 8, 8], memory: [1, 8]."""
    values = {name: array.astype(np.float64) for name, array in constants().items()}
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    conv = np.einsum("ncyxij,ocij->noyx", windows, values["kernel"])
    mean = np.maximum(conv, 0).mean(axis=(2, 3))
    return mean @ values["matrix"] + values["bias"] + memory.astype(np.float64) / 2


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def fixture(target: str) -> Artifact:
    """The model as an artifact for one target, with one line in place of its C source."""
    graph = import_model(model())
    declare_state(graph, {"memory": "next"})
    code = replace(lower(graph, target), source="/* left out: helpers are most of it */\n")
    program = Program(
        name=graph.name, inputs=(TensorSpec("x", "f32", (1, 3, 8, 8)),),
        state=(TensorSpec("memory", "f32", (1, 8)),), outputs=(TensorSpec("next", "f32", (1, 8)),),
        carry={"memory": "next"}, source_sha256=sha256_hex(model().SerializeToString()),
        metadata=graph.metadata, targets=(code,), options={"target": [target]})
    return build(program, make_golden(graph), threads=1)


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for target in TARGETS:
        path = DATA / f"format-{VERSION[0]}.{VERSION[1]}-{target}.tnn"
        path.write_bytes(fixture(f"cpu:{target}").to_bytes())
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
