"""Stuck cameras, jumping clocks, slow models, calibrations out of limits."""
from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from modeld.pairing import CameraFrame
from modeld.watch import (
    CLOCK_JUMP,
    SLOW_WINDOW,
    STUCK_CAMERA,
    STUCK_FRAMES,
    CameraWatch,
    Counters,
    SpeedWatch,
    look_at,
    outside_limits,
)

FRAME_NS = 50_000_000


def picture(frame_id: int, sof: int | None = None, seed: int | None = None) -> CameraFrame:
    sof = FRAME_NS * frame_id if sof is None else sof
    rng = np.random.default_rng(frame_id if seed is None else seed)
    return CameraFrame(rng.integers(0, 256, (16, 16), np.uint8), np.zeros((8, 8, 2), np.uint8),
                       frame_id, sof, sof + 15_000_000)


def ending(frame_id: int, length_ns: int) -> CameraFrame:
    """A picture that ends so long after its start."""
    frame = picture(frame_id)
    return replace(frame, timestamp_eof=frame.timestamp_sof + length_ns)


def kinds(watch: CameraWatch, frame: CameraFrame, standing: bool = False) -> list[str]:
    return [kind for kind, _ in watch.update(look_at(frame), standing)]


def test_a_sound_camera() -> None:
    watch = CameraWatch("main")
    assert all(kinds(watch, picture(i)) == [] for i in (0, 1, 2, 7, 30, 0, 1))


def test_same_picture() -> None:
    watch = CameraWatch("main")
    found = [kinds(watch, picture(i, seed=1)) for i in range(STUCK_FRAMES + 2)]
    assert found == [[]] * (STUCK_FRAMES - 1) + [[STUCK_CAMERA]] * 3
    assert kinds(watch, picture(50)) == []  # it is alive again
    assert STUCK_FRAMES == 10  # half a second


def test_one_changed_pixel_is_another_picture() -> None:
    watch = CameraWatch("main")
    for i in range(3 * STUCK_FRAMES):
        frame = picture(i, seed=1)
        frame.luma[0, 3] = i
        assert kinds(watch, frame) == []


def test_same_picture_while_the_car_stands() -> None:
    watch = CameraWatch("main")
    assert all(kinds(watch, picture(i, seed=1), standing=True) == [] for i in range(40))
    assert kinds(watch, picture(40, seed=1)) == [STUCK_CAMERA]  # as soon as it moves


def test_same_id() -> None:
    watch = CameraWatch("main")
    found = [kinds(watch, picture(7, seed=i), standing=True) for i in range(STUCK_FRAMES)]
    assert found == [[]] * (STUCK_FRAMES - 1) + [[STUCK_CAMERA]]
    assert "id 7" in watch.update(look_at(picture(7, seed=99)))[0][1]


@pytest.mark.parametrize(("frame_id", "sof", "jumps"), [
    (11, 11 * FRAME_NS, False),
    (11, 10 * FRAME_NS - 1, True),  # back
    (11, 11 * FRAME_NS + 1_000_000_000, False),
    (11, 11 * FRAME_NS + 1_000_000_001, True),  # ahead
    (40, 40 * FRAME_NS, False),  # 1.5 s on, but so are the ids
    (0, 0, False),  # a camera that was started again
    (0, 10**15, False),
])
def test_clock(frame_id: int, sof: int, jumps: bool) -> None:
    watch = CameraWatch("main")
    watch.update(look_at(picture(10)))
    assert kinds(watch, picture(frame_id, sof)) == ([CLOCK_JUMP] if jumps else [])
    assert kinds(watch, picture(frame_id + 1, sof + FRAME_NS)) == []  # steady since


def test_end_of_frame() -> None:
    watch = CameraWatch("extra")
    assert kinds(watch, ending(10, -1)) == [CLOCK_JUMP]
    (kind, text), = watch.update(look_at(ending(11, 1_000_000_001)))
    assert kind == CLOCK_JUMP
    assert "frame 11" in text
    assert "extra camera" in text
    watch.update(look_at(ending(20, FRAME_NS + 30)))
    assert kinds(watch, ending(21, 20)) == [CLOCK_JUMP]


def test_speed() -> None:
    watch = SpeedWatch()
    assert watch.mean == 0
    assert [watch.update(0.06) for _ in range(SLOW_WINDOW - 1)] == [None] * (SLOW_WINDOW - 1)
    text = watch.update(0.06)
    assert text is not None
    assert "takes 60 ms, a frame lasts 50 ms" in text
    # 29 of 40 runs at 60 ms and 11 at 20 ms are 49 ms in the mean.
    judged = [watch.update(0.02) for _ in range(11)]
    assert [text is None for text in judged] == [False] * 10 + [True]
    assert watch.mean == pytest.approx(0.049)


@pytest.mark.parametrize(("pitch", "yaw", "device", "sound"), [
    (0.0, 0.0, "tici", True),
    (0.169, 0.069, "tizi", True), (-0.09, -0.069, "unknown", True),
    (0.171, 0.0, "tici", False), (-0.0908, 0.0, "pc", False),
    (0.0, 0.0692, "tici", False), (0.0, -0.0692, "mici", False),
    (0.222, 0.0, "mici", True), (0.2225, 0.0, "mici", False),
    (-0.143, 0.0, "mici", True), (-0.1432, 0.0, "mici", False),
])
def test_limits_of_the_calibration(pitch: float, yaw: float, device: str, sound: bool) -> None:
    text = outside_limits((0.0, pitch, yaw), device)
    assert (text is None) == sound
    if text:
        assert f"pitch {pitch:.4f}" in text


def test_counters(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    assert counters.summary() == "0 frames"
    assert [counters.arrived(*ids) for ids in ((5, None), (6, 5), (9, 6), (0, 9))] == [0, 0, 2, 0]
    with caplog.at_level(logging.WARNING):
        for frame_id in range(3):
            counters.note(CLOCK_JUMP, f"frame {frame_id}")
        counters.note(STUCK_CAMERA, "narrow", "first camera")
        counters.note(STUCK_CAMERA, "wide", "second camera")
    assert [r.message for r in caplog.records] == ["frame 0", "narrow", "wide"]
    assert counters.last == {CLOCK_JUMP: "frame 2", STUCK_CAMERA: "wide"}
    assert counters.summary() == "4 frames: 2 dropped, 2 stuck camera, 3 clock jump"
