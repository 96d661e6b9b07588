"""The frequency check of SubMaster, with made-up clocks."""

import pytest

from messaging.frequency import FrequencyTracker


@pytest.mark.parametrize(
    ("service", "update", "polled", "lowest", "highest"),
    [
        (20, 20, True, 16, 24),
        (100, 20, True, 16, 24),  # seen only as often as we look
        (100, 20, False, 16, 24),
        (20, 100, False, 16, 24),
        (20, 20, False, 8, 24),
        (20, 30, False, 8, 24),
        (4, 20, False, 3.2, 4.8),
        (0.5, 20, False, 0.8, 1.2),  # no slower base than 1 Hz
    ],
)
def test_limits(service: float, update: float, polled: bool, lowest: float, highest: float) -> None:
    tracker = FrequencyTracker(service, update, polled)
    assert tracker.min_frequency == pytest.approx(lowest)
    assert tracker.max_frequency == pytest.approx(highest)


def feed(tracker: FrequencyTracker, start: float, frequency: float, count: int) -> float:
    for index in range(count):
        tracker.record(start + index / frequency)
    return start + count / frequency


def test_right_rate_is_ok_and_wrong_rate_is_not() -> None:
    tracker = FrequencyTracker(20, 20, polled=True)
    assert not tracker.ok
    tracker.record(0.0)
    assert not tracker.ok  # one message has no rate
    now = feed(tracker, 0.05, 20, 400)
    assert tracker.ok
    now = feed(tracker, now, 10, 15)
    assert tracker.ok  # a second of it does not spoil the mean of ten
    feed(tracker, now, 10, 400)
    assert not tracker.ok


def test_recovers_within_a_second_of_good_rate() -> None:
    tracker = FrequencyTracker(20, 20, polled=True)
    now = feed(tracker, 0.0, 5, 400)
    assert not tracker.ok
    feed(tracker, now, 20, 21)
    assert tracker.ok
