"""Replays a drive through a process and keeps the log of everything that was said.

Lock-step: a frame is published together with the times of the messages that belong before it (its
barrier), and the next frame waits until the daemon has answered this one. Nothing depends on how
fast either side is: two runs differ in modelExecutionTime alone. For that the log gives answers the
time end of frame + 20 ms on the replay's own clock, which starts at a fixed time.

In real time, frames come at 20 Hz whether answered or not, and all times are the machine's.

A process that a message triggers, not a camera, is replayed from the log alone: everything that was
logged before the trigger, a pause, the trigger, and on when it has answered.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from messaging import Bus, Stream, new_message
from selfdrive_tests.ahead import read_ahead
from selfdrive_tests.drives import TICK_NS, Camera, Drive, DriveFrame
from selfdrive_tests.heard import INDEX
from selfdrive_tests.inputs import Clock, Inputs, LoggedMessage, logged_messages
from selfdrive_tests.link import Answer, Link, frame_id_of
from selfdrive_tests.process import DaemonProcess
from selfdrive_tests.processes import MODELD, ProcessConfig
from selfdrive_tests.recorder import Recorder
from selfdrive_tests.stages import Stages
from selfdrive_tests.video import Picture

# Start of frame 0 in lock-step; late enough for logged messages to lie before it.
EPOCH_NS = 1_000_000_000_000
# Recorded answers are this much later than the end of their frame, in lock-step.
ANSWER_NS = 20_000_000

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60.0
LAST_ANSWER_NS = 2_000_000_000
POLL_MS = 50
START_POLL_S = 0.01
# A subscription reaches a new publisher after so long at the latest.
CONNECT_S = 0.25
# Messages before a trigger arrive within this time; message services have no barrier.
SETTLE_S = 0.005


class ReplayError(Exception):
    """The replay cannot go on; the text says why. at_start: the daemon never came up."""

    def __init__(self, text: str, at_start: bool = False) -> None:
        super().__init__(text)
        self.at_start = at_start


class DaemonDiedError(Exception):
    """The daemon process has ended; the text says how."""


@dataclass
class ReplayResult:
    """What a replay did.

    frames: number published. published: their ids. lost: ids of those that no plan came for.
    restarts: one sentence for each. notes: what was made up or wrong about the inputs.
    wall_s: seconds from the first frame to the last answer, waits for restarts included.
    stages: seconds of wall_s by stage, and of the daemon's start.
    """

    log: Path
    frames: int = 0
    published: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    stages: Stages = field(default_factory=Stages)


@dataclass(frozen=True)
class Settings:
    """How to replay. start: first frame. count: at most so many frames, None for all.

    speed: m/s, for drives without a logged one. max_restarts: of a daemon that died.
    """

    start: int = 0
    count: int | None = None
    speed: float = 20.0
    realtime: bool = False
    max_restarts: int = 3


class Watcher(Protocol):
    """Somebody who looks on, as the viewer does. Must be quick: the replay waits."""

    def show_picture(self, frame_id: int, picture: Picture, camera: Camera) -> None:
        """A frame that is published now."""

    def hear(self, service: str, event: Any) -> None:
        """A message in either direction."""


def replay(
    drive: Drive,
    command: Callable[[str], Sequence[str]],
    segment: Path,
    daemon_output: Path,
    settings: Settings | None = None,
    bus: Bus | None = None,
    on_frame: Callable[[int], None] | None = None,
    config: ProcessConfig = MODELD,
    watcher: Watcher | None = None,
    on_event: Callable[[Any], object] = lambda _: None,
) -> ReplayResult:
    """Replay a drive through the process that `command(namespace)` starts.

    segment: folder for the log. daemon_output: file for what the process prints.
    bus: None makes one for this replay alone. on_frame: called with the id of every frame done.
    on_event: called with every event that the log gets, in its order.
    Raises ReplayError if the process does not start, dies too often, or falls silent; the log is
    ended properly in that case too, and on KeyboardInterrupt.
    """
    settings = settings or Settings()
    with ExitStack() as stack:
        if bus is None:
            bus = Bus.fresh()
            stack.callback(bus.remove)
        now = time.monotonic_ns() if settings.realtime else EPOCH_NS
        recorder = stack.enter_context(Recorder(segment, now, on_event))
        link = stack.enter_context(Link(bus, config, cameras_of(drive, config)))
        process = DaemonProcess(command(bus.namespace), daemon_output)
        stack.callback(process.stop)
        kind = _LogSession if config.stream is None else _Session
        session = kind(drive, settings, link, recorder, process, config, watcher)
        try:
            session.run(on_frame or (lambda _: None))
        except KeyboardInterrupt:
            recorder.signal = int(signal.SIGINT)
            raise
        finally:
            session.write_pending()
        return session.result


def cameras_of(drive: Drive, config: ProcessConfig) -> dict[Stream, Camera]:
    """The streams that the process sees; the wide one goes with the narrow one.

    The wide stream is first, so that a process that sees the narrow one finds both.
    """
    cameras: dict[Stream, Camera] = {}
    if config.stream is Stream.NARROW_ROAD and drive.wide_camera is not None:
        cameras[Stream.WIDE_ROAD] = drive.wide_camera
    if config.stream is not None:
        cameras[config.stream] = drive.camera
    return cameras


@dataclass(frozen=True)
class Step:
    """A frame, and the messages that belong before it: (service, event)."""

    frame: DriveFrame
    messages: list[tuple[str, Any]]


class _Session:
    """A replay under way."""

    def __init__(
        self,
        drive: Drive,
        settings: Settings,
        link: Link,
        recorder: Recorder,
        process: DaemonProcess,
        config: ProcessConfig,
        watcher: Watcher | None,
    ) -> None:
        self.drive, self.settings, self.config = drive, settings, config
        self.link, self.recorder, self.process = link, recorder, process
        self.watcher = watcher
        self.result = ReplayResult(recorder.path)
        self.clock = Clock(EPOCH_NS)
        # Frames that were published -> services that have not answered yet.
        self.open: dict[int, set[str]] = {}
        # Messages that the log shall have, written while the process is at work.
        self.pending: list[Any] = []

    def run(self, on_frame: Callable[[int], None]) -> None:
        messages, self.result.notes = logged_messages(self.drive, self.config.subscribes)
        try:
            with self.result.stages.measure("start"):
                self.start_daemon()
        except DaemonDiedError as death:
            words = self.process.last_words()
            raise ReplayError(words or f"The daemon {death} at once.", at_start=True) from None
        began = time.monotonic_ns()
        if self.settings.realtime:
            self.clock = Clock(began - self.settings.start * TICK_NS)
        self.run_steps(messages, on_frame)
        first = self.config.publishes[0]
        self.result.published = list(self.open)
        self.result.lost = [index for index, missing in self.open.items() if first in missing]
        self.result.wall_s = (time.monotonic_ns() - began) / 1e9

    def run_steps(
        self, messages: Sequence[LoggedMessage], on_frame: Callable[[int], None]
    ) -> None:
        """Every frame of the drive, with the messages that belong before it."""
        services, speed = self.config.subscribes, self.settings.speed
        inputs = Inputs(messages, services, self.drive.calibration, speed, self.clock)
        self.result.notes += inputs.notes
        with closing(self.steps(inputs)) as steps:
            for step in steps:
                if self.settings.realtime:
                    self.realtime_step(step)
                else:
                    self.lockstep_step(step)
                on_frame(step.frame.index)
        try:
            if self.settings.realtime:
                self.listen_to_the_end()
        except DaemonDiedError as death:
            self.result.notes.append(f"The daemon {death} after the last frame.")

    def steps(self, inputs: Inputs) -> Generator[Step]:
        """The drive's frames and messages, made ahead while the process computes.

        What had to be waited for is the stage "decode".
        """
        frames = self.drive.frames(self.settings.start, self.settings.count)
        ahead = read_ahead(Step(frame, inputs.before(frame.index)) for frame in frames)
        with closing(ahead):
            while True:
                with self.result.stages.measure("decode"):
                    step = next(ahead, None)
                if step is None:
                    return
                yield step

    def lockstep_step(self, step: Step) -> None:
        """Publish a frame and wait for its answers; a daemon that dies over it is replaced."""
        with self.result.stages.measure("publish"):
            self.publish(step)
        try:
            with self.result.stages.measure("daemon"):
                self.write_pending()
                self.await_answers(step.frame.index, self.clock.end_of_frame(step.frame.index))
        except DaemonDiedError as death:
            self.restart_daemon(step.frame.index, str(death))

    def realtime_step(self, step: Step) -> None:
        """Publish a frame when its time has come, whatever the daemon does."""
        try:
            with self.result.stages.measure("clock"):
                self.listen_until(self.clock.start_of_frame(step.frame.index))
        except DaemonDiedError as death:
            self.restart_daemon(step.frame.index, str(death))
        self.link.welcome()
        with self.result.stages.measure("publish"):
            self.publish(step)
            self.write_pending()

    def start_daemon(self) -> None:
        """Start the daemon and wait until it hears everything and is heard.

        Raises DaemonDiedError if it ends instead, ReplayError if it does neither.
        """
        self.link.welcome()
        self.process.start()
        missing = self.link.required
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing:
            self.check_daemon()
            if time.monotonic() > deadline:
                raise ReplayError(
                    f"The daemon runs, but {START_TIMEOUT_S:.0f} s after its start it does not "
                    f"listen to {', '.join(sorted(missing))}. See {self.process.output}."
                )
            missing -= self.link.welcome()
            time.sleep(START_POLL_S)
        # In lock-step a daemon waits itself until somebody listens.
        if self.settings.realtime or self.config.stream is None:
            time.sleep(CONNECT_S)

    def check_daemon(self) -> None:
        if not self.process.running():
            raise DaemonDiedError(self.process.how_it_ended())

    def restart_daemon(self, frame_id: int, death: str) -> None:
        """Start the daemon again, as often as the settings allow.

        In lock-step the drive waits for it. In real time it does not: newcomers are welcomed with
        the newest inputs before each frame.
        """
        while True:
            if len(self.result.restarts) == self.settings.max_restarts:
                words = self.process.last_words()
                raise ReplayError(
                    f"The daemon {death} at frame {frame_id}, after "
                    f"{self.settings.max_restarts} restarts. "
                    f"See {self.process.output}" + (f": {words}" if words else ".")
                )
            self.result.restarts.append(
                f"The daemon {death} at frame {frame_id} and was started again."
            )
            if self.settings.realtime:
                self.process.start()
                return
            try:
                self.start_daemon()
                return
            except DaemonDiedError as again:
                death = str(again)

    def publish(self, step: Step) -> None:
        """Send the messages that belong before a frame, then the frame."""
        frame, index, stream = step.frame, step.frame.index, self.config.stream
        assert stream is not None
        for service, event in step.messages:
            self.send(service, event)
        self.send(self.config.trigger, self.camera_state(self.config.trigger, index))
        if frame.wide is not None:
            self.send("wideRoadCameraState", self.camera_state("wideRoadCameraState", index))
        self.pending.append(self.encode_index(index))
        barrier = None if self.settings.realtime else self.link.barrier()
        times = self.clock.start_of_frame(index), self.clock.end_of_frame(index)
        self.open[index] = set(self.config.publishes)
        if frame.wide is not None:
            self.link.send_frame(Stream.WIDE_ROAD, frame.wide, index, *times, barrier)
        self.link.send_frame(stream, frame.narrow, index, *times, barrier)
        if self.watcher is not None:
            self.watcher.show_picture(index, frame.narrow, self.drive.camera)
        self.result.frames += 1

    def send(self, service: str, event: Any) -> None:
        self.link.send(service, event)
        self.pending.append(event)
        if self.watcher is not None:
            self.watcher.hear(service, event)

    def write_pending(self) -> None:
        """Put into the log what it lacks."""
        for event in self.pending:
            self.recorder.write(event)
        self.pending.clear()

    def camera_state(self, service: str, index: int) -> Any:
        """The FrameData that a camera server sends with each frame."""
        event = new_message(service, valid=True)
        event.logMonoTime = self.clock.start_of_frame(index)
        state = getattr(event, service)
        state.frameId = index
        state.encodeId = self.result.frames
        state.timestampSof = self.clock.start_of_frame(index)
        state.timestampEof = self.clock.end_of_frame(index)
        return event

    def encode_index(self, index: int) -> Any:
        """Which picture of the written video (counted by segmentId) shows this frame."""
        service = INDEX[self.config.trigger]
        event = new_message(service, valid=True)
        event.logMonoTime = self.clock.end_of_frame(index)
        entry = getattr(event, service)
        entry.frameId = index
        entry.type = "qcameraH264"
        entry.encodeId = entry.segmentId = entry.segmentIdEncode = self.result.frames
        entry.timestampSof = self.clock.start_of_frame(index)
        entry.timestampEof = self.clock.end_of_frame(index)
        return event

    def await_answers(self, index: int, time_ns: int) -> None:
        """Wait for everything the process says about a frame; the log has it in a fixed order.

        time_ns: of the frame's end, or of the trigger, on the replay's clock.
        """
        answers: list[Answer] = []
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            while self.open[index]:
                heard = self.receive(POLL_MS)
                answers += heard
                if not heard:
                    self.check_daemon()
                if time.monotonic() > deadline:
                    raise ReplayError(
                        f"The daemon runs, but has not sent {', '.join(sorted(self.open[index]))} "
                        f"for frame {index} within {ANSWER_TIMEOUT_S:.0f} s. "
                        f"See {self.process.output}."
                    )
        finally:
            order = self.config.publishes.index
            for answer in sorted(answers, key=lambda answer: order(answer.service)):
                event = answer.event.as_builder()
                event.logMonoTime = time_ns + ANSWER_NS
                self.pending.append(event)

    def listen_until(self, deadline_ns: int) -> None:
        """Log answers as they come, until a time of the machine's monotonic clock."""
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            heard = self.receive(min(POLL_MS, max(1, left // 1_000_000)))
            self.pending += [answer.event.as_builder() for answer in heard]
            if not heard:
                self.check_daemon()

    def listen_to_the_end(self) -> None:
        """Wait for the answers to the last frame."""
        deadline_ns = time.monotonic_ns() + LAST_ANSWER_NS
        last = max(self.open, default=0)
        while self.open.get(last) and time.monotonic_ns() < deadline_ns:
            self.listen_until(time.monotonic_ns() + POLL_MS * 1_000_000)

    def receive(self, timeout_ms: int) -> list[Answer]:
        """Answers that are there; each is ticked off. One that names no frame is of the newest."""
        heard = list(self.link.receive(timeout_ms))
        for answer in heard:
            index = max(self.open, default=0) if answer.frame_id is None else answer.frame_id
            self.open.get(index, set()).discard(answer.service)
            if self.watcher is not None:
                self.watcher.hear(answer.service, answer.event)
        return heard


class _LogSession(_Session):
    """A replay of a process that a logged message triggers."""

    def run_steps(
        self, messages: Sequence[LoggedMessage], on_frame: Callable[[int], None]
    ) -> None:
        start, count = self.settings.start, self.settings.count
        numbers = [i for i, message in enumerate(messages) if self.is_trigger(message)]
        done = 0
        for index, number in enumerate(numbers[: None if count is None else start + count]):
            for message in messages[done:number]:
                self.send(message.service, self.timed(message))
            done = number + 1
            if index >= start:
                self.trigger(messages[number], index)
                on_frame(index)

    def is_trigger(self, message: LoggedMessage) -> bool:
        return message.service == self.config.trigger

    def timed(self, message: LoggedMessage) -> Any:
        event = message.event.as_builder()
        event.logMonoTime = EPOCH_NS + message.offset_ns
        return event

    def trigger(self, message: LoggedMessage, number: int) -> None:
        """Send the trigger and wait for what the process says to it."""
        event = self.timed(message)
        frame_id = frame_id_of(getattr(event, message.service))
        index = number if frame_id is None else frame_id
        with self.result.stages.measure("publish"):
            time.sleep(SETTLE_S)
            self.open[index] = set(self.config.publishes)
            self.send(message.service, event)
            self.write_pending()
        self.result.frames += 1
        try:
            with self.result.stages.measure("daemon"):
                self.await_answers(index, event.logMonoTime)
        except DaemonDiedError as death:
            self.restart_daemon(index, str(death))
