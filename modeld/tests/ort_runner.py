"""onnxruntime behind the interface of a compiled model, for stand-in models of real contracts."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from compiled_models.standin import build
from modeld.tests.fakes import Spec
from tinynn.onnx.reader import import_model

DTYPES = {"tensor(uint8)": "u8", "tensor(float)": "f32", "tensor(float16)": "f16"}


class OnnxRunner:
    """A stand-in model by its name. Its metadata comes through the compiler's own reader."""

    target = "onnxruntime"

    def __init__(self, name: str) -> None:
        model = build(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.inputs = specs(self._session.get_inputs())
        self.outputs = specs(self._session.get_outputs())
        self.metadata: dict[str, Any] = dict(import_model(model).metadata)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))


def specs(arguments: Any) -> dict[str, Spec]:
    return {item.name: Spec(item.name, DTYPES[item.type], tuple(item.shape)) for item in arguments}
