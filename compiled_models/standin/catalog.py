"""The stand-in models by name, and how one is written as an ONNX model."""
from __future__ import annotations

import base64
import pickle
import uuid
from collections.abc import Callable

import onnx
from onnx import helper

from compiled_models.standin import models, variants
from compiled_models.standin.models import Slices
from compiled_models.standin.net import Net, Options

UNTRAINED = "none; random weights, meaningless outputs"

MODELS: dict[str, Callable[[Net], Slices]] = {
    function.__name__: function
    for function in (
        models.supercombo_08,
        models.supercombo_097,
        models.driving_vision,
        models.driving_policy,
        models.driving_supercombo,
        models.driving_supercombo_stateful,
        models.dmonitoring,
    )
}
# The same networks behind the borders of other releases. No recipe is bundled for them.
VARIANTS: dict[str, Callable[[Net], Slices]] = {
    function.__name__: function
    for function in (
        variants.supercombo_095,
        variants.driving_vision_632,
        variants.driving_policy_5884,
        variants.driving_vision_1432,
        variants.driving_policy_5072,
        variants.driving_vision_1536,
        variants.driving_policy_4968,
        variants.driving_off_policy,
        variants.dmonitoring_545,
        variants.dmonitoring_553,
    )
}


def build(name: str, options: Options | None = None) -> onnx.ModelProto:
    """The named model, checked, with its metadata; equal bytes for equal arguments.

    metadata_props: `model_checkpoint` and `output_slices` as real files have them (the slices are
    base64 text of a pickled dict; only written here, never unpickled), and `training`, which says
    that there was none. Raises ValueError for an unknown name.
    """
    known = MODELS | VARIANTS
    if name not in known:
        raise ValueError(f"there is no stand-in model {name!r}; known are: {', '.join(known)}")
    options = options or Options()
    net = Net(options)
    slices = known[name](net)
    graph = helper.make_graph(net.nodes, name, net.inputs, net.outputs,
                              [*net.initializers.values()],
                              doc_string="Random weights, not trained. Never to drive a car.")
    model = helper.make_model(graph, producer_name="tinydrive stand-in",
                              ir_version=9 if net.opset >= 20 else 8,
                              opset_imports=[helper.make_opsetid("", net.opset)])
    checkpoint = uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {options}")
    helper.set_model_props(model, {
        "model_checkpoint": f"{checkpoint}/{options.seed}",
        "output_slices": base64.encodebytes(pickle.dumps(slices, 4)).decode(),
        "training": UNTRAINED,
    })
    onnx.checker.check_model(model, full_check=True)
    return model
