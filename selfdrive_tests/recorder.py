"""Writes a replay's log as a segment folder like those of comma's devices.

The folder <log id>--0 holds rlog.zst and, while it is being written, rlog.lock. The log begins with
initData and the sentinel startOfRoute and ends with the sentinel endOfRoute; between them stand
messages in the order in which they came. However long the drive, it is one segment.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from messaging import LogWriter, new_message
from messaging.closing import Closing


def log_id(*parts: str) -> str:
    """A name of 20 characters like those of a device's drives, the same for the same parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"00000000--{digest[:10]}"


def product_version() -> str:
    """Name and version of this distribution."""
    try:
        return f"tinydrive {version('tinydrive')}"
    except PackageNotFoundError:
        return "tinydrive, not installed"


class Recorder(Closing):
    """A log that is open; a context manager, which writes the last sentinel.

    signal: number of the signal that ended the replay, for the last sentinel; 0 for none.
    """

    def __init__(
        self, segment: Path, start_ns: int, on_event: Callable[[Any], object] = lambda _: None
    ) -> None:
        """segment: folder, made if need be. start_ns: time of the first two messages.

        on_event: called with every event that is written.
        """
        segment.mkdir(parents=True, exist_ok=True)
        self.path = segment / "rlog.zst"
        self.signal = 0
        self._on_event = on_event
        self._lock = segment / "rlog.lock"
        self._lock.touch()
        self._writer = LogWriter(self.path)
        self._newest_ns = start_ns
        message = new_message("initData", valid=True)
        message.initData.deviceType = "pc"
        message.initData.version = product_version()
        message.initData.wallTimeNanos = time.time_ns()
        message.logMonoTime = start_ns
        self.write(message)
        self._sentinel("startOfRoute")

    def write(self, event: Any) -> None:
        """Append a message: a builder with its time set."""
        self._newest_ns = max(self._newest_ns, event.logMonoTime)
        self._writer.write(event)
        self._on_event(event)

    def _sentinel(self, kind: str, signal: int = 0) -> None:
        message = new_message("sentinel", valid=True)
        message.sentinel.type = kind
        message.sentinel.signal = signal
        message.logMonoTime = self._newest_ns
        self.write(message)

    def close(self) -> None:
        """Write the last sentinel and end the file."""
        self._sentinel("endOfRoute", self.signal)
        self._writer.close()
        self._lock.unlink(missing_ok=True)
