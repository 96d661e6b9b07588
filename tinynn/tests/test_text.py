"""Texts of graphs: what they look like, and that reading gives the same graph back."""
from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinynn import ir
from tinynn.ir import DType, Graph, GraphError
from tinynn.tests.random_graphs import graphs
from tinynn.text import TextError, constants, parse_graph, print_graph

GOLDEN = '''\
graph "tiny"
metadata {"output_slices": {"plan": [0, null, null]}}
%0 = INPUT f32[1,3] "x"
%1 = INPUT u8[4] "unused"
%2 = EXPAND f32[2,3] %0
%3 = CONST f32[2,3] [0.1, -0.0, inf, 1e-45, 3.4028235e+38, nan]
%4 = MUL f32[2,3] %2 %3
%5 = PAD f32[2,5] %4 [[[0, 0], [2, 0]], -Infinity]
%6 = SLICE f32[2,3] %5 [[0, 2, 1], [4, 3, -1]]
%7 = REDUCE f32[3] %6 ["max", [0]]
%8 = RESHAPE f32[1,3] %7
%9 = CONST i64[17] sha256:b918fd68bcbeff0f09a0ee6b5d50b076e83435a8c03b00c63216906d2325bc21
input "x" %0
input "unused" %1
output "next x" %8
output "table" %9
state "x" "next x"
'''


def tiny() -> Graph:
    x = ir.input_("x", DType.F32, (1, 3))
    weight = ir.const([[0.1, -0.0, math.inf], [1e-45, 3.4028235e38, math.nan]], DType.F32)
    padded = ir.pad(ir.mul(ir.expand(x, (2, 3)), weight), [(0, 0), (2, 0)], -math.inf)
    top = ir.reduce(ir.slice_(padded, [(0, 2, 1), (4, 3, -1)]), "max", (0,))
    return Graph("tiny", {"x": x, "unused": ir.input_("unused", DType.U8, (4,))},
                 {"next x": ir.reshape(top, (1, 3)), "table": ir.const(np.arange(17))},
                 {"x": "next x"}, {"output_slices": {"plan": [0, None, None]}})


def test_golden_text() -> None:
    assert print_graph(tiny()) == GOLDEN
    assert parse_graph(GOLDEN, constants(tiny())) == tiny()


def test_only_large_constants_are_outside_the_text() -> None:
    (digest,) = constants(tiny())
    assert f"sha256:{digest}" in GOLDEN
    np.testing.assert_array_equal(constants(tiny())[digest], np.arange(17))


@given(graphs(empty_axes=True, special=True))
def test_round_trip_is_the_identity(graph: Graph) -> None:
    """Equal graphs hold the very same nodes."""
    again = parse_graph(print_graph(graph), constants(graph))
    assert again == graph
    assert again.outputs["out"] is graph.outputs["out"]


@given(st.sampled_from([DType.F16, DType.BF16, DType.F32, DType.F64]), st.binary(min_size=8,
                                                                                 max_size=8))
def test_every_bit_of_a_float_survives(dtype: DType, bits: bytes) -> None:
    """Also those of NaNs with a payload."""
    number = np.frombuffer(bits, dtype.numpy)[:1].reshape(())
    graph = Graph("g", {}, {"out": ir.const(number)})
    again = parse_graph(print_graph(graph))
    assert again.outputs["out"].arg.array.tobytes() == number.tobytes()


def test_names_may_hold_anything() -> None:
    x = ir.input_('a "quoted"\nname\\', DType.F32, ())
    graph = Graph("\u00e4 [", {x.arg: x}, {"%1 = ": x})
    assert parse_graph(print_graph(graph)) == graph


def test_comments_blank_lines_and_other_numbers_are_fine() -> None:
    text = '# a comment\ngraph "g"\n\n%70 = CONST bf16[] 1.5\noutput "y" %70\n'
    graph = parse_graph(text)
    assert graph.outputs["y"] is ir.const(np.array(1.5, ml_dtypes.bfloat16))


@pytest.mark.parametrize(("line", "reason"), [
    ("%1 = ADD f32[2] %0 %9", "line 3: %9 is not defined above"),
    ("%1 = ADD f32[2] %0", "line 3: ADD takes 2 sources, has 1"),
    ("%1 = ADD f16[2] %0 %0", "line 3: the dtype should be f32, is f16"),
    ("%1 = ADD f32[3] %0 %0", r"line 3: the shape should be \(2,\), is \(3,\)"),
    ("%1 = FMA f32[2] %0 %0", "line 3: there is no operation FMA"),
    ("%1 = EXP2 f8[2] %0", "line 3: 'f8' is not a valid DType"),
    ("%1 = EXP2 %0", "line 3: expected '%number = OP"),
    ("%0 = CONST f32[] 1", "line 3: %0 is defined twice"),
    ("%1 = CONST f32[2] [1]", r"line 3: 1 numbers for the shape \(2,\)"),
    ("%1 = CONST u8[] 300", "line 3: 300 does not fit uint8"),
    ("%1 = CONST f16[] 1e9", "line 3: 1e9 does not fit float16"),
    ("%1 = CONST f32[] banana", "line 3: could not convert"),
    ("%1 = CONST f32[] bits:0x12", "line 3: .* does not have 4 bytes"),
    ("%1 = CONST f32[99] sha256:00", "line 3: the constant 00 is not among the 0 given"),
    ("%1 = PERMUTE f32[2] %0 [0", "line 3: expected JSON"),
    ("%1 = PERMUTE f32[2] %0 " + "[" * 100_000, "line 3: expected JSON"),
    ('%1 = REDUCE f32[] %0 ["sum", [[[0]]]]', "line 3: "),
    ("output y %0", "line 3: this is not a node"),
    ('output "y" %5', "line 3: %5 is not defined above"),
    ('metadata [1]', "line 3: expected a dict"),
    ("rubbish", "line 3: this is not a node"),
])
def test_errors_name_line_and_reason(line: str, reason: str) -> None:
    with pytest.raises(TextError, match=reason):
        parse_graph(f'graph "g"\n%0 = INPUT f32[2] "x"\n{line}\ninput "x" %0\noutput "y" %0\n')


def test_a_wrong_array_for_a_digest_is_refused() -> None:
    (digest,) = constants(tiny())
    with pytest.raises(TextError, match="has another sha256"):
        parse_graph(GOLDEN, {digest: np.arange(18)})


def test_the_whole_is_checked() -> None:
    with pytest.raises(GraphError, match="reads the input 'x', which is not declared"):
        parse_graph('graph "g"\n%0 = INPUT f32[2] "x"\noutput "y" %0\n')


def test_deep_graphs_are_written_and_read() -> None:
    x = ir.input_("x", DType.F32, (2,))
    node = x
    for _ in range(5_000):
        node = ir.add(node, x)
    graph = Graph("deep", {"x": x}, {"y": node})
    assert parse_graph(print_graph(graph)) == graph
