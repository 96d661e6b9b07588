"""dmonitoringmodeld on a real bus: with a fake model in this process, and as a command."""
from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynn
from compiled_models.standin import build
from messaging import Bus, FrameGeometry, FrameServer, PubMaster, Stream, SubMaster, new_message
from modeld import dmonitoring
from modeld.cameras import CABIN
from modeld.daemon import Options
from modeld.dmonitoring import DriverDaemon
from modeld.driver_state import Monitor
from modeld.status import RUNNING, STOPPED, WAITING, read_status, status_path
from modeld.tests.ort_runner import OnnxRunner
from modeld.tests.test_driver_state import picture, runner

SIZE = (1344, 760)
TIMEOUT_S = 60.0


def luma(frame_id: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(frame_id).integers(0, 256, size[::-1], np.uint8)


class Rig:
    """The daemon, a cabin camera, a calibration and a listener."""

    def __init__(self, bus: Bus, lockstep: bool = True, size: tuple[int, int] = SIZE) -> None:
        self.bus, self.size = bus, size
        self.runner = runner()
        self.camera = FrameServer(Stream.CABIN, FrameGeometry.padded(*size), bus=bus)
        self.inputs = PubMaster(["extrinsicsCalibration"], bus=bus)
        self.outputs = SubMaster(["driverStateV2"], bus=bus, conflate=False)
        self.daemon = DriverDaemon(Monitor(self.runner), bus, Options(lockstep))
        assert self.inputs.wait_for_subscribers(timeout=TIMEOUT_S)
        assert self.daemon.wait_for_subscribers(TIMEOUT_S)
        assert self.camera.wait_for_readers(TIMEOUT_S)
        self.barrier: dict[str, int] = {}

    def calibrate(self, *rpy: float) -> None:
        message = new_message("extrinsicsCalibration", valid=True)
        message.extrinsicsCalibration.rpyCalib = rpy
        self.barrier["extrinsicsCalibration"] = message.logMonoTime
        self.inputs.send("extrinsicsCalibration", message)

    def publish(self, frame_id: int, **more: Any) -> None:
        sof = 1_000_000_000 + 50_000_000 * frame_id
        chroma = np.zeros((self.size[1] // 2, self.size[0] // 2, 2), np.uint8)
        self.camera.publish(luma(frame_id, self.size), frame_id, sof, sof + 15_000_000,
                            chroma=chroma, **more)

    def step(self, frame_id: int, **more: Any) -> SubMaster:
        before = self.outputs.logMonoTime["driverStateV2"]
        self.publish(frame_id, barrier=self.barrier, **more)
        step_until(self.daemon.step)
        assert self.outputs.wait_for({"driverStateV2": before + 1}, TIMEOUT_S)
        return self.outputs

    def close(self) -> None:
        for part in (self.daemon, self.inputs, self.outputs, self.camera):
            part.close()


def step_until(step: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not step():
        assert time.monotonic() < deadline, "the daemon did not see the frame"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    yield bus
    bus.remove()


@pytest.fixture
def rig(bus: Bus) -> Iterator[Rig]:
    rig = Rig(bus)
    yield rig
    rig.close()


def test_frames_become_driver_states(rig: Rig) -> None:
    out = rig.step(0)
    assert out.valid["driverStateV2"]  # also before the first calibration
    assert not rig.runner.seen[0]["calib"].any()
    rig.calibrate(0.0, 0.02, -0.01)
    out = rig.step(1)
    state = out["driverStateV2"]
    assert (state.frameId, out.valid["driverStateV2"]) == (1, True)
    assert 0 < state.gpuExecutionTime <= state.modelExecutionTime
    assert state.rawPredictions == b""
    np.testing.assert_allclose(rig.runner.seen[1]["calib"], [[0.0, 0.02, -0.01]])
    seen = rig.runner.seen[1]["input_img"].reshape(960, 1440)
    assert seen[4, 8] == luma(1)[116, 138]  # 0.75 * (8, 4) + (132, 113)
    vector = rig.runner(rig.runner.seen[1])["outputs"][0]
    assert list(state.leftDriverData.faceOrientation) == vector[:3].tolist()
    assert list(state.rightDriverData.facePosition) == vector[22:24].tolist()
    assert state.wheelOnRightProb == pytest.approx(1 / (1 + np.exp(-vector[38])), rel=1e-5)


def test_a_frame_the_camera_does_not_vouch_for(rig: Rig) -> None:
    assert not rig.step(0, valid=False).valid["driverStateV2"]
    assert rig.step(1).valid["driverStateV2"]


def test_a_damaged_calibration_counts_as_none(rig: Rig) -> None:
    rig.calibrate(0.1, float("nan"), 0.1)
    rig.step(0)
    assert not rig.runner.seen[0]["calib"].any()


def test_a_camera_of_unknown_size(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(bus, size=(640, 480))
    try:
        assert not rig.step(0).valid["driverStateV2"]
        assert "No intrinsics are known for a cabin camera of 640 x 480" in caplog.text
    finally:
        rig.close()


def test_two_runs_are_equal() -> None:
    def run() -> list[bytes]:
        bus = Bus.fresh()
        rig = Rig(bus)
        results = []
        for frame_id in range(5):
            rig.calibrate(0.0, 0.01 * frame_id, 0.0)
            copy = rig.step(frame_id)["driverStateV2"].as_builder()
            copy.modelExecutionTime = copy.gpuExecutionTime = 0
            results.append(copy.to_bytes())
        rig.close()
        bus.remove()
        return results
    assert run() == run()


def test_status_and_a_camera_that_is_not_there(
    bus: Bus, caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        daemon = DriverDaemon(Monitor(runner()), bus)
        path = status_path(bus, "dmonitoringmodeld")
        assert not daemon.step()
        assert not daemon.step()
        assert read_status(path).state == WAITING
        assert caplog.text.count("Waiting for a camera: no frames from CABIN") == 1
        daemon.close()
    assert read_status(path).state == STOPPED


def test_status_while_running(rig: Rig) -> None:
    rig.step(3)
    written = read_status(status_path(rig.bus, "dmonitoringmodeld"))
    assert (written.state, written.frames, written.frame_id, written.valid) == (RUNNING, 1, 3, True)


def test_command_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    (tmp_path / "bad.tnn").write_bytes(b"not an artifact")
    try:
        assert dmonitoring.main(["--model", str(tmp_path / "bad.tnn")]) == 2
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    error = capsys.readouterr().err
    assert error.startswith("dmonitoringmodeld: ")
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_compiled_model_as_a_command(tmp_path: Path, bus: Bus) -> None:
    """The stand-in model, compiled, in a process of its own; onnxruntime is the referee."""
    artifact = tmp_path / "dmonitoring.tnn"
    tinynn.compile(build("dmonitoring")).save(artifact)
    referee = Monitor(OnnxRunner("dmonitoring"), send_raw=True)
    camera = FrameServer(Stream.CABIN, FrameGeometry.padded(*SIZE), bus=bus)
    outputs = SubMaster(["driverStateV2"], bus=bus, conflate=False)
    command = [sys.executable, "-m", "modeld.dmonitoring", "--model", str(artifact), "--lockstep",
               "--namespace", bus.namespace, "--send-raw-predictions", "--frames", "3"]
    process = subprocess.Popen(command)
    try:
        assert camera.wait_for_readers(TIMEOUT_S)
        for frame_id in range(3):
            frame = picture(frame_id, SIZE[::-1])
            before = outputs.logMonoTime["driverStateV2"]
            camera.publish(frame.luma, frame_id, frame.timestamp_sof, frame.timestamp_eof,
                           chroma=frame.chroma)
            assert outputs.wait_for({"driverStateV2": before + 1}, TIMEOUT_S)
            assert outputs.valid["driverStateV2"]
            assert outputs["driverStateV2"].frameId == frame_id
            expected, _ = referee.step(frame, CABIN[1344].intrinsics, None)
            ours, theirs = (np.frombuffer(raw, np.float32) for raw in (
                outputs["driverStateV2"].rawPredictions, expected["rawPredictions"]))
            assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
        assert process.wait(TIMEOUT_S) == 0
        assert read_status(status_path(bus, "dmonitoringmodeld")).state == STOPPED
    finally:
        process.kill()
        process.wait()
        outputs.close()
        camera.close()
