"""Pairing of main and wide frames by their start times."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from modeld.pairing import CameraFrame, Pairer, Receive

MS = 1_000_000
BLACK = np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2), np.uint8)


def camera(starts_ms: Iterable[int | None]) -> Receive[CameraFrame]:
    frames = iter([None if ms is None else CameraFrame(*BLACK, i, ms * MS, ms * MS)
                   for i, ms in enumerate(starts_ms)])

    def receive() -> CameraFrame | None:
        return next(frames)
    return receive


def pairs(
    main: Receive[CameraFrame], extra: Receive[CameraFrame] | None, count: int,
) -> list[tuple[int, int] | None]:
    pairer = Pairer()
    made = [pairer.next(main, extra) for _ in range(count)]
    return [pair and (pair[0].timestamp_sof // MS, pair[1].timestamp_sof // MS) for pair in made]


def test_together() -> None:
    assert pairs(camera([0, 50, 100]), camera([1, 51, 101]), 3) == [(0, 1), (50, 51), (100, 101)]


def test_without_extra_the_main_frame_is_both() -> None:
    assert pairs(camera([0, 50]), None, 2) == [(0, 0), (50, 50)]


def test_extra_frames_without_main_are_skipped() -> None:
    assert pairs(camera([0, 150]), camera([1, 51, 101, 151]), 2) == [(0, 1), (150, 151)]


def test_main_frames_without_extra_are_skipped() -> None:
    assert pairs(camera([0, 50, 100, 150]), camera([101, 151]), 2) == [(0, 101), (150, 151)]


def test_limit_is_25_ms() -> None:
    assert pairs(camera([0]), camera([-25, -24]), 1) == [(0, -24)]
    assert pairs(camera([0, 25, 50]), camera([1, 51]), 2) == [(0, 1), (50, 51)]


def test_missing_frames_start_over() -> None:
    assert pairs(camera([0, None, 100]), camera([1, 101]), 3) == [(0, 1), None, (100, 101)]
    assert pairs(camera([0, 50, 100]), camera([1, None, 101]), 3) == [(0, 1), None, (100, 101)]


def test_restarted_camera_with_a_clock_from_zero() -> None:
    assert pairs(camera([60_000, 0]), camera([60_001, 1]), 2) == [(60_000, 60_001), (0, 1)]
