"""Whole frames through the planner with a fake model: validity, drops, order of events."""
from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from modeld import cameras, watch
from modeld.desire_helper import Driver
from modeld.model_state import DrivingModel
from modeld.pairing import CameraFrame, OverwrittenError
from modeld.planner import CarInputs, Messages, Planner, Views
from modeld.tests import fakes
from modeld.warp import prepare_warp, warp_matrix

RPY = (0.0, 0.02, -0.01)
NARROW, WIDE = cameras.Intrinsics(400, 160, 100), cameras.Intrinsics(100, 160, 100)
VIEWS = Views(NARROW, WIDE)
CAR = CarInputs(driver=Driver(v_ego=20.0), rpy=RPY, lateral_delay=0.2, longitudinal_delay=0.1)


def picture(frame_id: int, seed: int = 0, valid: bool = True) -> CameraFrame:
    rng = np.random.default_rng(100 * seed + frame_id)
    return CameraFrame(rng.integers(0, 256, (200, 320), np.uint8),
                   rng.integers(0, 256, (100, 160, 2), np.uint8), frame_id, 50_000_000 * frame_id,
                   50_000_000 * frame_id + 15_000_000, valid)


@dataclass(frozen=True)
class Fleeting(CameraFrame):
    """A frame over which the camera writes while it is read."""

    def intact(self) -> bool:
        return False


def planner(runner: fakes.FakeRunner | None = None) -> Planner:
    return Planner(DrivingModel(runner or fakes.supercombo()))


def test_pictures_are_warped_by_the_calibration() -> None:
    runner = fakes.supercombo()
    main, extra = picture(0), picture(0, seed=1)
    planner(runner).step(main, extra, VIEWS, CAR)
    for name, frame, camera, model in (("img", main, NARROW, cameras.MEDMODEL),
                                       ("big_img", extra, WIDE, cameras.SBIGMODEL)):
        warp = prepare_warp(warp_matrix(RPY, camera, model), 200, 320)
        expected = warp.pack(frame.luma, frame.chroma)
        np.testing.assert_array_equal(runner.seen[0][name][0, 6:], expected)


@pytest.mark.parametrize("torn", ["main", "extra"])
def test_an_overwritten_frame_is_as_if_it_had_not_come(torn: str) -> None:
    def run(frame_ids: Iterable[int]) -> tuple[Planner, Messages]:
        subject = planner()
        for frame_id in frame_ids:
            frames = {"main": picture(frame_id), "extra": picture(frame_id, seed=1)}
            if frame_id == 2:
                frames[torn] = Fleeting(**vars(frames[torn]))
                with pytest.raises(OverwrittenError, match="Frame 2 was overwritten by the camera"):
                    subject.step(frames["main"], frames["extra"], VIEWS, CAR)
            else:
                made = subject.step(frames["main"], frames["extra"], VIEWS, CAR)
        return subject, made

    (subject, made), (other, expected) = run([0, 1, 2, 3]), run([0, 1, 3])
    assert made == expected and made.valid and not made.odometry_valid
    assert subject.counters == other.counters
    assert (subject.counters.frames, subject.counters.dropped) == (3, 1)


def test_vectors() -> None:
    runner = fakes.supercombo()
    planner(runner).step(picture(0), picture(0), VIEWS, replace(CAR, right_hand_drive=True))
    assert runner.seen[0]["traffic_convention"].tolist() == [[0, 1]]
    np.testing.assert_allclose(runner.seen[0]["action_t"], [[0.275, 0.475]], rtol=1e-6)


def test_valid_only_with_calibration_and_intrinsics(caplog: pytest.LogCaptureFixture) -> None:
    subject = planner()
    for car, views in ((replace(CAR, rpy=None), VIEWS), (CAR, Views(None, WIDE)),
                       (CAR, Views(NARROW, None)), (replace(CAR, rpy=None), VIEWS)):
        made = subject.step(picture(0), picture(0), views, car)
        assert (made.valid, made.odometry_valid) == (False, False)
    assert subject.counters.faults == {watch.NOT_CALIBRATED: 4}
    waiting = [record.message.split(";")[0] for record in caplog.records]  # each said once
    assert waiting == ["Waiting for extrinsicsCalibration", "Waiting for the camera's intrinsics"]
    made = subject.step(picture(1), picture(1), VIEWS, CAR)
    assert (made.valid, made.odometry_valid) == (True, True)


def test_before_calibration_the_model_sees_one_pixel() -> None:
    runner = fakes.supercombo()
    frame = picture(0)
    planner(runner).step(frame, frame, VIEWS, replace(CAR, rpy=None))
    assert (runner.seen[0]["img"][0, 6:10] == frame.luma[0, 0]).all()


def test_dropped_frames() -> None:
    subject = planner()
    made = [subject.step(picture(i), picture(i), VIEWS, CAR) for i in (5, 6, 9, 10)]
    assert subject.counters.dropped == 2
    assert [m.valid for m in made] == [True] * 4
    assert [m.odometry_valid for m in made] == [True, True, False, True]
    for i in range(11, 17):
        subject.step(picture(i), picture(i), VIEWS, CAR)
    late = subject.step(picture(19), picture(19), VIEWS, CAR)  # 11th frame, two missing
    mean = 0.05 / 10.05 * 2
    assert late.model_v2["frameDropPerc"] == pytest.approx(100 * mean / (1 + mean))
    assert late.driving_model_data["frameDropPerc"] == late.model_v2["frameDropPerc"]


def test_a_camera_that_counts_anew_is_no_loss() -> None:
    subject = planner()
    made = [subject.step(picture(i), picture(i), VIEWS, CAR) for i in (500, 0, 1)]
    assert subject.counters.dropped == 0
    assert all(m.odometry_valid for m in made)


def test_frame_info() -> None:
    times = iter([10.0, 10.5])
    made = planner().step(picture(7), picture(8), VIEWS, replace(CAR, camera_frame_id=10),
                          lambda: next(times))
    fields = made.model_v2
    assert (fields["frameId"], fields["frameIdExtra"], fields["frameAge"]) == (7, 8, 3)
    assert fields["modelExecutionTime"] == 0.5
    assert fields["timestampEof"] == made.camera_odometry["timestampEof"] == 365_000_000


def test_old_and_faulty_frames_are_not_valid(caplog: pytest.LogCaptureFixture) -> None:
    subject = planner()
    car = replace(CAR, camera_frame_id=18)
    assert not subject.step(picture(7), picture(7), VIEWS, car).valid
    assert subject.step(picture(8), picture(8), VIEWS, car).valid
    assert not subject.step(picture(9, valid=False), picture(9), VIEWS, CAR).valid
    assert not subject.step(picture(10), picture(10, valid=False), VIEWS, CAR).valid
    assert subject.counters.faults == {watch.STALE: 1, watch.CAMERA_FAULT: 2}
    assert len(caplog.records) == 2


def test_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    runs = iter(range(100))

    def answer(given: fakes.Arrays) -> fakes.Arrays:
        outputs = fakes.spread(given, 2576)
        if next(runs) in (1, 2):
            outputs[0, 2000] = np.inf
        return {"outputs": outputs}
    subject = planner(fakes.supercombo(answer))
    with caplog.at_level(logging.WARNING):
        made = [subject.step(picture(i), picture(i), VIEWS, CAR) for i in range(4)]
    assert [m.valid for m in made] == [True, False, False, True]
    assert [m.odometry_valid for m in made] == [True, False, False, True]
    assert made[1].model_v2["frameId"] == 1
    assert "position" not in made[1].model_v2
    assert "action" not in made[1].driving_model_data
    assert subject.counters.faults == {watch.NOT_FINITE: 2}
    assert [r.message.startswith("The model put out numbers") for r in caplog.records] == [True]


def test_lane_change_reaches_the_model_one_frame_later() -> None:
    def answer(given: fakes.Arrays) -> fakes.Arrays:
        outputs = np.zeros((1, 2576), np.float32)
        outputs[0, 2566 + 3] = 5.0  # the model sees a lane change to the left
        return {"outputs": outputs}
    runner = fakes.supercombo(answer)
    subject = planner(runner)
    blinker = replace(CAR.driver, left_blinker=True, lateral_active=True)
    nudge = replace(blinker, steering_pressed=True, steering_torque=1.0)
    drivers = [CAR.driver, blinker, nudge, blinker, blinker]
    made = [subject.step(picture(i), picture(i), VIEWS, replace(CAR, driver=driver))
            for i, driver in enumerate(drivers)]
    states = [m.model_v2["meta"]["laneChangeState"] for m in made]
    assert states == ["off", "preLaneChange"] + 3 * ["laneChangeStarting"]
    assert [m.driving_model_data["meta"]["laneChangeState"] for m in made] == states
    wishes = [bool(seen["desire_pulse"].any()) for seen in runner.seen]
    assert wishes == [False, False, False, True, True]


def test_same_inputs_same_messages() -> None:
    first, second = planner(), planner()
    for i in range(12):
        assert first.step(picture(i), picture(i), VIEWS, CAR) == second.step(
            picture(i), picture(i), VIEWS, CAR)


def test_raw_predictions_on_request() -> None:
    runner = fakes.supercombo()
    silent = planner(runner).step(picture(0), picture(0), VIEWS, CAR)
    assert silent.model_v2["rawPredictions"] == b""
    subject = Planner(DrivingModel(fakes.supercombo()), send_raw=True)
    raw = subject.step(picture(0), picture(0), VIEWS, CAR).model_v2["rawPredictions"]
    assert raw == fakes.spread(runner.seen[0], 2576).tobytes()


def test_stuck_cameras(caplog: pytest.LogCaptureFixture) -> None:
    subject = planner()
    still = [replace(picture(0, seed=1), frame_id=i, timestamp_sof=50_000_000 * i,
                     timestamp_eof=50_000_000 * i + 15_000_000) for i in range(25)]
    made = [subject.step(picture(i), still[i], VIEWS, CAR) for i in range(12)]
    assert [m.valid for m in made] == [True] * 9 + [False] * 3
    assert [m.odometry_valid for m in made] == [True] * 9 + [False] * 3
    made = [subject.step(still[i], still[i], VIEWS, CAR) for i in range(12, 23)]
    assert [m.valid for m in made] == [True] * 9 + [False] * 2
    assert subject.counters.faults == {watch.STUCK_CAMERA: 5}
    assert len(caplog.records) == 1
    assert "The extra camera is stuck" in caplog.text
    assert "main camera is stuck" in subject.counters.last[watch.STUCK_CAMERA]


def test_rendered_pictures_may_stay_the_same_while_the_car_stands() -> None:
    subject = planner()
    still = [replace(picture(0), frame_id=i, timestamp_sof=50_000_000 * i,
                     timestamp_eof=50_000_000 * i + 15_000_000) for i in range(30)]
    standing = replace(CAR, standing=True)
    assert all(subject.step(frame, frame, VIEWS, standing).valid for frame in still[:-1])
    assert not subject.step(still[-1], still[-1], VIEWS, CAR).valid


def test_clock_that_jumps() -> None:
    subject = planner()
    frames = [picture(i) for i in range(4)]
    late = frames[2].timestamp_sof + 2_000_000_000
    frames[2] = replace(frames[2], timestamp_sof=late, timestamp_eof=late + 15_000_000)
    made = [subject.step(frame, frame, VIEWS, CAR) for frame in frames]
    assert [m.valid for m in made] == [True, True, False, False]  # there, and back again
    assert subject.counters.faults == {watch.CLOCK_JUMP: 2}
    assert subject.step(picture(4), picture(4), VIEWS, CAR).valid


def test_a_fault_of_both_cameras_is_one_frame() -> None:
    subject = planner()
    main, extra = (replace(picture(0, seed=i), timestamp_eof=-1) for i in (0, 1))
    assert not subject.step(main, extra, VIEWS, CAR).valid
    assert subject.counters.faults == {watch.CLOCK_JUMP: 1}


@pytest.mark.parametrize(("rpy", "device", "valid"), [
    ((0.0, 0.18, 0.0), "tici", False), ((0.0, 0.18, 0.0), "mici", True),
    ((0.0, 0.0, 0.08), "mici", False)])
def test_calibration_out_of_limits(
    rpy: tuple[float, float, float], device: str, valid: bool,
) -> None:
    runner = fakes.supercombo()
    subject = planner(runner)
    frame = picture(0)
    made = subject.step(frame, frame, VIEWS, replace(CAR, rpy=rpy, device_type=device))
    assert (made.valid, made.odometry_valid) == (valid, valid)
    assert subject.counters.faults == ({} if valid else {watch.CALIBRATION_LIMITS: 1})
    # The model sees the road by it all the same, so that its history is whole afterwards.
    expected = prepare_warp(warp_matrix(rpy, NARROW, cameras.MEDMODEL), 200, 320)
    np.testing.assert_array_equal(
        runner.seen[0]["img"][0, 6:], expected.pack(frame.luma, frame.chroma))


@pytest.mark.parametrize("realtime", [False, True])
def test_a_slow_model_counts_in_real_time_only(realtime: bool) -> None:
    subject = planner()
    ticks = iter(0.06 * i for i in range(1000))
    made = [subject.step(picture(i), picture(i, seed=1), VIEWS, CAR, lambda: next(ticks), realtime)
            for i in range(watch.SLOW_WINDOW + 1)]
    late = not realtime
    assert [m.valid for m in made] == [True] * (watch.SLOW_WINDOW - 1) + [late, late]
    assert subject.counters.faults == ({watch.SLOW_MODEL: 2} if realtime else {})
    assert subject.speed.mean == pytest.approx(0.06)
