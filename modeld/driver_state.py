"""Driver monitoring without sockets and clocks: cabin picture -> model -> fields of driverStateV2.

The model sees the luma of the cabin camera in a view of its own, 1440 x 960, and the calibration of
the device. It says the same things about both front seats: `lhd` is the driver's seat of a
left-hand-drive car, `rhd` of a right-hand-drive one.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from modeld import cameras, watch
from modeld.cameras import Intrinsics
from modeld.contract import DTYPES, ContractError, Runner, read_slices
from modeld.fill import Fields
from modeld.pairing import Frame, check_intact
from modeld.parser import safe_exp, sigmoid
from modeld.warp import NO_WARP, FilledWarp, filled_warp, warp_matrix

VIEW = (960, 1440)  # height, width
FILL = 16  # black of a video picture, for what the camera does not see (since May 2026)
TITLE = "driver monitoring model"
SEATS = {"leftDriverData": "lhd", "rightDriverData": "rhd"}
FACE_WIDTH = 6  # pitch, yaw, roll; position x, y; size

# Probabilities in DriverData <- the output that says it. Both eyes share one in the oldest models.
_TWO_EYES = {
    "faceProb": "face_prob",
    "leftEyeProb": "left_eye_prob", "rightEyeProb": "right_eye_prob",
    "leftBlinkProb": "left_blink_prob", "rightBlinkProb": "right_blink_prob",
    "sunglassesProb": "sunglasses_prob", "phoneProb": "using_phone_prob",
}
_ONE_FOR_BOTH = {
    "faceProb": "face_prob",
    "leftEyeProb": "eyes_visible_prob", "rightEyeProb": "eyes_visible_prob",
    "leftBlinkProb": "eyes_closed_prob", "rightBlinkProb": "eyes_closed_prob",
    "phoneProb": "using_phone_prob",
}
# Size of the output when it has 512 features behind the seats -> its layout.
LAYOUTS: dict[int, dict[str, str]] = {
    545: _ONE_FOR_BOTH,
    551: _TWO_EYES,
    553: {**_TWO_EYES, "sleepProb": "sleep_prob"},
}


@dataclass(frozen=True)
class Contract:
    """Where the outputs of a model are, and which of them fill DriverData.

    slices: output -> range of the flat vector. probabilities: field -> output without its seat.
    """

    slices: dict[str, slice]
    probabilities: dict[str, str]


def describe(runner: Runner) -> Contract:
    """The contract of a driver monitoring model.

    Raises ContractError, naming the input or output that does not fit.
    """
    wanted = {"input_img": (1, VIEW[0] * VIEW[1]), "calib": (1, 3)}
    shapes = {name: tuple(spec.shape) for name, spec in runner.inputs.items()}
    if shapes != wanted or any(spec.dtype not in DTYPES for spec in runner.inputs.values()):
        raise ContractError(
            f"A driver monitoring model has the inputs {_shapes(wanted)}; this one has "
            f"{_shapes(shapes) or 'none'}. It is another kind of model.")
    if "outputs" not in runner.outputs:
        raise ContractError(f"The {TITLE} has no output tensor 'outputs'; it has "
                            f"{', '.join(runner.outputs)}.")
    size = math.prod(runner.outputs["outputs"].shape)
    table = runner.metadata.get("output_slices")
    if size == 84 and not table:
        raise ContractError(
            f"The {TITLE} has 84 outputs without names: the model of 0.9.0 to 0.9.7, whose layout "
            "is not known to this daemon. Use a model of 0.9.8 or later.")
    slices = read_slices(table, size, TITLE)
    slices = {_with_suffix(name): where for name, where in slices.items()}
    return Contract(slices, _layout(slices))


def _with_suffix(name: str) -> str:
    """An output under the newest form of its name: face_lhd -> face_prob_lhd."""
    for seat in SEATS.values():
        stem = name.removesuffix(f"_{seat}")
        if stem != name and stem != "face_descs" and not stem.endswith("_prob"):
            return f"{stem}_prob_{seat}"
    return name


def _layout(slices: Mapping[str, slice]) -> dict[str, str]:
    """The layout whose outputs are exactly those of the model, for both seats."""
    widths = {name: where.stop - where.start for name, where in slices.items()}
    widths.pop("features", None)
    for probabilities in LAYOUTS.values():
        names = {"face_descs": 2 * FACE_WIDTH, **dict.fromkeys(probabilities.values(), 1)}
        expected = {f"{name}_{seat}": width for name, width in names.items()
                    for seat in SEATS.values()}
        if widths == {**expected, "wheel_on_right": 1}:
            return probabilities
    had = ", ".join(f"{name} ({width})" for name, width in widths.items())
    raise ContractError(
        f"The {TITLE} has the outputs {had}, in brackets their widths. This is none of the layouts "
        f"this daemon knows, those of models with {', '.join(map(str, LAYOUTS))} outputs.")


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def driver_state(vector: np.ndarray, contract: Contract) -> Fields:
    """Fields of driverStateV2 that the model's output (N,) float32 tells.

    Angles in radians; face positions in the units of the model.
    """
    fields: Fields = {
        "wheelOnRightProb": float(sigmoid(vector[contract.slices["wheel_on_right"]])[0])}
    for field, seat in SEATS.items():
        means, log_stds = vector[contract.slices[f"face_descs_{seat}"]].reshape(2, FACE_WIDTH)
        stds = safe_exp(log_stds)
        fields[field] = {
            "faceOrientation": means[:3].tolist(), "faceOrientationStd": stds[:3].tolist(),
            "facePosition": means[3:5].tolist(), "facePositionStd": stds[3:5].tolist(),
        }
        for probability, output in contract.probabilities.items():
            logit = vector[contract.slices[f"{output}_{seat}"]]
            fields[field][probability] = float(sigmoid(logit)[0])
    return fields


@lru_cache(maxsize=4)
def _warp(camera: Intrinsics | None, height: int, width: int, stride: int) -> FilledWarp:
    """The cabin camera sits beside the driver at any angle: no rotation is taken out."""
    matrix = NO_WARP
    if camera is not None:
        matrix = warp_matrix((0.0, 0.0, 0.0), camera, cameras.DRIVER_MODEL)
    return filled_warp(matrix, (height, width), VIEW, FILL, stride)


class Monitor:
    """A driver monitoring model and what is remembered from frame to frame.

    send_raw: put the output vector into the message.
    Raises ContractError if the model is none this daemon can run.
    """

    def __init__(self, runner: Runner, send_raw: bool = False) -> None:
        self.contract = describe(runner)
        self.counters = watch.Counters()
        self.speed = watch.SpeedWatch()
        self.last_frame_id: int | None = None
        self.runner = runner
        self._send_raw = send_raw
        self._camera = watch.CameraWatch("cabin")

    def step(
        self, frame: Frame, camera: Intrinsics | None, rpy: tuple[float, float, float] | None,
        clock: Callable[[], float] = lambda: 0.0, realtime: bool = False,
    ) -> tuple[Fields, bool]:
        """Fields of driverStateV2 for a frame, and whether they may be acted upon.

        camera: intrinsics, None if unknown. rpy: calibration of the device in radians; None before
        the first, the model then gets zeros. clock (s) measures execution times only. realtime:
        frames come by the clock, so that a model that is too slow makes the message not valid.
        Raises OverwrittenError as Planner.step does.
        """
        seen = watch.look_at(frame)
        start = clock()
        luma = frame.luma
        picture = _warp(camera, *luma.shape, luma.strides[0]).sample(luma)
        check_intact(frame)
        arrays = {"input_img": picture, "calib": np.array(rpy or (0, 0, 0), np.float32)}
        inputs = {name: arrays[name].reshape(spec.shape).astype(DTYPES[spec.dtype], copy=False)
                  for name, spec in self.runner.inputs.items()}
        vector = self.runner(inputs)["outputs"].astype(np.float32).reshape(-1)
        model_done = clock()
        finite = bool(np.isfinite(vector).all())
        told = driver_state(vector, self.contract) if finite else {}
        end = clock()
        sound = self._check(frame, seen, camera)
        if not finite:
            self.counters.note(watch.NOT_FINITE, (
                f"The model put out numbers that are not finite in frame {frame.frame_id}; such "
                "frames are published without a driver and as not valid."))
        slow = self.speed.update(end - start)
        if slow and realtime:
            self.counters.note(watch.SLOW_MODEL, slow)
        fields = {
            "frameId": frame.frame_id, "modelExecutionTime": end - start,
            "gpuExecutionTime": model_done - start,
            "rawPredictions": vector.tobytes() if self._send_raw else b"", **told}
        return fields, sound and finite and not (slow and realtime)

    def _check(self, frame: Frame, seen: watch.Seen, camera: Intrinsics | None) -> bool:
        """Whether frame and camera are as they should be; what is wrong is counted."""
        self.counters.arrived(frame.frame_id, self.last_frame_id)
        self.last_frame_id = frame.frame_id
        faults = self._camera.update(seen)
        if camera is None:
            height, width = frame.luma.shape
            faults.append((watch.NOT_CALIBRATED, (
                f"No intrinsics are known for a cabin camera of {width} x {height} pixels; until "
                "they are given with the frame stream, messages are published as not valid.")))
        if not frame.valid:
            faults.append((watch.CAMERA_FAULT, (
                f"The camera marks frame {frame.frame_id} as not valid; messages from such frames "
                "are published as not valid.")))
        for kind, text in faults:
            self.counters.note(kind, text)
        return not faults
