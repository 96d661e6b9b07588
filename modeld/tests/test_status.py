"""The status file of a daemon, and `modeld status`."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging import Bus
from modeld import status
from modeld.__main__ import main
from modeld.status import RUNNING, STOPPED, WAITING, StatusError, StatusFile, read_status
from modeld.watch import CLOCK_JUMP, STALE, Counters


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    bus.endpoint("modelV2", bind=True)  # makes its directory
    yield bus
    bus.remove()


def counted() -> Counters:
    counters = Counters(frames=100, dropped=3)
    counters.faults.update({CLOCK_JUMP: 1, STALE: 7})
    counters.last = {CLOCK_JUMP: "it jumped", STALE: "it was old"}
    return counters


def test_the_file_is_written_once_a_second_and_at_the_end(bus: Bus) -> None:
    now = [100.0]
    subject = StatusFile(bus, "modeld", lambda: now[0])
    subject.update(WAITING, Counters(), None, False, 0.0, "cpu")
    assert read_status(subject.path).state == WAITING
    now[0] = 100.9
    subject.update(RUNNING, counted(), 7, True, 0.03, "cpu")
    assert read_status(subject.path).state == WAITING
    now[0] = 101.0
    subject.update(RUNNING, counted(), 7, True, 0.03, "cpu")
    written = read_status(subject.path)
    assert (written.state, written.frame_id, written.valid) == (RUNNING, 7, True)
    assert (written.frames, written.dropped, written.execution_ms) == (100, 3, 30.0)
    assert written.pid == os.getpid()
    assert written.faults == {CLOCK_JUMP: 1, STALE: 7}
    subject.update(STOPPED, counted(), 7, True, 0.03, "cpu")
    assert read_status(subject.path).state == STOPPED
    assert not list(bus.directory.glob("*.partial"))


def test_a_file_that_cannot_be_written_is_said_once(
    tmp_path: Path, bus: Bus, caplog: pytest.LogCaptureFixture,
) -> None:
    subject = StatusFile(bus, "modeld")
    subject.path = tmp_path / "absent" / "modeld.status.json"
    for _ in range(2):
        subject.update(STOPPED, Counters(), None, False, 0.0, "cpu")
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text


def test_command(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["status", "--namespace", bus.namespace]
    assert main(arguments) == 1
    assert f"No daemon has been on the bus '{bus.namespace}'" in capsys.readouterr().out
    subject = StatusFile(bus, "modeld")
    subject.update(RUNNING, counted(), 99, False, 0.0321, "cpu")
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"modeld (process {os.getpid()}): running, target cpu",
        "  100 frames, 3 dropped; newest 99, published as NOT valid; model 32.1 ms",
        "  stale: 7 frames", "    last: it was old",
        "  clock jump: 1 frame", "    last: it jumped"]
    StatusFile(bus, "dmonitoringmodeld").update(WAITING, Counters(), None, False, 0.0, "cpu")
    assert main(arguments) == 0
    assert "dmonitoringmodeld (process" in capsys.readouterr().out


def test_command_when_the_daemon_is_gone(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["status", "--namespace", bus.namespace]
    subject = StatusFile(bus, "modeld")
    subject.update(RUNNING, counted(), 99, True, 0.03, "cpu")
    an_hour_ago = subject.path.stat().st_mtime - 3600
    os.utime(subject.path, (an_hour_ago, an_hour_ago))
    assert main(arguments) == 1
    assert "no sign of life for 360" in capsys.readouterr().out
    subject.update(STOPPED, counted(), 99, True, 0.03, "cpu")
    assert main(arguments) == 1
    assert "stopped" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[", "[1]", "{}", "nul", "[" * 100_000])
def test_files_that_are_no_status(bus: Bus, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = status.status_path(bus, "modeld")
    path.write_text(text)
    with pytest.raises(StatusError, match="is not a status file"):
        read_status(path)
    assert main(["status", "--namespace", bus.namespace]) == 1
    captured = capsys.readouterr()
    assert str(path) in captured.err


@pytest.mark.parametrize(("name", "value"), [
    ("frames", "many"), ("faults", {"stale": "often"}), ("last", {"stale": 1}), ("valid", None)])
def test_fields_of_a_wrong_type(bus: Bus, name: str, value: object) -> None:
    subject = StatusFile(bus, "modeld")
    subject.update(RUNNING, counted(), 99, True, 0.03, "cpu")
    table = json.loads(subject.path.read_text())
    subject.path.write_text(json.dumps({**table, name: value}))
    with pytest.raises(StatusError, match="its fields are not"):
        read_status(subject.path)


def test_bad_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--namespace", "../x"]) == 2
    assert "cannot name a bus" in capsys.readouterr().err
