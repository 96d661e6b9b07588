"""Driver monitoring: layouts, the luma view, message fields, validity."""
from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modeld import cameras, watch
from modeld.contract import ContractError
from modeld.driver_state import FILL, Monitor, describe, driver_state
from modeld.pairing import CameraFrame, OverwrittenError
from modeld.tests import fakes
from modeld.tests.ort_runner import OnnxRunner
from modeld.tests.test_planner import Fleeting
from modeld.warp import filled_warp, warp_matrix

INPUTS: dict[str, fakes.Tensor] = {
    "input_img": ((1, 1382400), "u8"), "calib": ((1, 3), "f32")}
SEAT = ("face_prob", "left_eye_prob", "right_eye_prob", "sunglasses_prob", "left_blink_prob",
        "right_blink_prob", "using_phone_prob")
SEATS: dict[int, tuple[str, ...]] = {
    545: ("face_prob", "eyes_visible_prob", "eyes_closed_prob", "using_phone_prob"),
    551: SEAT,
    553: (*SEAT, "sleep_prob"),
}


def slices(size: int) -> dict[str, Any]:
    """Where the tables of the real models have their outputs: seat, seat, wheel, features."""
    made: dict[str, Any] = {}
    at = 0
    for side in ("lhd", "rhd"):
        for name in ("face_descs", *SEATS[size]):
            width = 12 if name == "face_descs" else 1
            made[f"{name}_{side}"] = [at, at + width, None]
            at += width
    made["wheel_on_right"] = [at, at + 1, None]
    made["features"] = [at + 1, size, None]
    return made


def runner(size: int = 551, vector: np.ndarray | None = None) -> fakes.FakeRunner:
    answer = None if vector is None else (lambda _: {"outputs": vector[None].astype(np.float32)})
    return fakes.runner(INPUTS, size, slices(size), answer)


def picture(
    frame_id: int = 0, size: tuple[int, int] = (1208, 1928), valid: bool = True
) -> CameraFrame:
    rng = np.random.default_rng(frame_id)
    sof = 50_000_000 * frame_id
    chroma = np.zeros((size[0] // 2, size[1] // 2, 2), np.uint8)
    return CameraFrame(rng.integers(0, 256, size, np.uint8), chroma, frame_id, sof,
                       sof + 15_000_000, valid)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("size", SEATS)
def test_every_value_lands_in_its_field(size: int) -> None:
    """The vector counts up, so that each value tells its own position."""
    vector = np.arange(size, dtype=np.float32) / 100
    made = driver_state(vector, describe(runner(size)))
    seat_width = (size - 512 - 1) // 2
    for start, field in ((0, "leftDriverData"), (seat_width, "rightDriverData")):
        seat = made[field]
        where = [(start + i) / 100 for i in range(seat_width)]
        assert seat["faceOrientation"] == pytest.approx(where[0:3])
        assert seat["facePosition"] == pytest.approx(where[3:5])
        assert seat["faceOrientationStd"] == pytest.approx([math.exp(x) for x in where[6:9]])
        assert seat["facePositionStd"] == pytest.approx([math.exp(x) for x in where[9:11]])
        probabilities = [sigmoid(x) for x in where[12:]]
        assert seat["faceProb"] == pytest.approx(probabilities[0])
        if size == 545:
            assert seat["leftEyeProb"] == seat["rightEyeProb"] == pytest.approx(probabilities[1])
            assert seat["leftBlinkProb"] == pytest.approx(probabilities[2])
            assert seat["rightBlinkProb"] == pytest.approx(probabilities[2])
            assert seat["phoneProb"] == pytest.approx(probabilities[3])
            assert "sunglassesProb" not in seat
        else:
            names = ["leftEyeProb", "rightEyeProb", "sunglassesProb", "leftBlinkProb",
                     "rightBlinkProb", "phoneProb"]
            assert [seat[name] for name in names] == pytest.approx(probabilities[1:7])
        assert ("sleepProb" in seat) == (size == 553)
        if size == 553:
            assert seat["sleepProb"] == pytest.approx(probabilities[7])
    assert made["wheelOnRightProb"] == pytest.approx(sigmoid(2 * seat_width / 100))


def test_large_log_deviations_are_capped() -> None:
    vector = np.full(551, 20, np.float32)
    made = driver_state(vector, describe(runner()))
    assert made["leftDriverData"]["faceOrientationStd"] == pytest.approx(3 * [59874.14], rel=1e-6)


def altered(**changes: Any) -> fakes.FakeRunner:
    table = {**slices(551), **changes}
    return fakes.runner(INPUTS, 551, {k: v for k, v in table.items() if v is not None})


@pytest.mark.parametrize(("model", "message"), [
    (fakes.supercombo(), r"has the inputs input_img \(1, 1382400\), calib \(1, 3\); this one has "
                         r"img .*another kind of model"),
    (fakes.runner(INPUTS, 84, None), "84 outputs without names: the model of 0.9.0 to 0.9.7"),
    (fakes.runner(INPUTS, 551, None), "no metadata 'output_slices'"),
    (altered(yawn_prob_lhd=[551 - 512, 40, None]), r"yawn_prob_lhd \(1\).*none of the layouts"),
    (altered(using_phone_prob_rhd=None), "none of the layouts this daemon knows, those of models "
                                         "with 545, 551, 553 outputs"),
    (altered(face_descs_lhd=[0, 11, None]), r"face_descs_lhd \(11\).*none of the layouts"),
])
def test_refusals_name_what_does_not_fit(model: fakes.FakeRunner, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        describe(model)


@pytest.mark.parametrize(("width", "height", "expected"), [
    (1928, 1208, [1, 0, 244, 0, 1, 248, 0, 0, 1]),
    (1344, 760, [0.75, 0, 132, 0, 0.75, 113, 0, 0, 1]),
])
def test_published_matrices(width: int, height: int, expected: list[float]) -> None:
    camera = cameras.CABIN[width].at_size(width, height)
    matrix = warp_matrix((0, 0, 0), camera, cameras.DRIVER_MODEL)
    np.testing.assert_allclose(matrix.ravel(), expected, atol=1e-4)


def test_view_of_the_larger_sensor_is_a_cut_of_its_picture() -> None:
    model = runner()
    frame = picture()
    Monitor(model).step(frame, cameras.CABIN[1928].intrinsics, (0.1, 0.2, 0.3))
    seen = model.seen[0]["input_img"].reshape(960, 1440)
    np.testing.assert_array_equal(seen, frame.luma[248:1208, 244:1684])
    np.testing.assert_allclose(model.seen[0]["calib"], [[0.1, 0.2, 0.3]])


def test_view_of_the_smaller_sensor_pixel_by_pixel() -> None:
    model = runner()
    frame = picture(size=(760, 1344))
    Monitor(model).step(frame, cameras.CABIN[1344].intrinsics, None)
    seen = model.seen[0]["input_img"].reshape(960, 1440)
    for row, column in [(0, 0), (1, 2), (2, 1), (500, 700), (3, 5), (861, 1439)]:
        # round() of Python, too, takes halves to the even neighbour
        assert seen[row, column] == frame.luma[round(0.75 * row + 113), round(0.75 * column + 132)]
    # 0.75 * 862 + 113 = 759.5 goes to the even neighbour, 760, below the last row.
    assert (seen[862:] == 16).all()
    assert FILL == 16
    assert not model.seen[0]["calib"].any()  # before the first calibration


def test_pixels_outside_on_every_side() -> None:
    source = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    shift = np.array([[1, 0, -2], [0, 1, -1], [0, 0, 1]], np.float32)
    expected = np.full((6, 8), 99, np.uint8)
    expected[1:4, 2:6] = source
    gaps = np.zeros((3, 10), np.uint8)
    gaps[:, :4] = source
    for plane, stride in ((source, None), (gaps[:, :4], 10), (gaps[:, :4], None)):
        made = filled_warp(shift, source.shape, expected.shape, 99, stride).sample(plane)
        np.testing.assert_array_equal(made, expected)


def test_an_overwritten_frame_is_as_if_it_had_not_come() -> None:
    model = runner()
    monitor = Monitor(model)
    with pytest.raises(OverwrittenError, match="Frame 0 was overwritten by the camera"):
        monitor.step(Fleeting(**vars(picture(0))), cameras.CABIN[1928].intrinsics, None)
    assert not model.seen and monitor.last_frame_id is None
    assert (monitor.counters.frames, monitor.counters.dropped) == (0, 0)


def test_validity(caplog: pytest.LogCaptureFixture) -> None:
    cabin = cameras.CABIN[1928].intrinsics
    monitor = Monitor(runner())
    assert monitor.step(picture(0), cabin, None)[1]  # uncalibrated is no reason
    assert not monitor.step(picture(1), None, None)[1]
    assert not monitor.step(picture(2, valid=False), cabin, None)[1]
    frame = picture(3)
    frame = replace(frame, timestamp_sof=frame.timestamp_sof - 10**9)
    assert not monitor.step(frame, cabin, None)[1]
    assert monitor.step(picture(6), cabin, None)[1]
    assert monitor.counters.faults == {
        watch.NOT_CALIBRATED: 1, watch.CAMERA_FAULT: 1, watch.CLOCK_JUMP: 1}
    assert monitor.counters.dropped == 2
    assert len(caplog.records) == 3


def test_not_finite() -> None:
    vector = np.zeros(551, np.float32)
    vector[300] = np.nan
    monitor = Monitor(runner(vector=vector))
    fields, valid = monitor.step(picture(4), cameras.CABIN[1928].intrinsics, None)
    assert not valid
    assert fields["frameId"] == 4
    assert "leftDriverData" not in fields
    assert monitor.counters.faults == {watch.NOT_FINITE: 1}


@pytest.mark.parametrize("realtime", [False, True])
def test_a_slow_model_counts_in_real_time_only(realtime: bool) -> None:
    monitor = Monitor(runner())
    ticks = iter(0.03 * i for i in range(1000))  # three looks at the clock a frame, 60 ms a run
    valid = [monitor.step(picture(i), cameras.CABIN[1928].intrinsics, None, lambda: next(ticks),
                          realtime)[1] for i in range(watch.SLOW_WINDOW)]
    assert valid == [True] * (watch.SLOW_WINDOW - 1) + [not realtime]
    assert monitor.counters.faults == ({watch.SLOW_MODEL: 1} if realtime else {})


def test_times_and_raw_predictions() -> None:
    ticks = iter([10.0, 10.25, 10.5])
    frame = picture(7)
    fields, _ = Monitor(runner(), send_raw=True).step(
        frame, cameras.CABIN[1928].intrinsics, None, lambda: next(ticks))
    assert (fields["frameId"], fields["gpuExecutionTime"], fields["modelExecutionTime"]) == (
        7, 0.25, 0.5)
    assert np.frombuffer(fields["rawPredictions"], np.float32).shape == (551,)
    assert Monitor(runner()).step(frame, None, None)[0]["rawPredictions"] == b""


@pytest.mark.parametrize("name", ["dmonitoring_545", "dmonitoring", "dmonitoring_553"])
def test_layouts_in_onnxruntime(name: str) -> None:
    monitor = Monitor(OnnxRunner(name), send_raw=True)
    cabin = cameras.CABIN[1928].intrinsics
    fields, valid = monitor.step(picture(0), cabin, (0.0, 0.01, 0.0))
    assert valid
    raw = np.frombuffer(fields["rawPredictions"], np.float32)
    seat = (raw.size - 513) // 2
    left, right = fields["leftDriverData"], fields["rightDriverData"]
    assert left["faceOrientation"] == raw[:3].tolist()
    assert right["facePosition"] == raw[seat + 3:seat + 5].tolist()
    assert left["faceProb"] == pytest.approx(sigmoid(raw[12]), rel=1e-5)
    assert fields["wheelOnRightProb"] == pytest.approx(sigmoid(raw[2 * seat]), rel=1e-5)
    other, _ = monitor.step(picture(1), cabin, (0.0, 0.01, 0.0))
    assert other["leftDriverData"] != left
