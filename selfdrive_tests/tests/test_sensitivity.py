"""The weight that is moved to see whether the lab finds it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from selfdrive_tests.sensitivity import moved


def test_one_weight_is_moved_and_nothing_else() -> None:
    weights = np.array([[1.0, -2.0], [3.0, 4.0]], np.float16)
    model = helper.make_model(
        helper.make_graph([], "toy", [], [], [numpy_helper.from_array(weights, "w")])
    )
    changed = numpy_helper.to_array(moved(model, "w", (0, 1), 0.25).graph.initializer[0])
    assert changed.dtype == np.float16
    assert changed.tolist() == [[1.0, -1.5], [3.0, 4.0]]
    assert isinstance(model, onnx.ModelProto)
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == weights.tolist()
    with pytest.raises(KeyError):
        moved(model, "v", (0, 0), 1.0)
