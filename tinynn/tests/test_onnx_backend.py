"""The interface of onnx.backend.base."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinynn.onnx import UnsupportedModel
from tinynn.onnx_backend import TinynnBackend, specialise
from tinynn.tests import onnx_tools as tools

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SHAPE = np.array([3, 2])
RESHAPE = tools.one_node("Reshape", {"x": X, "shape": SHAPE})


@pytest.mark.parametrize("inputs", [[X, SHAPE], (X, SHAPE), {"shape": SHAPE, "x": X}])
def test_integer_inputs_become_constants_where_needed(inputs: Any) -> None:
    (y,) = TinynnBackend.run_model(RESHAPE, inputs)
    np.testing.assert_array_equal(y, X.reshape(3, 2))


def test_a_prepared_model_runs_with_other_values() -> None:
    prepared = TinynnBackend.prepare(RESHAPE)
    for shape in ((3, 2), (6, 1)):
        (y,) = prepared.run([X, np.array(shape)])
        np.testing.assert_array_equal(y, X.reshape(shape))


def test_float_inputs_become_constants_last() -> None:
    sizes = np.array([1, 1, 2, 2], np.float32)
    image = X[None, None]
    proto = tools.one_node("Resize", {"x": image, "roi": None, "scales": sizes})
    (y,) = TinynnBackend.run_model(proto, [image, sizes])
    np.testing.assert_array_equal(y, image.repeat(2, 2).repeat(2, 3))


def test_a_single_array_and_open_shapes() -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    np.testing.assert_array_equal(TinynnBackend.run_model(model, X)[0], -X)


def test_run_node() -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    np.testing.assert_array_equal(TinynnBackend.run_node(node, [X, X])[0], 2 * X)
    old = helper.make_node("Add", ["a", "b"], ["c"], broadcast=1, axis=0)
    column = np.array([10, 20], np.float32)
    (y,) = TinynnBackend.run_node(old, [X, column], opset_version=6)
    np.testing.assert_array_equal(y, X + column[:, None])


def test_sequences_in_and_out() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    out = helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("SequenceInsert", ["s", "x"], ["t"])], "g",
                              [sequence, helper.make_tensor_value_info("x", 1, [2, 3])], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    for given in ([], [X + 1], [X + 1, X + 2]):
        (result,) = TinynnBackend.run_model(model, [given, X])
        assert len(result) == len(given) + 1
        np.testing.assert_array_equal(result[-1], X)


def test_specialised_models_are_valid_onnx() -> None:
    model = specialise(RESHAPE, {"shape": SHAPE})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out0", 1, [3, 2]))
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == ["x"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), SHAPE)
    assert len(RESHAPE.graph.input) == 2


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"1 inputs are given, the model takes 2: \['x', 'shape'"):
        TinynnBackend.run_model(RESHAPE, [X])
    with pytest.raises(ValueError, match="device 'CUDA' is not supported"):
        TinynnBackend.prepare(RESHAPE, "CUDA")
    assert TinynnBackend.supports_device("CPU")
    assert not TinynnBackend.supports_device("CUDA:0")
    with pytest.raises(UnsupportedModel, match="Bernoulli"):
        TinynnBackend.run_node(helper.make_node("Bernoulli", ["x"], ["y"]), [X])


def test_through_machine_code() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    (y,) = TinynnBackend.run_node(node, [X], compiled=True)
    power = np.exp(X.astype(np.float64))
    np.testing.assert_allclose(y, power / power.sum(1, keepdims=True), rtol=1e-5)
    (z,) = TinynnBackend.run_model(RESHAPE, [X, SHAPE], compiled=True)
    np.testing.assert_array_equal(z, X.reshape(3, 2))


LIGHT = Path(onnx.backend.test.__path__[0]) / "data" / "light"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_networks_through_machine_code(path: Path) -> None:
    """Nine image networks of the onnx package, on a ramp from 0 to 1."""
    model = onnx.load(path)
    stored = {t.name for t in model.graph.initializer}
    (given,) = (i for i in model.graph.input if i.name not in stored)
    shape = [d.dim_value or 1 for d in given.type.tensor_type.shape.dim]
    size = int(np.prod(shape))
    ramp = (np.arange(size) / size).astype(np.float32).reshape(shape)
    stored_output = path.with_name(f"{path.stem}_output_0.pb").read_bytes()
    wanted = numpy_helper.to_array(TensorProto.FromString(stored_output))
    (got,) = TinynnBackend.run_model(model, [ramp], compiled=True)
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-7)
