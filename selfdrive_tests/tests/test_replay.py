"""Replays through a small daemon on the real bus: order, determinism, deaths, silence, signals."""

import os
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from messaging import LogReader, LogWriter, new_message
from selfdrive_tests import replay as replay_module
from selfdrive_tests.drives import Drive, Overrides, open_drive
from selfdrive_tests.replay import EPOCH_NS, ReplayError, ReplayResult, Settings, replay
from selfdrive_tests.results import read_records, summarize

DAEMON = Path(__file__).parent / "fake_daemon.py"
OUTPUTS = ("modelV2", "drivingModelData", "cameraOdometry")
Command = Callable[[str], list[str]]


def daemon(*flags: str) -> Command:
    return lambda namespace: [sys.executable, str(DAEMON), namespace, *flags]


def brightness(index: int) -> int:
    return 30 + 3 * index


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of 128 x 64; frame i has one brightness, brightness(i)."""
    path = tmp_path_factory.mktemp("video") / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for index in range(40):
            planes = np.full((96, 128), 128, np.uint8)
            planes[:64] = brightness(index)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def drive(video: Path) -> Drive:
    return open_drive(video, Overrides(view="model"))


def run(drive: Drive, out: Path, command: Command | None = None, **settings: Any) -> ReplayResult:
    return replay(
        drive, command or daemon(), out / "segment", out / "daemon.log", Settings(**settings)
    )


def kinds(log: Path) -> list[str]:
    return [event.which() for event in LogReader(log)]


def test_every_frame_is_answered_in_order(drive: Drive, tmp_path: Path) -> None:
    done: list[int] = []
    result = replay(drive, daemon(), tmp_path / "segment", tmp_path / "log", on_frame=done.append)
    assert (result.frames, result.lost, result.restarts) == (40, [], [])
    assert done == list(range(40))
    records = read_records(result.log)
    assert [record.frame_id for record in records] == done
    for record in records:
        assert record.plan is not None and record.plan.frame_id == record.frame_id
        assert record.plan.curvature == pytest.approx(record.frame_id * 1e-4)
        # What the daemon saw and heard: the speed, and this very picture.
        assert record.plan.lane_probabilities[0] == pytest.approx(0.2)
        seen = record.plan.lane_probabilities[1] * 255
        assert seen == pytest.approx(brightness(record.frame_id), abs=1e-3)
        assert record.plan.valid
    assert not (tmp_path / "segment" / "rlog.lock").exists()


def test_log_has_the_form_of_a_segment(drive: Drive, tmp_path: Path) -> None:
    result = run(drive, tmp_path, start=4, count=6)
    events = list(LogReader(result.log))
    names = [event.which() for event in events]
    assert names[:2] == ["initData", "sentinel"] and names[-1] == "sentinel"
    assert events[1].sentinel.type == "startOfRoute"
    assert events[-1].sentinel.type == "endOfRoute"
    indices = [e.narrowRoadEncodeIdx for e in events if e.which() == "narrowRoadEncodeIdx"]
    assert [(i.frameId, i.segmentId) for i in indices] == [(4 + n, n) for n in range(6)]
    for name in OUTPUTS:
        frames = [getattr(e, name).frameId for e in events if e.which() == name]
        assert frames == list(range(4, 10))
    # Every frame: inputs, encoder, then answers in the order in which a daemon sends them.
    for first, second in pairwise([i for i, n in enumerate(names) if n == "narrowRoadEncodeIdx"]):
        assert tuple(names[first + 1 : first + 4]) == OUTPUTS
        assert not set(names[first + 4 : second]) & set(OUTPUTS)
    state = next(e.narrowRoadCameraState for e in events if e.which() == "narrowRoadCameraState")
    assert (state.frameId, state.timestampSof) == (4, EPOCH_NS + 4 * 50_000_000)


def test_two_replays_differ_in_execution_time_only(drive: Drive, tmp_path: Path) -> None:
    logs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        result = run(drive, tmp_path / name)
        events = []
        for event in LogReader(result.log):
            if event.which() == "initData":
                continue
            builder = event.as_builder()
            if event.which() == "modelV2":
                builder.modelV2.modelExecutionTime = 0
            events.append(builder.to_bytes())
        logs.append(events)
    assert logs[0] == logs[1]


def test_daemon_killed_in_the_middle_is_replaced(drive: Drive, tmp_path: Path) -> None:
    result = run(drive, tmp_path, daemon("--die-at", "17", str(tmp_path / "flag")))
    assert result.lost == [17]
    assert result.restarts == [
        "The daemon was killed by SIGKILL at frame 17 and was started again."
    ]
    records = read_records(result.log)
    assert [r.frame_id for r in records if r.plan is None] == [17]
    # The new daemon has the newest inputs again: its plans count as valid at once.
    after = records[18].plan
    assert after is not None and after.valid
    assert after.lane_probabilities[0] == pytest.approx(0.2)
    summary = summarize(records, result)
    assert (summary.frames, summary.dropped, summary.restarts) == (40, 1, 1)
    assert summary.verdict.startswith("1 of 40 frames was not answered")
    assert not summary.good
    reader = LogReader(result.log)
    assert len(list(reader)) > 40 * 7 and reader.problem is None


def test_daemon_that_keeps_dying_ends_the_replay(drive: Drive, tmp_path: Path) -> None:
    command = daemon("--die-at", "3", "/nonexistent/flag")
    with pytest.raises(ReplayError, match=r"frame 5, after 2 restarts") as caught:
        run(drive, tmp_path, command, max_restarts=2)
    assert not caught.value.at_start
    reader = LogReader(tmp_path / "segment" / "rlog.zst")
    names = [event.which() for event in reader]
    assert reader.problem is None
    assert names[-1] == "sentinel" and names.count("modelV2") == 3


def test_daemon_that_cannot_start_is_quoted(drive: Drive, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"^fake daemon: the artifact is damaged\.$") as caught:
        run(drive, tmp_path, daemon("--fail"))
    assert caught.value.at_start


def test_silent_daemon_is_named(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "ANSWER_TIMEOUT_S", 1.0)
    with pytest.raises(ReplayError, match=r"has not sent .*modelV2 for frame 5"):
        run(drive, tmp_path, daemon("--silent-at", "5"))


def test_daemon_that_never_listens_is_named(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "START_TIMEOUT_S", 1.0)
    idle = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ReplayError, match="does not listen to NARROW_ROAD, carControl"):
        run(drive, tmp_path, lambda _: idle)


def test_interrupt_closes_the_log_and_ends_the_daemon(drive: Drive, tmp_path: Path) -> None:
    def interrupt(frame_id: int) -> None:
        if frame_id == 10:
            raise KeyboardInterrupt

    segment, output = tmp_path / "segment", tmp_path / "daemon.log"
    with pytest.raises(KeyboardInterrupt):
        replay(drive, daemon(), segment, output, on_frame=interrupt)
    pid = int(output.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    last = list(LogReader(segment / "rlog.zst"))[-1]
    assert last.sentinel.type == "endOfRoute" and last.sentinel.signal == signal.SIGINT


def test_real_time_replay_goes_on_over_a_death(drive: Drive, tmp_path: Path) -> None:
    command = daemon("--die-at", "8", str(tmp_path / "flag"))
    result = run(drive, tmp_path, command, realtime=True)
    assert result.frames == 40
    assert len(result.restarts) == 1 and "SIGKILL" in result.restarts[0]
    assert 8 in result.lost
    records = read_records(result.log)
    assert [record.frame_id for record in records] == list(range(40))
    assert [r.frame_id for r in records if r.plan is None] == result.lost


def log_file(path: Path) -> None:
    """Speed n / 10 m/s, 5 ms before frame n; frame 0 was taken at 7 s; calibrated at frame 2.5."""
    with LogWriter(path) as writer:
        for index in range(40):
            taken = 7_000_000_000 + index * 50_000_000
            encode = new_message("narrowRoadEncodeIdx", valid=True)
            encode.logMonoTime = taken + 90_000_000
            encode.narrowRoadEncodeIdx.segmentId = index
            encode.narrowRoadEncodeIdx.frameId = 1000 + index
            encode.narrowRoadEncodeIdx.timestampSof = taken
            writer.write(encode)
            car = new_message("carState", valid=True)
            car.logMonoTime = taken - 5_000_000
            car.carState.vEgo = index / 10
            writer.write(car)
            if index in (2, 20):
                extrinsics = new_message("extrinsicsCalibration", valid=True)
                extrinsics.logMonoTime = taken + 25_000_000
                extrinsics.extrinsicsCalibration.rpyCalib = [0.0, index / 1000, 0.0]
                extrinsics.extrinsicsCalibration.height = [1.5]
                writer.write(extrinsics)


def logged_drive(tmp_path: Path, video: Path) -> Path:
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / "video.mkv").symlink_to(video)
    log_file(folder / "rlog.zst")
    (folder / "drive.toml").write_text(
        'video = "video.mkv"\nlog = "rlog.zst"\nview = "camera"\n'
        "[camera]\nfocal_length_px = 100\ncenter_px = [64, 32]\n"
    )
    return folder


def test_logged_messages_keep_their_place_among_the_frames(tmp_path: Path, video: Path) -> None:
    drive = open_drive(logged_drive(tmp_path, video))
    result = run(drive, tmp_path)
    records = read_records(result.log)
    assert not any("speed" in note for note in result.notes)
    for record in records:
        assert record.speed == pytest.approx(record.frame_id / 10)
        assert record.plan is not None
        assert record.plan.lane_probabilities[0] == pytest.approx(record.frame_id / 1000)
        # The first calibration counts from the beginning, the second from its time on.
        assert record.calibration is not None
        pitch = 0.002 if record.frame_id <= 20 else 0.02
        assert record.calibration.rpy_rad == pytest.approx((0.0, pitch, 0.0))
        assert record.calibration.height_m == 1.5


def test_replay_from_the_middle_starts_with_what_was_known(tmp_path: Path, video: Path) -> None:
    drive = open_drive(logged_drive(tmp_path, video))
    result = run(drive, tmp_path, start=30, count=3)
    assert kinds(result.log).count("carState") == 3
    records = read_records(result.log)
    assert [record.speed for record in records] == pytest.approx([3.0, 3.1, 3.2])
    assert records[0].calibration is not None
    assert records[0].calibration.rpy_rad == pytest.approx((0.0, 0.02, 0.0))


def test_calibration_of_the_command_line_replaces_the_logged_one(
    tmp_path: Path, video: Path
) -> None:
    overrides = Overrides(rpy_rad=(0.0, 0.0, 0.5), height_m=2.0)
    drive = open_drive(logged_drive(tmp_path, video), overrides)
    records = read_records(run(drive, tmp_path, count=10).log)
    assert all(
        record.calibration is not None and record.calibration.rpy_rad[2] == pytest.approx(0.5)
        for record in records
    )


def test_drive_without_calibration_gives_plans_that_are_not_valid(
    tmp_path: Path, video: Path
) -> None:
    drive = open_drive(video, Overrides(focal_length_px=100.0, center_px=(64.0, 32.0)))
    result = run(drive, tmp_path, daemon(), count=5)
    summary = summarize(read_records(result.log), result)
    assert (summary.answered, summary.valid) == (5, 0)
    assert summary.verdict == "Every frame was answered, but no plan counts as valid."
    assert any("no calibration" in note for note in result.notes)
    assert "extrinsicsCalibration" not in kinds(result.log)
