"""The shell around `planner`: sockets, clocks, and the loop over frames."""
from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import capnp

from messaging import Bus, Frame, PubMaster, Stream, SubMaster, enumerant, new_message
from modeld import cameras, status
from modeld.cameras import Intrinsics
from modeld.desire_helper import Driver
from modeld.pairing import OverwrittenError
from modeld.params import CarDelays, read_delays, sound_delay
from modeld.planner import CarInputs, Messages, Planner, Views
from modeld.status import StatusFile
from modeld.streams import Cameras, Eye
from modeld.watch import OVERWRITTEN, Counters

log = logging.getLogger("modeld")

INPUTS = ("deviceState", "carState", "narrowRoadCameraState", "wideRoadCameraState",
          "extrinsicsCalibration", "driverMonitoringState", "carControl", "lateralDelay",
          "carParams")
NAME = "modeld"
OUTPUTS = ("modelV2", "drivingModelData", "cameraOdometry")
CAMERA_STATE = {Stream.NARROW_ROAD: "narrowRoadCameraState",
                Stream.WIDE_ROAD: "wideRoadCameraState"}

# Until carParams is seen; usual values of cars with electric power steering.
DEFAULT_DELAYS = CarDelays(steer=0.1, longitudinal=0.15)
STANDING_SPEED = 0.3  # m/s
LATERAL_DELAY_OFFSET = 0.2  # what a car adds to its actuator's delay, until lateralDelay is seen
BARRIER_TIMEOUT_S = 10.0
SUBSCRIBER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Options:
    """lockstep: wait for the messages a frame depends on, take every frame (for replays).

    car: delays of the car's actuators until carParams is seen.
    """

    lockstep: bool = False
    car: CarDelays = DEFAULT_DELAYS


class Daemon:
    """Frames and messages from a bus through a planner, its messages back to the bus."""

    def __init__(self, planner: Planner, bus: Bus, options: Options = Options()) -> None:
        self.planner = planner
        self._options = options
        self._said: set[str] = set()
        self._sm = SubMaster(INPUTS, bus=bus, conflate=not options.lockstep)
        self._pm = PubMaster(OUTPUTS, bus=bus)
        self._cameras = Cameras(bus, options.lockstep)
        self._status = StatusFile(bus, NAME)
        self._valid = False

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self.planner.counters

    def run(self, stop: Event, frames: int | None = None) -> None:
        """Handle frames until `stop` is set, or so many have been handled."""
        if self._options.lockstep:
            wait_for_listeners(self._pm, OUTPUTS, stop)
        handled = 0
        while not stop.is_set() and (frames is None or handled < frames):
            handled += self.step()

    def step(self) -> bool:
        """Handle one frame; False if none came in time, or it was overwritten too early."""
        pair = self._cameras.receive()
        main_eye = self._cameras.main
        if pair is None or main_eye is None:
            self._sm.update(0)  # sockets come back to restarted publishers only while in use
            self._tell(status.WAITING)
            return False
        self._receive_messages(pair[0])
        car = read_car(self._sm, CAMERA_STATE[main_eye.stream], self._options.car)
        views = self._views(main_eye, self._cameras.extra, *pair)
        # In lock-step time has no meaning: whatever follows from it must stay out of messages.
        try:
            messages = self.planner.step(
                *pair, views, car, time.perf_counter, realtime=not self._options.lockstep)
        except OverwrittenError as error:
            self.counters.note(OVERWRITTEN, str(error))
            self._tell(status.RUNNING)
            return False
        self._publish(messages)
        self._valid = messages.valid
        self._tell(status.RUNNING)
        return True

    def wait_for_subscribers(self, timeout_s: float) -> bool:
        """Wait until somebody listens to every message of ours; False if that takes longer.

        A replay needs this: it waits for the messages of the first frame, too.
        """
        return self._pm.wait_for_subscribers(timeout=timeout_s)

    def close(self) -> None:
        """Leave the bus."""
        self._tell(status.STOPPED)
        self._cameras.close()
        self._sm.close()
        self._pm.close()

    def _tell(self, state: str) -> None:
        planner = self.planner
        targets = ", ".join(dict.fromkeys(runner.target for runner in planner.model.runners))
        self._status.update(state, planner.counters, planner.last_frame_id, self._valid,
                            planner.speed.mean, targets)

    def _receive_messages(self, frame: Frame) -> None:
        if not self._options.lockstep or frame.barrier is None:
            self._sm.update(0)
        elif not self._sm.wait_for(frame.barrier, BARRIER_TIMEOUT_S):
            late = [name for name, time_ns in frame.barrier.items()
                    if name in INPUTS and self._sm.logMonoTime[name] < time_ns]
            log.warning("Frame %d depends on messages that did not come within %.0f s: %s. Going "
                        "on without them.", frame.frame_id, BARRIER_TIMEOUT_S, ", ".join(late))

    def _views(self, main: Eye, extra: Eye | None, main_frame: Frame, extra_frame: Frame) -> Views:
        """Intrinsics behind both model views: of the stream itself, else of the device."""
        main_intrinsics = self._intrinsics(main, main_frame)
        if extra is None:
            return Views(main_intrinsics, main_intrinsics)
        return Views(main_intrinsics, self._intrinsics(extra, extra_frame))

    def _intrinsics(self, eye: Eye, frame: Frame) -> Intrinsics | None:
        if eye.intrinsics is not None:
            return eye.intrinsics
        state = CAMERA_STATE[eye.stream]
        if not (self._sm.seen["deviceState"] and self._sm.seen[state]):
            return None
        device_type = str(enumerant(self._sm["deviceState"].deviceType))
        sensor = str(enumerant(self._sm[state].sensor))
        try:
            device = cameras.lookup(device_type, sensor)
        except cameras.UnknownCamera as error:
            self._say_once("camera", str(error))
            return None
        camera = device.wide if eye.stream is Stream.WIDE_ROAD else device.narrow
        if camera is None:
            self._say_once("wide", f"Device '{device_type}' has no wide camera, but the stream "
                                   f"{eye.stream.name} exists; give its intrinsics with it.")
            return None
        height, width = frame.luma.shape
        if (width, height) != (camera.width, camera.height):
            self._say_once("size", f"Frames of {eye.stream.name} are {width} x {height}, those of "
                                   f"its sensor {camera.width} x {camera.height}: the picture is "
                                   "taken as scaled to its width.")
        return camera.at_size(width, height)

    def _publish(self, messages: Messages) -> None:
        """All three in this order; nothing waits for the smaller ones."""
        for service, fields, valid in (
                ("modelV2", messages.model_v2, messages.valid),
                ("drivingModelData", messages.driving_model_data, messages.valid),
                ("cameraOdometry", messages.camera_odometry, messages.odometry_valid)):
            message = new_message(service, valid=valid)
            getattr(message, service).from_dict(fields)
            self._pm.send(service, message)

    def _say_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            log.warning("%s", text)


def wait_for_listeners(master: PubMaster, services: Sequence[str], stop: Event) -> None:
    """Wait, for some seconds, until somebody listens to all these services."""
    deadline = time.monotonic() + SUBSCRIBER_TIMEOUT_S
    while not master.wait_for_subscribers(timeout=0.1) and not stop.is_set():
        if time.monotonic() > deadline:
            log.warning("Nobody listens to %s; going on.", ", ".join(services))
            return


def read_car(
    sm: SubMaster, camera_state: str, delays: CarDelays = DEFAULT_DELAYS,
) -> CarInputs:
    """What the messages say now. Before the first message of a kind its defaults count.

    A speed that is no number counts as standstill, at which curvatures are held.

    delays: of the actuators, until carParams is seen.
    """
    state = sm["carState"]
    if sm.seen["carParams"]:
        delays = read_delays(sm["carParams"], delays)
    lateral_delay = delays.steer + LATERAL_DELAY_OFFSET
    if sm.seen["lateralDelay"]:
        lateral_delay = sound_delay(sm["lateralDelay"].lateralDelay, lateral_delay)
    return CarInputs(
        driver=Driver(
            v_ego=max(state.vEgo, 0.0) if math.isfinite(state.vEgo) else 0.0,
            left_blinker=state.leftBlinker,
            right_blinker=state.rightBlinker, steering_pressed=state.steeringPressed,
            steering_torque=state.steeringTorque, left_blindspot=state.leftBlindspot,
            right_blindspot=state.rightBlindspot, lateral_active=sm["carControl"].latActive),
        right_hand_drive=sm["driverMonitoringState"].isRHD,
        rpy=calibration(sm["extrinsicsCalibration"]),
        lateral_delay=lateral_delay, longitudinal_delay=delays.longitudinal,
        camera_frame_id=sm[camera_state].frameId if sm.seen[camera_state] else None,
        device_type=str(enumerant(sm["deviceState"].deviceType)),
        standing=sm.seen["carState"] and abs(state.vEgo) < STANDING_SPEED)


def calibration(message: Any) -> tuple[float, float, float] | None:
    """Roll, pitch, yaw (radians) of an extrinsicsCalibration; None if it has none."""
    try:
        rpy = tuple(message.rpyCalib)
    except capnp.KjException:  # a list of something else
        return None
    if len(rpy) != 3 or not all(map(math.isfinite, rpy)):
        return None
    return rpy
