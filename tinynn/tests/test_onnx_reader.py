"""What the reader refuses, and how it says so."""
from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinynn import interp
from tinynn.ir import DType, Op
from tinynn.onnx import ModelError, UnsupportedModel, import_model
from tinynn.tests import onnx_tools as tools

F = np.zeros((2, 3), np.float32)


def chain(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",), opset: int = 17
          ) -> onnx.ModelProto:
    return tools.model(list(nodes), {"x": F}, outputs, opset)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op} of {inputs}",
                            **attributes)


def test_path_bytes_and_proto_give_the_same_graph(tmp_path: Path) -> None:
    proto = chain(node("Relu", "x", "y"))
    path = tmp_path / "small.onnx"
    onnx.save(proto, path)
    by_path, by_text = import_model(path), import_model(str(path))
    by_bytes, by_proto = import_model(path.read_bytes()), import_model(proto)
    assert by_path == by_text
    assert by_bytes == by_proto
    assert by_path.outputs == by_proto.outputs
    assert (by_path.name, by_proto.name) == ("small", "test")


def test_all_unsupported_nodes_are_listed_at_once() -> None:
    proto = chain(node("Frobnicate", "x", "a"), node("Relu", "a", "b"),
                  node("NonMaxSuppression", "b x", "c"), node("Gelu", "c", "d"),
                  helper.make_node("Thing", ["d"], ["y"], name="mine", domain="com.example"))
    with pytest.raises(UnsupportedModel) as caught:
        import_model(proto)
    text = str(caught.value)
    assert text.startswith("4 nodes of the model cannot be imported:")
    assert "Frobnicate, node 'Frobnicate of x', domain 'ai.onnx', opset 17: this operator" in text
    assert "Gelu, node 'Gelu of c', domain 'ai.onnx', opset 17: supported from opset 20" in text
    assert "Thing, node 'mine', domain 'com.example', opset 1: this operator" in text
    assert "Relu" not in text
    assert "Replace these operators" in text


def test_a_long_list_of_unsupported_nodes_is_cut() -> None:
    nodes = [node("Frobnicate", "x", f"a{i}") for i in range(500)]
    with pytest.raises(UnsupportedModel, match="500 nodes") as caught:
        import_model(chain(*nodes, node("Relu", "x", "y")))
    assert "... and 480 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 25


def test_unsupported_nodes_inside_branches_are_found() -> None:
    branch = helper.make_graph([node("Frobnicate", "x", "b")], "branch", [],
                               [helper.make_empty_tensor_value_info("b")])
    proto = chain(node("If", "x", "y", then_branch=branch, else_branch=branch))
    with pytest.raises(UnsupportedModel, match="2 nodes"):
        import_model(proto)


@pytest.mark.parametrize("opset", [0, 99])
def test_opsets_out_of_range(opset: int) -> None:
    with pytest.raises(UnsupportedModel, match=f"opset {opset}; supported are 1 to .*convert"):
        import_model(chain(node("Relu", "x", "y"), opset=opset))


def test_old_opsets_without_the_operator() -> None:
    with pytest.raises(UnsupportedModel, match="opset 5: supported from opset 6 on"):
        import_model(chain(node("Clip", "x", "y"), opset=5))


def test_a_git_lfs_pointer_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "supercombo.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\n"
                    f"oid sha256:{'0' * 64}\nsize 60000000\n")
    with pytest.raises(ModelError, match=r"supercombo\.onnx is a Git LFS pointer.*`git lfs pull`"):
        import_model(path)


@pytest.mark.parametrize(("nodes", "message"), [
    ([node("Add", "x z", "y")], r"node 'Add of x z' \(Add\): nothing makes its input 'z'"),
    ([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")],
     r"the graph has a cycle: .*Add of x b.*Relu of a"),
    ([node("Relu", "x", "y"), node("Neg", "x", "y")], "the name 'y' is already taken"),
    ([node("Relu", "x", "x")], "the name 'x' is already taken"),
    ([node("Relu", "x", "z")], r"no node makes the outputs \['y'\]"),
    ([node("Relu", "x x", "y")], r"'Relu of x x' \(Relu\), opset 17: takes 1 to 1 inputs, has 2"),
    ([node("Relu", "x", "y", novel=1)], r"attributes \['novel'\] are not supported"),
    ([node("Concat", "x", "y")], "attribute 'axis' is missing"),
    ([node("Concat", "x", "y", axis=1.5)], "attribute 'axis' should be an integer, is 1.5"),
    ([node("Concat", "x", "y", axis=2)], "axis 2 of a tensor with 2 axes"),
    ([node("Add", "x c", "y"), node("Constant", "", "c", value_floats=[1.0, 2.0])],
     r"node 'Add of x c' .*shapes \(2, 3\), \(2,\) cannot be broadcast"),
    ([node("MatMul", "x x", "y")], "inner lengths differ"),
    ([helper.make_node("Concat", ["x", "", "x"], ["y"], axis=0)],
     "Concat node that makes 'y', opset 17: the operands do not fit"),
    ([node("Reshape", "x c", "y"), node("Constant", "", "c", value_ints=[4, -1])],
     r"cannot be reshaped to \[4, -1\]"),
    ([node("Cast", "x c", "c"), node("Reshape", "x c", "y")], "cycle"),
    ([node("Cast", "x", "c", to=7), node("Reshape", "x c", "y")],
     "the new shape must be known at compile time"),
    ([node("MaxPool", "x", "y", kernel_shape=[2, 2])], r"MaxPool of x' \(MaxPool\), opset 17: "),
    ([node("Cast", "x", "y", to=8)], "element type STRING is not supported"),
    ([node("Conv", "x x", "y")], r"node 'Conv of x x' \(Conv\)"),
    ([node("Einsum", "x", "y")], "Einsum"),
])
def test_invalid_graphs(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        import_model(chain(*nodes))


def test_nodes_may_stand_in_any_order() -> None:
    graph = import_model(chain(node("Neg", "b", "y"), node("Exp", "a", "b"),
                               node("Relu", "x", "a")))
    x = np.array([[-1, 0, 1], [2, 3, 4]], np.float32)
    np.testing.assert_allclose(interp.run(graph, {"x": x})["y"], -np.exp(np.maximum(x, 0)),
                               rtol=1e-6)


def test_damaged_files(tmp_path: Path) -> None:
    good = chain(node("Relu", "x", "y")).SerializeToString()
    with pytest.raises(ModelError, match="not an ONNX model: it has no graph"):
        import_model(b"")
    for broken in (good[:-3], b"\x00" * 50, b"%PDF-1.4 something else"):
        with pytest.raises(ModelError, match="the model is not an ONNX"):
            import_model(broken)
    path = tmp_path / "cut.onnx"
    path.write_bytes(good[:-3])
    with pytest.raises(ModelError, match=r"cut\.onnx is not an ONNX file, or is damaged"):
        import_model(path)
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be read: No such file"):
        import_model(tmp_path / "gone.onnx")


def test_every_flipped_byte_gives_a_model_or_a_model_error() -> None:
    """Never another exception, whatever the damage."""
    proto = chain(node("Conv", "c w", "d", kernel_shape=[2, 2]), node("Reshape", "x s", "c"),
                  node("Relu", "d", "y"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 2, 2), np.float32), "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 3]), "s"))
    good = bytearray(proto.SerializeToString())
    import_model(bytes(good))
    for i, bit in itertools.product(range(len(good)), (0x01, 0x80)):
        good[i] ^= bit
        try:
            import_model(bytes(good))
        except ModelError as error:
            assert str(error)
        good[i] ^= bit


def initialised(tensor: TensorProto) -> onnx.ModelProto:
    proto = chain(node("Add", "x w", "y"))
    proto.graph.initializer.append(tensor)
    return proto


def test_initialisers_are_measured_before_they_are_read() -> None:
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], raw_data=b"\0" * 23)
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 2**20])
    negative = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1])
    text = TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])
    for tensor, message in (
            (short, r"'w' of shape \(2, 3\) needs 24 bytes, the file has 23"),
            (huge, "needs 1152921504606846976 values, the file has 0"),
            (negative, "negative dimension"), (text, "STRING is not supported")):
        with pytest.raises(ModelError, match=message):
            import_model(initialised(tensor))


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BOOL])
def test_typed_and_raw_initialisers_of_every_dtype(dtype: DType) -> None:
    values = np.array([1, 2, 100], dtype.numpy)
    raw = numpy_helper.from_array(values, "w")
    typed = helper.make_tensor("w", raw.data_type, [3], values.astype(object)
                               if dtype.is_integer else values.astype(np.float64))
    for tensor in (raw, typed):
        graph = helper.make_graph([node("Identity", "w", "y")], "g", [],
                                  [helper.make_empty_tensor_value_info("y")], [tensor])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        (output,) = import_model(proto).outputs.values()
        assert output.op is Op.CONST
        assert output.dtype is dtype
        np.testing.assert_array_equal(output.arg.array, values)


def external(location: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3],
                         data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "4"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return initialised(tensor)


def test_external_data_stays_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    data = np.array([9, 1, 2, 3], np.float32).tobytes()
    for place in (folder / "weights.bin", tmp_path / "secret.bin"):
        place.write_bytes(data)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def load(location: str) -> Any:
        onnx.save(external(location), folder / "m.onnx")
        return import_model(folder / "m.onnx")

    x = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(interp.run(load("weights.bin"), {"x": x})["y"], [[1, 2, 3]] * 2)
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "link.bin", ""):
        with pytest.raises(ModelError, match="outside the model's folder"):
            load(location)
    with pytest.raises(ModelError, match=r"'gone\.bin', which cannot be read"):
        load("gone.bin")
    (folder / "weights.bin").write_bytes(data[:9])
    with pytest.raises(ModelError, match="needs 12 bytes, the file has 5"):
        load("weights.bin")
    with pytest.raises(ModelError, match="only found if the model is given as a path"):
        import_model(external("weights.bin"))


def test_open_shapes_need_to_be_given() -> None:
    graph = helper.make_graph(
        [node("Relu", "x", "y")], "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 3])],
        [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match=r"'x' has the open shape \(batch, 3\); .* --shape x=1x3"):
        import_model(proto)
    assert import_model(proto, {"batch": (2,)}).inputs["x"].shape == (2, 3)
    assert import_model(proto, {"x": (4, 3)}).outputs["y"].shape == (4, 3)
    with pytest.raises(ModelError, match=r"\(4, 5\) does not fit"):
        import_model(proto, {"x": (4, 5)})
    with pytest.raises(ModelError, match=r"a shape is given for \['z'\]; the inputs are \['x'\]"):
        import_model(proto, {"x": (4, 3), "z": (1,)})


def test_initialisers_listed_as_inputs_are_not_inputs() -> None:
    proto = initialised(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [3]))
    assert list(import_model(proto).inputs) == ["x"]


def test_unused_inputs_stay() -> None:
    proto = chain(node("Relu", "x", "y"))
    proto.graph.input.append(helper.make_tensor_value_info("unused", 2, [7]))
    assert list(import_model(proto).inputs) == ["x", "unused"]


def test_model_functions_are_inlined() -> None:
    function = helper.make_function("mine", "Twice", ["a"], ["b"],
                                    [helper.make_node("Add", ["a", "a"], ["b"])],
                                    [helper.make_opsetid("", 17)])
    proto = chain(helper.make_node("Twice", ["x"], ["y"], domain="mine"))
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(interp.run(import_model(proto), {"x": x})["y"], 2 * x)


def test_functions_that_never_end_are_refused() -> None:
    def with_functions(bodies: dict[str, list[str]]) -> onnx.ModelProto:
        """Functions name -> names called, one after the other."""
        proto = chain(helper.make_node(next(iter(bodies)), ["x"], ["y"], domain="mine"))
        proto.opset_import.append(helper.make_opsetid("mine", 1))
        for name, called in bodies.items():
            values = ["a", *(f"v{i}" for i in range(len(called) - 1)), "b"]
            nodes = [helper.make_node(c, [i], [o], domain="" if c == "Relu" else "mine")
                     for c, (i, o) in zip(called, itertools.pairwise(values), strict=True)]
            proto.functions.append(helper.make_function(
                "mine", name, ["a"], ["b"], nodes,
                [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]))
        return proto

    with pytest.raises(ModelError, match=r"functions of the model call themselves: .*Twice"):
        import_model(with_functions({"Twice": ["Thrice"], "Thrice": ["Relu", "Twice"]}))
    levels = {f"F{i}": [f"F{i + 1}"] * 2 for i in range(40)} | {"F40": ["Relu"]}
    with pytest.raises(ModelError, match="1099511627776 nodes once its functions"):
        import_model(with_functions(levels))


def test_shape_arithmetic_becomes_constants() -> None:
    """Shape, Gather, Mul, Concat, Reshape as exporters write x.view(x.size(0) * 3, -1)."""
    nodes = [node("Shape", "x", "s"), node("Constant", "", "zero", value_int=0),
             node("Gather", "s zero", "n"), node("Constant", "", "three", value_int=3),
             node("Mul", "n three", "m"), node("Constant", "", "front", value_ints=[0]),
             node("Unsqueeze", "m front", "u"), node("Constant", "", "rest", value_ints=[-1]),
             node("Concat", "u rest", "t", axis=0), node("Reshape", "x t", "y")]
    graph = import_model(chain(*nodes))
    assert [n.op for n in graph.nodes()] == [Op.INPUT, Op.RESHAPE]
    assert graph.outputs["y"].shape == (6, 1)


def test_constants_are_not_blown_up() -> None:
    """A huge constant tensor stays an EXPAND of one number; the import allocates nothing."""
    nodes = [node("Constant", "", "shape", value_ints=[1 << 20, 1 << 20]),
             node("ConstantOfShape", "shape", "big"), node("Neg", "big", "negative"),
             node("Relu", "x", "y")]
    graph = import_model(chain(*nodes, outputs=("y", "negative")))
    assert graph.outputs["negative"].shape == (1 << 20, 1 << 20)
    assert max(n.size for n in graph.nodes() if n.op is Op.CONST) == 1


def nested(depth: int) -> onnx.ModelProto:
    inner = [node("Relu", "x", "b0")]
    for i in range(depth):
        branch = helper.make_graph(inner, f"branch{i}", [],
                                   [helper.make_empty_tensor_value_info(f"b{i}")])
        inner = [node("If", "c", f"b{i + 1}", then_branch=branch, else_branch=branch)]
    inner[0].output[0] = "y"
    return tools.model(inner, {"x": F, "c": np.array(True)}, ["y"], fixed=["c"])


def test_deep_chains_and_deep_nesting() -> None:
    names = ["x", *(f"a{i}" for i in range(10_000)), "y"]
    nodes = [node("Neg", a, b) for a, b in itertools.pairwise(names)]
    assert len(import_model(chain(*nodes)).nodes()) > 10_000
    cycle = [*nodes, node("Neg", "a9999", "z")]
    cycle[0] = node("Neg", "z", "a0")
    with pytest.raises(ModelError, match="cycle"):
        import_model(chain(*cycle))
    assert import_model(nested(3)).outputs["y"].shape == (2, 3)


def test_deep_nesting_is_refused_in_bounded_time() -> None:
    inner = onnx.GraphProto()
    inner.node.append(node("Relu", "x", "y"))
    for _ in range(60):
        outer = onnx.GraphProto()
        outer.node.append(node("If", "x", "y"))
        outer.node[0].attribute.add(name="then_branch", type=5).g.CopyFrom(inner)
        inner = outer
    inner.output.append(helper.make_empty_tensor_value_info("y"))
    inner.input.append(helper.make_tensor_value_info("x", 1, [2]))
    with pytest.raises(ModelError, match="nested more than 32 deep"):
        import_model(helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)]))


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, size = len(payload), b""
    while length >= 128:
        size, length = size + bytes([length % 128 + 128]), length // 128
    return bytes([number * 8 + 2]) + size + bytes([length]) + payload


def test_a_file_nested_10000_deep() -> None:
    graph = b""
    for _ in range(10_000):
        graph = field(1, field(5, field(6, graph)))  # graph in an attribute of a node of a graph
    with pytest.raises(ModelError, match="not an ONNX file, or is damaged"):
        import_model(field(7, graph))


HUGE = 2**40


def tall(op: str, opset: int = 20, dim: int = 2, **attributes: Any) -> onnx.ModelProto:
    """One node on an input of 2**40 elements."""
    proto = tools.one_node(op, {"x": np.zeros((1, 1, 1), np.float32)}, opset, **attributes)
    proto.graph.input[0].type.tensor_type.shape.dim[dim].dim_value = HUGE
    return proto


def huge_number(op: str, position: int, values: list[int], opset: int = 20, **attributes: Any
                ) -> onnx.ModelProto:
    """One node with these integers as one of its inputs."""
    inputs: dict[str, Any] = {f"in{i}": None for i in range(position + 1)}
    inputs["in0"] = np.zeros((1, 1, 4), np.float32)
    inputs[f"in{position}"] = np.array(values)
    return tools.one_node(op, inputs, opset, fixed=[f"in{position}"], **attributes)


def huge_range() -> onnx.ModelProto:
    bounds = {"a": np.array(0), "b": np.array(HUGE), "c": np.array(1)}
    return tools.one_node("Range", bounds, fixed=("a", "b", "c"))


def huge_one_hot() -> onnx.ModelProto:
    inputs = {"i": np.array([1]), "depth": np.array(HUGE), "values": np.array([0, 1], np.float32)}
    return tools.one_node("OneHot", inputs, fixed=("depth",))


def long_lstm() -> onnx.ModelProto:
    proto = tools.one_node("LSTM", {n: np.zeros(shape, np.float32) for n, shape in (
        ("x", (1, 1, 1)), ("w", (1, 4, 1)), ("r", (1, 4, 1)))}, hidden_size=1)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = HUGE
    return proto


def loops_in_loops() -> onnx.ModelProto:
    """Four nested loops of 9,000 rounds."""
    ins = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9))]
    inner = node("Relu", "x", "kept0")
    for i in range(4):
        outs = [helper.make_empty_tensor_value_info(n) for n in (f"going{i}", f"kept{i}")]
        body = helper.make_graph([node("Identity", "go", f"going{i}"), inner], "body", ins, outs)
        inner = helper.make_node("Loop", ["trips", "go"], [f"kept{i + 1}"], body=body)
    feed = {"x": F, "trips": np.array(9000), "go": np.array(True)}
    return tools.model([inner], feed, [inner.output[0]], fixed=("trips", "go"))


@pytest.mark.parametrize("proto", [
    tall("ArgMax", axis=2), tall("Trilu"), tall("TopK", 9, k=1), tall("DFT", 17, dim=1),
    tall("AveragePool", kernel_shape=[2], strides=[1], pads=[1, 0]),
    tall("SplitToSequence", axis=2), tall("Hardmax"),
    tall("MaxPool", kernel_shape=[1], outputs=2),
    huge_number("Resize", 3, [1, 1, HUGE]),
    huge_number("Pad", 1, [0, 0, HUGE, 0, 0, 0], mode="edge"),
    huge_range(), huge_one_hot(), long_lstm(),
], ids=lambda proto: proto.graph.node[0].op_type)
def test_huge_tensors_are_refused_in_bounded_memory(proto: onnx.ModelProto) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"the most is|at most"):
            import_model(proto)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_loops_in_loops_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="more than 100000 nodes once its loops"):
        import_model(loops_in_loops())
