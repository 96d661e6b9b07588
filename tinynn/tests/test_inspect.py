"""What `tinynn inspect MODEL` says about a model."""
from __future__ import annotations

import base64
import pickle

import numpy as np
from onnx import helper, numpy_helper

from tinynn.inspect import costs, describe
from tinynn.ir import Graph
from tinynn.onnx import import_model
from tinynn.tests import onnx_tools as tools


def small() -> Graph:
    """3x3 convolution 2 -> 4 channels on 8x8, then a Gemm 256 -> 10."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Flatten", ["b"], ["c"]),
             helper.make_node("Gemm", ["c", "v"], ["outputs"], transB=1)]
    proto = tools.model(nodes, {"x": np.zeros((1, 2, 8, 8), np.float32)}, ["outputs"])
    for name, shape in (("w", (4, 2, 3, 3)), ("v", (10, 256))):
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    slices = {"plan": slice(0, 8), "pad": slice(-2, None)}
    helper.set_model_props(proto, {
        "output_slices": base64.b64encode(pickle.dumps(slices)).decode(),
        "model_checkpoint": "c0ffee/100", "author": "somebody"})
    return import_model(proto)


def test_costs() -> None:
    total = costs(small())
    weights = 4 * 2 * 9 + 10 * 256
    assert weights <= total.parameters <= weights + 2  # and the zero of Relu
    assert 4 * weights <= total.parameter_nbytes <= 4 * (weights + 2)
    assert total.macs == 4 * 2 * 9 * 64 + 10 * 256
    assert total.io_nbytes == 4 * (2 * 64 + 10)


def test_description() -> None:
    lines = describe(small()).splitlines()
    assert "source      ONNX, opset ai.onnx 17" in lines
    assert "input       x f32[1,2,8,8]" in lines
    assert "output      outputs f32[1,10]" in lines
    assert "ONNX ops    Conv 1  Flatten 1  Gemm 1  Relu 1" in lines
    assert any(line.startswith("graph ops   ") and "REDUCE 2" in line for line in lines)
    assert "work        0.0000 GMAC in contractions" in lines
    assert "            plan                            0      8       8" in lines
    assert "            pad                            -2      -       2" in lines
    assert "checkpoint  c0ffee/100" in lines
    assert "metadata    author = somebody" in lines
