"""Starts the daemon as a process of its own, watches it, and stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOP_SECONDS = 5.0
GUARD = Path(__file__).with_name("guard.py")


def modeld_command(
    model: Path, policy: Path | None, namespace: str, flags: Sequence[str]
) -> list[str]:
    """The command line of modeld, run by this Python."""
    command = [sys.executable, "-m", "modeld", "--model", str(model), "--namespace", namespace]
    return command + (["--policy", str(policy)] if policy else []) + list(flags)


class DaemonProcess:
    """One daemon at a time; its output is appended to a file.

    The daemon gets a session of its own, so that Ctrl-C reaches the replay alone, which then stops
    the daemon in good order. If the replay itself is killed, the daemon is too (on Linux).
    """

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self.command = list(command)
        self.output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._offset = 0

    @property
    def pid(self) -> int | None:
        """Process id, or None before the first start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the daemon; one that still runs is stopped first."""
        self.stop()
        with self.output.open("ab") as file:
            self._offset = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(GUARD), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def running(self) -> bool:
        """Whether the daemon was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def how_it_ended(self) -> str:
        """In words: "was killed by SIGKILL", "ended with exit code 2"."""
        code = self._process.returncode if self._process else None
        if code is None:
            return "is running"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def last_words(self) -> str:
        """The last line that the daemon wrote since it was started, "" if none."""
        if not self.output.exists():
            return ""
        with self.output.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """End the daemon: politely, and after some seconds not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
