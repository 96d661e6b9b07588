"""Every generation with a full layout, from pixels to messages: stand-in models in onnxruntime.

That the history is right is tested in test_model_state and test_three_graphs; here, that each
layout is understood as a whole, and that what lands in the messages is what the model put out where
the tables of that generation say it does.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from modeld.action import RULES
from modeld.cameras import Intrinsics
from modeld.desire_helper import Driver
from modeld.model_state import DrivingModel
from modeld.pairing import CameraFrame
from modeld.planner import CarInputs, Messages, Planner, Views
from modeld.tests.ort_runner import OnnxRunner

VIEWS = Views(Intrinsics(400, 160, 100), Intrinsics(100, 160, 100))
CAR = CarInputs(driver=Driver(v_ego=20.0), rpy=(0.0, 0.02, -0.01))
FRAMES = 3


def picture(frame_id: int, seed: int) -> CameraFrame:
    rng = np.random.default_rng(100 * seed + frame_id)
    sof = 50_000_000 * frame_id
    return CameraFrame(rng.integers(0, 256, (200, 320), np.uint8),
                   rng.integers(0, 256, (100, 160, 2), np.uint8), frame_id, sof, sof + 15_000_000)


@dataclass(frozen=True)
class Layout:
    """A generation. files: in the order of DrivingModel. era: the rules of its action.

    raw: floats of all outputs. plan: where its mean starts among them, None where the best of five
    hypotheses is taken.
    """

    files: tuple[str, ...]
    era: str
    raw: int
    plan: int | None


LAYOUTS = {
    "0.8": Layout(("supercombo_08",), "0.9", 6472, None),
    "0.9.5": Layout(("supercombo_095",), "0.9", 6768, None),
    "0.9.7": Layout(("supercombo_097",), "direct", 6504, None),
    "0.9.9": Layout(("driving_vision_632", "driving_policy_5884"), "0.9", 632 + 5884, None),
    "July 2025": Layout(("driving_vision_1432", "driving_policy_5072"), "0.10", 1432 + 5072, None),
    "0.10.0": Layout(("driving_vision_1536", "driving_policy_4968"), "0.10", 1536 + 4968, None),
    "0.10.1": Layout(("driving_vision", "driving_policy"), "0.10", 1576 + 1000, 1576),
    # Raw outputs in the order in which the files run: vision, off-policy, on-policy.
    "April 2026": Layout(("driving_vision", "driving_policy", "driving_off_policy"), "0.10",
                         1576 + 1940 + 1000, 1576 + 1940),
    "0.11.2": Layout(("driving_supercombo",), "0.11", 2576, 1576),
    "after 0.11.2": Layout(("driving_supercombo_stateful",), "0.11", 2576, 1576),
}


def run(layout: Layout) -> tuple[Planner, list[Messages]]:
    planner = Planner(DrivingModel(*map(OnnxRunner, layout.files)), send_raw=True)
    return planner, [planner.step(picture(i, 0), picture(i, 1), VIEWS, CAR) for i in range(FRAMES)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    layout = LAYOUTS[name]
    planner, made = run(layout)
    assert planner.model.contract.era == layout.era
    assert layout.era in RULES
    assert all(messages.valid for messages in made)
    fields = made[-1].model_v2
    raw = np.frombuffer(fields["rawPredictions"], np.float32)
    assert raw.shape == (layout.raw,)
    assert np.isfinite(raw).all()
    assert len(fields["position"]["x"]) == 33
    assert len(fields["laneLines"]) == len(fields["laneLineProbs"]) == 4
    assert len(fields["roadEdges"]) == 2
    assert [lead["probTime"] for lead in fields["leadsV3"]] == [0.0, 2.0, 4.0]
    assert sum(fields["meta"]["desireState"]) == pytest.approx(1, abs=1e-5)
    assert 0 < fields["meta"]["engagedProb"] < 1
    assert len(made[-1].camera_odometry["trans"]) == 3
    assert made[0].model_v2["position"] != fields["position"]  # another picture, another plan
    if layout.plan is not None:
        plan = raw[layout.plan:layout.plan + 495].reshape(33, 15)
        assert fields["position"]["y"] == plan[:, 1].tolist()
        assert fields["orientation"]["z"] == plan[:, 11].tolist()


def test_the_on_policy_plan_is_driven_and_the_off_policy_road_is_told() -> None:
    _, made = run(LAYOUTS["April 2026"])
    fields = made[-1].model_v2
    raw = np.frombuffer(fields["rawPredictions"], np.float32)
    off, on = raw[1576:1576 + 1940], raw[1576 + 1940:]
    lines = off[990:990 + 264].reshape(4, 33, 2)  # not those of the vision model
    assert fields["laneLines"][1]["y"] == lines[1, :, 0].tolist()
    assert fields["velocity"]["x"] == on[:495].reshape(33, 15)[:, 3].tolist()
    assert fields["velocity"]["x"] != off[:495].reshape(33, 15)[:, 3].tolist()
