"""Three ways to ship one network give one answer: single file, vision and policy, stateful graph.

The stand-in models have the same weights in all three forms, so whatever differs is the daemon's
handling of pictures, features, wishes and state. onnxruntime runs them.
"""
from __future__ import annotations

import numpy as np

from modeld.model_state import DrivingModel, ModelInputs
from modeld.tests.ort_runner import OnnxRunner


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


def test_three_graphs_one_answer() -> None:
    frames = 110  # every queue turns over
    pair_of_files = OnnxRunner("driving_vision"), OnnxRunner("driving_policy")
    single = drive(DrivingModel(OnnxRunner("driving_supercombo")), frames)
    pair = drive(DrivingModel(*pair_of_files), frames)
    stateful = drive(DrivingModel(OnnxRunner("driving_supercombo_stateful")), frames)
    assert single[0].keys() == pair[0].keys() == stateful[0].keys()
    for frame in range(frames):
        for name, expected in single[frame].items():
            for other in (pair, stateful):
                np.testing.assert_allclose(
                    other[frame][name], expected, rtol=0, atol=2e-5,
                    err_msg=f"{name} of frame {frame}")
    # The history matters: the same picture of frame 0 with another past has another plan.
    assert np.abs(single[-1]["plan"] - single[0]["plan"]).max() > 0.01
