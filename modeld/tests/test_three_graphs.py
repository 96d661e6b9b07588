"""Three ways to ship one network give one answer: single file, vision and policy, stateful graph.

The stand-in models have the same weights in all three forms, so whatever differs is the daemon's
handling of pictures, features, wishes and state. onnxruntime runs them.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinynn
from compiled_models.standin import build
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


@pytest.mark.slow
def test_state_in_the_daemon_or_in_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stateful graph, compiled with its state as inputs and outputs, and as the program's."""
    monkeypatch.setenv("TINYDRIVE_HOME", str(tmp_path))
    model = build("driving_supercombo_stateful")
    names = [f"state_{queue}_q" for queue in ("img", "desire", "feat")]
    drives = []
    for state in ({}, {name: f"next_{name}" for name in names}):
        tinynn.compile(model, state=state).save(tmp_path / "model.tnn")
        driving = DrivingModel(tinynn.load(tmp_path / "model.tnn", trust=True))
        assert set(driving.contract.graphs[0].carried) == set(names) - set(state)
        drives.append(drive(driving, 12))
    for in_daemon, in_artifact in zip(*drives, strict=True):
        for name, expected in in_daemon.items():
            np.testing.assert_array_equal(in_artifact[name], expected, err_msg=name)
