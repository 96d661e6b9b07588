"""The closed loop: a car follows what a driver makes of every frame of an episode, at 20 Hz.

A driver is a function from frame to action: `PerfectDriver` takes the truth, `ModelDriver` a model
by modeld's own planner. No bus is needed here; `sim` puts one between. As in a test on a road, a
person takes over where the car cannot go on by itself (`drive_by`), and `Outcome` counts it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import tinynn
from drivesim.episode import NOSE, EgoState, Episode, Frame
from modeld.__main__ import driving_model
from modeld.action import RULES, Action, action_times, next_action
from modeld.cameras import MEDMODEL, SBIGMODEL
from modeld.constants import DT_MDL
from modeld.desire_helper import Driver
from modeld.pairing import CameraFrame
from modeld.planner import CarInputs, Planner, Views
from modeld.warp import unpacked
from selfdrive_tests.inputs import LATERAL_DELAY_S

LONGITUDINAL_DELAY_S = 0.15
STEERING_LAG_S = 0.1  # the rest of the lateral delay is dead time
DRIVE_LAG_S = 0.15
MOST_CURVATURE, MOST_LATERAL = 0.2, 3.0  # 1/m and m/s^2, as the car's controls limit them
BRAKING, PULLING = -4.0, 2.0  # m/s^2
CRUISE_GAIN = 0.5  # 1/s, with which the car's cruise control keeps below the set speed
SET_SPEEDS = (10.0, 35.0)  # m/s

HALF_WIDTH_M = 0.9  # of the car
ACROSS_M = 0.3  # of the car beyond a lane's line: a tyre has crossed it wholly
PATIENCE_S = 5.0  # out of the lane, or standing without a reason, before a person takes over
STANDING = 0.3  # m/s
FREE_GAP_M = 12.0  # to the vehicle ahead, with which nobody needs to stand
SET_OFF = 4.0  # m/s, to which the person brings the car
HELP = TOUCHED, LOST, NEEDLESS = "vehicle touched", "lane lost", "needless stop"
VEHICLE_WAITS_S = 10.0  # after it braked to a halt
ONCOMING_AGAIN_M = (50.0, 900.0)  # behind us, and so far ahead an oncoming vehicle comes again


@dataclass(frozen=True)
class Moment:
    """One frame of a drive.

    station: m along the road. offset: of the car from its lane's centre, m, positive to the right.
    gap: from its nose to the rear of the vehicle ahead, m, infinite without one.
    help: why a person takes over after this frame, one of HELP, or "".
    """

    frame: Frame
    ego: EgoState
    station: float
    offset: float
    gap: float
    action: Action
    help: str


class Car:
    """A bicycle without slip; its steering answers after LATERAL_DELAY_S."""

    def __init__(self, ego: EgoState) -> None:
        self.ego = ego
        dead = round((LATERAL_DELAY_S - STEERING_LAG_S) / DT_MDL)
        self._on_the_way = deque([ego.curvature] * dead)

    def follow(self, action: Action, set_speed: float = math.inf) -> EgoState:
        """Move by 50 ms under an action; gives the new state.

        set_speed: m/s, which cruise control does not exceed whatever acceleration is asked for.
        """
        ego = self.ego
        self._on_the_way.append(limited(action.curvature, ego.speed))
        wanted = min(action.acceleration, CRUISE_GAIN * (set_speed - ego.speed), PULLING)
        if action.should_stop:
            wanted = min(wanted, -1.0)
        curvature = approach(ego.curvature, self._on_the_way.popleft(), STEERING_LAG_S)
        acceleration = approach(ego.acceleration, max(wanted, BRAKING), DRIVE_LAG_S)
        speed = max(ego.speed + acceleration * DT_MDL, 0.0)
        way = 0.5 * (ego.speed + speed) * DT_MDL
        turn = way * 0.5 * (ego.curvature + curvature)
        middle = ego.heading + 0.5 * turn
        self.ego = EgoState(ego.x + way * math.cos(middle), ego.y + way * math.sin(middle),
                            ego.heading + turn, speed, acceleration, curvature)
        return self.ego


def limited(curvature: float, speed: float) -> float:
    """The curvature (1/m) that the car's controls make of one asked for, at a speed (m/s)."""
    most = min(MOST_CURVATURE, MOST_LATERAL / max(speed, 1.0) ** 2)
    return min(max(curvature, -most), most)


def approach(value: float, target: float, lag_s: float) -> float:
    """A first-order lag over one frame."""
    return target + (value - target) * math.exp(-DT_MDL / lag_s)


def drive_by(episode: Episode, driver: Callable[[Frame], Action], start: EgoState | None = None,
             set_speed: float | None = None) -> Iterator[Moment]:
    """Close the loop, without end: what is seen, what the driver makes of it, where the car goes.

    start: None is the middle of the lane. set_speed: of cruise control, m/s; None suits the road.
    A person puts the car back into its lane if it has left it wholly or for PATIENCE_S, sets it off
    if it stands for so long without a reason, and clears a vehicle away that was touched.
    """
    car = Car(start or episode.start())
    outside = standing = 0.0
    width = episode.road.lane_width
    while True:
        frame = episode.observe(car.ego)
        station, across, offset = episode.offset(car.ego)
        episode.near = station
        ahead = episode.traffic.ahead(station, across)
        gap = float(episode.traffic.station[ahead]) - station - NOSE if ahead >= 0 else math.inf
        outside = outside + DT_MDL if departed(offset, width) else 0.0
        needless = car.ego.speed < STANDING and gap > FREE_GAP_M
        standing = standing + DT_MDL if needless else 0.0
        lost = outside > PATIENCE_S or abs(offset) > width / 2 + HALF_WIDTH_M
        reasons = (gap <= 0, lost, standing > PATIENCE_S)
        reason = next((name for name, so in zip(HELP, reasons, strict=True) if so), "")
        action = driver(frame)
        yield Moment(frame, car.ego, float(station), offset, gap, action, reason)
        if reason == TOUCHED:
            episode.traffic.station[ahead] += ONCOMING_AGAIN_M[1]
        elif reason:
            speed = max(car.ego.speed, SET_OFF)
            car.ego, outside, standing = episode.centred(station, speed), 0.0, 0.0
        keep_going(episode, station)
        wanted = set_speed_at(episode, station) if set_speed is None else set_speed
        episode.advance(car.follow(action, wanted))


def departed(offset: float, lane_width: float) -> bool:
    """Whether a tyre has wholly crossed a line of the lane; m."""
    return abs(offset) + HALF_WIDTH_M > lane_width / 2 + ACROSS_M


def set_speed_at(episode: Episode, station: float) -> float:
    """What a person sets the cruise control to there, m/s: as in the drive that was recorded, else
    what suits the road."""
    if episode.recorded is not None:
        return float(episode.recorded.speed_at(np.array(station)))
    return min(max(episode.road.cruise, SET_SPEEDS[0]), SET_SPEEDS[1])


def keep_going(episode: Episode, station: float) -> None:
    """On long drives vehicles that braked to a halt set off again, and oncoming ones come again."""
    traffic = episode.traffic
    behind, ahead = ONCOMING_AGAIN_M
    passed = (traffic.direction < 0) & (traffic.station < station - behind)
    traffic.station[passed] += behind + ahead
    waited = (traffic.speed < STANDING) & (episode.time > traffic.stops + VEHICLE_WAITS_S)
    traffic.stops[waited] = math.inf


class PerfectDriver:
    """What modeld would do if its model said the truth: shows that the loop itself is right."""

    def __init__(self) -> None:
        self._action = Action()
        self._times = action_times(RULES["0.11"], LATERAL_DELAY_S, LONGITUDINAL_DELAY_S)

    def __call__(self, frame: Frame) -> Action:
        """The action on a frame."""
        self._action = next_action({"plan": frame.truth.plan}, self._action, RULES["0.11"],
                                   frame.ego.speed, self._times)
        return self._action


class ModelDriver:
    """A model in this process, by the planner that modeld runs: the same actions as over the bus.

    Raises ArtifactError, ContractError or ParseError for an artifact that cannot be driven by.
    """

    def __init__(self, artifact: Path, threads: int | None = None) -> None:
        self._planner = Planner(driving_model([tinynn.load(artifact, threads=threads)]))
        self._views = Views(MEDMODEL, SBIGMODEL)
        self._count = 0

    def __call__(self, frame: Frame) -> Action:
        """The action on a frame."""
        now = round(self._count * DT_MDL * 1e9)
        narrow, wide = (CameraFrame(*unpacked(picture), self._count, now, now)
                        for picture in (frame.narrow, frame.wide))
        # Numbers that come over the bus are f32.
        delay, speed = np.float32(LATERAL_DELAY_S), np.float32(frame.ego.speed)
        car = CarInputs(Driver(float(speed)), rpy=(0.0, 0.0, 0.0), lateral_delay=float(delay),
                        longitudinal_delay=LONGITUDINAL_DELAY_S, camera_frame_id=self._count,
                        device_type="pc", standing=bool(speed < STANDING))
        said = self._planner.step(narrow, wide, self._views, car).driving_model_data["action"]
        self._count += 1
        curvature, acceleration = (float(np.float32(said[name])) for name in
                                   ("desiredCurvature", "desiredAcceleration"))
        return Action(curvature, acceleration, said["shouldStop"])


@dataclass
class Outcome:
    """What a drive came to: numbers that a person asks for, as they stand after each frame.

    lane_width: m. departures, touched, needless_stops: stations (m) where a tyre had crossed a
    line, a vehicle was touched, a person had to set the car off. squared_offset: sum over the
    frames, m2. over_line: frames with a part of the car over a line. too_sharp: frames in which
    more was asked of the steering than the car's controls do. sharpest: curvature driven, 1/m.
    gap, headway: least ones to a vehicle ahead, m and s, None without one. Accelerations in m/s2.
    """

    lane_width: float
    metres: float = 0.0
    frames: int = 0
    departures: list[float] = field(default_factory=list)
    touched: list[float] = field(default_factory=list)
    needless_stops: list[float] = field(default_factory=list)
    most_offset: float = 0.0
    squared_offset: float = 0.0
    over_line: int = 0
    too_sharp: int = 0
    most_lateral: float = 0.0
    hardest_braking: float = 0.0
    most_pulling: float = 0.0
    sharpest: float = 0.0
    gap: float | None = None
    headway: float | None = None
    _outside: bool = False

    def add(self, moment: Moment) -> None:
        """Take a frame into account."""
        ego, away = moment.ego, abs(moment.offset)
        outside = departed(away, self.lane_width)
        if outside and not self._outside:
            self.departures.append(moment.station)
        self._outside = outside
        if moment.help == TOUCHED:
            self.touched.append(moment.station)
        if moment.help == NEEDLESS:
            self.needless_stops.append(moment.station)
        self.frames += 1
        self.metres += ego.speed * DT_MDL
        self.most_offset = max(self.most_offset, away)
        self.squared_offset += away**2
        self.over_line += away + HALF_WIDTH_M > self.lane_width / 2
        asked = moment.action.curvature
        self.too_sharp += asked != limited(asked, ego.speed)
        self.most_lateral = max(self.most_lateral, ego.speed**2 * abs(ego.curvature))
        self.hardest_braking = min(self.hardest_braking, ego.acceleration)
        self.most_pulling = max(self.most_pulling, ego.acceleration)
        self.sharpest = max(self.sharpest, abs(ego.curvature))
        if math.isfinite(moment.gap):
            self.gap = min(math.inf if self.gap is None else self.gap, moment.gap)
            if ego.speed > SET_OFF:
                self.headway = min(self.headway or math.inf, moment.gap / ego.speed)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        frames = max(self.frames, 1)
        gap = "none was there" if self.gap is None else f"{self.gap:.1f} m"
        headway = "" if self.headway is None else f", {self.headway:.2f} s"
        return [("driven", f"{self.metres / 1000:.2f} km"),
                ("lane departures", str(len(self.departures))),
                ("vehicles touched", str(len(self.touched))),
                ("needless stops", str(len(self.needless_stops))),
                ("from the lane's centre, RMS", f"{math.sqrt(self.squared_offset / frames):.2f} m"),
                ("from the lane's centre, most", f"{self.most_offset:.2f} m"),
                ("part of the car over a line", f"{self.over_line / frames:.1%} of the time"),
                ("most lateral acceleration", f"{self.most_lateral:.2f} m/s²"),
                ("more was asked for", f"{self.too_sharp / frames:.1%} of the time"),
                ("hardest braking", f"{self.hardest_braking:.2f} m/s²"),
                ("most pulling", f"{self.most_pulling:.2f} m/s²"),
                ("closest to a vehicle ahead", f"{gap}{headway}")]
