"""Forward collision, confidence and drop filter against arithmetic written out."""
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from modeld.derived import CollisionWatch, ConfidenceWatch, DropFilter, disengage_per_slice


def last_flag(brake_3: list[float], brake_5: list[float]) -> bool:
    watch = CollisionWatch()
    return [watch.update(a, b) for a, b in zip(brake_3, brake_5, strict=True)][-1]


def test_collision_needs_all_five_and_both() -> None:
    rising = [0.06, 0.06, 0.16, 0.16, 0.16]
    assert last_flag([0, 0, 0, 0.71, 0.71], rising)
    assert not last_flag([0, 0, 0, 0.69, 0.71], rising)
    # The low limits are for the two oldest, not the newest.
    assert not last_flag([0.8] * 5, rising[::-1])
    assert not last_flag([0.8] * 4, rising[1:])
    for weak in range(5):
        probabilities = list(rising)
        probabilities[weak] -= 0.02
        assert not last_flag([0.8] * 5, probabilities)


def test_disengagement_per_slice() -> None:
    brake, gas, steer = [0.1, 0.2, 0.2, 0.3, 0.3], [0.0, 0.1, 0.1, 0.1, 0.5], [0.2] * 5
    any_way = [1 - (1 - b) * (1 - g) * (1 - s) for b, g, s in zip(brake, gas, steer, strict=True)]
    expected = [any_way[0]] + [
        (after - before) / (1 - before)
        for before, after in pairwise(any_way)]
    np.testing.assert_allclose(disengage_per_slice(brake, gas, steer), expected)


def test_certain_disengagement_adds_nothing_later() -> None:
    slices = disengage_per_slice([1, 1, 1, 1, 1], [0] * 5, [0] * 5)
    assert slices.tolist() == [1, 0, 0, 0, 0]


def test_confidence_follows_one_slice_through_five_looks() -> None:
    watch = ConfidenceWatch()
    assert watch.update(1, np.ones(5)) == "green"  # not a 40th frame: nothing is looked at
    # Look n (oldest first) counts with its column 4 - n: the same two seconds of the road.
    looks = np.zeros((5, 5))
    looks[range(5), [4, 3, 2, 1, 0]] = [0.3, 0.0, 0.0, 0.0, 0.0]
    said = [watch.update(40 * i, look) for i, look in enumerate(looks)]
    assert said[:4] == ["green"] * 4
    assert said[4] == "yellow"  # mean 0.06
    assert watch.update(201, np.zeros(5)) == "yellow"  # holds until the next look
    assert watch.update(240, np.zeros(5)) == "green"


@pytest.mark.parametrize(("level", "expected"), [
    (0.0116, "green"), (0.0117, "yellow"), (0.0615, "yellow"), (0.0616, "red")])
def test_confidence_limits(level: float, expected: str) -> None:
    watch = ConfidenceWatch()
    for look in range(5):
        said = watch.update(40 * look, np.full(5, level))
    assert said == expected


def test_drop_filter() -> None:
    drops = DropFilter()
    assert [drops.update(5) for _ in range(10)] == [0.0] * 10
    alpha = 0.05 / 10.05
    assert alpha == pytest.approx(0.004975, abs=1e-6)
    mean = alpha * 3
    assert drops.update(3) == pytest.approx(100 * mean / (1 + mean))
    mean += alpha * (10 - mean)
    assert drops.update(1000) == pytest.approx(100 * mean / (1 + mean))
    mean += alpha * (0 - mean)
    assert drops.update(0) == pytest.approx(100 * mean / (1 + mean))
