"""Parsed outputs -> fields of modelV2, drivingModelData and cameraOdometry.

The functions return nested dicts of plain Python values with the names of the log schema, which
pycapnp writes into a message. Outputs that a model does not have leave their lists empty.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeld import constants as c
from modeld.action import Action
from modeld.desire_helper import LaneChange

Fields = dict[str, Any]
_AXES = ("x", "y", "z")
_EMPTY = np.zeros(0, np.float32)
_T, _X, _LEAD_T, _META_T = (
    grid.tolist() for grid in (c.T_IDXS, c.X_IDXS, c.LEAD_T_IDXS, c.META_T_IDXS))
# Values (33,) over T_IDXS -> coefficients of the least-squares polynomial, lowest order first.
_PATH_FIT = np.linalg.pinv(
    np.vander(c.T_IDXS.astype(np.float64), c.POLY_PATH_DEGREE + 1, increasing=True))


@dataclass(frozen=True)
class FrameInfo:
    """What is said about the frame, not about the road.

    frame_id, frame_id_extra: of the main and the wide buffer. frame_age: frames the camera was
    ahead. drop_percent: see `derived.DropFilter`. timestamp_eof: end of the main frame, ns.
    execution_time: seconds from warp to parsed outputs.
    """

    frame_id: int
    frame_id_extra: int
    frame_age: int
    drop_percent: float
    timestamp_eof: int
    execution_time: float


@dataclass(frozen=True)
class Judgement:
    """What was concluded from the outputs: see `derived` and `action`."""

    action: Action
    confidence: str
    hard_brake_predicted: bool


def model_v2(
    parsed: Mapping[str, np.ndarray], info: FrameInfo, judgement: Judgement, change: LaneChange,
    raw_predictions: bytes = b"",
) -> Fields:
    """Fields of modelV2. Metres, seconds, radians; calibrated frame: x forward, y right, z down."""
    plan, stds = parsed["plan"], parsed["plan_stds"]
    fields = {
        **frame_fields(info),
        "timestampEof": info.timestamp_eof,
        "frameAge": info.frame_age,
        "rawPredictions": raw_predictions,
        "position": _series(plan[:, c.POSITION], stds[:, c.POSITION]),
        "velocity": _series(plan[:, c.VELOCITY]),
        "acceleration": _series(plan[:, c.ACCELERATION]),
        "orientation": _series(plan[:, c.ORIENTATION]),
        "orientationRate": _series(plan[:, c.ORIENTATION_RATE]),
        "laneLines": _lines(parsed.get("lane_lines")),
        "laneLineStds": _line_stds(parsed.get("lane_lines_stds")),
        "laneLineProbs": parsed.get("lane_lines_prob", _EMPTY)[1::2].tolist(),
        "roadEdges": _lines(parsed.get("road_edges")),
        "roadEdgeStds": _line_stds(parsed.get("road_edges_stds")),
        "leadsV3": _leads(parsed),
        "meta": {
            **_meta(parsed),
            "hardBrakePredicted": judgement.hard_brake_predicted,
            "laneChangeState": change.state,
            "laneChangeDirection": change.direction,
        },
        "confidence": judgement.confidence,
        "action": _action(judgement.action),
    }
    if "lat_planner_solution" in parsed:  # 0.9.5; what steers there takes it from here
        fields["lateralPlannerSolutionDEPRECATED"] = _solution(parsed)
    return fields


def _solution(parsed: Mapping[str, np.ndarray]) -> Fields:
    means, stds = parsed["lat_planner_solution"], parsed["lat_planner_solution_stds"]
    names = ("x", "y", "yaw", "yawRate")
    return {**{name: means[:, i].tolist() for i, name in enumerate(names)},
            **{f"{name}Std": stds[:, i].tolist() for i, name in enumerate(names)}}


def driving_model_data(
    parsed: Mapping[str, np.ndarray], info: FrameInfo, action: Action, change: LaneChange,
) -> Fields:
    """Fields of drivingModelData: the small companion of modelV2 that every log keeps."""
    path = _PATH_FIT @ parsed["plan"][:, c.POSITION]
    fields = {
        **frame_fields(info),
        "action": _action(action),
        "meta": {"laneChangeState": change.state, "laneChangeDirection": change.direction},
        "path": {f"{axis}Coefficients": path[:, i].tolist() for i, axis in enumerate(_AXES)},
    }
    if "lane_lines" in parsed and "lane_lines_prob" in parsed:
        lines, probabilities = parsed["lane_lines"], parsed["lane_lines_prob"][1::2]
        fields["laneLineMeta"] = {  # lines 1 and 2 are those of our lane
            "leftY": float(lines[1, 0, 0]), "rightY": float(lines[2, 0, 0]),
            "leftProb": float(probabilities[1]), "rightProb": float(probabilities[2])}
    return fields


def camera_odometry(parsed: Mapping[str, np.ndarray], info: FrameInfo) -> Fields:
    """Fields of cameraOdometry: motion of the device between frames, m/s and rad/s."""
    fields = {"frameId": info.frame_id, "timestampEof": info.timestamp_eof}
    parts = (("trans", "pose", slice(0, 3)), ("rot", "pose", slice(3, 6)),
             ("wideFromDeviceEuler", "wide_from_device_euler", slice(0, 3)),
             ("roadTransformTrans", "road_transform", slice(0, 3)))
    for field, output, where in parts:
        if output in parsed:
            fields[field] = parsed[output][where].tolist()
            fields[f"{field}Std"] = parsed[f"{output}_stds"][where].tolist()
    return fields


def frame_fields(info: FrameInfo) -> Fields:
    """What modelV2 and drivingModelData say about the frame even if there is no plan."""
    return {"frameId": info.frame_id, "frameIdExtra": info.frame_id_extra,
            "frameDropPerc": info.drop_percent, "modelExecutionTime": info.execution_time}


def _action(action: Action) -> Fields:
    return {"desiredCurvature": action.curvature, "desiredAcceleration": action.acceleration,
            "shouldStop": action.should_stop}


def _series(values: np.ndarray, stds: np.ndarray | None = None) -> Fields:
    """values (33, 3) over T_IDXS."""
    fields = {"t": _T, **dict(zip(_AXES, values.T.tolist(), strict=True))}
    if stds is not None:
        fields |= zip([f"{axis}Std" for axis in _AXES], stds.T.tolist(), strict=True)
    return fields


def _lines(lines: np.ndarray | None) -> list[Fields]:
    """lines (N, 33, 2) of y, z over X_IDXS; t stays empty, as it has been since March 2025."""
    planes = [] if lines is None else lines.transpose(0, 2, 1).tolist()
    return [{"x": _X, "y": y, "z": z} for y, z in planes]


def _line_stds(stds: np.ndarray | None) -> list[float]:
    """Deviation of y beside the car, per line."""
    return [] if stds is None else stds[:, 0, 0].tolist()


def _leads(parsed: Mapping[str, np.ndarray]) -> list[Fields]:
    if "lead" not in parsed or "lead_prob" not in parsed:
        return []
    leads = zip(parsed["lead"], parsed["lead_stds"], parsed["lead_prob"], c.LEAD_T_OFFSETS,
                strict=True)
    fields = []
    for lead, stds, probability, offset in leads:
        entry: Fields = {"prob": float(probability), "probTime": offset, "t": _LEAD_T}
        for i, quantity in enumerate(("x", "y", "v", "a")):
            entry[quantity] = lead[:, i].tolist()
            entry[f"{quantity}Std"] = stds[:, i].tolist()
        fields.append(entry)
    return fields


def _meta(parsed: Mapping[str, np.ndarray]) -> Fields:
    fields: Fields = {
        "desireState": parsed.get("desire_state", _EMPTY).tolist(),
        "desirePrediction": parsed.get("desire_pred", _EMPTY).reshape(-1).tolist(),
    }
    if "meta" not in parsed:
        return fields
    meta = parsed["meta"]
    layout = c.META_LAYOUTS[meta.size]
    fields["engagedProb"] = float(meta[layout.engaged])
    fields["disengagePredictions"] = {
        "t": _META_T,
        "brakeDisengageProbs": meta[list(layout.brake_disengage)].tolist(),
        "gasDisengageProbs": meta[list(layout.gas_disengage)].tolist(),
        "steerOverrideProbs": meta[list(layout.steer_override)].tolist(),
        "brake3MetersPerSecondSquaredProbs": meta[list(layout.hard_brake_3)].tolist(),
        "brake4MetersPerSecondSquaredProbs": meta[list(layout.hard_brake_4)].tolist(),
        "brake5MetersPerSecondSquaredProbs": meta[list(layout.hard_brake_5)].tolist(),
        "gasPressProbs": meta[list(layout.gas_press)].tolist(),
        "brakePressProbs": meta[list(layout.brake_press)].tolist(),
    }
    return fields
