"""`drive-replay sim`: modeld drives a car down a procedural road, over the real bus.

Each frame `drivesim` draws what the car sees, modeld answers on the bus, and a car (`closed_loop`)
follows the `action` of that answer for 50 ms. Lock-step, so the same seed and model give the same
drive; or at 20 Hz by the clock, to watch. The pictures are the model's own two views: the daemon's
warp leaves them as they are.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.episode import EgoState, Episode, Frame
from drivesim.grids import T_IDXS, X_IDXS
from messaging import Bus
from modeld.action import Action
from modeld.warp import unpacked
from selfdrive_tests.closed_loop import Moment, Outcome, drive_by
from selfdrive_tests.drives import (
    RATE_HZ,
    VIEWS,
    Calibration,
    Camera,
    Drive,
    DriveFrame,
    open_drive,
)
from selfdrive_tests.inputs import Inputs, LoggedMessage
from selfdrive_tests.job import DAEMON_LOG, REPORT_NAME, VIDEO_NAME, Model, describe_model, prepare
from selfdrive_tests.link import Answer, Link
from selfdrive_tests.pictures import render
from selfdrive_tests.plans import Lead, Plan
from selfdrive_tests.process import DaemonProcess, modeld_command
from selfdrive_tests.processes import MODELD
from selfdrive_tests.recorder import Recorder
from selfdrive_tests.replay import (
    EPOCH_NS,
    ReplayResult,
    Settings,
    Step,
    Watcher,
    _Session,
    cameras_of,
)
from selfdrive_tests.report import Report, page
from selfdrive_tests.results import read_records, summarize
from selfdrive_tests.runner import FAULTS
from selfdrive_tests.video import Picture, VideoWriter
from selfdrive_tests.viewer import PORT, Scene, Viewer


def picture(packed: np.ndarray, index: int) -> Picture:
    """A packed picture (6, 128, 256) as NV12 of 512 x 256 again."""
    return Picture(index, index / RATE_HZ, *unpacked(packed))


def true_plan(frame: Frame, index: int) -> Plan:
    """What a perfect model would say about the frame."""
    truth = frame.truth
    lines, edges = (tuple(np.column_stack([X_IDXS, line]) for line in group)
                    for group in (truth.lane_lines, truth.road_edges))
    x, y, speed, _ = truth.lead[0, 0].tolist()
    return Plan(
        index, True, 0.0, 0.0, truth.plan[:, :3].astype(np.float64), lines,
        tuple(truth.lane_line_probs.tolist()), edges,
        (Lead(float(truth.lead_prob[0]), x, y, speed),), float(truth.curvature),
        float(truth.acceleration), False, "", T_IDXS)


def sim_drive(episode: Episode, seed: int) -> Drive:
    """The drive as the replay's machinery describes it; its pictures are not there yet."""
    cameras = [Camera(512, 256, focal, center) for focal, center in VIEWS.values()]
    return Drive(Path(f"sim-{seed}"), "model", None, cameras[0], wide_camera=cameras[1],
                 calibration=Calibration((0.0, 0.0, 0.0), episode.looks.height))


class _SimSession(_Session):
    """A replay whose next frame follows from the answers to those before."""

    episode: Episode
    on_moment: Callable[[Moment], None]
    action = Action()

    def run_steps(
        self, messages: Sequence[LoggedMessage], on_frame: Callable[[int], None]
    ) -> None:
        inputs = Inputs(messages, self.config.subscribes, self.drive.calibration, 0.0, self.clock)
        take_step = self.realtime_step if self.settings.realtime else self.lockstep_step

        def ask(frame: Frame) -> Action:
            index = self.result.frames
            events = inputs.before(index)
            for service, event in events:
                if service == "carState":
                    fill_car_state(event.carState, frame.ego)
            shown = DriveFrame(index, picture(frame.narrow, index), picture(frame.wide, index))
            take_step(Step(shown, events))
            on_frame(index)
            return self.action

        for moment in islice(drive_by(self.episode, ask), self.settings.count):
            self.on_moment(moment)
        if self.settings.realtime:
            self.listen_to_the_end()

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


def simulate(episode: Episode, seed: int, model: Path, settings: Settings, out: Path,
             command: str = "", watcher: Watcher | None = None,
             on_moment: Callable[[Moment], None] = lambda _: None) -> tuple[Outcome, ReplayResult]:
    """Drive an artifact through an episode; log, drive, video and report go to `out`.

    settings: `count` frames, in lock-step or by the clock. on_moment: is told every frame.
    Raises ArtifactError, MessagingError, OSError, ReplayError.
    """
    about = describe_model(model)
    drive = sim_drive(episode, seed)
    segment = prepare(out, drive, about)
    outcome = Outcome(episode.road.lane_width)
    truth: dict[int, Plan] = {}
    folder = out / "drive"
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        bus = Bus.fresh()
        stack.callback(bus.remove)
        began = time.monotonic_ns() if settings.realtime else EPOCH_NS
        recorder = stack.enter_context(Recorder(segment, began))
        link = stack.enter_context(Link(bus, MODELD, cameras_of(drive, MODELD)))
        writer = stack.enter_context(VideoWriter(folder / "video.mp4", 512, 256))
        flags = [] if settings.realtime else ["--lockstep"]
        daemon = modeld_command(model, None, bus.namespace, flags)
        process = DaemonProcess(daemon, out / DAEMON_LOG)
        stack.callback(process.stop)
        session = _SimSession(drive, settings, link, recorder, process, MODELD, watcher)

        def note(moment: Moment) -> None:
            outcome.add(moment)
            truth[len(truth)] = true_plan(moment.frame, len(truth))
            writer.write(picture(moment.frame.narrow, 0).rgb(512, 256))
            on_moment(moment)

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
    draw(open_drive(folder), session.result, out, outcome, about, truth, command)
    return outcome, session.result


def draw(drive: Drive, result: ReplayResult, out: Path, outcome: Outcome, model: Model,
         truth: Mapping[int, Plan], command: str) -> None:
    """Video, stills and report of a drive, as of a replay."""
    records = read_records(result.log)
    video = out / VIDEO_NAME
    pictures = render(drive, records, len(records), video, model.name, model.warning, truth=truth)
    report = Report(
        title=out.name, summary=summarize(records, result), records=records,
        stills=pictures.stills, video=VIDEO_NAME, warning=model.warning, truth=truth,
        notes=[*result.notes, *result.restarts],
        run=[("model", model.name), ("command", command), *outcome.rows()])
    (out / REPORT_NAME).write_text(page(report), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The command; gives the exit code: 0, 1 if the lane was left or a frame not answered, 2 for
    wrong input."""
    parser = argparse.ArgumentParser(
        prog="drive-replay sim", description="Let modeld drive a car down a procedural road.")
    parser.add_argument("--model", type=Path, required=True, help="artifact to drive by")
    parser.add_argument("--seed", type=int, default=0, help="of the world (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)s)")
    parser.add_argument("--conditions", choices=("clear", "bad", "random"), default="clear")
    parser.add_argument("--realtime", "--real-time", action="store_true",
                        help="20 frames per second, no lock-step")
    parser.add_argument("--ui", action="store_true", help="show it in the browser as it goes")
    parser.add_argument("--port", type=int, default=PORT, help="of --ui (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=Path("sim"), help="folder for results")
    args = parser.parse_args(arguments)
    episode = Episode(args.seed, args.conditions, args.seconds)
    settings = Settings(count=math.ceil(args.seconds * RATE_HZ), realtime=args.realtime)
    command = shlex.join(["drive-replay", "sim", *arguments])
    scene = Scene() if args.ui else None
    try:
        with ExitStack() as stack:
            if scene is not None:
                viewer = stack.enter_context(Viewer(scene, f"world {args.seed}", args.port))
                print(f"The viewer is at {viewer.address}", flush=True)
            outcome, result = simulate(
                episode, args.seed, args.model, settings, args.out, command, scene)
    except FAULTS as error:
        print(f"drive-replay sim: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"drive-replay sim: interrupted; the log so far is in {args.out}", file=sys.stderr)
        return 130
    for name, value in [*outcome.rows(), ("report", str(args.out / REPORT_NAME))]:
        print(f"  {name:<36}{value}")
    return int(bool(outcome.departures or result.lost))
