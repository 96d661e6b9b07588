"""The `bus` command, run as a user runs it: as a process of its own."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from messaging import (
    Bus,
    BusError,
    LogReader,
    LogWriter,
    PubMaster,
    SubMaster,
    UnknownServiceError,
    decode,
    new_message,
    to_bytes,
)
from messaging.plain import to_json, to_plain, to_text
from messaging.tools import Pace, Rate, played_members, select_services

SOON = 60.0  # s; far more than needed, machines may be busy


def car_state(speed: float, time_ns: int = 0, valid: bool = True) -> Any:
    message = new_message("carState", valid=valid)
    message.carState.vEgo = speed
    if time_ns:
        message.logMonoTime = time_ns
    return message


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "messaging", *map(str, arguments)]


@contextmanager
def bus_command(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=SOON, check=False
    )


@contextmanager
def repeated(publish: Callable[[], None]) -> Iterator[None]:
    """Call `publish` every 5 ms in the background."""
    done = threading.Event()

    def loop() -> None:
        while not done.wait(0.005):
            publish()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_echo_prints_json(bus: Bus) -> None:
    with (
        PubMaster(["carState"], bus) as publisher,
        bus_command("echo", "carState", "--json", "--count", 2, "--bus", bus.namespace) as echo,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        publisher.send("carState", b"nonsense")
        publisher.send("carState", car_state(3.5, 5))
        publisher.send("carState", car_state(math.nan, 7, valid=False))
        output, errors = echo.communicate(timeout=SOON)
    assert echo.returncode == 0
    first, second = map(json.loads, output.splitlines())
    assert first["data"]["vEgo"] == 3.5
    assert {name: first[name] for name in ("logMonoTime", "valid", "service")} == {
        "logMonoTime": 5,
        "valid": True,
        "service": "carState",
    }
    assert second["data"]["vEgo"] == "nan"
    assert not second["valid"]
    assert "a message on carState cannot be read: segment table claims" in errors


def test_echo_text_and_ctrl_c(bus: Bus) -> None:
    with (
        PubMaster(["carState"], bus) as publisher,
        bus_command("echo", "carState", "--namespace", bus.namespace) as echo,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        publisher.send("carState", car_state(2.25, 1_500_000_000, valid=False))
        assert echo.stdout is not None
        assert echo.stdout.readline() == "carState  1.500000 s  NOT VALID\n"
        assert any('"vEgo": 2.25' in line for line in iter(echo.stdout.readline, "}\n"))
        echo.send_signal(signal.SIGINT)
        _, errors = echo.communicate(timeout=SOON)
    assert (echo.returncode, errors) == (0, "")


def read(message: Any) -> Any:
    return decode(to_bytes(message))


def test_plain_data_of_every_kind() -> None:
    can = new_message("can", 1)
    can.can[0].dat = b"\x01\xff"
    assert to_plain(read(can))["data"][0]["dat"] == "01ff"
    text = new_message("logMessage", valid=True)
    text.logMessage = "line"
    assert json.loads(to_json(read(text)))["data"] == "line"
    model = new_message("modelV2")
    model.modelV2.position.x = [1.0, math.inf]
    model.modelV2.meta.desireState = [0.5]
    assert json.loads(to_json(read(model)))["data"]["position"]["x"] == [1.0, "inf"]
    sentinel = new_message("sentinel")
    sentinel.sentinel.type = "endOfRoute"
    assert '"endOfRoute"' in to_text(read(sentinel))
    assert list(to_plain(read(car_state(1.0)))["data"])[-1] == "deprecated"


def test_a_file_that_is_no_log_cannot_be_played(tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(b"\xff" * 1000)
    result = run("play", str(tmp_path / "video"))
    assert result.returncode == 1
    assert result.stderr.endswith("video holds no message that could be played\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["echo", "carstate"], "there is no service 'carstate'; did you mean carState"),
        (["hz", "x*"], "no service matches 'x*'; see messaging/services.py"),
        (["hz", "--bus", "http://host"], "'http://host' is no bus: write tcp://HOST"),
        (["play", "/nonexistent/rlog.zst"], "cannot read log /nonexistent/rlog.zst: No such"),
        (["record", "-o", "/nonexistent/rlog.zst"], "cannot write log /nonexistent/rlog.zst: No"),
        (["bridge", "--from", "a", "--to", "a", "can"], "both ends of the bridge are the same bus"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"bus: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_hz(bus: Bus) -> None:
    with (
        PubMaster(["carState"], bus) as publisher,
        repeated(lambda: publisher.send("carState", car_state(1.0))),
        bus_command("hz", "car*", "--interval", 0.2, "--bus", bus.namespace) as rates,
    ):
        assert rates.stdout is not None
        line = next(line for line in iter(rates.stdout.readline, "") if "carState" in line)
        rates.terminate()
        rest, _ = rates.communicate(timeout=SOON)
    assert rates.returncode == 0
    service, measured, table, *_ = line.split()
    assert (service, table) == ("carState", "100")
    assert float(measured) > 0
    assert "max gap ms" in rest


def test_rate_of_known_messages() -> None:
    rate = Rate("carState")
    good, not_valid = to_bytes(car_state(1.0)), to_bytes(car_state(1.0, valid=False))
    for data, moment in [(good, 1.0), (not_valid, 1.25), (b"", 1.3)]:
        rate.record(data, moment)
    assert rate.line(seconds=2.0).split() == [
        "carState", "1.50", "100", "250.0", f"{2 * len(good) / 2 / 1e3:.1f}", "1", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_record_until_a_signal(bus: Bus, tmp_path: Path, number: int) -> None:
    path = tmp_path / "rlog.zst"
    with (
        PubMaster(["carState"], bus) as publisher,
        bus_command("record", "-o", path, "--bus", bus.namespace) as recorder,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        sent = [to_bytes(car_state(float(speed))) for speed in range(300)]
        publisher.send("carState", b"nonsense")
        for data in sent:
            publisher.send("carState", data)
        while len(list(LogReader(path).raw())) < len(sent):  # it flushes once a second
            time.sleep(0.05)
        recorder.send_signal(number)
        _, errors = recorder.communicate(timeout=SOON)
    assert recorder.returncode == 0
    assert "bus: wrote 300 messages, 1 malformed ones left out" in errors
    reader = LogReader(path)
    assert [data for _, data in reader.raw()] == sent
    assert reader.problem is None


def limit_file_size() -> None:
    """A full disk, as the process sees it: no file may grow beyond 100 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("extension", [".zst", ".bz2", ""])
def test_full_disk_while_recording(bus: Bus, tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    with (
        PubMaster(["customReservedRawData0"], bus) as publisher,
        bus_command(
            "record", "-o", path, "--bus", bus.namespace, preexec_fn=limit_file_size
        ) as recorder,
    ):
        assert publisher.wait_for_subscribers(timeout=SOON)
        while recorder.poll() is None:
            message = new_message("customReservedRawData0")
            message.customReservedRawData0 = os.urandom(2000)
            publisher.send("customReservedRawData0", message)
            time.sleep(0.0005)
        _, errors = recorder.communicate(timeout=SOON)
    assert recorder.returncode == 1
    assert errors.splitlines()[-1] == f"bus: cannot write log {path}: File too large"
    assert "Traceback" not in errors
    written = path.stat().st_size
    assert 90_000 < written <= 100_000
    kept = sum(len(event.customReservedRawData0) == 2000 for event in LogReader(path))
    # bzip2 blocks are far larger than this disk: nothing of an unfinished one can be read
    assert kept >= (0 if extension == ".bz2" else 20)


def write_log(path: Path, period_s: float, count: int) -> list[bytes]:
    made = [new_message("initData")]
    for index in range(count):
        made.append(car_state(float(index), 10**12 + int(index * period_s * 1e9)))
        made.append(new_message("liveCalibration"))
        made[-1].logMonoTime = made[-2].logMonoTime
    made.append(new_message("userBookmark"))
    contents = [to_bytes(message) for message in made]
    with LogWriter(path) as writer:
        for data in contents:
            writer.write(data)
    return contents


def test_play_and_record_give_the_same_log(bus: Bus, tmp_path: Path) -> None:
    contents = write_log(tmp_path / "rlog.bz2", 0.01, 100)
    again = tmp_path / "again.zst"
    with bus_command("record", "carState", "-o", again, "--bus", bus.namespace) as recorder:
        assert recorder.stderr is not None
        assert "recording 1 services" in recorder.stderr.readline()
        played = run(
            "play", tmp_path / "rlog.bz2", "--bus", bus.namespace, "--allow",
            "carState,liveCalibration", "--block", "extrinsicsCalibration", "--wait", SOON,
        )  # fmt: skip
        assert (played.returncode, played.stderr) == (0, "bus: sent 100 messages\n")
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=SOON)
    assert [data for _, data in LogReader(again).raw()] == contents[1:-1:2]


def test_play_is_interrupted_while_it_waits(bus: Bus, tmp_path: Path) -> None:
    write_log(tmp_path / "rlog", 0.9, 100)
    with (
        SubMaster(["carState"], bus=bus) as receiver,
        bus_command("play", tmp_path / "rlog", "--bus", bus.namespace, "--wait", SOON) as player,
    ):
        while not receiver.seen["carState"]:
            receiver.update(100)
        player.send_signal(signal.SIGINT)
        _, errors = player.communicate(timeout=SOON)
    assert player.returncode == 0
    assert errors.startswith("bus: sent ")


def test_pace() -> None:
    now = 50.0
    pace = Pace(2.0, lambda: now)
    second = 10**9
    assert pace.due(7 * second) == 50.0
    assert pace.due(8 * second) == 50.5
    assert pace.due(8 * second - 1000) == pytest.approx(50.5)
    now = 60.0
    assert pace.due(100 * second) == 60.0  # 92 s of silence are not waited for
    assert pace.due(101 * second) == 60.5
    assert pace.due(3 * second) == 60.0  # nor is a clock that was set back
    assert Pace(math.inf, lambda: now).due(4 * second) == 60.0


def test_selection_of_services() -> None:
    assert select_services(["liveCalibration", "modelV2"]) == ["liveCalibration", "modelV2"]
    assert select_services(["*RoadCameraState"]) == ["narrowRoadCameraState", "wideRoadCameraState"]
    assert select_services(["roadCamera*"]) == ["narrowRoadCameraState"]  # by its old name
    with pytest.raises(UnknownServiceError, match="did you mean carState"):
        select_services(["carStat"])
    with pytest.raises(BusError, match=r"no service matches 'uiPlan\*'"):
        select_services(["uiPlan*"])  # an old name of what is no service any more
    assert "userBookmark" not in played_members()
    assert "userBookmark" in played_members(everything=True)
    assert played_members(allow=["userBookmark", "car*"], block=["carS*", "carO*"]) == {
        "userBookmark", "carControl", "carParams",
    }  # fmt: skip


def test_bridge_between_namespaces(bus: Bus) -> None:
    other = Bus.fresh()
    with (
        PubMaster(["carState", "carControl"], bus) as publisher,
        SubMaster(["carState", "carControl"], bus=other) as receiver,
        bus_command(
            "bridge", "--from", bus.namespace, "--to", other.namespace, "carS*"
        ) as bridge,
    ):
        assert publisher.wait_for_subscribers(["carState"], timeout=SOON)
        publisher.send("carState", b"nonsense")
        with repeated(lambda: publisher.send("carState", car_state(1.5))):
            while not receiver.seen["carState"]:
                receiver.update(100)
        assert receiver["carState"].vEgo == 1.5
        assert not publisher.wait_for_subscribers(["carControl"], timeout=0)
        bridge.terminate()
        _, errors = bridge.communicate(timeout=SOON)
    other.remove()
    assert bridge.returncode == 0
    assert "what came on carState is no message of it and is left out" in errors


def test_bridge_over_tcp(bus: Bus) -> None:
    other = Bus.fresh()
    with (
        PubMaster(["uiDebug"], bus) as publisher,
        SubMaster(["uiDebug"], bus=other) as receiver,
        bus_command(
            "bridge", "--from", bus.namespace, "--to", "tcp://127.0.0.1", "uiDebug"
        ) as sending,
        bus_command(
            "bridge", "--from", "tcp://127.0.0.1", "--to", other.namespace, "uiDebug"
        ) as receiving,
        repeated(lambda: publisher.send("uiDebug", new_message("uiDebug", valid=True))),
    ):
        deadline = time.monotonic() + SOON
        while not receiver.seen["uiDebug"]:
            receiver.update(100)
            assert (sending.poll(), receiving.poll()) == (None, None)
            assert time.monotonic() < deadline
    other.remove()
