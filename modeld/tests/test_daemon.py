"""The daemon on a real bus with real frame streams and a fake model, all in this process."""
from __future__ import annotations

import logging
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from messaging import Bus, PubMaster, Stream, SubMaster, new_message, to_bytes
from modeld import daemon
from modeld.cameras import MEDMODEL, SBIGMODEL, Intrinsics
from modeld.daemon import DEFAULT_DELAYS, INPUTS, OUTPUTS, Daemon, Options, read_car
from modeld.model_state import DrivingModel
from modeld.params import CarDelays
from modeld.planner import Planner
from modeld.source import CameraSource, Picture, SourceFrame
from modeld.status import RUNNING, STOPPED, read_status, status_path
from modeld.tests import fakes
from modeld.warp import Warp, prepare_warp, warp_matrix
from modeld.watch import OVERWRITTEN

SIZE = (320, 200)
INTRINSICS = {Stream.NARROW_ROAD: (400.0, 160.0, 100.0), Stream.WIDE_ROAD: (100.0, 160.0, 100.0)}
TIMEOUT_S = 30.0


def frame(frame_id: int, streams: list[Stream]) -> SourceFrame:
    start = 1_000_000_000 + 50_000_000 * frame_id
    pictures = {}
    for stream in streams:
        rng = np.random.default_rng(10 * frame_id + stream)
        pictures[stream] = Picture(rng.integers(0, 256, SIZE[::-1], np.uint8),
                                   rng.integers(0, 256, (100, 160, 2), np.uint8))
    return SourceFrame(frame_id, start, start + 15_000_000, pictures)


class Rig:
    """A daemon and everything it talks to. Use it as the replay does: inputs, frame, outputs."""

    def __init__(self, bus: Bus, streams: list[Stream], runner: fakes.FakeRunner | None = None,
                 lockstep: bool = True, intrinsics: bool = True,
                 car: CarDelays = DEFAULT_DELAYS) -> None:
        self.streams = streams
        self.runner = runner or fakes.supercombo()
        self.source = CameraSource(bus, dict.fromkeys(streams, SIZE),
                                   INTRINSICS if intrinsics else None)
        cameras = {f"{name}CameraState" for name in ("narrowRoad", "wideRoad")}
        self.inputs = PubMaster([name for name in INPUTS if name not in cameras], bus=bus)
        self.outputs = SubMaster(OUTPUTS, bus=bus, conflate=False)
        self.planner = Planner(DrivingModel(self.runner))
        self.daemon = Daemon(self.planner, bus, Options(lockstep, car))
        self.outputs.update(0)  # a reader of msgq comes to a new publisher when it looks
        assert self.inputs.wait_for_subscribers(timeout=TIMEOUT_S)
        assert self.daemon.wait_for_subscribers(TIMEOUT_S)
        assert self.source.wait_for_readers(TIMEOUT_S)
        self.barrier: dict[str, int] = {}
        self._parts = ExitStack()
        for part in (self.inputs, self.outputs, self.source, self.daemon):
            self._parts.callback(part.close)

    def send(self, service: str, **fields: Any) -> None:
        message = new_message(service, valid=True)
        getattr(message, service).from_dict(fields)
        self.barrier[service] = message.logMonoTime
        self.inputs.send(service, message)

    def step(self, frame_id: int) -> SubMaster:
        """One frame through the daemon; its messages."""
        before = dict(self.outputs.logMonoTime)
        self.source.publish(frame(frame_id, self.streams), self.barrier)
        step_until(self.daemon)
        assert self.outputs.wait_for({name: before[name] + 1 for name in OUTPUTS}, TIMEOUT_S)
        return self.outputs

    def close(self) -> None:
        self._parts.close()


def step_until(subject: Daemon) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not subject.step():
        assert time.monotonic() < deadline, "the daemon did not see the frame"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    yield bus
    bus.remove()


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(bus: Bus) -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(*streams: Stream, **options: Any) -> Rig:
        rigs.append(Rig(bus, list(streams), **options))
        return rigs[-1]
    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(Stream.NARROW_ROAD, Stream.WIDE_ROAD)


def test_frames_become_plans(rig: Rig) -> None:
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.02, -0.01])
    rig.send("carState", vEgo=20.0)
    rig.send("lateralDelay", lateralDelay=0.25)
    rig.send("carParams", longitudinalActuatorDelay=0.35)
    for frame_id in range(3):
        out = rig.step(frame_id)
        assert out["modelV2"].frameId == out["drivingModelData"].frameId == frame_id
        assert out["modelV2"].frameIdExtra == out["cameraOdometry"].frameId == frame_id
        assert all(out.valid[name] for name in OUTPUTS)
        assert out["modelV2"].frameAge == 0
    assert len(out["modelV2"].laneLines[3].y) == 33
    assert out["modelV2"].modelExecutionTime > 0
    assert out["modelV2"].timestampEof == 1_000_000_000 + 2 * 50_000_000 + 15_000_000
    seen = rig.runner.seen[2]
    np.testing.assert_allclose(seen["action_t"], [[0.325, 0.725]], rtol=1e-6)
    # The two views come from the two cameras.
    assert not np.array_equal(seen["img"][0, 6:], seen["big_img"][0, 6:])


def test_not_valid_before_calibration(rig: Rig) -> None:
    out = rig.step(0)
    assert not any(out.valid[name] for name in OUTPUTS)
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0])  # damaged: two angles
    assert not rig.step(1).valid["modelV2"]
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, float("nan"), 0.0])
    assert not rig.step(2).valid["modelV2"]
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    assert rig.step(3).valid["modelV2"]


def test_dropped_frames_are_counted(rig: Rig) -> None:
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    for frame_id in (0, 1, 4):
        out = rig.step(frame_id)
    assert out.valid["modelV2"]
    assert not out.valid["cameraOdometry"]
    assert rig.planner.counters.dropped == 2


def test_a_picture_that_is_overwritten_while_it_is_warped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    rig.step(0)
    pack = Warp.pack
    taken = frame(99, rig.streams).pictures[Stream.WIDE_ROAD]

    def held_up(warp: Warp, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
        """In the middle of the picture the camera has come round to its buffer."""
        monkeypatch.undo()
        wide = rig.source.servers[Stream.WIDE_ROAD]
        ring = wide._ring  # type: ignore[attr-defined]
        with ring.writing(1 + ring.description.slots) as buffer:
            wide.geometry.fill(buffer, taken.luma, taken.chroma)
        return pack(warp, luma, chroma)

    monkeypatch.setattr(Warp, "pack", held_up)
    rig.source.publish(frame(1, rig.streams), rig.barrier)
    assert not rig.daemon.step()
    assert "Frame 1 was overwritten by the camera" in caplog.text
    assert len(rig.runner.seen) == 1  # the model never saw it
    out = rig.step(2)
    assert out["modelV2"].frameId == 2 and out.valid["modelV2"]
    assert not out.valid["cameraOdometry"]
    assert (rig.planner.counters.frames, rig.planner.counters.dropped) == (2, 1)
    assert rig.planner.counters.faults == {OVERWRITTEN: 1}


def test_two_runs_are_equal(make_rig: MakeRig) -> None:
    def run() -> list[bytes]:
        rig = make_rig(Stream.NARROW_ROAD, Stream.WIDE_ROAD)
        results = []
        for frame_id in range(6):
            rig.send("carState", vEgo=10.0 + frame_id)
            rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.001 * frame_id, 0.0])
            rig.step(frame_id)
            for name in OUTPUTS:
                copy = rig.outputs[name].as_builder()
                if name != "cameraOdometry":
                    copy.modelExecutionTime = 0
                results.append(copy.to_bytes())
        rig.close()
        return results
    assert run() == run()


@pytest.mark.parametrize(("stream", "focal"), [
    (Stream.NARROW_ROAD, 400.0), (Stream.WIDE_ROAD, 100.0)])
def test_one_camera_serves_both_views(
    make_rig: MakeRig, stream: Stream, focal: float,
) -> None:
    rig = make_rig(stream)
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    out = rig.step(5)
    assert out.valid["modelV2"]
    assert out["modelV2"].frameId == out["modelV2"].frameIdExtra == 5
    taken = frame(5, [stream]).pictures[stream]
    camera = Intrinsics(focal, 160.0, 100.0)
    for name, model in (("img", MEDMODEL), ("big_img", SBIGMODEL)):
        warp = prepare_warp(warp_matrix((0, 0, 0), camera, model), 200, 320)
        np.testing.assert_array_equal(
            rig.runner.seen[0][name][0, 6:], warp.pack(taken.luma, taken.chroma))


def test_intrinsics_of_the_device(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture,
) -> None:
    rig = make_rig(Stream.NARROW_ROAD, intrinsics=False)
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    assert not rig.step(0).valid["modelV2"]  # nothing is known of the camera
    rig.send("deviceState", deviceType="mici")
    assert not rig.step(1).valid["modelV2"]
    assert "device 'mici' with sensor 'unknown'" in caplog.text
    rig.send("deviceState", deviceType="pc")
    assert rig.step(2).valid["modelV2"]
    assert "Frames of NARROW_ROAD are 320 x 200" in caplog.text


def test_lockstep_waits_for_the_barrier(make_rig: MakeRig) -> None:
    rig = make_rig(Stream.NARROW_ROAD)
    late = new_message("extrinsicsCalibration", valid=True)
    late.extrinsicsCalibration.rpyCalib = [0.0, 0.0, 0.0]
    rig.barrier["extrinsicsCalibration"] = late.logMonoTime
    rig.source.publish(frame(0, rig.streams), rig.barrier)
    worker = Thread(target=step_until, args=(rig.daemon,))
    worker.start()
    rig.inputs.send("extrinsicsCalibration", late)
    worker.join(TIMEOUT_S)
    assert rig.outputs.wait_for(dict.fromkeys(OUTPUTS, 1), TIMEOUT_S)
    assert rig.outputs.valid["modelV2"]


def test_missing_messages_do_not_stop_the_daemon(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(daemon, "BARRIER_TIMEOUT_S", 0.05)
    rig = make_rig(Stream.NARROW_ROAD)
    rig.barrier["carState"] = 2**62
    assert rig.step(0)["modelV2"].frameId == 0
    assert "did not come within" in caplog.text
    assert "carState" in caplog.text


def test_waits_for_a_camera_and_says_so_once(
    bus: Bus, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest,
) -> None:
    subject = Daemon(Planner(DrivingModel(fakes.supercombo())), bus)
    request.addfinalizer(subject.close)
    assert not subject.step()
    assert not subject.step()
    waiting = [r.message for r in caplog.records if "Waiting for a camera" in r.message]
    assert len(waiting) == 1
    assert f"on bus '{bus.namespace}'" in waiting[0]
    source = CameraSource(bus, {Stream.NARROW_ROAD: SIZE})
    request.addfinalizer(source.close)
    assert source.wait_for_readers(TIMEOUT_S)
    source.publish(frame(0, [Stream.NARROW_ROAD]))
    step_until(subject)


def test_cameras_that_are_started_again(
    bus: Bus, make_rig: MakeRig, request: pytest.FixtureRequest,
) -> None:
    rig = make_rig(Stream.NARROW_ROAD)
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    rig.step(40)
    rig.source.close()
    rig.source = CameraSource(bus, {Stream.NARROW_ROAD: SIZE}, INTRINSICS)
    request.addfinalizer(rig.source.close)
    deadline = time.monotonic() + TIMEOUT_S
    while not rig.source.wait_for_readers(0.01):  # a reader comes back while it looks for us
        assert time.monotonic() < deadline
        rig.daemon.step()
    out = rig.step(0)
    assert out["modelV2"].frameId == 0
    assert out.valid["modelV2"]


@pytest.mark.parametrize("alive", [Stream.NARROW_ROAD, Stream.WIDE_ROAD])
def test_a_camera_that_dies_is_done_without(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture, alive: Stream,
) -> None:
    rig = make_rig(Stream.NARROW_ROAD, Stream.WIDE_ROAD, lockstep=False)
    caplog.set_level(logging.INFO)
    rig.step(0)
    stop = Event()
    worker = Thread(target=rig.daemon.run, args=(stop, 1))
    worker.start()
    for frame_id in range(1, 1000):
        taken = frame(frame_id, [alive])
        rig.source.servers[alive].publish(
            taken.pictures[alive].luma, frame_id, taken.timestamp_sof, taken.timestamp_eof,
            chroma=taken.pictures[alive].chroma)
        worker.join(0.05)
        if not worker.is_alive():
            break
    stop.set()
    worker.join(TIMEOUT_S)
    assert rig.planner.counters.frames == 2
    assert [r.message for r in caplog.records if r.message.startswith("cameras:")] == [
        "cameras: main NARROW_ROAD, extra WIDE_ROAD", f"cameras: main {alive.name}"]


def test_messages_that_cannot_be_do_no_harm(rig: Rig) -> None:
    """Each is sound as a message; what it says is none of what it may say."""
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    rig.send("deviceState", deviceType=77)  # newer than our schema
    for number, speed in enumerate((float("nan"), float("inf"), -5.0)):
        rig.send("carState", vEgo=speed)
        out = rig.step(number)
        assert out.valid["modelV2"]
        assert math.isfinite(out["modelV2"].action.desiredCurvature)
        assert read_car(rig.daemon._sm, "narrowRoadCameraState").driver.v_ego == 0
    message = new_message("extrinsicsCalibration", valid=True)
    message.extrinsicsCalibration.rpyCalib = [0.0, 0.0, 0.0]
    data = bytearray(to_bytes(message))
    data[92] &= ~7  # the list is one of elements without bits now
    rig.inputs.send("extrinsicsCalibration", data)
    rig.barrier["extrinsicsCalibration"] = message.logMonoTime
    assert not rig.step(3).valid["modelV2"]


def test_mutated_messages_do_no_harm(bus: Bus) -> None:
    rng = random.Random(2)
    samples = {name: to_bytes(new_message(name, valid=True)) for name in INPUTS}
    taken = 0
    with SubMaster(INPUTS, bus=bus) as sm:
        for _ in range(10_000):
            name = rng.choice(INPUTS)
            data = bytearray(samples[name])
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            before = sm.malformed[name]
            sm._take(name, bytes(data))
            taken += sm.malformed[name] == before
            car = read_car(sm, "narrowRoadCameraState")
            assert math.isfinite(car.lateral_delay) and math.isfinite(car.driver.v_ego)
    assert taken > 1000


def test_announced_delays_that_cannot_be(rig: Rig) -> None:
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    rig.send("carParams", steerActuatorDelay=-1.0, longitudinalActuatorDelay=float("inf"))
    rig.send("lateralDelay", lateralDelay=float("nan"))
    rig.step(0)
    expected = [[0.1 + 0.2 + 0.075, 0.15 + 0.3 + 0.075]]
    np.testing.assert_allclose(rig.runner.seen[0]["action_t"], expected, rtol=1e-6)


def test_delays_of_a_params_directory_until_carparams_is_seen(
    bus: Bus, make_rig: MakeRig,
) -> None:
    rig = make_rig(Stream.NARROW_ROAD, car=CarDelays(0.4, 0.6))
    rig.step(0)
    rig.send("carParams", steerActuatorDelay=0.2, longitudinalActuatorDelay=0.3)
    rig.step(1)
    expected = [[[0.4 + 0.2 + 0.075, 0.6 + 0.3 + 0.075]], [[0.2 + 0.2 + 0.075, 0.3 + 0.3 + 0.075]]]
    np.testing.assert_allclose([seen["action_t"] for seen in rig.runner.seen], expected, rtol=1e-6)


def test_limits_of_the_calibration_are_those_of_the_device(rig: Rig) -> None:
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.2, 0.0])
    assert not rig.step(0).valid["modelV2"]
    rig.send("deviceState", deviceType="mici")
    assert rig.step(1).valid["modelV2"]


def test_standing_is_what_carstate_says(rig: Rig) -> None:
    """A picture that stays the same is a fault, unless the car is known to stand."""
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])

    def still(frame_id: int) -> bool:
        still = frame(0, rig.streams)
        before = dict(rig.outputs.logMonoTime)
        sof = 1_000_000_000 + 50_000_000 * frame_id
        rig.source.publish(replace(still, frame_id=frame_id, timestamp_sof=sof, timestamp_eof=sof),
                           rig.barrier)
        step_until(rig.daemon)
        assert rig.outputs.wait_for({name: before[name] + 1 for name in OUTPUTS}, TIMEOUT_S)
        return rig.outputs.valid["modelV2"]

    assert [still(i) for i in range(11)] == [True] * 9 + [False] * 2  # carState never seen
    rig.send("carState", vEgo=0.0)
    assert still(11)
    rig.send("carState", vEgo=5.0)
    assert not still(12)


def test_on_openpilots_own_bus(request: pytest.FixtureRequest) -> None:
    """Messages in msgq rings, frames from VisionIPC; no intrinsics and no barriers there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    request.addfinalizer(lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before))
    msgq = Bus.msgq(f"test-{os.getpid()}")
    request.addfinalizer(msgq.remove)
    rig = Rig(msgq, [Stream.NARROW_ROAD, Stream.WIDE_ROAD], lockstep=False)
    request.addfinalizer(rig.close)
    rig.send("deviceState", deviceType="pc")
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    for frame_id in range(3):
        out = rig.step(frame_id)
        assert out["modelV2"].frameId == out["modelV2"].frameIdExtra == frame_id
    assert out.valid["modelV2"]
    seen = rig.runner.seen[2]
    assert not np.array_equal(seen["img"][0, 6:], seen["big_img"][0, 6:])
    assert read_status(status_path(msgq, "modeld")).state == RUNNING


def test_status(rig: Rig, bus: Bus) -> None:
    path = status_path(bus, "modeld")
    rig.step(4)
    written = read_status(path)
    assert (written.state, written.frames, written.frame_id) == (RUNNING, 1, 4)
    assert not written.valid
    assert written.faults == {"not calibrated": 1}
    rig.send("extrinsicsCalibration", rpyCalib=[0.0, 0.0, 0.0])
    rig.step(5)
    rig.close()
    written = read_status(path)
    assert (written.state, written.frames, written.frame_id) == (STOPPED, 2, 5)
    assert written.valid


def test_signals_end_the_loop(rig: Rig) -> None:
    stop = Event()
    stop.set()
    rig.daemon.run(stop)
    assert rig.planner.counters.frames == 0
