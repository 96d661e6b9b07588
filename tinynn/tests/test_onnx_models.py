"""Whole models against onnxruntime: real networks, and driving models of every generation."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tinynn import interp
from tinynn.inspect import costs
from tinynn.ir import Graph
from tinynn.onnx import import_model
from tinynn.simplify import simplify, widen_f16
from tinynn.spec import check
from tinynn.tests.onnx_tools import Array, reference, relative_error
from tinynn.text import constants, parse_graph, print_graph

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
GENERATOR = SHARED / "models" / "make_driving_models.py"

pytestmark = [pytest.mark.shared, pytest.mark.skipif(
    not GENERATOR.exists(), reason="the reference models are not beside the project")]

NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8,
         "tensor(int64)": np.int64}


def inputs_of(path: Path, seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Random values for every input: pixels for integers, else of order one half."""
    rng = np.random.default_rng(seed)
    feed = {}
    for item in onnxruntime.InferenceSession(str(path)).get_inputs():
        dtype, shape = NUMPY[item.type], shapes.get(item.name, tuple(item.shape))
        if item.name == "sr":
            feed[item.name] = np.asarray(16000)
        elif dtype is np.uint8:
            feed[item.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            feed[item.name] = (rng.standard_normal(shape) * 0.5).astype(dtype)
    return feed


def assert_agrees(graph: Graph, path: Path, feed: dict[str, Array], bound: float) -> None:
    wanted, got = reference(str(path), feed), interp.run(graph, feed)
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert relative_error(got[name], array) <= bound, name


# Real networks

SILERO = {"input": (1, 512), "state": (2, 1, 128)}


@pytest.mark.parametrize("name", [
    "mnist", "dtln_2", "fastestdet", "gtcrn", "rfb320", "silero_vad_16k_op15",
    pytest.param("superres_core", marks=pytest.mark.slow),
    pytest.param("twinlitenet", marks=pytest.mark.slow)])
def test_real_networks(name: str) -> None:
    path = SHARED / "onnx" / f"{name}.onnx"
    shapes = SILERO if name.startswith("silero") else {}
    graph = simplify(import_model(path, shapes))
    check(graph)
    assert_agrees(graph, path, inputs_of(path, 0, shapes), 1e-4)


def test_yunet_on_pixels() -> None:
    path = SHARED / "onnx" / "yunet_n_320.onnx"
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 320, 320)).astype(np.float32)
    assert_agrees(simplify(import_model(path)), path, {"input": image}, 1e-4)


def test_quantised_yunet_up_to_single_steps() -> None:
    """Sums that lie on the border of two steps may round either way, and do in onnxruntime's own
    variants; through 80 layers that grows. So compare with the float network it came from."""
    path = SHARED / "onnx" / "yunet_n_320_qdq_int8.onnx"
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 320, 320)).astype(np.float32)
    wanted = reference(str(path), {"input": image})
    exact = reference(str(SHARED / "onnx" / "yunet_n_320.onnx"), {"input": image})
    got = interp.run(simplify(import_model(path)), {"input": image})
    for name, array in wanted.items():
        quantised = np.abs(array - exact[name]).mean()
        assert np.abs(got[name] - array).mean() < 0.5 * quantised, name


# Driving models

DRIVING = {  # name -> parameters in millions, multiply-adds in units of 10**9
    "supercombo_08": (14.06, 0.443), "supercombo_097": (31.06, 0.849),
    "driving_vision": (23.25, 0.811), "driving_policy": (7.03, 0.038),
    "driving_supercombo": (30.28, 0.849), "driving_supercombo_stateful": (30.28, 0.849),
    "dmonitoring": (3.69, 0.412)}


def build(folder: Path, name: str, *options: str) -> Path:
    command = [sys.executable, str(GENERATOR), "--out", str(folder), "--only", name, *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / f"{name}.onnx"


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in ("driving_policy", "driving_vision", "supercombo_08")
                 else pytest.mark.slow) for name in DRIVING])
def test_driving_models(name: str, tmp_path: Path) -> None:
    path = build(tmp_path, name)
    graph = import_model(path)
    total = costs(graph)
    assert round(total.parameters / 1e6, 2) == DRIVING[name][0]
    assert round(total.macs / 1e9, 3) == DRIVING[name][1]
    assert parse_graph(print_graph(graph), constants(graph)) == graph
    simple = simplify(graph)
    check(simple)
    feed = inputs_of(path, 1, {})
    assert_agrees(graph, path, feed, 1e-4)
    for output, array in interp.run(simple, feed).items():
        np.testing.assert_array_equal(array, interp.run(graph, feed)[output])


@pytest.mark.parametrize(("name", "options"), [
    ("driving_policy", ("--weights", "f32")),
    ("driving_policy", ("--gelu", "op")),
    pytest.param("driving_vision", ("--gelu", "erf"), marks=pytest.mark.slow),
    pytest.param("driving_vision", ("--gelu", "op"), marks=pytest.mark.slow),
    pytest.param("supercombo_08", ("--batchnorm",), marks=pytest.mark.slow),
    pytest.param("dmonitoring", ("--batchnorm", "--weights", "f32"), marks=pytest.mark.slow),
])
def test_options_of_driving_models(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = build(tmp_path, name, *options)
    assert_agrees(simplify(import_model(path)), path, inputs_of(path, 1, {}), 1e-4)


@pytest.mark.parametrize("name", [
    "driving_policy", pytest.param("driving_vision", marks=pytest.mark.slow),
    pytest.param("dmonitoring", marks=pytest.mark.slow)])
def test_halves_widened_are_nearer_to_the_truth_than_halves(name: str, tmp_path: Path) -> None:
    """The same weights in f32 arithmetic are the truth; onnxruntime's f16 result has its error."""
    path = build(tmp_path, name, "--compute", "f16")
    exact_path = build(tmp_path / "exact", name, "--weights", "f32")
    feed = inputs_of(path, 1, {})
    wide_feed = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in feed.items()}
    exact = reference(str(exact_path), wide_feed)["outputs"]
    halves = relative_error(reference(str(path), feed)["outputs"], exact)
    graph = simplify(widen_f16(import_model(path)))
    got: dict[str, Any] = interp.run(graph, feed)
    assert got["outputs"].dtype == np.float16
    assert relative_error(got["outputs"], exact) < max(halves, 2**-11)
    assert halves < 0.01
