"""Adreno kernels: what they compute, what the Adreno compiler says of them, and what they cost."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinynn import derived, interp, ir
from tinynn.adreno.batch import merge_alike
from tinynn.adreno.layout import Image
from tinynn.adreno.lower import lower
from tinynn.adreno.tests.adreno_families import families
from tinynn.adreno.tests.adreno_tools import SHARED, bundle, check, counted
from tinynn.fuse import fuse
from tinynn.index import Axis, Within, constant, of
from tinynn.ir import DType, Graph
from tinynn.machine import TargetError
from tinynn.onnx.reader import import_model
from tinynn.simplify import simplify
from tinynn.tests.opencl_tools import find_device

ROOT = Path(__file__).resolve().parents[3]
MODELS = ("driving_vision", "driving_policy", "driving_supercombo", "driving_supercombo_stateful",
          "dmonitoring", "supercombo_08", "supercombo_097", "driving_demo")
CONVOLUTIONAL = ("mnist", "superres_core", "yunet_n_320", "fastestdet", "rfb320", "twinlitenet")
TARGET = "opencl:adreno630"
MOST_CODE = 8192  # bytes of the instruction cache


def model(name: str) -> Graph:
    path = ROOT / "compiled_models" / "build" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} has not been built: run scons in the repository root")
    return import_model(path)


def run_families(platform: str, precision: str, *prefix: str,
                 **env: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-W", "ignore", "-m",
               "tinynn.adreno.tests.adreno_families", platform, precision]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True,
                          check=False)


def test_every_family_is_right_in_half_arithmetic() -> None:
    done = run_families("rusticl", "f16", str(bundle() / "with-llvmpipe"))
    assert done.returncode == 0, done.stdout + done.stderr
    for family in ("contract", "depthwise", "points", "split"):
        assert f"_{family}_" in done.stdout


def test_every_family_is_clean_in_oclgrind() -> None:
    # Bounds and races; what comes from any image counts as uninitialised there.
    find_device("Oclgrind")
    done = run_families("Oclgrind", "f32", OCLGRIND_DATA_RACES="1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_every_family_is_right_in_float_on_pocl() -> None:
    find_device("Portable")
    done = run_families("Portable", "f32")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_adreno_compiler_takes_every_family() -> None:
    shared, kernels = "", ""
    for number, (_, graph) in enumerate(families()):
        source = lower(graph, TARGET).source
        start = source.index("\n/* ") + 1
        shared = source[:start]
        kernels += source[start:].replace("void k", f"void family{number}_k")
    checked = check(shared + kernels)
    assert len(checked) > 20
    for kernel, figures in checked.items():
        assert figures["scratch_bytes"] == 0, kernel
        assert 4 * figures["dwords"] <= MOST_CODE, kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_driving_models_compile_without_scratch_and_fit_the_instruction_cache(name: str) -> None:
    source = lower(model(name), TARGET, "f16").source
    for gpu in ("630", "640", "690", "730", "740"):
        for kernel, figures in check(source, gpu).items():
            assert figures["scratch_bytes"] == 0, (gpu, kernel)
            if gpu == "630":
                assert 4 * figures["dwords"] <= MOST_CODE, kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *CONVOLUTIONAL])
@pytest.mark.parametrize(("target", "precision", "platform"), [
    (TARGET, "f16", "rusticl"), (TARGET, "f32", "Portable"), ("opencl", "f16", "rusticl")])
def test_models_agree_with_onnxruntime(
        name: str, target: str, precision: str, platform: str) -> None:
    built = ROOT / "compiled_models" / "build"
    path = (built if name in MODELS else SHARED / "onnx") / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    prefix = [str(bundle() / "with-llvmpipe")] if platform == "rusticl" else []
    if not prefix:
        find_device(platform)
    command = [*prefix, sys.executable, "-W", "ignore", "-m",
               "tinynn.adreno.tests.adreno_models", platform, target, precision, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ms", "texels", "launches"), [
    ("driving_vision", 7.7, 54e6, 100), ("driving_policy", 1.9, 6.35e6, 41),
    ("driving_supercombo", 10.0, 61.6e6, 150), ("dmonitoring", 5.4, 31.8e6, 101)])
def test_half_of_the_time_and_the_texels_of_tinygrad(
        name: str, ms: float, texels: float, launches: int) -> None:
    code = lower(model(name), TARGET, "f16")
    result = counted(code)
    total = result["total"]
    assert total["total_ms"] <= ms
    assert total["executed"]["tex"] <= texels
    assert total["spilling"] == total["over_icache"] == 0
    assert total["launches"] <= launches
    assert max(row["total_us"] for row in result["launches"]) < 1000
    # Our own model, which has no compiler to ask, comes near the one that has.
    predicted = sum(step.predicted_ns for step in code.steps) / 1e6
    assert predicted == pytest.approx(total["total_ms"], rel=0.3)


@pytest.mark.parametrize(("channels", "step", "pitch"), [
    (6, 2, 64), (60, 15, 128), (64, 17, 128), (80, 20, 128), (512, 129, 704)])
def test_image_holds_every_element_where_the_coordinates_say(
        channels: int, step: int, pitch: int) -> None:
    values = np.arange(2 * channels * 3 * 5, dtype=np.float32).reshape(2, channels, 3, 5)
    image = Image(values.shape, 1)
    texels = image.arrange(values)
    assert image.step == step
    assert texels.shape == (image.height, image.pitch, 4) == (6, pitch, 4)
    for index in np.ndindex(values.shape):
        place = tuple(constant(i) for i in index)
        x = image.texel(place).const
        assert texels[image.row(place).const, x, index[1] % 4] == values[index]
    assert np.count_nonzero(texels) == values.size - 1


def test_outside_is_zero_only_where_the_sampler_cannot_meet_other_rows() -> None:
    y, x, c = (of(Axis(name, 9)) + -1 for name in "yxc")
    index = (constant(0), c, y, x)

    def outside(batch: int, dim: int) -> bool:
        shape = (batch, 8, 7, 7)
        return Image(shape, 1).outside_is_zero(index, [Within(index[dim], shape[dim])])

    assert outside(1, 2) and outside(1, 3) and outside(2, 3)
    assert not outside(2, 2), "below the last row is the first one of the next picture"
    assert not outside(1, 1), "a channel too many is the next pixel"


def test_heads_become_one_kernel_per_layer() -> None:
    graph = dict(families())["heads"]
    kernels = fuse(simplify(graph)).kernels
    merged = merge_alike(kernels)
    assert len(kernels) == 10
    assert len(merged) == 6
    assert sum(k.note.startswith("3 x ") for k in merged) == 2


def test_kernels_that_depend_on_one_another_stay_apart() -> None:
    x = ir.input_("x", DType.F32, (1, 32))
    weights = ir.const(np.eye(32, dtype=np.float32) / 2)
    y = derived.matmul(derived.matmul(x, weights), weights)
    graph = Graph("chain", {"x": x}, {"y": y})
    kernels = fuse(graph).kernels
    assert [k.note for k in merge_alike(kernels)] == [k.note for k in kernels]
    assert interp.run(graph, {"x": np.ones((1, 32), np.float32)})["y"].mean() == 0.25


def test_the_same_graph_gives_the_same_program() -> None:
    graph = dict(families())["heads"]
    assert lower(graph, TARGET) == lower(graph, TARGET)


def test_unknown_precision_is_refused() -> None:
    graph = dict(families())["tokens"]
    with pytest.raises(TargetError, match="precision 'int8' is not available for opencl:adreno630; "
                                          "use 'f16' or 'f32'"):
        lower(graph, TARGET, "int8")
