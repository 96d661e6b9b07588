"""Small ONNX models for tests, and onnxruntime as the reference."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tinynn import interp
from tinynn.onnx import import_model
from tinynn.simplify import simplify

Array = np.ndarray[Any, Any]


def one_node(op: str, inputs: Mapping[str, Array | None], opset: int = 17, outputs: int = 1,
             fixed: Sequence[str] = (), **attributes: Any) -> onnx.ModelProto:
    """A model of a single node. Inputs named in `fixed` are initialisers, None is left out."""
    names = ["" if value is None else name for name, value in inputs.items()]
    results = [f"out{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="the node", **attributes)
    return model([node], inputs, results, opset, fixed)


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Array | None],
          outputs: Sequence[str], opset: int = 17, fixed: Sequence[str] = ()) -> onnx.ModelProto:
    given = {n: v for n, v in inputs.items() if v is not None}
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for n, v in given.items() if n not in fixed],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(v, n) for n, v in given.items() if n in fixed])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def reference(proto: onnx.ModelProto | str, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime computes, with its graph optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = proto if isinstance(proto, str) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()}
    results = session.run(None, {n: v for n, v in feed.items() if n in known})
    return {o.name: r for o, r in zip(session.get_outputs(), results, strict=True)}


def compute(proto: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The same through our import, simplification and interpreter."""
    graph = simplify(import_model(proto))
    return interp.run(graph, {name: feed[name] for name in graph.inputs})


def relative_error(got: Array, wanted: Array) -> float:
    """Norm of the difference over the norm of the reference."""
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
