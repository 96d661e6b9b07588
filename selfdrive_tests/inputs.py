"""What the daemon hears besides pictures: the drive's logged messages, and stand-ins for the rest.

All times are those of the replay's own clock: frame n starts at epoch + n * 50 ms. Logged messages
keep their distance to the frames. What the log lacks is made up plainly (see `stand_in`), so that
the daemon always has a full set of inputs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messaging import LogReader, new_message
from selfdrive_tests.drives import TICK_NS, Calibration, Drive

# Services that the replay itself speaks for, with the frames.
CAMERA_STATES = ("narrowRoadCameraState", "wideRoadCameraState", "cabinCameraState")
# Stand-ins, each sent every so many frames. Car parameters are left to the daemon's defaults.
STAND_IN_PERIOD = {
    "deviceState": 10,
    "carState": 1,
    "carControl": 1,
    "driverMonitoringState": 1,
    "lateralDelay": 5,
    "extrinsicsCalibration": 5,
}
READOUT_NS = 15_000_000  # from start to end of a frame, about what the sensors take
LATERAL_DELAY_S = 0.2


@dataclass(frozen=True)
class Clock:
    """Times of the replay. epoch_ns: start of frame 0."""

    epoch_ns: int

    def start_of_frame(self, index: int) -> int:
        """Nanoseconds."""
        return self.epoch_ns + index * TICK_NS

    def end_of_frame(self, index: int) -> int:
        """Nanoseconds."""
        return self.start_of_frame(index) + READOUT_NS


@dataclass(frozen=True)
class LoggedMessage:
    """A message of the drive's log. offset_ns: its time, counted from the start of frame 0."""

    service: str
    offset_ns: int
    event: Any


def read_log(path: Path, services: Container[str]) -> tuple[list[LoggedMessage], str | None]:
    """Messages of a log that the process wants, by time; and what is wrong with the log, if at all.

    Frame 0 starts where the log says: at its first narrowRoadEncodeIdx, else at its first
    narrowRoadCameraState, else at its first message of a wanted service.
    """
    events: list[tuple[str, Any]] = []
    starts: dict[str, int] = {}
    reader = LogReader(path)
    for event in reader:
        service = event.which()
        if service == "narrowRoadEncodeIdx":
            index = event.narrowRoadEncodeIdx
            time = index.timestampSof or event.logMonoTime
            starts.setdefault("encoder", time - index.segmentId * TICK_NS)
        elif service == "narrowRoadCameraState":
            time = event.narrowRoadCameraState.timestampSof or event.logMonoTime
            starts.setdefault("camera", time)
        elif service in services:
            starts.setdefault("message", event.logMonoTime)
            events.append((service, event))
    start = next((starts[key] for key in ("encoder", "camera", "message") if key in starts), 0)
    messages = [LoggedMessage(name, event.logMonoTime - start, event) for name, event in events]
    return sorted(messages, key=lambda message: message.offset_ns), reader.problem


def stand_in(service: str, calibration: Calibration | None, speed: float) -> Any:
    """A plausible message of a service that the drive has no log of.

    A PC that drives at constant speed (m/s), nobody steering, the driver on the left.
    calibration: what extrinsicsCalibration shall say; it must be known for that service.
    """
    message = new_message(service, valid=True)
    if service == "deviceState":
        message.deviceState.deviceType = "pc"
        message.deviceState.started = True
    elif service == "carState":
        message.carState.vEgo = speed
        message.carState.vEgoRaw = speed
        message.carState.standstill = speed == 0
        message.carState.canValid = True
    elif service == "lateralDelay":
        message.lateralDelay.lateralDelay = LATERAL_DELAY_S
        message.lateralDelay.status = "unestimated"
    elif service == "extrinsicsCalibration":
        assert calibration is not None
        extrinsics = message.extrinsicsCalibration
        extrinsics.rpyCalib = list(calibration.rpy_rad)
        extrinsics.wideFromDeviceEuler = [0.0, 0.0, 0.0]
        extrinsics.height = [calibration.height_m]
        extrinsics.calStatus = "calibrated"
        extrinsics.calPerc = 100
        extrinsics.validBlocks = 50
    return message


class Inputs:
    """Hands out, frame by frame, the messages to be published before it.

    messages: by time. services: that the process hears. speed: m/s, for want of logged ones.
    notes: what had to be made up, or is missing, as sentences.
    """

    def __init__(
        self,
        messages: Iterable[LoggedMessage],
        services: Container[str],
        calibration: Calibration | None,
        speed: float,
        clock: Clock,
    ) -> None:
        self._waiting = deque(messages)
        self._clock = clock
        self._calibration, self._speed = calibration, speed
        self._first = True
        logged = {message.service for message in self._waiting}
        self._stand_ins = [
            service for service in STAND_IN_PERIOD if service in services and service not in logged
        ]
        self.notes = []
        if "carState" in self._stand_ins:
            self.notes.append(f"The drive has no logged speed: {speed:g} m/s is assumed.")
        if calibration is None and "extrinsicsCalibration" in self._stand_ins:
            self._stand_ins.remove("extrinsicsCalibration")
            self.notes.append(
                "The drive has no calibration (mounting angles): no plan counts as valid."
            )

    def before(self, index: int) -> list[tuple[str, Any]]:
        """Events up to the start of frame `index`, with times set; frames are asked for in order.

        The first call gives one event per service, what was known when the drive began: the newest
        logged before the frame, or if there is none the first one behind it.
        """
        now = self._clock.start_of_frame(index)
        due = []
        while self._waiting and self._waiting[0].offset_ns <= now - self._clock.epoch_ns:
            due.append(self._waiting.popleft())
        if self._first:
            known = {message.service: message for message in [*reversed(self._waiting), *due]}
            self._waiting = deque(m for m in self._waiting if known[m.service] is not m)
            due = list(known.values())
        events = [(m.service, self._timed(m, now)) for m in due]
        for service in self._stand_ins:
            if self._first or index % STAND_IN_PERIOD[service] == 0:
                event = stand_in(service, self._calibration, self._speed)
                event.logMonoTime = now
                events.append((service, event))
        self._first = False
        return events

    def _timed(self, message: LoggedMessage, now: int) -> Any:
        event = message.event.as_builder()
        event.logMonoTime = min(self._clock.epoch_ns + message.offset_ns, now)
        return event


def logged_messages(
    drive: Drive, services: Iterable[str]
) -> tuple[list[LoggedMessage], list[str]]:
    """What the drive's log has of these services, and what is wrong with the log, as notes.

    A calibration that the command line gives takes the place of the logged ones.
    """
    if drive.log is None:
        return [], []
    wanted = set(services) - set(CAMERA_STATES)
    messages, problem = read_log(drive.log, wanted)
    if drive.calibration_given:
        messages = [m for m in messages if m.service != "extrinsicsCalibration"]
    return messages, [f"{drive.log.name}: {problem}"] if problem else []
