"""Camera to outputs as one program, against the daemon's own warp, queues and feeds."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tinynn
from compiled_models.compose import ComposeError, compose
from modeld.cameras import MEDMODEL, SBIGMODEL, Intrinsics
from modeld.model_state import DrivingModel, ModelInputs
from modeld.tests import fakes
from modeld.warp import NO_WARP, chroma_matrix, prepare_warp, warp_matrix
from tinynn import interp, ir
from tinynn.ir import DType, Graph
from tinynn.tensor import Tensor

HEIGHT, WIDTH, STRIDE = 302, 482, 512
CHROMA_OFFSET = STRIDE * 304
FRAME_BYTES = CHROMA_OFFSET + STRIDE * 151
CAMERA = Intrinsics(450.0, 240.5, 150.5)
VECTORS = {"traffic_convention": np.array([1, 0], np.float32),
           "lateral_control_params": np.array([20, 0.2], np.float32),
           "action_t": np.array([0.3, 0.5], np.float32)}
VISION_SLICES = {**{name: where for name, where in fakes.SUPERCOMBO_SLICES.items()
                    if name not in ("plan", "desire_state")}}


def net(name: str, inputs: dict[str, fakes.Tensor], size: int, slices: dict[str, Any],
        carried: Sequence[str] = ()) -> Graph:
    """A model of this contract whose outputs depend on every input; pictures are averaged."""
    rng = np.random.default_rng(sum(map(ord, name)))
    total: Tensor | None = None
    given = {}
    outputs = {}
    for key, (shape, dtype) in inputs.items():
        given[key] = ir.input_(key, DType(dtype), shape)
        x = Tensor.of(given[key]).cast("f32")
        if x.shape[-2:] == (128, 256):
            x = x.reshape(-1, 8, 16, 16, 16).mean(axis=(2, 4)) / 255.0
        flat = x.flatten()
        mix = rng.standard_normal((flat.size, 16)).astype(np.float32) / flat.size ** 0.5
        part = flat @ Tensor.constant(mix)
        total = part if total is None else total + part
        if key in carried:
            outputs[f"next_{key}"] = (Tensor.of(given[key]) * 0.5 + total.sum() * 0.01).node
    assert total is not None
    spread = rng.standard_normal((16, size)).astype(np.float32)
    outputs["outputs"] = (total.tanh() @ Tensor.constant(spread)).reshape(1, size).node
    return Graph(name, given, outputs, {}, {"output_slices": slices})


def without(slices: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: where for name, where in slices.items() if name not in names}


FEATURES = {"features_buffer": ((1, 25, 512), "f32")}
PICTURES: dict[str, fakes.Tensor] = {"img": (fakes.PICTURE, "u8"), "big_img": (fakes.PICTURE, "u8")}
LEGACY = {"plan": [0, 990, None], "desired_curvature": [990, 992, None],
          "hidden_state": [992, 1504, None]}
MODELS: dict[str, list[Graph]] = {
    "single file, history of features": [
        net("single", fakes.SUPERCOMBO_INPUTS, 2576, fakes.SUPERCOMBO_SLICES)],
    "vision and policy": [
        net("vision", PICTURES, 1578, without(VISION_SLICES, "plan", "desire_state")),
        net("policy", {**FEATURES, "desire_pulse": ((1, 25, 8), "f32"),
                       "traffic_convention": ((1, 2), "f32")}, 1000,
            {"plan": [0, 990, None], "desire_state": [990, 998, None], "pad": [-2, None, None]})],
    "GRU state and curvature": [
        net("gru", {"input_imgs": (fakes.PICTURE, "f32"), "prev_desired_curv": ((1, 100, 1), "f32"),
                    "initial_state": ((1, 512), "f32")}, 1504, LEGACY)],
    "states of its own": [
        net("stateful", {"new_img": ((2, 6, 128, 256), "u8"), "state_a": ((3,), "f32"),
                         "state_b": ((2, 2), "f32")}, 990, {"plan": [0, 990, None]},
            ("state_a", "state_b"))],
}


def frame(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, FRAME_BYTES, dtype=np.uint8)


def planes(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    luma = data[:STRIDE * HEIGHT].reshape(HEIGHT, STRIDE)[:, :WIDTH]
    chroma = data[CHROMA_OFFSET:].reshape(-1, STRIDE)[:HEIGHT // 2, :WIDTH]
    return luma, chroma.reshape(HEIGHT // 2, WIDTH // 2, 2)


def packed(data: np.ndarray, warp: np.ndarray, sampling: str) -> np.ndarray:
    return prepare_warp(warp, HEIGHT, WIDTH, sampling).pack(*planes(data))


def camera_inputs(frames: Sequence[np.ndarray], warps: Sequence[np.ndarray],
                  sampling: str = "nearest") -> fakes.Arrays:
    geometry = np.array([WIDTH, HEIGHT, STRIDE, CHROMA_OFFSET], np.int32)
    inputs: fakes.Arrays = {}
    for name, data, warp in zip(("main", "extra"), frames, warps, strict=True):
        both = np.stack([warp, chroma_matrix(warp, sampling)])
        inputs |= {f"{name}_frame": data, f"{name}_geometry": geometry, f"{name}_warp": both}
    return inputs


def some_warps(rng: np.random.Generator) -> list[np.ndarray]:
    rpy = rng.uniform(-0.06, 0.06, 3).tolist()
    return [warp_matrix(rpy, CAMERA, MEDMODEL), warp_matrix(rpy, CAMERA, SBIGMODEL)]


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_the_warp_means_what_the_daemon_does(sampling: str) -> None:
    program = compose(MODELS["GRU state and curvature"], sampling, FRAME_BYTES)
    rng = np.random.default_rng(1)
    zeros = {name: np.zeros(node.shape, node.dtype.numpy) for name, node in program.inputs.items()}
    queue = {"next_queue_main": program.outputs["next_queue_main"]}
    only = Graph("warp", program.inputs, queue)
    for warp in [*some_warps(rng), NO_WARP]:
        data = frame(rng)
        inputs = zeros | {name: array for name, array
                          in camera_inputs([data, data], [warp, warp], sampling).items()
                          if name in program.inputs}
        newest = interp.run(only, inputs)["next_queue_main"][-1]
        np.testing.assert_array_equal(newest, packed(data, warp, sampling))


@pytest.mark.parametrize("name", MODELS)
def test_the_program_is_the_daemon(name: str) -> None:
    """Twelve frames: the compiled program beside the same models fed by the daemon."""
    graphs = MODELS[name]
    runners = [tinynn.load(tinynn.compile(graph).to_bytes(), trust=True) for graph in graphs]
    host = DrivingModel(*runners)
    program = tinynn.load(tinynn.compile(compose(graphs, "nearest", FRAME_BYTES)).to_bytes(),
                          trust=True)
    rng = np.random.default_rng(2)
    warps = some_warps(rng)
    for i in range(12):
        frames = [frame(rng), frame(rng)]
        desire = np.zeros(8, np.float32)
        desire[3 if i % 5 in (1, 2) else 0] = 1
        main, extra = (packed(data, warp, "nearest")
                       for data, warp in zip(frames, warps, strict=True))
        expected = host.run(ModelInputs(main, extra, desire, **VECTORS)).raw
        given = camera_inputs(frames, warps) | {"desire": desire} | VECTORS
        inputs = {key: given[key] for key in program.inputs}
        got = program(inputs)["outputs"]
        # One pixel in a hundred thousand lies on a tie that fused arithmetic breaks otherwise.
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-3, err_msg=f"frame {i}")
        assert np.abs(expected).max() > 0.5
    for runner in (*runners, program):
        runner.close()


def test_the_description_travels_with_the_program() -> None:
    program = compose(MODELS["vision and policy"], "bilinear", FRAME_BYTES)
    assert program.metadata["camera_program"] == {
        "sampling": "bilinear", "frame_bytes": FRAME_BYTES, "era": "0.10",
        "models": ["vision", "policy"]}
    assert program.metadata["output_slices"]["plan"] == [1578, 2568, None]
    assert program.metadata["output_slices"]["pose"] == [87, 99, None]
    assert set(program.state) == {"queue_main", "queue_extra", "queue_desire", "queue_features",
                                  "last_desire"}


def test_only_what_is_read_again_is_kept() -> None:
    program = compose(MODELS["states of its own"], frame_bytes=FRAME_BYTES)  # one picture a run
    assert set(program.state) == {"queue_state_a", "queue_state_b"}
    program = compose(MODELS["GRU state and curvature"], frame_bytes=FRAME_BYTES)
    assert set(program.state) == {"queue_main", "queue_features", "queue_curvature"}
    assert set(program.inputs) == {"main_frame", "main_geometry", "main_warp", *program.state}


def test_what_cannot_be_composed_is_refused() -> None:
    with pytest.raises(ComposeError, match="one to three graphs, got 0"):
        compose([])
    with pytest.raises(ComposeError, match="sampling is 'cubic'"):
        compose(MODELS["vision and policy"], "cubic")
    graph = MODELS["states of its own"][0]
    kept = Graph(graph.name, graph.inputs, graph.outputs, {"state_a": "next_state_a"},
                 graph.metadata)
    with pytest.raises(ComposeError, match="keeps state by itself"):
        compose([kept])
