"""Every generation's contract: which rows are fed, what is refused."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modeld.contract import Contract, ContractError, Feed, describe, read_slices
from modeld.tests import fakes

IMAGES_09: dict[str, fakes.Tensor] = dict.fromkeys(
    ("input_imgs", "big_input_imgs"), (fakes.PICTURE, "f32"))
VECTOR: fakes.Tensor = ((1, 2), "f32")
SLICES_097 = {"plan": [0, 4955, None], "desired_curvature": [5990, 5992, None],
              "hidden_state": [5992, None, None]}


def feeds(contract: Contract, graph: int = -1) -> dict[str, Feed]:
    return {feed.name: feed for feed in contract.graphs[graph].feeds}


def test_release_0_9_7() -> None:
    model = fakes.runner(
        {**IMAGES_09, "desire": ((1, 100, 8), "f32"), "traffic_convention": VECTOR,
         "lateral_control_params": VECTOR, "prev_desired_curv": ((1, 100, 1), "f32"),
         "features_buffer": ((1, 99, 512), "f32"), "nav_features": ((1, 256), "f32"),
         "nav_instructions": ((1, 150), "f32")}, 6504, SLICES_097)
    contract = describe(model)
    made = feeds(contract)
    assert made["input_imgs"].queues == ("main",)
    assert made["big_input_imgs"].queues == ("extra",)
    assert made["input_imgs"].rows == (-2, -1)
    assert made["features_buffer"].rows == tuple(range(-99, 0))
    assert made["desire"].rows == tuple(range(-100, 0))
    assert made["desire"].pool == 1
    assert made["prev_desired_curv"].rows == tuple(range(-100, 0))
    assert made["nav_features"].queues == ("zeros/nav_features",)
    assert contract.queues["features"].length == 99
    assert contract.graphs[0].slices["hidden_state"] == slice(5992, 6504)
    assert contract.era == "direct"


def test_single_file_with_history_at_5_hz() -> None:
    """Master from October 2024 to January 2025: before pictures, too, were 4 runs apart."""
    slices = {"plan": [0, 4955, None], "desired_curvature": [5970, 5972, None],
              "hidden_state": [5972, None, None]}
    model = fakes.runner(
        {**IMAGES_09, "desire": ((1, 25, 8), "f32"), "traffic_convention": VECTOR,
         "lateral_control_params": VECTOR, "prev_desired_curv": ((1, 25, 1), "f32"),
         "features_buffer": ((1, 24, 512), "f32")}, 6484, slices)
    made = feeds(describe(model))
    assert made["input_imgs"].rows == made["big_input_imgs"].rows == (-2, -1)
    assert made["features_buffer"].rows == tuple(range(-96, -3, 4))
    assert (made["desire"].rows, made["desire"].pool) == (tuple(range(-100, 0)), 4)


def test_release_0_8() -> None:
    slices = {"plan": [0, 4955, None], "meta": [5868, 5948, None], "hidden_state": [5960, 6472, 1]}
    model = fakes.runner(
        {"input_imgs": (fakes.PICTURE, "f32"), "desire": ((1, 8), "f32"),
         "traffic_convention": VECTOR, "initial_state": ((1, 512), "f32")}, 6472, slices)
    contract = describe(model)
    made = feeds(contract)
    assert made["input_imgs"].rows == (-2, -1)
    assert made["initial_state"].queues == ("features",)
    assert contract.queues["features"].length == 1
    assert contract.graphs[0].slices["meta"] == slice(5868, 5916)
    assert contract.graphs[0].slices["desire_pred"] == slice(5916, 5948)
    assert contract.era == "0.9"


def vision(names: tuple[str, ...] = ("img", "big_img"), lead: bool = True) -> fakes.FakeRunner:
    slices: dict[str, Any] = {"hidden_state": [1064, 1576, None], "pad": [0, None, None]}
    if lead:
        slices["lead"] = [917, 1061, None]
    return fakes.runner(dict.fromkeys(names, (fakes.PICTURE, "u8")), 1576, slices)


def policy(
    rows: int = 25, lead: bool = False, curvature: bool = False, desire: str = "desire_pulse",
) -> fakes.FakeRunner:
    inputs: dict[str, fakes.Tensor] = {
        desire: ((1, rows, 8), "f32"), "traffic_convention": VECTOR,
        "features_buffer": ((1, rows, 512), "f32")}
    slices: dict[str, Any] = {
        "plan": [0, 990, None], "desire_state": [990, 998, None], "pad": [-2, None, None]}
    if lead:
        slices["lead"] = [1000, 1102, None]
    if curvature:
        inputs["prev_desired_curv"] = ((1, rows, 1), "f32")
        slices["desired_curvature"] = [998, 1000, None]
    return fakes.runner(inputs, 1104, slices)


def test_split_model() -> None:
    contract = describe(vision(), policy())
    assert feeds(contract, 0)["img"].rows == (-5, -1)
    made = feeds(contract, 1)
    assert made["features_buffer"].rows == tuple(range(-97, 0, 4))
    assert made["desire_pulse"].rows == tuple(range(-100, 0))
    assert made["desire_pulse"].pool == 4
    assert contract.queues["features"].length == 97
    assert contract.graphs[0].slices.keys() == {"hidden_state", "lead"}
    assert contract.era == "0.10"


def off_policy() -> fakes.FakeRunner:
    inputs: dict[str, fakes.Tensor] = {
        "desire_pulse": ((1, 25, 8), "f32"), "traffic_convention": VECTOR,
        "features_buffer": ((1, 25, 512), "f32")}
    slices = {"plan": [0, 990, None], "lane_lines": [990, 1518, None], "pad": [-3, None, None]}
    return fakes.runner(inputs, 1940, slices)


def test_three_files() -> None:
    contract = describe(vision(), policy(), off_policy())
    assert [set(graph.slices) for graph in contract.graphs] == [
        {"hidden_state", "lead"}, {"plan", "lane_lines"}, {"plan", "desire_state"}]
    for graph in (1, 2):
        made = feeds(contract, graph)
        assert made["features_buffer"].rows == tuple(range(-97, 0, 4))
        assert made["desire_pulse"].pool == 4
    assert contract.era == "0.10"


def test_three_files_name_the_one_that_does_not_fit() -> None:
    bad = fakes.runner({"features_buffer": ((1, 24, 512), "f32")}, 990, {"plan": [0, 990, None]})
    with pytest.raises(ContractError, match="The off-policy model has the input 'features_buffer'"):
        describe(vision(), policy(), bad)
    with pytest.raises(ContractError, match="The on-policy model has the input 'features_buffer'"):
        describe(vision(), bad, off_policy())


def test_split_model_at_20_hz() -> None:
    names = ("input_imgs", "big_input_imgs")
    contract = describe(vision(names, lead=False), policy(100, True, True, "desire"))
    assert feeds(contract, 0)["input_imgs"].rows == (-2, -1)
    made = feeds(contract, 1)
    assert made["features_buffer"].rows == tuple(range(-100, 0))
    assert made["prev_desired_curv"].queues == ("curvature",)
    assert contract.era == "0.9"


def test_curvature_history_at_5_hz_and_its_end() -> None:
    made = feeds(describe(vision(lead=False), policy(25, True, True)))
    assert made["prev_desired_curv"].rows == tuple(range(-97, 0, 4))
    # Since 0.10.0 the policy no longer predicts leads, and the host feeds zeros.
    made = feeds(describe(vision(), policy(25, False, True)))
    assert made["prev_desired_curv"].queues == ("zeros/prev_desired_curv",)


def test_single_model_with_host_queues() -> None:
    contract = describe(fakes.supercombo())
    made = feeds(contract)
    assert made["img"].rows == (-5, -1)
    assert made["features_buffer"].rows == tuple(range(-96, -3, 4))
    assert made["action_t"].queues == ("action_t",)
    assert contract.era == "0.11"
    assert contract.graphs[0].slices["desire_state"] == slice(2566, 2574)
    assert "pad" not in contract.graphs[0].slices


def test_big_model_with_longer_history() -> None:
    inputs = dict(fakes.SUPERCOMBO_INPUTS) | {"desire_pulse": ((1, 33, 8), "f32"),
                                              "features_buffer": ((1, 32, 32, 512), "f32")}
    slices = {"plan": [0, 990, None], "hidden_state": [990, 990 + 16384, None]}
    contract = describe(fakes.runner(inputs, 990 + 16384, slices))
    assert feeds(contract)["features_buffer"].rows == tuple(range(-128, -3, 4))
    assert feeds(contract)["desire_pulse"].rows == tuple(range(-132, 0))
    assert contract.queues["features"].shape == (16384,)


STATEFUL: dict[str, fakes.Tensor] = {
    "new_img": ((2, 6, 128, 256), "u8"), "desire": ((8,), "f32"), "traffic_convention": VECTOR,
    "action_t": VECTOR, "state_img_q": ((2, 5, 6, 128, 256), "u8"),
    "state_feat_q": ((96, 1, 512), "f32")}


def test_stateful_model() -> None:
    carried = {"next_" + name: spec for name, spec in STATEFUL.items() if name.startswith("state")}
    contract = describe(fakes.runner(STATEFUL, 2576, fakes.SUPERCOMBO_SLICES, None, carried))
    made = feeds(contract)
    assert made["new_img"].queues == ("main", "extra")
    assert made["new_img"].rows == (-1,)
    assert made["desire"].rows == (-1,)
    assert contract.graphs[0].carried == {
        "state_img_q": "next_state_img_q", "state_feat_q": "next_state_feat_q"}
    assert contract.queues["state_img_q"].shape == (2, 5, 6, 128, 256)
    assert contract.queues["state_img_q"].dtype == np.uint8


def test_state_that_the_artifact_keeps_itself() -> None:
    inputs = {name: spec for name, spec in STATEFUL.items() if not name.startswith("state")}
    contract = describe(fakes.runner(inputs, 2576, fakes.SUPERCOMBO_SLICES))
    assert contract.graphs[0].carried == {}
    assert set(contract.queues) == {"main", "extra", "desire", "traffic_convention", "action_t"}


def test_state_without_successor() -> None:
    with pytest.raises(ContractError, match=r"'state_img_q'.*'next_state_img_q'"):
        describe(fakes.runner(STATEFUL, 2576, fakes.SUPERCOMBO_SLICES))


def changed(**inputs: fakes.Tensor) -> fakes.FakeRunner:
    return fakes.runner({**fakes.SUPERCOMBO_INPUTS, **inputs}, 2576, fakes.SUPERCOMBO_SLICES)


@pytest.mark.parametrize(("model", "message"), [
    (changed(radar_tracks=((1, 192), "f32")), r"input 'radar_tracks' \(1, 192\), whose layout"),
    (changed(lat_planner_state=((1, 4), "f32")), "no output 'lat_planner_solution'"),
    (changed(driving_style=((1, 12), "f32")), "input 'driving_style'.* does not run such models"),
    (changed(prev_action=((1, 2), "f32")), "input 'prev_action'.*cannot feed"),
    (changed(img=((1, 6, 128, 256), "u8")), r"'img' with shape \(1, 6, 128, 256\)"),
    (changed(img=(fakes.PICTURE, "i64")), "dtype i64"),
    (changed(features_buffer=((1, 50, 512), "f32")), "'features_buffer'.*rows of features"),
    (changed(features_buffer=((1, 25, 512), "f32")), "past rows only"),
    (changed(features_buffer=((1, 24, 128), "f32")), "'hidden_state' has 512 values.*have 128"),
    (changed(desire_pulse=((1, 25, 7), "f32")), "'desire_pulse'"),
    (changed(prev_desired_curv=((1, 25, 1), "f32")), "no output 'desired_curvature'"),
    (changed(traffic_convention=((1, 3), "f32")), "'traffic_convention'"),
    (fakes.runner({}, 2576, None), "no metadata 'output_slices'"),
    (vision(), "no output 'plan'.*--policy"),
])
def test_refusals_name_what_does_not_fit(model: fakes.FakeRunner, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        describe(model)


def test_policy_needs_current_features() -> None:
    with pytest.raises(ContractError, match="the current row too"):
        describe(vision(), policy(24))


def test_model_without_outputs() -> None:
    model = fakes.supercombo()
    model.outputs["other"] = model.outputs.pop("outputs")
    with pytest.raises(ContractError, match="no output tensor 'outputs'; it has other"):
        describe(model)


def test_slices_with_open_and_negative_ends() -> None:
    table = {"a": [0, 10, None], "b": [10, -3, None], "c": [97, None, 1], "pad": [0, None, None]}
    assert read_slices(table, 100, "model") == {
        "a": slice(0, 10), "b": slice(10, 97), "c": slice(97, 100)}


@pytest.mark.parametrize("ends", [[0, 101, None], [-101, 5, None], [5, 5, None], [0, 10, 2],
                                  [0, 10], "0:10", [0, "x", None], None])
def test_bad_slices(ends: object) -> None:
    with pytest.raises(ContractError, match="output slice 'plan'"):
        read_slices({"plan": ends}, 100, "model")
