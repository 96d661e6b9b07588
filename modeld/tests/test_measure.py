"""The measurement counts right and its processes find each other. No test says what it measures."""
from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import tinynn
from compiled_models.standin import build
from modeld.measure import WARM_UP, Meter, Result, Served, describe, evaluate, main


def test_lost_frames_are_those_without_an_answer() -> None:
    whole = [50_000_000 * frame_id for frame_id in range(45)]
    heard = [(frame_id, whole[frame_id] + (40 + frame_id) * 1_000_000, 30.0)
             for frame_id in range(5, 40) if frame_id % 10 != 7]
    result = evaluate(heard, Served(frames=32, dropped=4, share=0.03), whole)
    assert result.lost == [7, 17, 27, 37]
    assert result.accounted
    assert (result.shown, result.answered) == (45, 31)
    ids = [frame_id for frame_id, _, _ in heard if frame_id >= WARM_UP]
    np.testing.assert_allclose(result.late, [10.0 + frame_id for frame_id in ids])
    assert result.crowded == 0
    assert not evaluate(heard, Served(32, 3, 0.0), whole).accounted
    whole[17] += 30_000_000  # 20 ms before frame 18
    assert evaluate(heard, Served(32, 4, 0.0), whole).crowded == 1


def test_nothing_heard() -> None:
    result = evaluate([], Served(0, 0, 0.0), [1] * 30)
    assert result.accounted and result.answered == 0
    assert "beyond     none" in describe(result)


def test_description() -> None:
    late = np.array([1.0] * 98 + [5.0, 9.0])
    text = describe(Result(120, 100, [4, 8], 1, 3, late, np.full(100, 30.0), 0.041))
    assert "2 lost (2.0%), NOT ACCOUNTED FOR: the daemon counted 3; 1 crowded by the camera" in text
    assert "beyond     median    1.00 ms   p99    5.04 ms   worst    9.00 ms" in text
    assert "4.1% of a core" in text


def test_the_meter_makes_a_model_take_its_time_and_counts_only_what_is_beyond() -> None:
    meter = Meter(0.02)
    for _ in range(5):
        start = meter()
        assert meter() - start >= 0.02  # all of it in the model
        time.sleep(0.01)
    assert 0 <= meter.share() < 0.2
    busy = Meter(0.0)
    for _ in range(5):
        busy()
        busy()
        begin = time.process_time()
        while time.process_time() - begin < 0.02:
            pass
    assert busy.share() > 0.2


def test_a_frame_that_was_lost_in_the_middle_leaves_the_meter_in_step() -> None:
    meter = Meter(0.02)
    meter()  # it has a start and no end
    meter.begin()
    start = meter()
    assert meter() - start >= 0.02


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinynn.compile(build("supercombo_08")).save(tmp_path / "model.tnn")
    assert main(["--model", str(tmp_path / "model.tnn"), "--frames", "20", "--takes", "110"]) == 0
    out = capsys.readouterr().out
    assert "40 shown" in out and "all counted by the daemon" in out
    assert float(out.split("model      median")[1].split()[0]) >= 110
    assert main(["--model", str(tmp_path / "absent.tnn")]) == 2
