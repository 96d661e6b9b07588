"""The backend interface of the onnx package: run any model or node through tinynn.

    from tinynn.onnx_backend import TinynnBackend
    outputs = TinynnBackend.run_model(model, [array, ...])

Many ONNX models take shapes, axes and sizes as inputs where this compiler wants constants. So a
model is imported when the values are known: first with all inputs open, then with the integer
inputs as constants, then with all of them; the first import that is not refused is used.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
from onnx import ModelProto, NodeProto, helper, numpy_helper

import tinynn
from tinynn import interp
from tinynn.ir import DType
from tinynn.onnx import ModelError, import_model
from tinynn.onnx.reader import sequence_item
from tinynn.simplify import simplify, widen_f16

Values = dict[str, Any]


class TinynnBackendRep(onnx.backend.base.BackendRep):
    """A model, to be run on different inputs."""

    def __init__(self, model: ModelProto, compiled: bool = False) -> None:
        """compiled: run machine code instead of the interpreter."""
        self._model = model
        self._compiled = compiled

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in the order of the model.

        inputs: arrays in the order of the model's inputs, or by name, or a single array. A
        sequence is a list of arrays, an optional without value is None.
        Raises ModelError if the model is invalid, UnsupportedModel if it cannot be imported.
        """
        given = _by_name(self._model, inputs)
        results = self._first_that_imports(given)
        return tuple(_output(o, results) for o in self._model.graph.output)

    def _first_that_imports(self, given: Values) -> Values:
        attempts = _constants_to_try(given)
        for i, constants in enumerate(attempts):
            model = specialise(self._model, {name: given[name] for name in constants})
            feed = {name: given[name] for name in given if name not in constants}
            try:
                return self._compute(model, feed)
            except ModelError:
                if i == len(attempts) - 1:
                    raise
        raise AssertionError("there is always an attempt")

    def _compute(self, model: ModelProto, feed: Values) -> Values:
        shapes = {name: value.shape for name, value in feed.items()}
        if self._compiled:
            artifact = tinynn.compile(model, shapes=shapes)
            with tinynn.load(artifact.to_bytes(), trust=True) as runner:
                results = runner(feed)
            # The runtime gives bf16 as bits.
            return {spec["name"]: results[spec["name"]].view(DType(spec["dtype"]).numpy)
                    for spec in artifact.manifest["io"]["outputs"]}
        graph = simplify(widen_f16(import_model(model, shapes)))  # as `tinynn.compile` does
        return dict(interp.run(graph, feed))


class TinynnBackend(onnx.backend.base.Backend):
    """tinynn as a backend of the onnx package. Only the device "CPU"."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> TinynnBackendRep:
        """compiled=True: run machine code instead of the interpreter."""
        if not cls.supports_device(device):
            raise ValueError(f"device {device!r} is not supported; use 'CPU'")
        return TinynnBackendRep(model, bool(kwargs.get("compiled", False)))

    @classmethod
    def run_node(cls, node: NodeProto, inputs: Any, device: str = "CPU",
                 outputs_info: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """One node as a model of its own. opset_version: of its domain, default the newest."""
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        names = [name for name in node.input if name]
        values = [np.asarray(v) for v in inputs]
        graph = helper.make_graph(
            [node], "node",
            [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for name, v in zip(names, values, strict=True)],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name])
        opsets = [helper.make_opsetid(node.domain, version)]
        model = helper.make_model(graph, opset_imports=opsets)
        return cls.prepare(model, device, **kwargs).run(values)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


def _by_name(model: ModelProto, inputs: Any) -> Values:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    stored = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in stored]
    listed = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(listed) != len(names):
        raise ValueError(f"{len(listed)} inputs are given, the model takes {len(names)}: {names}")
    return dict(zip(names, listed, strict=True))


def _constants_to_try(given: Values) -> list[set[str]]:
    """Which inputs to make constants: the fewest first. What is no tensor always is one."""
    always = {name for name, value in given.items() if not isinstance(value, np.ndarray)}
    integers = {name for name, value in given.items()
                if name not in always and value.dtype.kind in "iu"}
    attempts = [always, always | integers, set(given)]
    return [a for i, a in enumerate(attempts) if a not in attempts[:i]]


def specialise(model: ModelProto, values: Mapping[str, Any]) -> ModelProto:
    """The model with these inputs as constants."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    kept = [i for i in graph.input if i.name not in values]
    del graph.input[:]
    graph.input.extend(kept)
    for name, value in values.items():
        if value is None:
            graph.node.append(helper.make_node("Optional", [], [name]))
        elif isinstance(value, (list, tuple)):
            _add_sequence(graph, name, value)
        else:
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return result


def _add_sequence(graph: Any, name: str, values: Sequence[Any]) -> None:
    items = [sequence_item(name, i) for i in range(len(values))]
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), item)
                             for v, item in zip(values, items, strict=True))
    op = "SequenceConstruct" if items else "SequenceEmpty"
    graph.node.append(helper.make_node(op, items, [name]))


def _output(declared: Any, results: Values) -> Any:
    """An output as the caller expects it: an array, or a list of arrays for a sequence."""
    if declared.name in results:
        return results[declared.name]
    count = sum(name.startswith(sequence_item(declared.name, "")) for name in results)
    return [results[sequence_item(declared.name, i)] for i in range(count)]
