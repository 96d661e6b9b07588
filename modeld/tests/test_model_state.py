"""What a model is fed over many frames, checked against the rows written out by hand."""
from __future__ import annotations

import numpy as np
import pytest

from messaging import new_message
from modeld import fill
from modeld.action import Action
from modeld.desire_helper import LaneChange
from modeld.model_state import DrivingModel, ModelInputs
from modeld.parser import ParseError, parse
from modeld.tests import fakes

NONE = np.eye(8, dtype=np.float32)[0]
LEFT = np.eye(8, dtype=np.float32)[3]


def inputs(frame: int, desire: np.ndarray = NONE) -> ModelInputs:
    """Pictures whose pixels tell the frame number."""
    return ModelInputs(
        main=np.full((6, 128, 256), frame + 1, np.uint8),
        extra=np.full((6, 128, 256), frame + 101, np.uint8), desire=desire,
        traffic_convention=np.array([1, 0], np.float32),
        lateral_control_params=np.array([frame, 0.2], np.float32),
        action_t=np.array([0.5, 0.6], np.float32))


def features_tell_frame(frames: int) -> fakes.Answer:
    """Answers whose hidden_state is the number of the run."""
    count = iter(range(1, frames + 1))

    def answer(_: fakes.Arrays) -> fakes.Arrays:
        vector = np.zeros((1, 2576), np.float32)
        vector[0, 1064:1576] = next(count)
        return {"outputs": vector}
    return answer


def test_history_of_a_single_model() -> None:
    runner = fakes.supercombo(features_tell_frame(110))
    model = DrivingModel(runner)
    for frame in range(110):
        model.run(inputs(frame, LEFT if frame >= 50 else NONE))
    first, last = runner.seen[0], runner.seen[-1]
    assert (first["img"][0, :6] == 0).all()  # black past
    assert (first["img"][0, 6:] == 1).all()
    assert (first["features_buffer"] == 0).all()
    # Run 110 (frame 109) sees the pictures of frames 105 and 109 ...
    assert (last["img"][0, :6] == 106).all()
    assert (last["img"][0, 6:] == 110).all()
    assert (last["big_img"][0, 6:] == 210).all()
    # ... and the features of runs 14, 18, ..., 106: the newest is four runs old.
    assert last["features_buffer"][0, :, 7].tolist() == list(range(14, 107, 4))
    assert last["action_t"].tolist() == [[0.5, np.float32(0.6)]]


def test_desire_is_a_pulse_pooled_by_windows() -> None:
    runner = fakes.supercombo()
    model = DrivingModel(runner)
    for frame in range(60):
        model.run(inputs(frame, LEFT if frame >= 50 else NONE))
    assert all(not seen["desire_pulse"].any() for seen in runner.seen[:50])
    # The last window holds this frame and three before it; the pulse moves on every four frames.
    for frame in range(50, 60):
        expected = np.zeros((25, 8))
        expected[24 - (frame - 50) // 4, 3] = 1
        np.testing.assert_array_equal(runner.seen[frame]["desire_pulse"][0], expected)


def test_a_wish_that_comes_back_is_a_new_pulse() -> None:
    runner = fakes.runner(dict(fakes.SUPERCOMBO_INPUTS) | {"desire_pulse": ((1, 8), "f32")},
                          2576, fakes.SUPERCOMBO_SLICES)
    model = DrivingModel(runner)
    wishes = [NONE, LEFT, LEFT, NONE, LEFT]
    for frame, wish in enumerate(wishes):
        model.run(inputs(frame, wish))
    pulses = [seen["desire_pulse"][0, 3] for seen in runner.seen]
    assert pulses == [0, 1, 0, 0, 1]
    assert all(seen["desire_pulse"][0, 0] == 0 for seen in runner.seen)


def test_policy_sees_the_features_of_this_frame() -> None:
    count = iter(range(1, 200))
    vision = fakes.runner(
        {"img": (fakes.PICTURE, "u8")}, 512, {"hidden_state": [0, 512, None]},
        lambda _: {"outputs": np.full((1, 512), next(count), np.float32)})
    policy = fakes.runner({"features_buffer": ((1, 25, 512), "f16")}, 990,
                          {"plan": [0, None, None]})
    model = DrivingModel(vision, policy)
    for frame in range(105):
        outputs = model.run(inputs(frame))
    seen = policy.seen[-1]["features_buffer"]
    assert seen.dtype == np.float16
    assert seen[0, :, 0].tolist() == list(range(9, 106, 4))
    assert outputs.raw.shape == (512 + 990,)
    assert set(outputs.named) == {"hidden_state", "plan"}


def test_curvature_and_gru_state_are_fed_back() -> None:
    slices = {"plan": [0, 990, None], "desired_curvature": [990, 992, None],
              "hidden_state": [992, 1504, None]}
    count = iter(range(1, 200))

    def answer(_: fakes.Arrays) -> fakes.Arrays:
        return {"outputs": np.full((1, 1504), next(count), np.float32)}
    runner = fakes.runner({"input_imgs": (fakes.PICTURE, "f32"),
                           "prev_desired_curv": ((1, 100, 1), "f32"),
                           "initial_state": ((1, 512), "f32")}, 1504, slices, answer)
    model = DrivingModel(runner)
    for frame in range(4):
        model.run(inputs(frame))
    last = runner.seen[-1]
    assert last["prev_desired_curv"][0, -4:, 0].tolist() == [0, 1, 2, 3]
    assert (last["initial_state"] == 3).all()
    assert (last["input_imgs"][0, :6] == 3).all()  # the frame before
    assert last["input_imgs"].dtype == np.float32


def test_the_solution_of_0_9_5_is_fed_back_as_of_one_frame_ahead() -> None:
    slices = {"plan": [0, 4955, None], "lat_planner_solution": [5990, 6254, None],
              "hidden_state": [6254, -2, None], "pad": [-2, None, None]}
    times = 10 * (np.arange(33) / 32) ** 2
    vector = np.zeros((1, 6768), np.float32)
    # x = 3 t, y = 1, heading = 0.2 t, yaw rate = 0.5 - t, exact at the nodes; deviations follow.
    solution = np.stack([3 * times, np.ones(33), 0.2 * times, 0.5 - times], axis=1)
    vector[0, 5990:6122] = solution.reshape(-1)
    vector[0, 6122:6254] = -3.0
    runner = fakes.runner({"input_imgs": (fakes.PICTURE, "f32"),
                           "big_input_imgs": (fakes.PICTURE, "f32"),
                           "lat_planner_state": ((1, 4), "f32"),
                           "features_buffer": ((1, 99, 512), "f32")}, 6768, slices,
                          lambda _: {"outputs": vector})
    model = DrivingModel(runner)
    for frame in range(2):
        named = model.run(inputs(frame)).named
    assert runner.seen[0]["lat_planner_state"].tolist() == [[0, 0, 0, 0]]
    np.testing.assert_allclose(
        runner.seen[1]["lat_planner_state"], [[0, 0, 0.2 * 0.05, 0.5 - 0.05]], atol=1e-6)
    info = fill.FrameInfo(1, 1, 0, 0.0, 0, 0.0)
    told = fill.model_v2(parse(named), info, fill.Judgement(Action(), "red", False), LaneChange())
    message = new_message("modelV2")
    message.modelV2.from_dict(told)
    sent = message.modelV2.lateralPlannerSolutionDEPRECATED
    np.testing.assert_allclose(sent.yawRate, 0.5 - times, rtol=1e-6)
    np.testing.assert_allclose(sent.xStd, np.exp(-3.0), rtol=1e-6)


@pytest.mark.parametrize("where", ["plan", "hidden_state"])
def test_nothing_is_remembered_of_a_run_that_is_not_finite(where: str) -> None:
    bad_runs = {3, 4}
    count = iter(range(200))

    def answer(_: fakes.Arrays) -> fakes.Arrays:
        run = next(count)
        vector = np.full((1, 2576), run, np.float32)
        if run in bad_runs:
            vector[0, 1064 if where == "hidden_state" else 1600] = np.nan
        return {"outputs": vector}
    runner = fakes.supercombo(answer)
    model = DrivingModel(runner)
    finite = [model.run(inputs(frame, LEFT if frame >= 3 else NONE)).finite for frame in range(12)]
    assert finite == [run not in bad_runs for run in range(12)]
    # Frame 5 finds the past as frame 2 left it, and the wish of frame 3 is still news.
    assert (runner.seen[5]["img"][0, 6:] == 6).all()
    assert runner.seen[5]["desire_pulse"][0, -1, 3] == 1
    assert (runner.seen[7]["img"][0, :6] == 2).all()  # 7, 6, 5, [2], 1: four good runs back
    assert all(np.isfinite(seen["features_buffer"]).all() for seen in runner.seen)


def test_state_is_committed_together_or_not_at_all() -> None:
    count = iter(range(1, 200))

    def answer(_: fakes.Arrays) -> fakes.Arrays:
        run = next(count)
        states = {"next_state_a": np.full((3,), run, np.float32),
                  "next_state_b": np.full((2, 2), np.inf if run == 2 else run, np.float32)}
        return {"outputs": np.zeros((1, 990), np.float32), **states}
    states: dict[str, fakes.Tensor] = {"state_a": ((3,), "f32"), "state_b": ((2, 2), "f32")}
    runner = fakes.runner({"new_img": ((2, 6, 128, 256), "u8"), **states}, 990,
                          {"plan": [0, 990, None]}, answer,
                          {"next_" + name: spec for name, spec in states.items()})
    model = DrivingModel(runner)
    assert [model.run(inputs(frame)).finite for frame in range(4)] == [True, False, True, True]
    assert [seen["state_a"][0] for seen in runner.seen] == [0, 1, 1, 3]
    assert [seen["state_b"][1, 1] for seen in runner.seen] == [0, 1, 1, 3]
    assert (runner.seen[0]["new_img"][0] == 1).all()
    assert (runner.seen[0]["new_img"][1] == 101).all()


def test_widths_are_checked_before_the_first_frame() -> None:
    slices = fakes.SUPERCOMBO_SLICES | {"pose": [87, 98, None]}
    with pytest.raises(ParseError, match="'pose' has 11 values"):
        DrivingModel(fakes.runner(fakes.SUPERCOMBO_INPUTS, 2576, slices))
