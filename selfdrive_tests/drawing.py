"""Draws the video of a replay while it goes on, in a process of its own beside it.

The process decodes the drive's pictures once more and takes the frames' records as they come. It
has a low priority meanwhile, so that the model keeps the cores that it needs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from messaging.closing import Closing
from selfdrive_tests.ahead import read_ahead
from selfdrive_tests.drives import Drive, DriveError
from selfdrive_tests.guard import die_with_parent
from selfdrive_tests.pictures import Pictures, render
from selfdrive_tests.plans import FrameRecord, Plan

# Of the process, for good, and of its session, while the replay goes on.
NICE, LOWEST = 10, 19
AUTOGROUP = Path("/proc/self/autogroup")
_POLL_S = 0.1


@dataclass(frozen=True)
class Order:
    """What is to be drawn; as the arguments of `render`."""

    drive: Drive
    count: int
    video: Path
    model: str
    warning: str
    truth: Mapping[int, Plan] = field(default_factory=dict)


class Drawing(Closing):
    """A video that is being drawn. Leaving the `with` block before `finish` gives it up."""

    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("spawn")
        self._video = order.video
        self._finished = False
        self._drawn: Any = context.RawValue("i", 0)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_draw, args=(os.getpid(), theirs, self._drawn, order), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process that draws."""
        assert self._process.pid is not None
        return self._process.pid

    def add(self, record: FrameRecord | None) -> None:
        """Have the next frame drawn; None: there are no more. Never waits for the drawing."""
        with suppress(ConnectionError):  # a process that has ended is noticed by finish()
            self._pipe.send(record)

    def finish(self, on_frames: Callable[[int], object]) -> Pictures:
        """Wait for the rest; on_frames(count) is called as frames are done.

        Raises OSError if the video cannot be written, DriveError if the process came to an end.
        """
        self.add(None)
        shown = 0
        while not self._pipe.poll(_POLL_S):
            drawn = self._drawn.value
            on_frames(drawn - shown)
            shown = drawn
        try:
            answer = self._pipe.recv()
        except (ConnectionError, EOFError):
            raise DriveError(
                f"The process that draws {self._video} ended before its time. Try again, or leave "
                "the video out with --no-video."
            ) from None
        if isinstance(answer, OSError):
            raise answer
        on_frames(self._drawn.value - shown)
        self._finished = True
        assert isinstance(answer, Pictures)
        return answer

    def close(self) -> None:
        """End the process; a video that is not finished is removed."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()
        if not self._finished:
            self._video.unlink(missing_ok=True)


def _draw(parent: int, pipe: Connection, drawn: Any, order: Order) -> None:
    """In the process: draw what comes through the pipe, and send what became of it."""
    die_with_parent(parent, signal.SIGKILL)
    # A session of its own: Ctrl-C is for the replay, which ends this process.
    os.setsid()
    os.nice(NICE)
    set_session_priority(LOWEST)

    def received() -> Iterator[FrameRecord]:
        yield from iter(pipe.recv, None)
        set_session_priority(0)  # the replay is over: its cores are free

    def count(frames: int) -> None:
        drawn.value += frames

    # Records are taken from the pipe at once, however many: the replay must not wait.
    records = read_ahead(received(), depth=0)
    try:
        pictures = render(
            order.drive,
            records,
            order.count,
            order.video,
            order.model,
            order.warning,
            count,
            order.truth,
        )
    except OSError as error:
        pipe.send(error)
    else:
        pipe.send(pictures)


def set_session_priority(nice: int) -> None:
    """Linux shares cores among sessions first (autogroup), and among processes only then."""
    with suppress(OSError):
        AUTOGROUP.write_text(str(nice))
