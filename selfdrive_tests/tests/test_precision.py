"""The check of what artifacts claim of their precision."""

import numpy as np
import pytest

from selfdrive_tests.compare import Claim, Comparison
from selfdrive_tests.precision import Pair


class Runner:
    """Gives 3, 4 times a factor; claims a precision."""

    def __init__(self, factor: float, tolerance: float) -> None:
        self.factor = factor
        stated = {"name": "outputs", "tolerance": tolerance}
        self.manifest = {"golden": {"runs": [{"outputs": [stated]}]}}

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"outputs": np.array([3.0, 4.0], np.float32) * self.factor * inputs["x"]}


def test_a_pair_is_its_first_runner_and_notes_the_largest_difference() -> None:
    pair = Pair(Runner(1.0, 1e-4), Runner(1.01, 1e-2))
    for x in (1.0, 2.0):
        (result,) = pair({"x": np.array(x, np.float32)}).values()
        assert result == pytest.approx(np.array([3.0, 4.0]) * x)
    error, _ = pair.worst["outputs"]
    assert error == pytest.approx(0.01, rel=1e-3)
    assert pair.bound("outputs") == pytest.approx(0.0101 / 0.9999)
    assert pair.factor == 1.0


def test_a_claim_that_does_not_hold_is_a_difference() -> None:
    good, bad = Claim("outputs", 1e-3, 9e-4, 7, 40), Claim("outputs", 1e-3, 2e-3, 7, 40)
    assert good.holds and not bad.holds and not Claim("o", 1e-3, np.nan, 0, 1).holds
    result = Comparison("other.tnn", [], frames=40, claims=[good])
    assert result.passed
    result.claims.append(bad)
    assert not result.passed and "precision that the artifacts state" in result.verdict
    assert "DOES NOT HOLD: at most 2.0e-03 apart in 40 frames (frame 7)" in str(bad)
