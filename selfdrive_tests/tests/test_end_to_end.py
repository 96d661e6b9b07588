"""The whole program: a model is compiled, a rendered road goes through the real daemon.

The model is the trained one. onnxruntime is the referee of the numbers that come out.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tinynn
from drivesim import render_drive
from messaging import LogReader
from modeld.cameras import MEDMODEL, SBIGMODEL, Intrinsics
from modeld.warp import prepare_warp, warp_matrix
from selfdrive_tests.__main__ import main as drive_replay
from selfdrive_tests.drives import Drive, Overrides, open_drive
from selfdrive_tests.process import DaemonProcess, modeld_command
from selfdrive_tests.replay import ReplayResult, Settings, replay

OUTPUTS = ("modelV2", "drivingModelData", "cameraOdometry")
FRAMES = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A home of its own for the list of trusted artifacts, also for the daemon's process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYDRIVE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = Path(__file__).resolve().parents[2] / "compiled_models/trained/driving_demo.onnx"
    return Path(shutil.copy(trained, tmp_path_factory.mktemp("onnx")))


@pytest.fixture(scope="module")
def artifact(home: None, onnx_file: Path) -> Path:
    path = onnx_file.with_suffix(".tnn")
    tinynn.compile(onnx_file).save(path)
    return path


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    render_drive(folder, seconds=FRAMES / 20, seed=3, width=320, height=200, progress=False)
    return folder


def run(drive: Drive, artifact: Path, out: Path, **settings: Any) -> ReplayResult:
    return replay(
        drive,
        lambda namespace: modeld_command(
            artifact, None, namespace, ["--lockstep", "--send-raw-predictions"]
        ),
        out / "segment",
        out / "modeld.log",
        Settings(**settings),
    )


def answers(result: ReplayResult, service: str) -> list[Any]:
    return [event for event in LogReader(result.log) if event.which() == service]


def without_times(log: Path) -> list[bytes]:
    """Every message with the only fields that may differ between two runs set to zero."""
    kept = []
    for event in LogReader(log):
        if event.which() in ("initData", "sentinel"):
            continue
        builder = event.as_builder()
        if event.which() in ("modelV2", "drivingModelData"):
            getattr(builder, event.which()).modelExecutionTime = 0
        kept.append(builder.to_bytes())
    return kept


def test_two_replays_give_identical_messages(road: Path, artifact: Path, tmp_path: Path) -> None:
    first, second = (run(open_drive(road, Overrides()), artifact, tmp_path / name) for name in "ab")
    assert (first.frames, first.lost, first.restarts) == (FRAMES, [], [])
    for service in OUTPUTS:
        assert [getattr(e, service).frameId for e in answers(first, service)] == list(range(FRAMES))
        assert all(event.valid for event in answers(first, service))
    assert without_times(first.log) == without_times(second.log)


def test_predictions_are_those_of_onnxruntime(
    road: Path, artifact: Path, onnx_file: Path, tmp_path: Path
) -> None:
    """The same frames, warped and queued by a few lines here, through the original ONNX file."""
    drive = open_drive(road, Overrides())
    assert drive.calibration is not None
    result = run(drive, artifact, tmp_path, count=12)
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    camera = Intrinsics(drive.camera.focal_px, *drive.camera.center_px)
    rpy = drive.calibration.rpy_rad
    warps = [
        prepare_warp(warp_matrix(rpy, camera, model), drive.camera.height, drive.camera.width)
        for model in (MEDMODEL, SBIGMODEL)
    ]
    black = np.zeros((6, 128, 256), np.uint8)
    views: list[list[np.ndarray]] = [[black] * 4, [black] * 4]
    features = [np.zeros(512, np.float32)] * 97
    predictions = [
        np.frombuffer(event.modelV2.rawPredictions, np.float32)
        for event in answers(result, "modelV2")
    ]
    assert len(predictions) == 12
    for frame, predicted in zip(drive.frames(count=12), predictions, strict=True):
        for history, view in zip(views, warps, strict=True):
            history.append(view.pack(frame.narrow.luma, frame.narrow.chroma))
        (expected,) = session.run(
            None,
            {
                "img": np.concatenate([views[0][-5], views[0][-1]])[None],
                "big_img": np.concatenate([views[1][-5], views[1][-1]])[None],
                "desire_pulse": np.zeros((1, 25, 8), np.float32),
                "traffic_convention": np.array([[1, 0]], np.float32),
                "action_t": np.zeros((1, 2), np.float32),  # not read by this model
                # Every fourth of the past, newest from four frames ago; the graph adds the current.
                "features_buffer": np.stack(features[-96::4])[None],
            },
        )
        error = np.linalg.norm(predicted - expected[0]) / np.linalg.norm(expected[0])
        assert error < 1e-4
        features.append(expected[0, 1064:1576])


def test_modeld_killed_in_the_middle_is_restarted(
    road: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL after ten frames: at most the frames in between are lost, the log is whole."""
    started: list[DaemonProcess] = []
    start = DaemonProcess.start

    def remember(self: DaemonProcess) -> None:
        start(self)
        started.append(self)

    monkeypatch.setattr(DaemonProcess, "start", remember)

    def kill(frame_id: int) -> None:
        if frame_id == 10:
            pid = started[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    result = replay(
        open_drive(road, Overrides()),
        lambda namespace: modeld_command(artifact, None, namespace, ["--lockstep"]),
        tmp_path / "segment",
        tmp_path / "modeld.log",
        Settings(),
        on_frame=kill,
    )
    assert len(result.restarts) == 1 and "SIGKILL" in result.restarts[0]
    assert len(started) == 2
    assert len(result.lost) <= 2
    reader = LogReader(result.log)
    published = [e.modelV2.frameId for e in reader if e.which() == "modelV2"]
    assert reader.problem is None
    assert published == [i for i in range(FRAMES) if i not in result.lost]


def test_plans_of_an_uncalibrated_drive_are_not_valid(
    road: Path, artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "uncalibrated"
    folder.mkdir()
    shutil.copy(road / "video.mp4", folder)
    sidecar = (road / "drive.toml").read_text().replace('log = "rlog.zst"\n', "")
    (folder / "drive.toml").write_text(sidecar[: sidecar.index("[calibration]")])
    result = run(open_drive(folder, Overrides()), artifact, tmp_path, count=6)
    for service in OUTPUTS:
        assert [event.valid for event in answers(result, service)] == [False] * 6


def test_a_damaged_artifact_is_one_line_and_exit_code_2(
    road: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.tnn"
    cut.write_bytes(artifact.read_bytes()[:1_000_000])
    assert drive_replay([str(road), "--model", str(cut), "-o", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "cut.tnn" in message and "truncated" in message


def test_a_foreign_artifact_needs_trust(
    road: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYDRIVE_HOME", str(tmp_path))
    assert drive_replay([str(road), "--model", str(artifact), "-o", str(tmp_path / "out")]) == 2
    assert f"tinynn trust {artifact}" in capsys.readouterr().err


def test_what_two_artifacts_state_of_their_precision_is_checked(
    road: Path, artifact: Path, tmp_path: Path
) -> None:
    """The same artifact under another name: no difference, and both claims hold."""
    other = shutil.copy(artifact, tmp_path / "other.tnn")
    out = tmp_path / "out"
    arguments = [str(road), "--model", str(artifact), "--against", str(other), "-o", str(out)]
    assert drive_replay([*arguments, "--frames", "4", "--no-video"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"Stated precision of outputs holds: at most 0.0e+00 apart in {FRAMES} frames" in page


def test_two_drives_at_a_time_compared_with_the_same_artifact(
    road: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers, daemons, references and a page above: the whole way of a regression run."""
    drives = tmp_path / "drives"
    for name in ("one", "two"):
        shutil.copytree(road, drives / name)
    refs, out = tmp_path / "refs", tmp_path / "out"
    run_all = [str(drives), "--model", str(artifact), "--frames", "8", "--no-video", "--jobs", "2"]
    assert drive_replay([*run_all, "-o", str(out), "--update-refs", str(refs)]) == 0
    assert sorted(file.name for file in refs.iterdir()) == [
        "one.plans.jsonl.gz",
        "two.plans.jsonl.gz",
    ]
    exact = ["--refs", str(refs), "--tolerance", "all=exact"]
    assert drive_replay([*run_all, "-o", str(out), *exact]) == 0
    assert "All 2 segments are good." in capsys.readouterr().out
    # Another way of sampling the pictures is another input: that is a difference.
    other = ["-o", str(tmp_path / "other"), "--sampling", "bilinear"]
    assert drive_replay([*run_all, *other, *exact]) == 3
    text = (tmp_path / "other" / "report.html").read_text(encoding="utf-8")
    assert "Not all of 2 segments are good: 2 differing." in text
