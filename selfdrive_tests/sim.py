"""`drive-replay sim`: modeld drives a car down a procedural road, over the real bus.

Each frame `drivesim` draws what the car sees, modeld answers on the bus, and a bicycle with slow
steering follows the `action` of that answer for 50 ms. Lock-step, so the same seed and model give
the same drive. The pictures are the model's own two views: the daemon's warp leaves them as they
are.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.episode import EgoState, Episode, Frame
from messaging import Bus
from modeld.action import RULES, Action, action_times, next_action
from modeld.constants import DT_MDL
from selfdrive_tests.drives import (
    RATE_HZ,
    VIEWS,
    Calibration,
    Camera,
    Drive,
    DriveFrame,
    open_drive,
)
from selfdrive_tests.inputs import LATERAL_DELAY_S, Inputs, LoggedMessage
from selfdrive_tests.job import DAEMON_LOG, REPORT_NAME, VIDEO_NAME, describe_model, prepare
from selfdrive_tests.link import Answer, Link
from selfdrive_tests.pictures import render
from selfdrive_tests.process import DaemonProcess, modeld_command
from selfdrive_tests.processes import MODELD
from selfdrive_tests.recorder import Recorder
from selfdrive_tests.replay import EPOCH_NS, ReplayResult, Settings, Step, _Session, cameras_of
from selfdrive_tests.report import Report, page
from selfdrive_tests.results import read_records, summarize
from selfdrive_tests.runner import FAULTS
from selfdrive_tests.video import Picture, VideoWriter

LONGITUDINAL_DELAY_S = 0.15
STEERING_LAG_S = 0.1  # the rest of the lateral delay is dead time
DRIVE_LAG_S = 0.15
MOST_CURVATURE, MOST_LATERAL = 0.2, 3.0  # 1/m and m/s^2, as the car's controls limit them
BRAKING, PULLING = -4.0, 2.0  # m/s^2
DEPARTURE_M = 1.0  # from the lane's centre: a wheel is then on the line


@dataclass(frozen=True)
class Moment:
    """One frame of a drive. offset: of the car from its lane's centre, m, positive to the right."""

    frame: Frame
    ego: EgoState
    offset: float
    action: Action


class Car:
    """A bicycle without slip; its steering answers after LATERAL_DELAY_S."""

    def __init__(self, ego: EgoState) -> None:
        self.ego = ego
        dead = round((LATERAL_DELAY_S - STEERING_LAG_S) / DT_MDL)
        self._on_the_way = deque([ego.curvature] * dead)

    def follow(self, action: Action) -> EgoState:
        """Move by 50 ms under an action; gives the new state."""
        ego = self.ego
        limit = min(MOST_CURVATURE, MOST_LATERAL / max(ego.speed, 1.0) ** 2)
        self._on_the_way.append(min(max(action.curvature, -limit), limit))
        wanted = min(max(action.acceleration, BRAKING), PULLING)
        if action.should_stop:
            wanted = min(wanted, -1.0)
        curvature = approach(ego.curvature, self._on_the_way.popleft(), STEERING_LAG_S)
        acceleration = approach(ego.acceleration, wanted, DRIVE_LAG_S)
        speed = max(ego.speed + acceleration * DT_MDL, 0.0)
        way = 0.5 * (ego.speed + speed) * DT_MDL
        turn = way * 0.5 * (ego.curvature + curvature)
        middle = ego.heading + 0.5 * turn
        self.ego = EgoState(ego.x + way * math.cos(middle), ego.y + way * math.sin(middle),
                            ego.heading + turn, speed, acceleration, curvature)
        return self.ego


def approach(value: float, target: float, lag_s: float) -> float:
    """A first-order lag over one frame."""
    return target + (value - target) * math.exp(-DT_MDL / lag_s)


def drive_by(episode: Episode, plan: Callable[[Frame], Action], frames: int,
             start: EgoState | None = None) -> Iterator[Moment]:
    """Close the loop: what is seen, what `plan` makes of it, where the car goes.

    start: None is the middle of the lane.
    """
    car = Car(start or episode.start())
    for _ in range(frames):
        frame = episode.observe(car.ego)
        offset = episode.offset(car.ego)[2]
        action = plan(frame)
        yield Moment(frame, car.ego, offset, action)
        episode.advance(car.follow(action))


class PerfectPlanner:
    """What modeld would do if its model said the truth: shows that the loop itself is right."""

    def __init__(self) -> None:
        self._action = Action()
        self._times = action_times(RULES["0.11"], LATERAL_DELAY_S, LONGITUDINAL_DELAY_S)

    def __call__(self, frame: Frame) -> Action:
        """The action on a frame."""
        self._action = next_action({"plan": frame.truth.plan}, self._action, RULES["0.11"],
                                   frame.ego.speed, self._times)
        return self._action


@dataclass
class Outcome:
    """What a drive came to. metres driven; departures from the lane; extremes in m and m/s2."""

    metres: float = 0.0
    departures: int = 0
    most_offset: float = 0.0
    most_lateral: float = 0.0
    hardest_braking: float = 0.0
    _outside: bool = False

    def add(self, moment: Moment) -> None:
        """Take a frame into account."""
        ego = moment.ego
        outside = abs(moment.offset) > DEPARTURE_M
        self.departures += outside and not self._outside
        self._outside = outside
        self.metres += ego.speed * DT_MDL
        self.most_offset = max(self.most_offset, abs(moment.offset))
        self.most_lateral = max(self.most_lateral, ego.speed**2 * abs(ego.curvature))
        self.hardest_braking = min(self.hardest_braking, ego.acceleration)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        return [("driven", f"{self.metres / 1000:.2f} km"),
                ("lane departures", str(self.departures)),
                ("farthest from the lane's centre", f"{self.most_offset:.2f} m"),
                ("most lateral acceleration", f"{self.most_lateral:.2f} m/s²"),
                ("hardest braking", f"{self.hardest_braking:.2f} m/s²")]


def picture(packed: np.ndarray, index: int) -> Picture:
    """A packed picture (6, 128, 256) as NV12 of 512 x 256 again."""
    luma = np.empty((256, 512), np.uint8)
    for phase in range(4):
        luma[phase % 2 :: 2, phase // 2 :: 2] = packed[phase]
    chroma = np.ascontiguousarray(packed[4:].transpose(1, 2, 0))
    return Picture(index, index / RATE_HZ, luma, chroma)


def sim_drive(episode: Episode, seed: int) -> Drive:
    """The drive as the replay's machinery describes it; its pictures are not there yet."""
    cameras = [Camera(512, 256, focal, center) for focal, center in VIEWS.values()]
    return Drive(Path(f"sim-{seed}"), "model", None, cameras[0], wide_camera=cameras[1],
                 calibration=Calibration((0.0, 0.0, 0.0), episode.looks.height))


class _SimSession(_Session):
    """A lock-step replay whose next frame follows from the answers to the one before."""

    episode: Episode
    on_moment: Callable[[Moment], None]
    action = Action()

    def run_steps(
        self, messages: Sequence[LoggedMessage], on_frame: Callable[[int], None]
    ) -> None:
        inputs = Inputs(messages, self.config.subscribes, self.drive.calibration, 0.0, self.clock)

        def ask(frame: Frame) -> Action:
            index = self.result.frames
            events = inputs.before(index)
            for service, event in events:
                if service == "carState":
                    fill_car_state(event.carState, frame.ego)
            shown = DriveFrame(index, picture(frame.narrow, index), picture(frame.wide, index))
            self.lockstep_step(Step(shown, events))
            on_frame(index)
            return self.action

        assert self.settings.count is not None
        for moment in drive_by(self.episode, ask, self.settings.count):
            self.on_moment(moment)

    def receive(self, timeout_ms: int) -> list[Answer]:
        heard = super().receive(timeout_ms)
        for answer in heard:
            if answer.service == "drivingModelData":
                said = answer.event.drivingModelData.action
                self.action = Action(
                    said.desiredCurvature, said.desiredAcceleration, said.shouldStop
                )
        return heard


def fill_car_state(state: Any, ego: EgoState) -> None:
    """The car's own message; yawRate is positive to the left, as in comma's logs."""
    state.vEgo = state.vEgoRaw = state.vEgoCluster = ego.speed
    state.aEgo = ego.acceleration
    state.yawRate = -ego.speed * ego.curvature
    state.standstill = ego.speed < 0.01


def simulate(episode: Episode, seed: int, model: Path, frames: int, out: Path,
             command: str = "") -> tuple[Outcome, ReplayResult]:
    """Drive an artifact through an episode; log, drive, video and report go to `out`.

    Raises ArtifactError, MessagingError, OSError, ReplayError.
    """
    about = describe_model(model)
    drive = sim_drive(episode, seed)
    segment = prepare(out, drive, about)
    outcome = Outcome()
    folder = out / "drive"
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        bus = Bus.fresh()
        stack.callback(bus.remove)
        recorder = stack.enter_context(Recorder(segment, EPOCH_NS))
        link = stack.enter_context(Link(bus, MODELD, cameras_of(drive, MODELD)))
        writer = stack.enter_context(VideoWriter(folder / "video.mp4", 512, 256))
        daemon = modeld_command(model, None, bus.namespace, ["--lockstep"])
        process = DaemonProcess(daemon, out / DAEMON_LOG)
        stack.callback(process.stop)
        session = _SimSession(drive, Settings(count=frames), link, recorder, process, MODELD, None)

        def note(moment: Moment) -> None:
            outcome.add(moment)
            writer.write(picture(moment.frame.narrow, 0).rgb(512, 256))

        session.episode, session.on_moment = episode, note
        try:
            session.run(lambda _: None)
        finally:
            session.write_pending()
    focal, center = VIEWS["model"]
    (folder / "drive.toml").write_text(
        f'video = "video.mp4"\n[camera]\nfocal_length_px = {focal}\ncenter_px = {list(center)}\n'
        f"[calibration]\nrpy_rad = [0.0, 0.0, 0.0]\nheight_m = {episode.looks.height:.4f}\n",
        encoding="utf-8")
    draw(open_drive(folder), session.result, out, outcome, about.name, about.warning, command)
    return outcome, session.result


def draw(drive: Drive, result: ReplayResult, out: Path, outcome: Outcome, model: str,
         warning: str, command: str) -> None:
    """Video, stills and report of a drive, as of a replay."""
    records = read_records(result.log)
    pictures = render(drive, records, out / VIDEO_NAME, model, warning)
    report = Report(
        title=out.name, summary=summarize(records, result), records=records,
        stills=pictures.stills, video=VIDEO_NAME, warning=warning,
        notes=[*result.notes, *result.restarts],
        run=[("model", model), ("command", command), *outcome.rows()])
    (out / REPORT_NAME).write_text(page(report), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command; gives the exit code: 0, or 1 if the lane was left or a frame not answered."""
    parser = argparse.ArgumentParser(
        prog="drive-replay sim", description="Let modeld drive a car down a procedural road.")
    parser.add_argument("--model", type=Path, required=True, help="artifact to drive by")
    parser.add_argument("--seed", type=int, default=0, help="of the world (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)s)")
    parser.add_argument("--conditions", choices=("clear", "bad", "random"), default="clear")
    parser.add_argument("-o", "--out", type=Path, default=Path("sim"), help="folder for results")
    args = parser.parse_args(arguments)
    episode = Episode(args.seed, args.conditions, args.seconds)
    command = shlex.join(["drive-replay", "sim", *arguments])
    try:
        outcome, result = simulate(episode, args.seed, args.model, round(args.seconds * RATE_HZ),
                                   args.out, command)
    except FAULTS as error:
        print(f"drive-replay sim: {error}", file=sys.stderr)
        return 2
    for name, value in [*outcome.rows(), ("report", str(args.out / REPORT_NAME))]:
        print(f"  {name:<36}{value}")
    return int(bool(outcome.departures or result.lost))
