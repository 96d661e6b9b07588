"""Threads and processes around a replay: decoding ahead, times by stage, ends of processes."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfdrive_tests.ahead import read_ahead
from selfdrive_tests.stages import MEANING, Stages

WAIT_S = 60.0


def test_items_come_in_order_and_are_taken_ahead() -> None:
    taken: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            if number == 3:
                third.set()
            yield number

    ahead = read_ahead(items(), depth=3)
    assert next(ahead) == 0
    # Without anyone asking for them, the next ones are taken too, but not all.
    assert third.wait(WAIT_S)
    assert len(taken) <= 6
    assert list(ahead) == list(range(1, 10))


def test_errors_come_after_the_items_before_them() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_closing_stops_the_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(int, 1), depth=2)  # zeros without end
    assert next(ahead) == 0
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before


def test_stages_share_the_whole_time() -> None:
    stages = Stages()
    stages.add("daemon", 3.0)
    stages.add("decode", 1.0)
    stages.move("daemon", "model", 2.5)
    assert stages.total == 4.0
    assert stages.rows() == [
        (MEANING["decode"], "1.00 s, 25%"),
        (MEANING["model"], "2.50 s, 62%"),
        (MEANING["daemon"], "0.50 s, 12%"),
    ]
    assert stages.bottleneck == MEANING["model"]
    # No more is moved than there is.
    stages.move("decode", "model", 9.0)
    assert stages.seconds["decode"] == 0.0 and stages.total == 4.0


# Starts a "daemon" as a replay does, tells its process id, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from selfdrive_tests.process import DaemonProcess
daemon = DaemonProcess([sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]))
daemon.start()
print(daemon.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a service of the Linux kernel")
def test_daemon_ends_when_the_replay_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        end = os.pidfd_open(pid)
        parent.send_signal(signal.SIGKILL)
    try:
        # A process's descriptor becomes readable when it has ended.
        assert select.select([end], [], [], WAIT_S)[0] == [end]
    finally:
        os.close(end)
