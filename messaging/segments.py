"""Writes a drive as segments of a minute, each with the full log and its decimated copy.

    FOLDER/<log id>--0/rlog.zst, qlog.zst       rlog.lock stands beside them while they are written
    FOLDER/<log id>--1/...

Every file begins with an initData and a sentinel that says whether the route or only a segment
starts, and ends with a sentinel that says which of the two ends.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from messaging.closing import Closing
from messaging.errors import LogFileError
from messaging.logfile import LogWriter
from messaging.message import new_message, peek, to_bytes
from messaging.services import SERVICES

SEGMENT_S = 60.0

# What the encoders say of each frame goes to both logs: without it no picture is found again.
_ALWAYS_KEPT = frozenset(
    {"narrowRoadEncodeIdx", "cabinEncodeIdx", "wideRoadEncodeIdx", "qNarrowRoadEncodeIdx"}
)
_OWN = frozenset({"initData", "sentinel"})


class Decimation:
    """Which messages go to the qlog: of each service every n-th, n as its table says.

    It counts over the whole route, so that a rare service is not in every segment.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def keeps(self, member: str | None) -> bool:
        """Whether the next message of `member` goes to the qlog; counts it."""
        if member in _ALWAYS_KEPT:
            return True
        service = SERVICES.get(member or "")
        if service is None or service.decimation is None:
            return False
        count = self._counts[service.name]
        self._counts[service.name] += 1
        return count % service.decimation == 0


class SegmentWriter(Closing):
    """Writes messages into the segments of one route.

    folder: where the segments go; it is made if need be. log_id: name of the route.
    init_data: an initData message (builder or bytes) for the head of every file; None: an empty
        one. initData and sentinels given to `write` are left out, as every file gets its own.
    segment_s: length of a segment. A message begins a new one when its logMonoTime leaves the
        current one; time that jumps back by more than a segment also does.

    Raises LogFileError if a file cannot be written or a segment is already there.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        log_id: str,
        *,
        init_data: Any | None = None,
        segment_s: float = SEGMENT_S,
    ) -> None:
        self.folder = Path(folder)
        self.log_id = log_id
        self.messages = 0
        self._init_data = None if init_data is None else to_bytes(init_data)
        self._length = int(segment_s * 1e9)
        self._decimation = Decimation()
        self._segment: _Segment | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogFileError(f"cannot write to {self.folder}: {error.strerror}") from None
        self._number = 0
        self._start = 0  # of the segment, ns
        self._newest = 0  # logMonoTime of the last message, ns

    def write(self, message: Any) -> None:
        """Append a builder of an Event, or the bytes of one. Errors as LogWriter.write."""
        data = to_bytes(message)
        seen = peek(data)
        if seen.member in _OWN:
            return
        segment = self._segment_at(seen.logMonoTime)
        segment.write(data, in_qlog=self._decimation.keeps(seen.member))
        self._newest = seen.logMonoTime
        self.messages += 1

    def flush(self) -> None:
        """Make everything written so far readable, even if this process is killed now."""
        if self._segment is not None:
            self._segment.flush()

    def close(self, signal: int = 0) -> None:
        """End the route. signal: number of the signal that ended the recording, 0 if none did."""
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.end("endOfRoute", self._newest, signal)

    def _segment_at(self, time_ns: int) -> "_Segment":
        if self._segment is None:
            self._start = time_ns
            self._segment = self._begin(time_ns, "startOfRoute")
        elif not -self._length <= time_ns - self._start < self._length:
            self._segment.end("endOfSegment", self._newest, 0)
            self._segment = None  # not to be ended again if the next one cannot begin
            self._number += 1
            self._start = self._next_start(time_ns)
            self._segment = self._begin(time_ns, "startOfSegment")
        return self._segment

    def _next_start(self, time_ns: int) -> int:
        """Segments start at whole multiples of their length, as long as time goes forward."""
        passed = time_ns - self._start
        return time_ns if passed < 0 else self._start + passed // self._length * self._length

    def _begin(self, time_ns: int, sentinel: str) -> "_Segment":
        segment = _Segment(self.folder / f"{self.log_id}--{self._number}")
        init_data = self._init_data
        if init_data is None:
            empty = new_message("initData", valid=True)
            empty.logMonoTime = time_ns
            init_data = to_bytes(empty)
        segment.write(init_data, in_qlog=True)
        segment.write(_sentinel(sentinel, time_ns), in_qlog=True)
        return segment


class _Segment:
    """The two files of one segment."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir()
            self._lock = folder / "rlog.lock"
            self._lock.touch()
        except OSError as error:
            raise LogFileError(f"cannot write segment {folder}: {error.strerror}") from None
        self._rlog = LogWriter(folder / "rlog.zst")
        self._qlog = LogWriter(folder / "qlog.zst")

    def write(self, data: bytes, in_qlog: bool) -> None:
        self._rlog.write(data)
        if in_qlog:
            self._qlog.write(data)

    def flush(self) -> None:
        self._rlog.flush()
        self._qlog.flush()

    def end(self, sentinel: str, time_ns: int, signal: int) -> None:
        try:
            if not (self._rlog.failed or self._qlog.failed):
                self.write(_sentinel(sentinel, time_ns, signal), in_qlog=True)
        finally:
            try:
                self._rlog.close()
            finally:
                self._qlog.close()
                self._lock.unlink(missing_ok=True)


def _sentinel(kind: str, time_ns: int, signal: int = 0) -> bytes:
    message = new_message("sentinel", valid=True)
    message.logMonoTime = time_ns
    message.sentinel.type = kind
    message.sentinel.signal = signal
    return to_bytes(message)
