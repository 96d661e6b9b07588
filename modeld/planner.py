"""One frame through the whole way, without sockets and clocks: frames and car state -> messages."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from modeld import cameras, desire_helper, fill, watch
from modeld import constants as c
from modeld.action import RULES, Action, action_times, next_action
from modeld.camera_program import CameraProgram
from modeld.cameras import Intrinsics
from modeld.derived import CollisionWatch, ConfidenceWatch, DropFilter, disengage_per_slice
from modeld.model_state import DrivingModel, ModelInputs, ModelOutputs
from modeld.pairing import Frame, check_intact
from modeld.parser import Parsed, parse
from modeld.warp import NO_WARP, prepare_warp, warp_matrix

MAX_FRAME_AGE = 10  # frames; a plan from a picture half a second old is not valid


@dataclass(frozen=True)
class CarInputs:
    """What the other processes say, as of this frame.

    rpy: calibration in radians, None before the first. camera_frame_id: newest id the camera has
    announced, None if unknown. lateral_delay, longitudinal_delay: of the actuators, s.
    device_type: as the log spells it. standing: the car says that it stands.
    """

    driver: desire_helper.Driver = field(default_factory=desire_helper.Driver)
    right_hand_drive: bool = False
    rpy: tuple[float, float, float] | None = None
    lateral_delay: float = 0.3
    longitudinal_delay: float = 0.15
    camera_frame_id: int | None = None
    device_type: str = "unknown"
    standing: bool = False


@dataclass(frozen=True)
class Views:
    """Intrinsics of the cameras behind the main and the extra model view; None if unknown."""

    main: Intrinsics | None
    extra: Intrinsics | None


@dataclass(frozen=True)
class Messages:
    """Fields of the three messages of a frame, and whether they may be acted upon."""

    model_v2: fill.Fields
    driving_model_data: fill.Fields
    camera_odometry: fill.Fields
    valid: bool
    odometry_valid: bool


class Planner:
    """A driving model with everything that is remembered from frame to frame."""

    def __init__(
        self, model: DrivingModel | CameraProgram, sampling: str = "nearest",
        send_raw: bool = False,
    ) -> None:
        self.model = model
        self.counters = watch.Counters()
        self.speed = watch.SpeedWatch()
        self.last_frame_id: int | None = None
        self._rules = RULES[model.contract.era]
        self._sampling = sampling
        self._send_raw = send_raw
        self._action = Action()
        self._change = desire_helper.LaneChange()
        self._collision = CollisionWatch()
        self._confidence = ConfidenceWatch()
        self._drops = DropFilter()
        self._main_camera = watch.CameraWatch("main")
        self._extra_camera = watch.CameraWatch("extra")

    def step(
        self, main: Frame, extra: Frame, views: Views, car: CarInputs,
        clock: Callable[[], float] = lambda: 0.0, realtime: bool = False,
    ) -> Messages:
        """Run on a pair of frames.

        clock (s) measures the execution time only. realtime: frames come by the clock, so that a
        model that is too slow for them makes plans not valid.
        Raises OverwrittenError if a picture did not last until it was read. Then all is as if the
        pair had not come, and the next one counts it as lost.
        """
        seen = watch.look_at(main), watch.look_at(extra)
        times = action_times(self._rules, car.lateral_delay, car.longitudinal_delay)
        start = clock()
        outputs = self._run((main, extra), _warps(views, car), self._vectors(car, times))
        parsed = parse(outputs.named) if outputs.finite else None
        execution_time = clock() - start
        dropped = self.counters.arrived(main.frame_id, self.last_frame_id)
        self.last_frame_id = main.frame_id
        calibrated = self._calibrated(views, car)
        sound = self._cameras_sound((main, extra), seen, car)
        info = fill.FrameInfo(
            frame_id=main.frame_id, frame_id_extra=extra.frame_id,
            frame_age=max(0, (car.camera_frame_id or 0) - main.frame_id),
            drop_percent=self._drops.update(dropped), timestamp_eof=main.timestamp_eof,
            execution_time=execution_time)
        punctual = self._punctual(info, realtime)
        if parsed is None:
            self.counters.note(watch.NOT_FINITE, (
                f"The model put out numbers that are not finite in frame {main.frame_id}; such "
                "frames are published without a plan and as not valid."))
            return _without_plan(info)
        valid = calibrated and sound and punctual
        raw = outputs.raw.tobytes() if self._send_raw else b""
        return self._messages(parsed, info, car, times, raw, valid, valid and dropped == 0)

    def _cameras_sound(
        self, frames: tuple[Frame, Frame], seen: tuple[watch.Seen, watch.Seen], car: CarInputs,
    ) -> bool:
        """Whether the cameras work as they should and call their frames valid themselves."""
        main, extra = frames
        faults = self._main_camera.update(seen[0], car.standing)
        if extra is not main:
            faults += self._extra_camera.update(seen[1], car.standing)
        if not (main.valid and extra.valid):
            faults.append((watch.CAMERA_FAULT, (
                f"The camera marks frame {main.frame_id} as not valid; plans from such frames are "
                "published as not valid.")))
        # Both cameras may have the same fault: that is one frame with it.
        for kind, text in dict(reversed(faults)).items():
            self.counters.note(kind, text)
        return not faults

    def _punctual(self, info: fill.FrameInfo, realtime: bool) -> bool:
        """Whether the frame is young enough, and the model fast enough for those to come."""
        fresh = info.frame_age <= MAX_FRAME_AGE
        if not fresh:
            self.counters.note(watch.STALE, (
                f"Frame {info.frame_id} is {info.frame_age} frames older than the camera's newest; "
                "plans from such frames are published as not valid."))
        slow = self.speed.update(info.execution_time)
        if slow and realtime:
            self.counters.note(watch.SLOW_MODEL, slow)
        return fresh and not (slow and realtime)

    def _calibrated(self, views: Views, car: CarInputs) -> bool:
        """Whether soundly calibrated."""
        if car.rpy is None or views.main is None or views.extra is None:
            missing = "extrinsicsCalibration" if car.rpy is None else "the camera's intrinsics"
            self.counters.note(watch.NOT_CALIBRATED, (
                f"Waiting for {missing}; until then plans are published as not valid."), missing)
            return False
        outside = watch.outside_limits(car.rpy, car.device_type)
        if outside:
            self.counters.note(watch.CALIBRATION_LIMITS, outside)
        return outside is None

    def _run(self, frames: tuple[Frame, Frame], warps: list[np.ndarray],
             vectors: dict[str, np.ndarray]) -> ModelOutputs:
        """Frames through the model; a camera program warps them, and looks after them, itself."""
        if isinstance(self.model, CameraProgram):
            return self.model.run(frames, warps, vectors)
        main, extra = (self._pack(frame, warp) for frame, warp in zip(frames, warps, strict=True))
        check_intact(*frames)
        return self.model.run(ModelInputs(main, extra, **vectors))

    def _pack(self, frame: Frame, warp: np.ndarray) -> np.ndarray:
        luma = frame.luma
        height, width = luma.shape
        ready = prepare_warp(warp, height, width, self._sampling, stride=luma.strides[0])
        return ready.pack(luma, frame.chroma)

    def _vectors(self, car: CarInputs, times: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of the model that are not pictures, as ModelInputs names them."""
        convention = np.zeros(2, np.float32)
        convention[int(car.right_hand_drive)] = 1
        return {
            # The wish is that of the frame before: lane changes follow from the model's output.
            "desire": self._change.desire(), "traffic_convention": convention,
            "lateral_control_params": np.array([car.driver.v_ego, car.lateral_delay], np.float32),
            "action_t": times}

    def _messages(
        self, parsed: Parsed, info: fill.FrameInfo, car: CarInputs, times: np.ndarray, raw: bytes,
        valid: bool, odometry_valid: bool,
    ) -> Messages:
        speed = car.driver.v_ego
        self._action = next_action(parsed, self._action, self._rules, speed, times)
        judgement = self._judge(parsed, info.frame_id)
        self._change = desire_helper.update(self._change, car.driver, lane_change_chance(parsed))
        return Messages(
            fill.model_v2(parsed, info, judgement, self._change, raw),
            fill.driving_model_data(parsed, info, self._action, self._change),
            fill.camera_odometry(parsed, info), valid, odometry_valid)

    def _judge(self, parsed: Parsed, frame_id: int) -> fill.Judgement:
        if "meta" not in parsed:
            return fill.Judgement(self._action, "red", False)
        meta = parsed["meta"]
        layout = c.META_LAYOUTS[meta.size]
        rows = (layout.brake_disengage, layout.gas_disengage, layout.steer_override)
        slices = disengage_per_slice(*(meta[list(row)] for row in rows))
        return fill.Judgement(
            self._action, self._confidence.update(frame_id, slices),
            self._collision.update(meta[layout.hard_brake_3[0]], meta[layout.hard_brake_5[0]]))


def _warps(views: Views, car: CarInputs) -> list[np.ndarray]:
    """The warps of the main and the extra view, (3, 3) float32 each."""
    if car.rpy is None or views.main is None or views.extra is None:
        return [NO_WARP, NO_WARP]
    return [warp_matrix(car.rpy, views.main, cameras.MEDMODEL),
            warp_matrix(car.rpy, views.extra, cameras.SBIGMODEL)]


def lane_change_chance(parsed: Parsed) -> float:
    """Probability that a lane change, to either side, is under way."""
    if "desire_state" not in parsed:
        return 0.0
    state = parsed["desire_state"]
    return float(state[c.DESIRE_LANE_CHANGE_LEFT] + state[c.DESIRE_LANE_CHANGE_RIGHT])


def _without_plan(info: fill.FrameInfo) -> Messages:
    """Messages that only tell which frame it was."""
    fields = fill.frame_fields(info)
    odometry = {"frameId": info.frame_id, "timestampEof": info.timestamp_eof}
    return Messages({**fields, "timestampEof": info.timestamp_eof, "frameAge": info.frame_age},
                    fields, odometry, valid=False, odometry_valid=False)
