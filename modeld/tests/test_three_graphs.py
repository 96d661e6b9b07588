"""Three ways to ship one network give one answer: single file, vision and policy, stateful graph.

The stand-in models have the same weights in all three forms, so whatever differs is the daemon's
handling of pictures, features, wishes and state. onnxruntime runs them.
"""
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeld.model_state import DrivingModel, ModelInputs
from modeld.tests.fakes import Spec

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
BUILDER = SHARED / "models" / "make_driving_models.py"
NAMES = ("driving_supercombo", "driving_vision", "driving_policy", "driving_supercombo_stateful")
DTYPES = {"tensor(uint8)": "u8", "tensor(float)": "f32", "tensor(float16)": "f16"}


class OnnxRunner:
    """onnxruntime behind the interface of a compiled model."""

    def __init__(self, model: bytes, slices: dict[str, slice]) -> None:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options)
        self.inputs = {i.name: Spec(i.name, DTYPES[i.type], tuple(i.shape))
                       for i in self._session.get_inputs()}
        self.outputs = {o.name: Spec(o.name, DTYPES[o.type], tuple(o.shape))
                        for o in self._session.get_outputs()}
        self.metadata = {"output_slices": {
            name: [s.start, s.stop, s.step] for name, s in slices.items()}}

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))


@pytest.fixture(scope="module")
def runners() -> dict[str, OnnxRunner]:
    if not BUILDER.exists():
        pytest.skip(f"no model builder at {BUILDER}")
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("make_driving_models", BUILDER)
    assert spec and spec.loader
    builder: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = builder  # its dataclasses look themselves up there
    spec.loader.exec_module(builder)
    made = {}
    for name in NAMES:
        slices = builder.MODELS[name](builder.Net(builder.Options()))
        made[name] = OnnxRunner(builder.build(name).SerializeToString(), slices)
    return made


def drive(model: DrivingModel, frames: int) -> list[dict[str, np.ndarray]]:
    """The named outputs of every frame of a made-up drive with wishes of several lengths."""
    rng = np.random.default_rng(0)
    results = []
    for frame in range(frames):
        desire = np.zeros(8, np.float32)
        desire[3 if frame % 9 in (2, 3, 4, 7) else 4 if frame % 31 == 30 else 0] = 1
        outputs = model.run(ModelInputs(
            main=rng.integers(0, 256, (6, 128, 256), np.uint8),
            extra=rng.integers(0, 256, (6, 128, 256), np.uint8), desire=desire,
            traffic_convention=np.array([1, 0], np.float32),
            lateral_control_params=np.array([20, 0.2], np.float32),
            action_t=np.array([0.3, 0.5], np.float32)))
        assert outputs.finite
        results.append(outputs.named)
    return results


@pytest.mark.shared
def test_three_graphs_one_answer(runners: dict[str, OnnxRunner]) -> None:
    frames = 110  # every queue turns over
    single = drive(DrivingModel(runners["driving_supercombo"]), frames)
    pair = drive(DrivingModel(runners["driving_vision"], runners["driving_policy"]), frames)
    stateful = drive(DrivingModel(runners["driving_supercombo_stateful"]), frames)
    assert single[0].keys() == pair[0].keys() == stateful[0].keys()
    for frame in range(frames):
        for name, expected in single[frame].items():
            for other in (pair, stateful):
                np.testing.assert_allclose(
                    other[frame][name], expected, rtol=0, atol=2e-5,
                    err_msg=f"{name} of frame {frame}")
    # The history matters: the same picture of frame 0 with another past has another plan.
    assert np.abs(single[-1]["plan"] - single[0]["plan"]).max() > 0.01
