"""Whole graphs: compiled code against the interpreter, models against onnxruntime."""
from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinynn import derived, interp, ir
from tinynn.compiler import generate, lower
from tinynn.ir import DType, Graph, Node
from tinynn.machine import TargetError
from tinynn.onnx.reader import import_model
from tinynn.program import TargetCode, TensorSpec
from tinynn.runtime.golden import relative_error, sample_inputs
from tinynn.tests import random_graphs
from tinynn.tests.direct import Arrays, Direct, assert_close, joined, run

_COARSE = {np.dtype(np.float16): 2e-2, np.dtype(ml_dtypes.bfloat16): 8e-2}
TARGETS = ("cpu", "cpu:x86-64-v2", "cpu:x86-64-v3")


def _agrees(graph: Graph, feed: Arrays, tolerance: float = 1e-4, threads: int = 1) -> None:
    want = interp.run(graph, feed)
    got = run(graph, feed, threads=threads)
    for name, value in want.items():
        assert_close({name: got[name]}, {name: value}, _COARSE.get(value.dtype, tolerance))


@given(st.lists(random_graphs.graphs(most_nodes=14, dtypes=tuple(DType), special=True,
                                     empty_axes=True), min_size=10, max_size=10),
       st.integers(0, 2 ** 31), st.integers(1, 2))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_graphs_of_all_operations_and_dtypes(
        graphs: list[Graph], seed: int, threads: int) -> None:
    graph = joined(graphs)
    _agrees(graph, random_graphs.random_inputs(graph, seed, special=True), threads=threads)


def _conv(rng: np.random.Generator, size: tuple[int, int], k: int, stride: int, dilation: int,
          pad: int, channels: tuple[int, int, int], bias: bool) -> Graph | None:
    """A conv of two images; None if nothing would be left. With a bias and ReLU if asked, and then
    its weights are exact in f16."""
    inner, outer, groups = channels
    x = ir.input_("x", DType.F32, (2, inner, *size))
    if min(size) + 2 * pad < dilation * (k - 1) + 1:
        return None
    weight = rng.standard_normal((outer, inner // groups, k, k)).astype(np.float32)
    if bias:
        weight = weight.astype(np.float16).astype(np.float32)
    y = derived.conv(x, ir.const(weight), [stride] * 2, [dilation] * 2, [(pad, pad)] * 2, groups)
    if bias:
        shift = rng.standard_normal((1, outer, 1, 1)).astype(np.float32)
        y = ir.add(y, derived.broadcast_to(ir.const(shift), y.shape))
        y = ir.maximum(y, ir.full(y.shape, 0, DType.F32))
    return Graph("conv", {"x": x}, {"y": y})


def _convs() -> list[Graph]:
    rng = np.random.default_rng(0)
    sizes = ((7, 9), (4, 8), (20, 33), (1, 40), (17, 70))
    windows = ((1, 1, 1, 0), (3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 1, 2), (3, 1, 2, 2), (7, 2, 1, 3),
               (2, 3, 1, 0), (1, 2, 1, 0), (3, 3, 3, 5))
    channels = ((5, 7, 1), (8, 8, 8), (8, 16, 8), (6, 9, 3), (24, 1, 1))
    graphs = []
    for number, (size, window) in enumerate(itertools.product(sizes, windows)):
        # Every pair of window and channels occurs; the sizes take turns.
        for shift in (0, 2):
            chosen = channels[(number + number // 9 + shift) % 5]
            graphs.append(_conv(rng, size, *window, chosen, bool(shift)))
    graphs.append(_conv(rng, (7, 7), 3, 1, 1, 1, (512, 20, 1), True))  # sums of 4608 products
    graphs.append(_conv(rng, (5, 601), 3, 2, 1, 1, (3, 9, 1), True))  # rows of more than a panel
    graphs.append(_conv(rng, (140, 150), 3, 1, 1, 1, (2, 4, 2), True))  # planes in two pieces
    return [g for g in graphs if g is not None]


def _matmuls() -> list[Graph]:
    rng = np.random.default_rng(1)
    shapes = (((1, 5), (5, 1)), ((3, 64), (64, 40)), ((2, 10, 64), (64, 100)),
              ((1, 512), (512, 33)), ((8, 10, 64), (8, 64, 10)), ((1, 300), (300, 3)),
              ((70, 70), (70, 70)), ((2, 3, 17, 19), (2, 3, 19, 23)), ((1, 20000), (20000, 16)))
    graphs = []
    for a, b in shapes:
        x, y = ir.input_("x", DType.F32, a), ir.input_("y", DType.F32, b)
        weight = rng.standard_normal(b).astype(np.float32)
        halves = weight.astype(np.float16).astype(np.float32)
        outputs: dict[str, Node] = {"run_time": derived.matmul(x, y)}
        outputs["f32"] = derived.matmul(x, ir.const(weight))
        outputs["f16"] = derived.matmul(x, ir.const(halves))
        graphs.append(Graph("matmul", {"x": x, "y": y}, outputs))
    return graphs


def test_convs_and_matmuls_on_every_level_and_any_number_of_threads() -> None:
    graph = joined(_convs() + _matmuls())
    feed = random_graphs.random_inputs(graph, 0)
    want = interp.run(graph, feed)
    for target in TARGETS:
        program = Direct(generate(graph, target))
        got = program(feed, 1)
        assert_close(got, want, 3e-6)
        for threads in (2, 3):
            again = program(feed, threads)
            for name, value in got.items():
                np.testing.assert_array_equal(again[name], value, err_msg=name)
        program.close()


def test_all_families_are_in_those_tests() -> None:
    code = generate(joined(_convs() + _matmuls()), "cpu:x86-64-v3")
    families = {step.kernel.split("_")[1] for step in code.steps}
    assert families == {"contract", "depthwise", "lanes", "loops"}


def test_a_factor_that_is_also_needed_after_the_sum() -> None:
    x = ir.input_("x", DType.F32, (40, 32))  # (k, n)
    rows = ir.const(np.linspace(1, 2, 12, dtype=np.float32).reshape(12, 1, 1))
    product = ir.mul(ir.expand(rows, (12, 40, 32)),
                     ir.expand(ir.reshape(x, (1, 40, 32)), (12, 40, 32)))
    total = ir.reduce(product, "sum", (1,))
    y = ir.add(total, ir.expand(ir.reshape(rows, (12, 1)), (12, 32)))
    values = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    _agrees(Graph("twice", {"x": x}, {"y": y}), {"x": values})


def test_non_finite_values_pass_through_a_conv_as_arithmetic_says() -> None:
    graph = _conv(np.random.default_rng(0), (9, 33), 3, 1, 1, 1, (4, 6, 1), False)
    assert graph is not None
    values = np.random.default_rng(1).standard_normal((2, 4, 9, 33)).astype(np.float32)
    values[0, 1, 4, 4], values[1, 2, 0, 0], values[1, 3, 8, 32] = np.nan, np.inf, -np.inf
    _agrees(graph, {"x": values})


def test_halves_are_computed_in_f32_and_rounded_at_the_border() -> None:
    x = ir.input_("x", DType.F16, (4, 100))
    weight = ir.const(np.random.default_rng(0).standard_normal((100, 30)).astype(np.float16))
    graph = Graph("half", {"x": x}, {"y": derived.matmul(ir.mul(x, x), weight)})
    values = np.random.default_rng(1).standard_normal((4, 100)).astype(np.float16)
    program = Direct(lower(graph))
    got = program({"x": values})["y"]
    program.close()
    exact = (values.astype(np.float64) ** 2) @ weight.arg.array.astype(np.float64)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-3)


def test_weights_are_stored_in_f16_only_if_that_is_exact() -> None:
    x = ir.input_("x", DType.F32, (64,))
    exact = ir.const(np.linspace(-1, 1, 65, dtype=np.float32)[:64])
    rough = ir.const(np.random.default_rng(0).standard_normal(64).astype(np.float32))
    code = generate(Graph("w", {"x": x}, {"a": ir.mul(x, exact), "b": ir.mul(x, rough)}), "cpu")
    assert sorted(w.storage for w in code.weights) == ["f16", "f32"]


def test_buffers_are_what_the_contract_says() -> None:
    x, s = ir.input_("x", DType.F32, (1, 600)), ir.input_("s", DType.F32, (1, 600))
    total = ir.add(x, s)
    weight = ir.const(np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32))
    y = derived.matmul(derived.matmul(total, weight), weight)
    code = generate(Graph("g", {"x": x, "s": s}, {"next": total, "y": y}, {"s": "next"}), "cpu")
    kinds = {b.name: b.kind for b in code.buffers if b.kind not in ("weight", "arena")}
    assert kinds == {"x": "input", "s": "state", "next": "output", "y": "output"}
    for step in code.steps:
        assert step.writes == (0,)
        assert code.buffers[step.args[0]].kind in ("arena", "output")
        assert f" {step.kernel}(" in code.source
    for buffer in code.buffers:
        assert buffer.offset % 64 == 0
        if buffer.kind == "arena":
            assert buffer.offset + buffer.nbytes <= code.arena_nbytes


def test_compiling_twice_gives_the_same_program() -> None:
    assert generate(joined(_matmuls()), "cpu") == generate(joined(_matmuls()), "cpu")


def test_unknown_precision_is_refused() -> None:
    x = ir.input_("x", DType.F32, (3,))
    with pytest.raises(TargetError, match="precision 'int3' is not known"):
        lower(Graph("g", {"x": x}, {"y": ir.exp2(x)}), precision="int3")


# Driving models

_MAKE = Path(__file__).resolve().parents[2].parent / "shared/models/make_driving_models.py"
_MODELS = ("driving_policy", "driving_supercombo",
           *(pytest.param(name, marks=pytest.mark.slow) for name in (
               "supercombo_08", "supercombo_097", "driving_vision", "driving_supercombo_stateful",
               "dmonitoring")))


@pytest.mark.shared
@pytest.mark.skipif(not _MAKE.exists(), reason="the script that builds driving models is not here")
@pytest.mark.parametrize("name", _MODELS)
def test_driving_models_agree_with_onnxruntime(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    subprocess.run([sys.executable, _MAKE, "--out", tmp_path, "--only", name], check=True,
                   capture_output=True)
    path = tmp_path / f"{name}.onnx"
    graph = import_model(path)
    code = lower(graph)
    specs = [TensorSpec(n, node.dtype.value, node.shape) for n, node in graph.inputs.items()]
    read = {i.name for i in onnx.load(path).graph.input}
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    program = Direct(code)
    for seed in (0, 1, 2):
        feed = sample_inputs(specs, seed)
        want = dict(zip((o.name for o in session.get_outputs()),
                        session.run(None, {k: v for k, v in feed.items() if k in read}),
                        strict=True))
        one = program(feed, 1)
        two = program(feed, 2)
        for key, value in want.items():
            assert relative_error(one[key], value) < 1e-4, (seed, key)
            np.testing.assert_array_equal(one[key], two[key])
    program.close()
    _check_families(code)


def _check_families(code: TargetCode) -> None:
    """Nearly all arithmetic must be in the fast families."""
    total = sum(step.flop for step in code.steps)
    fast = sum(step.flop for step in code.steps
               if step.kernel.split("_")[1] in ("contract", "depthwise"))
    assert fast > 0.95 * total
