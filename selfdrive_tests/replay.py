"""Replays a drive through a daemon process and keeps the log of everything that was said.

Lock-step: a frame is published together with the times of the messages that belong before it (its
barrier), and the next frame waits until the daemon has answered this one. Nothing depends on how
fast either side is: two runs differ in modelExecutionTime alone. For that the log gives answers the
time end of frame + 20 ms on the replay's own clock, which starts at a fixed time.

In real time, frames come at 20 Hz whether answered or not, and all times are the machine's.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from messaging import Bus, Stream, new_message
from selfdrive_tests.ahead import read_ahead
from selfdrive_tests.drives import TICK_NS, Drive, DriveFrame
from selfdrive_tests.inputs import Clock, Inputs, logged_messages
from selfdrive_tests.link import OUTPUTS, Answer, Link
from selfdrive_tests.process import DaemonProcess
from selfdrive_tests.recorder import Recorder
from selfdrive_tests.stages import Stages

# Start of frame 0 in lock-step; late enough for logged messages to lie before it.
EPOCH_NS = 1_000_000_000_000
# Recorded answers are this much later than the end of their frame, in lock-step.
ANSWER_NS = 20_000_000

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60.0
LAST_ANSWER_NS = 2_000_000_000
POLL_MS = 50


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

    frames: number published. lost: ids of frames that no plan came for.
    restarts: one sentence for each. notes: what was made up or wrong about the inputs.
    wall_s: seconds from the first frame to the last answer, waits for restarts included.
    stages: seconds of wall_s by stage, and of the daemon's start.
    """

    log: Path
    frames: int = 0
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


def replay(
    drive: Drive,
    command: Callable[[str], Sequence[str]],
    segment: Path,
    daemon_output: Path,
    settings: Settings | None = None,
    bus: Bus | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay a drive through the daemon that `command(namespace)` starts.

    segment: folder for the log. daemon_output: file for what the daemon prints.
    bus: None makes one for this replay alone. on_frame: called with the id of every frame done.
    Raises ReplayError if the daemon does not start, dies too often, or falls silent; the log is
    ended properly in that case too, and on KeyboardInterrupt.
    """
    settings = settings or Settings()
    with ExitStack() as stack:
        if bus is None:
            bus = Bus.fresh()
            stack.callback(bus.remove)
        now = time.monotonic_ns() if settings.realtime else EPOCH_NS
        recorder = stack.enter_context(Recorder(segment, now))
        link = stack.enter_context(Link(bus, drive))
        process = DaemonProcess(command(bus.namespace), daemon_output)
        stack.callback(process.stop)
        session = _Session(drive, settings, link, recorder, process)
        try:
            session.run(on_frame or (lambda _: None))
        except KeyboardInterrupt:
            recorder.signal = int(signal.SIGINT)
            raise
        return session.result


class _Session:
    """A replay under way."""

    def __init__(
        self,
        drive: Drive,
        settings: Settings,
        link: Link,
        recorder: Recorder,
        process: DaemonProcess,
    ) -> None:
        self.drive, self.settings = drive, settings
        self.link, self.recorder, self.process = link, recorder, process
        self.result = ReplayResult(recorder.path)
        self.clock = Clock(EPOCH_NS)
        # Frames that were published -> services that have not answered yet.
        self.open: dict[int, set[str]] = {}

    def run(self, on_frame: Callable[[int], None]) -> None:
        messages, self.result.notes = logged_messages(self.drive)
        try:
            with self.result.stages.measure("start"):
                self.start_daemon()
        except DaemonDiedError as death:
            words = self.process.last_words()
            raise ReplayError(words or f"The daemon {death} at once.", at_start=True) from None
        began = time.monotonic_ns()
        if self.settings.realtime:
            self.clock = Clock(began - self.settings.start * TICK_NS)
        inputs = Inputs(messages, self.drive.calibration, self.settings.speed, self.clock)
        self.result.notes += inputs.notes
        with closing(self.frames()) as frames:
            for frame in frames:
                if self.settings.realtime:
                    self.realtime_step(frame, inputs)
                else:
                    self.lockstep_step(frame, inputs)
                on_frame(frame.index)
        try:
            if self.settings.realtime:
                self.listen_to_the_end()
        except DaemonDiedError as death:
            self.result.notes.append(f"The daemon {death} after the last frame.")
        self.result.lost = [index for index, missing in self.open.items() if "modelV2" in missing]
        self.result.wall_s = (time.monotonic_ns() - began) / 1e9

    def frames(self) -> Generator[DriveFrame]:
        """The drive's frames, decoded ahead; what had to be waited for is the stage "decode"."""
        frames = read_ahead(self.drive.frames(self.settings.start, self.settings.count))
        with closing(frames):
            while True:
                with self.result.stages.measure("decode"):
                    frame = next(frames, None)
                if frame is None:
                    return
                yield frame

    def lockstep_step(self, frame: DriveFrame, inputs: Inputs) -> None:
        """Publish a frame and wait for its answers; a daemon that dies over it is replaced."""
        with self.result.stages.measure("publish"):
            self.publish(frame, inputs)
        try:
            with self.result.stages.measure("daemon"):
                self.await_answers(frame.index)
        except DaemonDiedError as death:
            self.restart_daemon(frame.index, str(death))

    def realtime_step(self, frame: DriveFrame, inputs: Inputs) -> None:
        """Publish a frame when its time has come, whatever the daemon does."""
        try:
            with self.result.stages.measure("daemon"):
                self.listen_until(self.clock.start_of_frame(frame.index))
        except DaemonDiedError as death:
            self.restart_daemon(frame.index, str(death))
        self.link.welcome()
        with self.result.stages.measure("publish"):
            self.publish(frame, inputs)

    def start_daemon(self) -> None:
        """Start the daemon and wait until it hears everything and is heard.

        Raises DaemonDiedError if it ends instead, ReplayError if it does neither.
        """
        self.link.welcome()
        self.process.start()
        missing = self.link.required
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing or not self.link.heard():
            self.check_daemon()
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                fault = f"does not listen to {names}" if names else "does not publish its plans"
                raise ReplayError(
                    f"The daemon runs, but {START_TIMEOUT_S:.0f} s after its start it {fault}. "
                    f"See {self.process.output}."
                )
            missing -= self.link.welcome()
            time.sleep(POLL_MS / 1000)

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

    def publish(self, frame: DriveFrame, inputs: Inputs) -> None:
        """Send the messages that belong before a frame, then the frame; all of it is logged."""
        index = frame.index
        for service, event in inputs.before(index):
            self.send(service, event)
        self.send("narrowRoadCameraState", self.camera_state("narrowRoadCameraState", index))
        if frame.wide is not None:
            self.send("wideRoadCameraState", self.camera_state("wideRoadCameraState", index))
        self.recorder.write(self.encode_index(index))
        barrier = None if self.settings.realtime else self.link.barrier()
        times = self.clock.start_of_frame(index), self.clock.end_of_frame(index)
        self.open[index] = set(OUTPUTS)
        if frame.wide is not None:
            self.link.send_frame(Stream.WIDE_ROAD, frame.wide, index, *times, barrier)
        self.link.send_frame(Stream.NARROW_ROAD, frame.narrow, index, *times, barrier)
        self.result.frames += 1

    def send(self, service: str, event: Any) -> None:
        self.link.send(service, event)
        self.recorder.write(event)

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
        event = new_message("narrowRoadEncodeIdx", valid=True)
        event.logMonoTime = self.clock.end_of_frame(index)
        entry = event.narrowRoadEncodeIdx
        entry.frameId = index
        entry.type = "qcameraH264"
        entry.encodeId = entry.segmentId = entry.segmentIdEncode = self.result.frames
        entry.timestampSof = self.clock.start_of_frame(index)
        entry.timestampEof = self.clock.end_of_frame(index)
        return event

    def await_answers(self, index: int) -> None:
        """Wait for everything the daemon says about a frame, and log it in a fixed order."""
        answers: list[Answer] = []
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            while self.open[index]:
                heard = list(self.link.receive(POLL_MS))
                answers += heard
                self.tick_off(heard)
                if not heard:
                    self.check_daemon()
                if time.monotonic() > deadline:
                    raise ReplayError(
                        f"The daemon runs, but has not sent {', '.join(sorted(self.open[index]))} "
                        f"for frame {index} within {ANSWER_TIMEOUT_S:.0f} s. "
                        f"See {self.process.output}."
                    )
        finally:
            for answer in sorted(answers, key=lambda answer: OUTPUTS.index(answer.service)):
                event = answer.event.as_builder()
                event.logMonoTime = self.clock.end_of_frame(answer.frame_id) + ANSWER_NS
                self.recorder.write(event)

    def listen_until(self, deadline_ns: int) -> None:
        """Log answers as they come, until a time of the machine's monotonic clock."""
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            heard = list(self.link.receive(min(POLL_MS, max(1, left // 1_000_000))))
            self.tick_off(heard)
            for answer in heard:
                self.recorder.write(answer.event.as_builder())
            if not heard:
                self.check_daemon()

    def listen_to_the_end(self) -> None:
        """Wait for the answers to the last frame."""
        deadline_ns = time.monotonic_ns() + LAST_ANSWER_NS
        last = max(self.open, default=0)
        while self.open.get(last) and time.monotonic_ns() < deadline_ns:
            self.listen_until(time.monotonic_ns() + POLL_MS * 1_000_000)

    def tick_off(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self.open.get(answer.frame_id, set()).discard(answer.service)
