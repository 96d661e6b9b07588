"""What can be wrong with a frame although it arrived: stuck cameras, jumping clocks, slow models.

Pure bookkeeping: frames, angles and times in, sentences about what is wrong with them out.
"""
from __future__ import annotations

import logging
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modeld import constants as c
from modeld.pairing import Frame

log = logging.getLogger("modeld")

# Half a second: what a stuck camera shows is then too old to drive by, see planner.MAX_FRAME_AGE.
STUCK_FRAMES = 10
CLOCK_TOLERANCE_NS = 1_000_000_000
FRAME_NS = 1_000_000_000 // c.MODEL_RATE_HZ
SLOW_WINDOW = 40  # frames, 2 s
_CONSEQUENCE = "What is published from such frames is marked as not valid."
_EVERY_ROW = 32  # of which a picture is recognised

NOT_FINITE, NOT_CALIBRATED, CALIBRATION_LIMITS = (
    "not finite", "not calibrated", "calibration out of limits")
STALE, CAMERA_FAULT, STUCK_CAMERA = "stale", "camera fault", "stuck camera"
CLOCK_JUMP, SLOW_MODEL, OVERWRITTEN = "clock jump", "slow model", "overwritten"
KINDS = (NOT_FINITE, NOT_CALIBRATED, CALIBRATION_LIMITS, STALE, CAMERA_FAULT, STUCK_CAMERA,
         CLOCK_JUMP, SLOW_MODEL, OVERWRITTEN)


@dataclass
class Counters:
    """What happened since the start.

    frames: handled. dropped: missing between handled ones. faults: kind -> frames that had it.
    last: kind -> what was said of it last.
    """

    frames: int = 0
    dropped: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set, repr=False)

    def note(self, kind: str, text: str, subject: str | None = None) -> None:
        """Count a fault, and log it if it is the first of its kind (or about this subject)."""
        self.faults[kind] += 1
        self.last[kind] = text
        if (subject or kind) not in self._said:
            self._said.add(subject or kind)
            log.warning("%s", text)

    def summary(self) -> str:
        """One line: what was done, and what went wrong how often."""
        problems = {"dropped": self.dropped, **{kind: self.faults[kind] for kind in KINDS}}
        told = [f"{count} {name}" for name, count in problems.items() if count]
        return f"{self.frames} frames" + (f": {', '.join(told)}" if told else "")

    def arrived(self, frame_id: int, last_frame_id: int | None) -> int:
        """Count a frame; gives how many are missing before it, 0 if the camera counts anew."""
        missing = 0 if last_frame_id is None else max(0, frame_id - last_frame_id - 1)
        self.frames += 1
        self.dropped += missing
        return missing


@dataclass(frozen=True)
class Seen:
    """What is remembered of a frame: id, times in ns, checksum of its picture."""

    frame_id: int
    sof: int
    eof: int
    picture: int


def look_at(frame: Frame) -> Seen:
    """All that a CameraWatch wants to know of a frame."""
    return Seen(frame.frame_id, frame.timestamp_sof, frame.timestamp_eof, checksum(frame.luma))


class CameraWatch:
    """One camera: does its picture change, do its frames count on, does its clock run?"""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last: Seen | None = None
        self._same_id = 1  # frames in a row with this id, this picture
        self._same_picture = 1

    def update(self, now: Seen, standing: bool = False) -> list[tuple[str, str]]:
        """The faults of the next frame: pairs of kind and sentence.

        standing: the car says that it stands. Rendered pictures, which have no noise, may then
        stay the same for ever; those of a sensor never do.
        """
        last, self._last = self._last, now
        faults = []
        jump = clock_jump(last, now)
        if jump:
            faults.append((CLOCK_JUMP, f"In frame {now.frame_id} the clock of the {self.name} "
                                       f"camera {jump}. {_CONSEQUENCE}"))
        if last is None:
            return faults
        self._same_id = self._same_id + 1 if now.frame_id == last.frame_id else 1
        self._same_picture = self._same_picture + 1 if now.picture == last.picture else 1
        stuck = []
        if self._same_id >= STUCK_FRAMES:
            stuck.append(f"the id {now.frame_id}")
        if self._same_picture >= STUCK_FRAMES and not standing:
            stuck.append("the same picture")
        if stuck:
            faults.append((STUCK_CAMERA, (
                f"The {self.name} camera is stuck: {STUCK_FRAMES} or more frames up to frame "
                f"{now.frame_id} have {' and '.join(stuck)}. {_CONSEQUENCE}")))
        return faults


def checksum(luma: np.ndarray) -> int:
    """Of some rows of a picture (H, W): enough to tell any two pictures of a sensor."""
    return zlib.crc32(luma[::_EVERY_ROW].tobytes())


def clock_jump(last: Seen | None, now: Seen) -> str | None:
    """What the times of a frame did that times cannot do, in words; None if they are sound.

    Times must not go back from frame to frame, nor run ahead of what the frame ids say by more than
    a second. A camera that counts anew has a clock of its own.
    """
    length = now.eof - now.sof
    if not 0 <= length <= CLOCK_TOLERANCE_NS:
        return f"ends the frame {length / 1e9:+.3f} s from its start"
    if last is None or now.frame_id <= last.frame_id:
        return None
    expected = (now.frame_id - last.frame_id) * FRAME_NS
    for name, step in (("start", now.sof - last.sof), ("end", now.eof - last.eof)):
        if not 0 <= step <= expected + CLOCK_TOLERANCE_NS:
            return (f"puts its {name} {step / 1e9:+.3f} s from that of the frame before instead of "
                    f"{expected / 1e9:+.3f} s")
    return None


class SpeedWatch:
    """Whether a model keeps up with the frames, judged over the newest SLOW_WINDOW runs."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=SLOW_WINDOW)

    @property
    def mean(self) -> float:
        """Seconds a run took lately; 0 before the first."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else 0.0

    def update(self, seconds: float) -> str | None:
        """One run took so long -> a sentence if the model is too slow."""
        self._seconds.append(seconds)
        if len(self._seconds) < SLOW_WINDOW or self.mean <= c.DT_MDL:
            return None
        return (f"The model takes {1000 * self.mean:.0f} ms, a frame lasts "
                f"{1000 * c.DT_MDL:.0f} ms: frames are lost, and what is published is not valid. "
                "Use a faster machine, more --threads or a smaller model.")


@dataclass(frozen=True)
class Limits:
    """Within which a mounting is sound: lowest and highest pitch, largest yaw, radians."""

    pitch: tuple[float, float]
    yaw: float


DEFAULT_LIMITS = Limits((-0.0907, 0.17), 0.0691)
LIMITS = {"mici": Limits((-0.1431, 0.2224), 0.0691)}


def outside_limits(rpy: Sequence[float], device_type: str) -> str | None:
    """A sentence if a calibration (roll, pitch, yaw, rad) is outside the limits of the device."""
    limits = LIMITS.get(device_type, DEFAULT_LIMITS)
    _, pitch, yaw = rpy
    low, high = limits.pitch
    if low <= pitch <= high and abs(yaw) <= limits.yaw:
        return None
    return (f"The calibration has pitch {pitch:.4f} and yaw {yaw:.4f} rad; a device may be mounted "
            f"with pitch {low} to {high} and yaw up to {limits.yaw} either way. Mount it again, "
            "until then plans are published as not valid.")
