"""Pickled metadata is read as data: every protocol, and nothing that a pickle should not do."""
from __future__ import annotations

import base64
import builtins
import os
import pickle
import pickletools
from collections import OrderedDict
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tinynn.onnx import MetadataError, import_model
from tinynn.onnx.metadata import decode_slices, read_pickle

SLICES = {"plan": slice(0, 4955), "pad": slice(-2, None), "all": slice(0, None),
          "hidden_state": slice(5997, -3), "odd": slice(None, 7, 2)}
PLAIN = {"a": [1, 2.5, True, False, None, -70000, 2**80], "b": ((), (1,), (1, 2), (1, 2, 3, 4)),
         "c": {"\u00e9": "\u20ac"}, "d": slice(1, 2)}


def encoded(value: Any, protocol: int = 4) -> str:
    return base64.b64encode(pickle.dumps(value, protocol)).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [SLICES, OrderedDict(SLICES), PLAIN, {}, "text", 7, None],
                         ids=["slices", "ordered", "plain", "empty", "text", "number", "none"])
def test_plain_data_of_every_protocol(value: Any, protocol: int) -> None:
    for data in (pickle.dumps(value, protocol), pickletools.optimize(pickle.dumps(value,
                                                                                  protocol))):
        assert read_pickle(data) == value


def test_bytes_and_shared_values() -> None:
    shared = [1, 2]
    got = read_pickle(pickle.dumps({"a": shared, "b": shared, "c": b"\x00\xff"}, 4))
    assert got == {"a": [1, 2], "b": [1, 2], "c": b"\x00\xff"}
    assert got["a"] is got["b"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_slices_become_lists(protocol: int) -> None:
    text = encoded(SLICES, protocol)
    wrapped = "\n".join(text[i:i + 76] for i in range(0, len(text), 76)) + "\n"
    for spelling in (text, wrapped):  # some writers break base64 into lines
        assert decode_slices(spelling) == {
            "plan": [0, 4955, None], "pad": [-2, None, None], "all": [0, None, None],
            "hidden_state": [5997, -3, None], "odd": [None, 7, 2]}


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> Any:
        return self.how


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.getattr, open, dict, set])
def test_calls_are_refused_by_name_and_not_made(function: Any, protocol: int,
                                                tmp_path: Any) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps({"x": Calls(function, f"touch {mark}")}, protocol)
    with pytest.raises(MetadataError, match=rf"{function.__name__}, which is refused"):
        read_pickle(data)
    assert not mark.exists()


@pytest.mark.parametrize(("data", "message"), [
    (b"", "damaged"),
    (b"garbage", "damaged|refused"),
    (b"\x80\x04}", "does not end|damaged"),
    (b"\x80\x04.", "damaged"),
    (b"\x80\x04}}.", "left over"),
    (b"\x80\x04}.}", "left over"),
    (b"(.", "plain value"),
    (b"\x80\x04}0.", "POP is refused"),
    (b"\x80\x04K\x01t.", "damaged"),  # TUPLE without a mark
    (b"\x80\x04}K\x01K\x02s.", "not a text"),  # a dict with the key 1
    (b"\x80\x04}(X\x01\x00\x00\x00au.", "damaged"),  # SETITEMS with half an item
    (b"\x80\x04]}K\x01a.", "dict stands where a list"),
    (b"\x80\x04h\x07.", "damaged"),  # GET of what was never put
    (b"cbuiltins\nslice\n.", "plain value"),  # the class itself as value
    (b"cbuiltins\nslice\n)R.", "damaged"),  # slice()
    (b"cbuiltins\nslice\n}R.", "calls something"),
    (b"\x80\x04K\x01)R.", "calls something"),
    (b"cos\nsystem\n(S'true'\ntR.", "os.system, which is refused"),
    (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system, which is refused"),
    (b"\x80\x04K\x01K\x02\x93.", "name is not a text"),
    (b"ibuiltins\nslice\n.", "INST is refused"),
    (b"\x80\x02cbuiltins\nslice\n)\x81.", "NEWOBJ is refused"),
    (b"\x80\x02}}b.", "BUILD is refused"),
    (b"\x80\x02Pabc\n.", "PERSID is refused"),
    (b"\x82\x01.", "EXT1 is refused"),
    (b"\x80\x05\x97.", "NEXT_BUFFER is refused"),
    (b"\x80\x04\x8f.", "EMPTY_SET is refused"),
    (b"\x80\x042.", "DUP is refused"),
    (b"I" + b"9" * 10_000 + b"\n.", "damaged"),
    (b"\x8b\xff\xff\xff\x7f.", "damaged"),  # LONG4 of 2 GiB
    (b"\x8e" + b"\xff" * 8 + b".", "damaged"),  # BINBYTES8 of 2**64
    (b"\x80\x04" + b"]" * 200_000, "more than 100000 opcodes"),
])
def test_hostile_and_damaged_pickles(data: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read_pickle(data)


def test_every_truncation_of_a_good_pickle_is_refused() -> None:
    data = pickle.dumps(SLICES, 4)
    for length in range(len(data)):
        with pytest.raises(MetadataError):
            read_pickle(data[:length])


def test_nested_references_cost_nothing() -> None:
    """Each level holds the last one twice: 2**200 leaves if anyone walked or printed them."""
    nested = b")\x94" + b"".join(b"h%c\x86\x94" % i for i in range(200))
    for data in (b"\x80\x04" + nested + b".",
                 b"\x80\x04" + nested + b"0}h\x00h\x00s.",
                 b"\x80\x04}" + nested + b"K\x01s.",
                 b"\x80\x04" + nested + b"h\x00\x93.",
                 b"\x80\x04}X\x04\x00\x00\x00plan" + nested + b"s."):
        with pytest.raises(MetadataError):
            decode_slices(base64.b64encode(data).decode())


@pytest.mark.parametrize(("text", "message"), [
    ("not base64!", "not base64"),
    (encoded([1]), "holds a list, not a dict"),
    (encoded({"plan": 3}), "maps 'plan' to a int"),
    (encoded({"plan": (0, 3)}), "maps 'plan' to a tuple"),
    (encoded({"plan": slice("a", "b")}), "slice 'plan' is not made of integers"),
    (encoded({"plan": slice(True, 3)}), "slice 'plan' is not made of integers"),
    (encoded({"plan": slice(0, 3, 0)}), "step is 0"),
    ("A" * (2 << 20), "not sane"),
])
def test_what_is_not_a_table_of_slices(text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        decode_slices(text)


def model(width: int, props: dict[str, str], output: str = "outputs") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], [output])], "g",
        [helper.make_tensor_value_info("x", 1, [1, width])],
        [helper.make_tensor_value_info(output, 1, [1, width])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(proto, props)
    return proto


def test_metadata_of_a_model() -> None:
    slices = {"plan": slice(0, 6), "hidden_state": slice(6, -2), "pad": slice(-2, None)}
    graph = import_model(model(10, {"output_slices": encoded(slices), "model_checkpoint": "a/700",
                                    "author": "me"}))
    assert graph.metadata["output_slices"] == {
        "plan": [0, 6, None], "hidden_state": [6, -2, None], "pad": [-2, None, None]}
    assert graph.metadata["model_checkpoint"] == "a/700"
    assert graph.metadata["props"] == {"author": "me"}
    assert graph.metadata["source"] == {"format": "onnx", "opsets": {"ai.onnx": 17},
                                        "ops": {"Relu": 1}}
    assert "output_slices" not in import_model(model(10, {})).metadata


@pytest.mark.parametrize("end", [
    slice(0, 11), slice(11, None), slice(-11, None), slice(0, -11), slice(5, 10**30)])
def test_slices_outside_the_output_are_refused(end: slice) -> None:
    proto = model(10, {"output_slices": encoded({"good": slice(0, 10), "plan": end})})
    with pytest.raises(MetadataError, match=r"'plan' is \[.*outside the model's output of width "
                                            r"10"):
        import_model(proto)


def test_slices_without_an_output_to_cut() -> None:
    props = {"output_slices": encoded({"plan": slice(0, 1)})}
    assert import_model(model(10, props, "result")).metadata["output_slices"]
    proto = model(10, props, "first")
    proto.graph.node.append(helper.make_node("Neg", ["x"], ["second"]))
    proto.graph.output.append(helper.make_tensor_value_info("second", 1, [1, 10]))
    with pytest.raises(MetadataError, match="no output called 'outputs'"):
        import_model(proto)


def test_long_and_double_entries_are_refused() -> None:
    with pytest.raises(MetadataError, match="entry 'note' has 100000 characters"):
        import_model(model(3, {"note": "x" * 100_000}))
    proto = model(3, {"note": "a"})
    proto.metadata_props.append(onnx.StringStringEntryProto(key="note", value="b"))
    with pytest.raises(MetadataError, match="two entries called 'note'"):
        import_model(proto)


def test_names_are_not_numpy() -> None:
    """numpy integers pickle as a call of numpy, which is refused like any other."""
    with pytest.raises(MetadataError, match="which is refused"):
        decode_slices(encoded({"plan": slice(np.int64(0), np.int64(3))}))
