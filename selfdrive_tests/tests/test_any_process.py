"""Processes other than modeld: described by a file, triggered by a message or the cabin camera."""

import sys
from pathlib import Path

import pytest

from messaging import LogWriter, new_message
from selfdrive_tests import __main__ as command
from selfdrive_tests.drives import DriveError
from selfdrive_tests.heard import flatten
from selfdrive_tests.processes import MODELD, find_process
from selfdrive_tests.references import read_log_plans

PROCESS = Path(__file__).parent / "any_process.py"
TEXT = f"""
command = ["{{python}}", "{PROCESS}", "{{namespace}}"]
subscribes = ["carState", "radarState"]
publishes = ["longitudinalPlan"]
trigger = "radarState"
plots = ["longitudinalPlan.accels.0"]
"""


def write_log(path: Path, faster_from: int = 1000) -> None:
    """20 triggers, before each a carState whose speed is the trigger's number, or one more."""
    with LogWriter(path) as log:
        for i in range(20):
            car = new_message("carState", valid=True)
            car.carState.vEgo = i + (i >= faster_from)
            radar = new_message("radarState", valid=True)
            for offset, message in ((0, car), (1_000_000, radar)):
                message.logMonoTime = 5_000_000_000 + i * 50_000_000 + offset
                log.write(message)


@pytest.fixture
def process(tmp_path: Path) -> Path:
    path = tmp_path / "planner.toml"
    path.write_text(TEXT)
    return path


def replay(log: Path, process: Path, out: Path, *more: str) -> int:
    return command.main([str(log), "--process", str(process), "-o", str(out), *more])


def test_a_process_is_replayed_from_a_log_alone(
    process: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, refs = tmp_path / "rlog.zst", tmp_path / "refs"
    write_log(log)
    assert replay(log, process, tmp_path / "first", "--update-refs", str(refs)) == 0
    assert "frames            20\n" in capsys.readouterr().out
    (written,) = (tmp_path / "first").glob("*--0/rlog.zst")
    moments = read_log_plans(written, find_process(str(process)))
    # Every answer belongs to its trigger, and was made after the message before it was heard.
    said = [one.values["longitudinalPlan.accels.0"] for one in moments.values() if one]
    assert said == [float(i) for i in range(20)]
    assert [file.name for file in refs.iterdir()] == ["rlog.zst.planner.jsonl.gz"]

    same = ["--refs", str(refs), "--tolerance", "all=exact"]
    assert replay(log, process, tmp_path / "second", *same) == 0
    write_log(log, faster_from=15)
    assert replay(log, process, tmp_path / "third", *same) == 3
    assert "5 of 20 frames differ beyond tolerance" in capsys.readouterr().out
    page = (tmp_path / "third" / "report.html").read_text(encoding="utf-8")
    assert "longitudinalPlan.accels.0: 16 here, 15 there" in page
    assert '"title":"longitudinalPlan.accels.0"' in page
    wrong = ["--refs", str(refs), "--tolerance", "speed=1"]
    assert replay(log, process, tmp_path / "fourth", *wrong) == 2


def test_messages_are_taken_apart_to_single_values() -> None:
    data = {"a": [1, 2.5], "b": {"c": True, "d": "text"}, "e": float("nan")}
    assert dict(flatten("x", data)) == {
        "x.a.0": 1.0, "x.a.1": 2.5, "x.b.c": True, "x.b.d": "text", "x.e": None,
    }  # fmt: skip


def test_bundled_descriptions_can_be_read() -> None:
    cabin = find_process("dmonitoringmodeld")
    assert cabin.trigger == "cabinCameraState" and cabin.publishes == ("driverStateV2",)
    words = cabin.command_line(Path("m.tnn"), "ns")
    assert words[0] == sys.executable and words[-3:] == ["m.tnn", "--namespace", "ns"]
    assert MODELD.required >= {"carState", "narrowRoadCameraState"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("command = 3", "command must be a list of texts"),
        (TEXT + "speed = 1", "unknown keys: speed"),
        (TEXT.replace("longitudinalPlan\"]\ntrigger", "noPlan\"]\ntrigger"), "'noPlan', which is"),
        (TEXT.replace('trigger = "radarState"', 'trigger = "carControl"'), "among subscribes"),
        ("command = [", "cannot be read as a process description"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(DriveError, match=reason):
        find_process(str(path))


def test_an_unknown_process_is_named() -> None:
    with pytest.raises(DriveError, match="neither one of dmonitoringmodeld, modeld nor a TOML"):
        find_process("plannerd")
