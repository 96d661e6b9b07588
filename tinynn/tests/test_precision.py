"""Packed contractions and bf16: what is rounded, how the kernels compute it, what bounds say."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinynn import compile as compile_model
from tinynn import interp, ir
from tinynn.compiler import TargetError, lower, plan
from tinynn.contract import Contract
from tinynn.conv import Conv
from tinynn.derived import conv, matmul
from tinynn.evaluate import in_memory
from tinynn.fuse import fuse
from tinynn.ir import DType, Graph, Node, Op
from tinynn.machine import MACHINES
from tinynn.precision import round_products
from tinynn.runtime import load
from tinynn.runtime.host import host_targets
from tinynn.simplify import simplify

PACKED = "x86-64-v4+bf16+vnni"
runs_here = pytest.mark.skipif(f"cpu:{PACKED}" not in host_targets(),
                               reason=f"this machine does not run cpu:{PACKED}")
RANDOM = np.random.RandomState(0)


def _weights(*shape: int) -> Node:
    return ir.const(RANDOM.standard_normal(shape).astype(np.float32))


def _conv(x: Node, *filters: int, stride: int = 1, pad: int = 0, groups: int = 1) -> Node:
    return conv(x, _weights(*filters), (stride, stride), (1, 1), ((pad, pad), (pad, pad)), groups)


def _contractions(graph: Graph) -> list[Contract]:
    schedules = plan(graph, MACHINES[PACKED]).schedules
    return [s for s in schedules if isinstance(s, Contract)]


def _rounded_to_bf16(array: np.ndarray) -> np.ndarray:
    return array.astype(DType.BF16.numpy).astype(np.float32)


def test_both_factors_are_rounded_and_nothing_else() -> None:
    x = ir.input_("x", DType.F32, (5, 40))
    weights = RANDOM.standard_normal((40, 24)).astype(np.float32)
    graph = Graph("g", {"x": x}, {"y": ir.add(matmul(x, ir.const(weights)), _weights(5, 24))})
    given = RANDOM.standard_normal((5, 40)).astype(np.float32)
    offset = graph.outputs["y"].src[1].arg.array
    want = _rounded_to_bf16(given).astype(np.float64) @ _rounded_to_bf16(weights) + offset
    got = interp.run(round_products(graph), {"x": given})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_last_sums_stay_exact_if_they_are_few() -> None:
    x = ir.input_("x", DType.F32, (64, 512))
    hidden = matmul(x, _weights(512, 512))
    output = matmul(ir.slice_(hidden, ((0, 1, 1), (0, 512, 1))), _weights(512, 32))
    rounded = round_products(Graph("g", {"x": x}, {"y": output}))
    casts = [n for n in rounded.nodes() if n.op is Op.CAST and n.dtype is DType.BF16]
    assert [n.src[0] for n in casts] == [x]


def test_windows_of_single_channels_and_attention_stay_as_they_are() -> None:
    x = ir.input_("x", DType.F32, (1, 32, 12, 12))
    depthwise = _conv(x, 32, 1, 3, 3, groups=32)
    flat = ir.reshape(x, (32, 144))
    attention = matmul(flat, ir.permute(flat, (1, 0)))
    graph = Graph("g", {"x": x}, {"d": depthwise, "a": attention})
    assert round_products(graph).outputs == graph.outputs


SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]] = {
    "1x1": ((1, 24, 9, 7), (40, 24, 1, 1), {}),
    "odd depth": ((1, 11, 9, 9), (33, 11, 1, 1), {}),
    "3x3": ((1, 16, 14, 18), (24, 16, 3, 3), {"pad": 1}),
    "stride 2": ((2, 6, 15, 33), (19, 6, 3, 3), {"stride": 2, "pad": 1}),
    "three channels": ((1, 3, 16, 32), (16, 3, 3, 3), {"pad": 2}),
}


@runs_here
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions_give_the_sum_of_rounded_products(name: str) -> None:
    shape, filters, options = SHAPES[name]
    x = ir.input_("x", DType.F32, shape)
    graph = Graph("g", {"x": x}, {"y": _conv(x, *filters, **options)})
    _check(graph, {"x": RANDOM.standard_normal(shape).astype(np.float32)})


@runs_here
@pytest.mark.parametrize(("rows", "depth", "columns"), [
    (1, 300, 65), (1, 33, 16), (10, 64, 48), (37, 129, 130), (64, 8, 500)])
def test_matrix_products_give_the_sum_of_rounded_products(rows: int, depth: int,
                                                          columns: int) -> None:
    x = ir.input_("x", DType.F32, (rows, depth))
    graph = Graph("g", {"x": x}, {"y": matmul(x, _weights(depth, columns))})
    _check(graph, {"x": RANDOM.standard_normal((rows, depth)).astype(np.float32)})


@runs_here
@pytest.mark.parametrize(("size", "taps", "stride", "pad"), [
    ((20, 64), 3, 1, 1), ((21, 61), 3, 1, 0), ((40, 128), 3, 2, 1), ((33, 125), 5, 2, 2)])
def test_windows_over_planes_of_pairs(size: tuple[int, int], taps: int, stride: int,
                                      pad: int) -> None:
    """Of bytes that are scaled and rounded on the way, and of bf16 as a kernel before stored it."""
    pixels = ir.input_("x", DType.U8, (2, 12, *size))
    scaled = ir.mul(ir.cast(pixels, DType.F32), ir.full(pixels.shape, 1 / 255, DType.F32))
    hidden = ir.maximum(_conv(scaled, 18, 12, 1, 1), ir.full((2, 18, *size), 0, DType.F32))
    feed = {"x": RANDOM.randint(0, 256, pixels.shape).astype(np.uint8)}
    for x, kernels, dtype in ((scaled, 1, DType.U8), (hidden, 2, DType.BF16)):
        y = _conv(x, 19, x.shape[1], taps, taps, stride=stride, pad=pad)
        graph = Graph("g", {"x": pixels}, {"y": y})
        last = _contractions(round_products(simplify(graph)))[-1]
        assert isinstance(last, Conv)
        assert last.kernel.loads()[0].dtype is dtype
        _check(graph, feed, kernels)


def _check(graph: Graph, feed: dict[str, np.ndarray], kernels: int = 1) -> None:
    rounded = round_products(graph)
    assert rounded.outputs != graph.outputs
    assert [s.group for s in _contractions(rounded)] == [2] * kernels
    want = interp.run(rounded, feed)["y"]
    with in_memory(graph, lower(graph, f"cpu:{PACKED}", "bf16"), 1) as runner:
        got = runner(feed)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_what_only_packed_kernels_read_is_stored_in_two_bytes() -> None:
    x = ir.input_("x", DType.F32, (1, 32, 8, 16))
    hidden = ir.maximum(_conv(x, 64, 32, 1, 1), ir.full((1, 64, 8, 16), 0, DType.F32))
    output = ir.add(_conv(hidden, 32, 64, 1, 1), x)
    graph = simplify(Graph("g", {"x": x}, {"y": output}))
    kernels = fuse(round_products(graph)).kernels
    assert [k.tensor.dtype for k in kernels] == [DType.BF16, DType.F32]


def test_weights_take_two_bytes() -> None:
    x = ir.input_("x", DType.F32, (1, 256))
    code = lower(Graph("g", {"x": x}, {"y": matmul(x, _weights(256, 64))}), f"cpu:{PACKED}", "bf16",
                 machine_code=False)
    assert [len(w.data) for w in code.weights] == [2 * 256 * 64]
    assert code.precision == "bf16"


def test_a_target_without_bf16_is_refused_with_those_that_have_it() -> None:
    x = ir.input_("x", DType.F32, (3,))
    with pytest.raises(TargetError, match=r"cpu:aarch64 has no bf16.*cpu:x86-64-v4\+bf16\+vnni"):
        lower(Graph("g", {"x": x}, {"y": ir.exp2(x)}), "cpu:aarch64", "bf16")


def test_quantised_weights_are_not_rounded() -> None:
    x = ir.input_("x", DType.F32, (8, 64))
    numbers = RANDOM.randint(-127, 128, (64, 32)).astype(np.float32)
    scales = RANDOM.uniform(0.001, 0.1, 32).astype(np.float32)
    graph = Graph("g", {"x": x}, {"y": matmul(x, ir.const(numbers * scales))})
    assert round_products(graph).outputs == graph.outputs


def test_precision_f32_keeps_every_product() -> None:
    x = ir.input_("x", DType.F32, (8, 64))
    graph = Graph("g", {"x": x}, {"y": matmul(x, _weights(64, 64))})
    assert [s.group for s in _contractions(graph)] == [1]
    assert not any(n.op is Op.CAST for n in graph.nodes())


def _two_layers() -> onnx.ModelProto:
    weights = [RANDOM.standard_normal(s).astype(np.float32) for s in ((64, 96), (96, 32))]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("MatMul", ["r", "w1"], ["y"])]
    border = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, size))]
              for name, size in (("x", 64), ("y", 32))]
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "two", *border, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@runs_here
def test_the_measured_bound_is_in_the_artifact_and_holds() -> None:
    artifact = compile_model(_two_layers(), f"cpu:{PACKED}", "bf16")
    runs = artifact.manifest["golden"]["runs"]
    bounds = [entry["tolerance"] for run in runs for entry in run["outputs"]]
    assert all(1e-3 < bound < 2e-2 for bound in bounds)  # a bf16 number is within 2^-9
    with load(artifact.to_bytes(), trust=True) as runner:
        errors = [(r.error, r.tolerance) for r in runner.verify()]
    assert all(0 < error <= tolerance for error, tolerance in errors)
