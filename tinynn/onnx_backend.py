"""The backend interface of the onnx package: run any model or node through tinynn.

    from tinynn.onnx_backend import TinynnBackend
    outputs = TinynnBackend.run_model(model, [array, ...])

A model is imported when the values are known, because many ONNX models take shapes and axes as
inputs where this compiler wants constants. Imported is first with all inputs open, then with the
integer inputs as constants, then with all inputs as constants: the first import that is not
refused is used. Sequences and optionals are always constants.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
from onnx import ModelProto, NodeProto, helper, numpy_helper

import tinynn
from tinynn import interp
from tinynn.ir import Graph
from tinynn.onnx import ModelError, import_model
from tinynn.onnx.registry import Value
from tinynn.simplify import simplify

Array = np.ndarray[Any, Any]


class TinynnBackendRep(onnx.backend.base.BackendRep):
    """A model to be run with different inputs. compiled: through machine code, else the
    interpreter."""

    def __init__(self, model: ModelProto, compiled: bool = False) -> None:
        self.model = model
        self.compiled = compiled

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in the order of the model.

        inputs: a list in the order of the model's inputs, a dict by name, or one array; a
        sequence is a list of arrays, an absent optional None.
        Raises ModelError if the model is invalid, UnsupportedModel if it cannot be imported.
        """
        given = self._by_name(inputs)
        constants, feed = self._split(given)
        graph = self._import(constants, feed)
        feed = {name: value for name, value in feed.items() if name in graph.inputs}
        return tuple(self._compute(graph, feed, output) for output in self.model.graph.output)
