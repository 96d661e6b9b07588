"""Quantised contractions: integer sums, packed by fours, against exact integers and onnxruntime."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinynn.compiler import lower, plan
from tinynn.contract import Contract
from tinynn.evaluate import in_memory
from tinynn.ir import Graph
from tinynn.machine import MACHINES
from tinynn.onnx.reader import import_model
from tinynn.runtime.host import host_targets
from tinynn.simplify import simplify

PACKED = "x86-64-v4+bf16+vnni"
TARGETS = [name for name in host_targets() if name in (f"cpu:{PACKED}", "cpu:x86-64-v3")]
RANDOM = np.random.RandomState(1)
ELEMENTS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32,
            "float32": TensorProto.FLOAT}


def _model(nodes: list[onnx.NodeProto], x: tuple[str, tuple[int, ...]], y: str,
           constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "quantised", [helper.make_tensor_value_info("x", ELEMENTS[x[0]], x[1])],
        [helper.make_tensor_value_info("y", ELEMENTS[y], None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def _bytes(kind: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(kind)
    return RANDOM.randint(limits.min, limits.max + 1, shape).astype(kind)


def _groups(graph: Graph, machine: str = PACKED) -> list[int]:
    schedules = plan(simplify(graph), MACHINES[machine]).schedules
    return [s.group for s in schedules if isinstance(s, Contract)]


def _run(model: onnx.ModelProto, target: str, x: np.ndarray) -> np.ndarray:
    graph = import_model(model)
    with in_memory(graph, lower(graph, target), 1) as runner:
        return runner({"x": x})["y"]


def _referee(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def _integer_conv(kind: str, zero: int, shape: tuple[int, ...], filters: tuple[int, ...],
                  **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node("ConvInteger", ["x", "w", "zero"], ["y"], **attributes)
    return _model([node], (kind, shape), "int32",
                  {"w": _bytes("int8", *filters), "zero": np.array(zero, kind)})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("shape", "filters", "attributes"), [
    ((1, 16, 9, 17), (24, 16, 1, 1), {}),
    ((2, 10, 8, 20), (5, 10, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((1, 3, 15, 33), (16, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
])
def test_integer_convolutions_are_exact(target: str, shape: tuple[int, ...],
                                        filters: tuple[int, ...],
                                        attributes: dict[str, list[int]]) -> None:
    model = _integer_conv("uint8", 131, shape, filters, **attributes)
    assert _groups(import_model(model)) == [4]
    x = _bytes("uint8", *shape)
    np.testing.assert_array_equal(_run(model, target, x), _referee(model, x))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 70, 33), (9, 64, 48), (40, 31, 16)])
def test_integer_matrix_products_are_exact(target: str, kind: str, rows: int, depth: int,
                                           columns: int) -> None:
    node = helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])
    weights = _bytes("int8", depth, columns)
    zero = 17 if kind == "uint8" else -5
    model = _model([node], (kind, (rows, depth)), "int32",
                   {"w": weights, "zero": np.array(zero, kind)})
    assert _groups(import_model(model)) == [4]
    x = _bytes(kind, rows, depth)
    want = (x.astype(np.int64) - zero) @ weights.astype(np.int64)
    np.testing.assert_array_equal(_run(model, target, x), want)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("groups", [1, 12])
def test_a_convolution_between_dequantise_and_quantise_is_exact(target: str, groups: int) -> None:
    """The sum is exact and is rounded once to a byte: what differs is at most where the number
    before that rounding is within a few units in the last place of a half."""
    weights = _bytes("int8", 12, 12 // groups, 3, 3)
    constants: dict[str, Any] = {
        "w": weights, "w_scale": RANDOM.uniform(0.001, 0.02, 12).astype(np.float32),
        "w_zero": np.zeros(12, np.int8), "x_scale": np.float32(0.037), "x_zero": np.uint8(120),
        "y_scale": np.float32(0.3), "y_zero": np.uint8(96)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["b"], axis=0),
        helper.make_node("Conv", ["a", "b"], ["c"], pads=[1, 1, 1, 1], group=groups),
        helper.make_node("QuantizeLinear", ["c", "y_scale", "y_zero"], ["y"])]
    model = _model(nodes, ("uint8", (1, 12, 14, 30)), "uint8", constants)
    if groups == 1:
        assert _groups(import_model(model)) == [4]
    x = _bytes("uint8", 1, 12, 14, 30)
    plain = _integer_conv("uint8", 120, x.shape, weights.shape, pads=[1, 1, 1, 1], group=groups)
    plain.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    scale = constants["w_scale"].astype(np.float64) * np.float64(constants["x_scale"])
    real = _referee(plain, x) * scale[:, None, None] / np.float64(constants["y_scale"])
    clear = np.abs(real - np.floor(real) - 0.5) > 1e-4
    want = np.clip(np.rint(real) + 96, 0, 255)
    np.testing.assert_array_equal(_run(model, target, x)[clear], want[clear])


@pytest.mark.parametrize("target", TARGETS)
def test_qlinear_convolutions_agree_with_onnxruntime(target: str) -> None:
    constants: dict[str, Any] = {
        "x_scale": np.float32(0.05), "x_zero": np.uint8(128), "w": _bytes("int8", 16, 8, 3, 3),
        "w_scale": RANDOM.uniform(0.001, 0.02, 16).astype(np.float32),
        "w_zero": np.zeros(16, np.int8),
        "y_scale": np.float32(0.5), "y_zero": np.uint8(100),
        "bias": RANDOM.randint(-9999, 9999, 16).astype(np.int32)}
    names = ["x", *(n for n in constants)]
    model = _model([helper.make_node("QLinearConv", names, ["y"], pads=[1, 1, 1, 1])],
                   ("uint8", (1, 8, 12, 20)), "uint8", constants)
    assert _groups(import_model(model)) == [4]
    x = _bytes("uint8", 1, 8, 12, 20)
    np.testing.assert_array_equal(_run(model, target, x), _referee(model, x))


def test_weights_that_are_no_bytes_stay_floats() -> None:
    weights = RANDOM.standard_normal((16, 8, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]),
             helper.make_node("Conv", ["a", "w"], ["y"])]
    model = _model(nodes, ("uint8", (1, 8, 6, 16)), "float32",
                   {"w": weights, "s": np.float32(0.1), "z": np.uint8(3)})
    assert _groups(import_model(model)) == [1]
