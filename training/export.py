"""The trained network as an ONNX file with f16 weights, slices and origin in its metadata."""
from __future__ import annotations

import base64
import hashlib
import io
import pickle
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from training.network import DrivingNetwork
from training.outputs import INPUTS, output_slices

OPSET = 17
SMALL = 1024  # tensors with fewer values stay in f32
DEMONSTRATION = "a procedural world alone; a demonstration, never for a car on a road"


def onnx_model(network: DrivingNetwork, about: Mapping[str, str]) -> onnx.ModelProto:
    """The network as files of release 0.11.2 are: same inputs, slices and metadata.

    about: further metadata (command, seed, clips). Equal weights give equal bytes.
    """
    examples = tuple(torch.zeros(shape, dtype=getattr(torch, dtype))
                     for dtype, shape in INPUTS.values())
    buffer = io.BytesIO()
    # The exporter that traces folds batch normalisation into the convolutions.
    torch.onnx.export(network.eval(), examples, buffer, input_names=[*INPUTS],
                      output_names=["outputs"], opset_version=OPSET, dynamo=False)
    model = onnx.load_from_string(buffer.getvalue())
    declare_inputs(model.graph)
    store_as_f16(model.graph)
    weights = hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
    model.producer_name, model.producer_version = "tinydrive training", ""
    model.graph.name = "driving_supercombo"
    model.graph.doc_string = f"Trained in {DEMONSTRATION}."
    helper.set_model_props(model, {
        "model_checkpoint": weights[:16],
        # As real files have it: base64 text of a pickled dict. Only written here, never read.
        "output_slices": base64.encodebytes(pickle.dumps(output_slices(), 4)).decode(),
        "training": DEMONSTRATION, **about})
    onnx.checker.check_model(model, full_check=True)
    return model


def declare_inputs(graph: onnx.GraphProto) -> None:
    """Name all inputs of the contract; the exporter leaves out those that nothing reads."""
    del graph.input[:]
    for name, (dtype, shape) in INPUTS.items():
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def store_as_f16(graph: onnx.GraphProto) -> None:
    """Keep large weights in half the bytes; a Cast behind each brings f32 back."""
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.f16"))
        casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], f"{name}.f32",
                                      to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
