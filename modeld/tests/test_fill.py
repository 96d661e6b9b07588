"""Message fields against the outputs they come from, and written into real messages."""
from __future__ import annotations

import numpy as np
import pytest

from messaging import new_message
from modeld import fill
from modeld.action import Action
from modeld.constants import META_LAYOUTS, T_IDXS, X_IDXS
from modeld.desire_helper import LaneChange
from modeld.parser import Parsed, parse

INFO = fill.FrameInfo(frame_id=7, frame_id_extra=8, frame_age=2, drop_percent=1.5,
                      timestamp_eof=123456789, execution_time=0.0125)
JUDGEMENT = fill.Judgement(Action(0.01, -0.5, True), "yellow", True)
CHANGE = LaneChange("laneChangeStarting", "left")
WIDTHS = {"plan": 990, "lane_lines": 528, "lane_lines_prob": 8, "road_edges": 264, "lead": 144,
          "lead_prob": 3, "desire_state": 8, "meta": 55, "desire_pred": 32, "pose": 12,
          "wide_from_device_euler": 6, "road_transform": 12, "hidden_state": 512}


def parsed(**widths: int) -> Parsed:
    rng = np.random.default_rng(0)
    return parse({name: rng.normal(0, 1, width).astype(np.float32)
                  for name, width in (WIDTHS | widths).items() if width})


def test_model_v2() -> None:
    outputs = parsed()
    fields = fill.model_v2(outputs, INFO, JUDGEMENT, CHANGE, b"raw")
    assert (fields["frameId"], fields["frameIdExtra"], fields["frameAge"]) == (7, 8, 2)
    assert (fields["frameDropPerc"], fields["timestampEof"]) == (1.5, 123456789)
    assert fields["rawPredictions"] == b"raw"
    plan = outputs["plan"]
    for name, column in (("position", 0), ("velocity", 3), ("acceleration", 6),
                         ("orientation", 9), ("orientationRate", 12)):
        assert fields[name]["t"] == T_IDXS.tolist()
        assert fields[name]["y"] == plan[:, column + 1].tolist()
        assert ("yStd" in fields[name]) == (name == "position")
    assert fields["position"]["zStd"] == outputs["plan_stds"][:, 2].tolist()
    assert len(fields["laneLines"]) == 4
    assert fields["laneLines"][2] == {
        "x": X_IDXS.tolist(), "y": outputs["lane_lines"][2, :, 0].tolist(),
        "z": outputs["lane_lines"][2, :, 1].tolist()}
    assert fields["laneLineStds"] == outputs["lane_lines_stds"][:, 0, 0].tolist()
    assert fields["laneLineProbs"] == outputs["lane_lines_prob"][[1, 3, 5, 7]].tolist()
    assert len(fields["roadEdges"]) == len(fields["roadEdgeStds"]) == 2
    lead = fields["leadsV3"][1]
    assert (lead["probTime"], lead["t"]) == (2.0, [0, 2, 4, 6, 8, 10])
    assert lead["prob"] == outputs["lead_prob"][1]
    assert lead["v"] == outputs["lead"][1, :, 2].tolist()
    assert lead["aStd"] == outputs["lead_stds"][1, :, 3].tolist()
    assert fields["confidence"] == "yellow"
    assert fields["action"] == {"desiredCurvature": 0.01, "desiredAcceleration": -0.5,
                                "shouldStop": True}
    meta = fields["meta"]
    assert (meta["laneChangeState"], meta["laneChangeDirection"]) == ("laneChangeStarting", "left")
    assert meta["hardBrakePredicted"]
    assert len(meta["desireState"]) == 8
    assert len(meta["desirePrediction"]) == 32


# Positions as the documentation of each layout has them: start, step, count.
META = {
    55: {"gasDisengageProbs": (1, 6, 5), "brakeDisengageProbs": (2, 6, 5),
         "steerOverrideProbs": (3, 6, 5), "brake3MetersPerSecondSquaredProbs": (4, 6, 5),
         "brake4MetersPerSecondSquaredProbs": (5, 6, 5),
         "brake5MetersPerSecondSquaredProbs": (6, 6, 5),
         "gasPressProbs": (31, 4, 6), "brakePressProbs": (32, 4, 6)},
    53: {"gasDisengageProbs": (1, 8, 5), "brake5MetersPerSecondSquaredProbs": (6, 8, 5),
         "gasPressProbs": (7, 8, 5), "brakePressProbs": (8, 8, 5)},
    48: {"gasDisengageProbs": (1, 7, 5), "brake5MetersPerSecondSquaredProbs": (6, 7, 5),
         "gasPressProbs": (7, 7, 5), "brakePressProbs": (0, 1, 0)},
}


@pytest.mark.parametrize("width", META)
def test_meta_layouts(width: int) -> None:
    outputs = parsed(meta=width)
    meta = outputs["meta"].tolist()
    fields = fill.model_v2(outputs, INFO, JUDGEMENT, CHANGE)["meta"]
    assert fields["engagedProb"] == meta[0]
    predictions = fields["disengagePredictions"]
    assert predictions["t"] == [2, 4, 6, 8, 10]
    for name, (start, step, count) in META[width].items():
        assert predictions[name] == [meta[start + step * k] for k in range(count)], name


@pytest.mark.parametrize("width", META)
def test_meta_layouts_use_every_entry_once(width: int) -> None:
    entries: list[int] = []
    for value in vars(META_LAYOUTS[width]).values():
        entries += [value] if isinstance(value, int) else value
    assert sorted(entries) == list(range(width))


def test_driving_model_data() -> None:
    outputs = parsed()
    # A path of known coefficients: x = 1 + 2 t + 3 t^2 + 4 t^3 + 5 t^4.
    t = T_IDXS.astype(np.float64)
    outputs["plan"][:, 0] = 1 + 2 * t + 3 * t ** 2 + 4 * t ** 3 + 5 * t ** 4
    fields = fill.driving_model_data(outputs, INFO, JUDGEMENT.action, CHANGE)
    np.testing.assert_allclose(fields["path"]["xCoefficients"], [1, 2, 3, 4, 5], rtol=1e-2)
    assert len(fields["path"]["zCoefficients"]) == 5
    assert fields["laneLineMeta"] == {
        "leftY": outputs["lane_lines"][1, 0, 0], "rightY": outputs["lane_lines"][2, 0, 0],
        "leftProb": outputs["lane_lines_prob"][3], "rightProb": outputs["lane_lines_prob"][5]}
    assert fields["meta"] == {"laneChangeState": "laneChangeStarting",
                              "laneChangeDirection": "left"}
    assert fields["modelExecutionTime"] == 0.0125


def test_camera_odometry() -> None:
    outputs = parsed()
    fields = fill.camera_odometry(outputs, INFO)
    assert fields["rot"] == outputs["pose"][3:].tolist()
    assert fields["transStd"] == outputs["pose_stds"][:3].tolist()
    assert fields["roadTransformTrans"] == outputs["road_transform"][:3].tolist()
    assert fields["wideFromDeviceEulerStd"] == outputs["wide_from_device_euler_stds"].tolist()
    assert (fields["frameId"], fields["timestampEof"]) == (7, 123456789)


def test_models_that_predict_less() -> None:
    outputs = parsed(lane_lines=0, lane_lines_prob=0, road_edges=0, lead=0, lead_prob=0, meta=0,
                     desire_state=0, desire_pred=0, wide_from_device_euler=0, road_transform=0)
    fields = fill.model_v2(outputs, INFO, JUDGEMENT, CHANGE)
    assert fields["laneLines"] == fields["leadsV3"] == fields["laneLineProbs"] == []
    assert "laneLineMeta" not in fill.driving_model_data(outputs, INFO, Action(), CHANGE)
    assert "roadTransformTrans" not in fill.camera_odometry(outputs, INFO)


def test_fields_fit_the_schema() -> None:
    outputs = parsed()
    for service, fields in (
            ("modelV2", fill.model_v2(outputs, INFO, JUDGEMENT, CHANGE, b"raw")),
            ("drivingModelData", fill.driving_model_data(outputs, INFO, Action(), CHANGE)),
            ("cameraOdometry", fill.camera_odometry(outputs, INFO))):
        message = new_message(service)
        getattr(message, service).from_dict(fields)
        assert getattr(message, service).frameId == 7
    event = new_message("modelV2")
    event.modelV2.from_dict(fill.model_v2(outputs, INFO, JUDGEMENT, CHANGE))
    assert str(event.modelV2.confidence) == "yellow"
    assert event.modelV2.leadsV3[2].a[5] == outputs["lead"][2, 5, 3]
    assert list(event.modelV2.laneLines[0].t) == []
