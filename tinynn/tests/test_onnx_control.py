"""Loops, scans, sequences and functions of the standard, against onnxruntime."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tinynn import interp
from tinynn.ir import Op
from tinynn.onnx import ModelError, UnsupportedModel, import_model
from tinynn.tests import onnx_tools as tools

RNG = np.random.default_rng(3)


def f(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def info(name: str, element: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def assert_agrees(proto: onnx.ModelProto, feed: dict[str, Any]) -> None:
    wanted, got = tools.reference(proto, feed), tools.compute(proto, feed)
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def loop_model(trips: int | None, body_nodes: list[onnx.NodeProto], fixed: tuple[str, ...]
               ) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """h, history = Loop(trips, true, x): a body with the outputs going, h, kept."""
    body = helper.make_graph(
        body_nodes, "body", [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []),
                             info("h_in", shape=[3])],
        [info("going", TensorProto.BOOL, []), info("h_out", shape=[3]), info("kept", shape=[3])])
    feed = {"x": f(3), "w": f(3), "go": np.array(True)}
    if trips is not None:
        feed["trips"] = np.array(trips)
    loop = helper.make_node("Loop", ["" if trips is None else "trips", "go", "x"],
                            ["h", "history"], body=body)
    proto = tools.model([loop], feed, ["h", "history"], fixed=fixed)
    return proto, feed


GROWING = [node("Mul", "h_in w", "h_out"), node("Add", "h_out w", "kept"),
           node("Identity", "c", "going")]


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_loop_with_a_fixed_number_of_trips(trips: int) -> None:
    proto, feed = loop_model(trips, GROWING, ("trips", "go"))
    assert_agrees(proto, feed)


def test_loop_that_ends_by_its_condition() -> None:
    """Round i goes on while i < 3, so rounds 0 to 3 run."""
    until = [*GROWING[:2], node("Constant", "", "three", value_int=3),
             node("Less", "i three", "going")]
    proto, feed = loop_model(None, until, ("go",))
    assert_agrees(proto, feed)
    assert tools.compute(proto, feed)["history"].shape == (4, 3)


def test_loops_without_known_end_are_refused() -> None:
    proto, _ = loop_model(5, GROWING, ("go",))
    with pytest.raises(UnsupportedModel, match=r"Loop node .* opset 17: the number of trips must"):
        import_model(proto)
    forever, _ = loop_model(None, GROWING, ("go",))
    with pytest.raises(UnsupportedModel, match="a loop of more than 10000 rounds"):
        import_model(forever)


@pytest.mark.parametrize("options", [
    {}, {"scan_input_directions": [1]}, {"scan_output_directions": [1]},
    {"scan_input_axes": [1], "scan_output_axes": [-1]}])
def test_scan(options: dict[str, Any]) -> None:
    body = helper.make_graph(
        [node("Add", "s x", "s_out"), node("Tanh", "s_out", "y")], "body",
        [info("s", shape=[4]), info("x", shape=[4])],
        [info("s_out", shape=[4]), info("y", shape=[4])])
    scan = node("Scan", "start xs", "end ys", body=body, num_scan_inputs=1, **options)
    feed = {"start": f(4), "xs": f(4, 5) if "scan_input_axes" in options else f(5, 4)}
    assert_agrees(tools.model([scan], feed, ["end", "ys"]), feed)


SEQUENCES = {
    "length": ([node("SequenceConstruct", "x y x", "s"), node("SequenceLength", "s", "out")]),
    "insert in front": ([node("SequenceConstruct", "x y", "s"),
                         node("SequenceInsert", "s z i", "t"),
                         node("ConcatFromSequence", "t", "out", axis=1)]),
    "insert at the end": ([node("SequenceConstruct", "x", "s"), node("SequenceInsert", "s z", "t"),
                           node("ConcatFromSequence", "t", "out", axis=0, new_axis=1)]),
    "at": ([node("SequenceConstruct", "x y z", "s"), node("SequenceAt", "s last", "out")]),
    "erase": ([node("SequenceConstruct", "x y z", "s"), node("SequenceErase", "s i", "t"),
               node("ConcatFromSequence", "t", "out", axis=0)]),
    "split": ([node("SplitToSequence", "x two", "s", axis=1), node("SequenceAt", "s last", "out")]),
    "split to rows": ([node("SplitToSequence", "x", "s", keepdims=0),
                       node("SequenceAt", "s i", "out")]),
    "empty": ([node("SequenceEmpty", "", "s"), node("SequenceInsert", "s y", "t"),
               node("Identity", "t", "u"), node("SequenceAt", "u last", "out")]),
    "optional": ([node("Optional", "x", "o"), node("OptionalHasElement", "o", "out")]),
    "value of an optional": ([node("Optional", "x", "o"), node("OptionalGetElement", "o", "out")]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    feed = {"x": f(2, 3), "y": f(2, 3), "z": f(2, 3), "i": np.array(0), "last": np.array(-1),
            "two": np.array(2)}
    proto = tools.model(SEQUENCES[name], feed, ["out"], 18, fixed=("i", "last", "two"))
    assert_agrees(proto, feed)


def test_sequence_outputs_are_one_output_per_tensor() -> None:
    proto = tools.model([node("SplitToSequence", "x", "s")], {"x": f(2, 3)}, ["s"])
    assert list(import_model(proto).outputs) == ["s.0", "s.1"]


@pytest.mark.parametrize(("nodes", "message"), [
    ([node("SequenceConstruct", "x", "s"), node("Relu", "s", "out")],
     r"Relu node .*takes tensors, but an input is a sequence"),
    ([node("SequenceAt", "x i", "out")], "a sequence is expected"),
    ([node("SequenceConstruct", "x", "s"), node("SequenceAt", "s n", "out")],
     "the position must be known at compile time"),
    ([node("SequenceConstruct", "x", "s"), node("SequenceAt", "s two", "out")],
     "position 2 in a sequence of 1"),
    ([node("Optional", "", "o"), node("OptionalGetElement", "o", "out")], "has no value"),
    ([node("Optional", "", "out")], "the output 'out' is an optional without a value"),
])
def test_misused_sequences(nodes: list[onnx.NodeProto], message: str) -> None:
    feed = {"x": f(2, 3), "i": np.array(0), "n": np.array(0), "two": np.array(2)}
    with pytest.raises(ModelError, match=message):
        import_model(tools.model(nodes, feed, ["out"], 18, fixed=("i", "two")))


FUNCTIONS = [
    ("Shrink", {"x": f(3, 4)}, {"lambd": 0.5, "bias": 0.2}),
    ("MeanVarianceNormalization", {"x": f(2, 3, 4, 4)}, {}),
    ("CenterCropPad", {"x": f(7, 4), "shape": np.array([5, 6])}, {}),
    ("SoftmaxCrossEntropyLoss", {"x": f(3, 5), "labels": np.array([0, 4, 2])}, {}),
    ("NegativeLogLikelihoodLoss", {"x": f(3, 5, 2), "labels": np.array([[0, 4], [1, 1], [2, 3]]),
                                   "weight": np.abs(f(5))}, {"ignore_index": 1}),
    ("HannWindow", {"size": np.array(9)}, {"periodic": 0}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_operators_that_the_standard_defines_by_others(
        op: str, inputs: dict[str, Any], attributes: dict[str, Any]) -> None:
    proto = tools.one_node(op, inputs, 18, fixed=("shape", "size"), **attributes)
    assert_agrees(proto, inputs)


def test_attention_of_the_newest_opset() -> None:
    feed = {"q": f(2, 3, 4, 8), "k": f(2, 3, 6, 8), "v": f(2, 3, 6, 8)}
    got = tools.compute(tools.one_node("Attention", feed, 23), feed)["out0"]
    wide = {name: v.astype(np.float64) for name, v in feed.items()}
    scores = wide["q"] @ wide["k"].swapaxes(2, 3) / np.sqrt(8)
    power = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(got, power / power.sum(-1, keepdims=True) @ wide["v"], rtol=1e-5,
                               atol=1e-6)


def test_functions_leave_no_trace_of_what_was_not_asked() -> None:
    """An optional output of a function body that nobody reads costs no nodes."""
    x, labels = f(3, 5), np.array([0, 4, 2])
    proto = tools.one_node("SoftmaxCrossEntropyLoss", {"x": x, "labels": labels}, 13)
    graph = import_model(proto)
    assert list(graph.outputs) == ["out0"]
    assert interp.run(graph, {"x": x, "labels": labels})["out0"].shape == ()
    assert all(n.op is not Op.SCATTER for n in graph.nodes())
