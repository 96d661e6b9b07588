"""Many messages: all arrive in order, and nothing grows."""

from collections import Counter

import pytest

from messaging import Bus
from messaging.endurance import Growth, Use, amounts, describe, run, schedule
from messaging.services import SERVICES


def test_amounts_are_those_of_the_table() -> None:
    day = amounts(24)
    assert day["carState"] == 8_640_000
    assert day["modelV2"] == 1_728_000
    assert day["clocks"] == 8640
    assert "logMessage" not in day  # on demand
    assert sum(day.values()) == pytest.approx(
        86_400 * sum(one.frequency for one in SERVICES.values()), rel=1e-6)  # fmt: skip


def test_every_message_has_its_turn() -> None:
    counts = {"fast": 100, "slow": 7}
    order = list(schedule(counts))
    assert Counter(name for name, _ in order) == counts
    assert [number for name, number in order if name == "slow"] == list(range(7))
    first_half = Counter(name for name, _ in order[: len(order) // 2])
    assert abs(first_half["slow"] - 3.5) <= 1


def test_ten_seconds_of_a_drive(bus: Bus) -> None:
    result = run(hours=10 / 3600, bus=bus)
    assert result.sent == result.heard == sum(amounts(10 / 3600).values())
    assert all(one.end.descriptors <= one.warm.descriptors for one in result.processes)
    assert result.sound, describe(result)


def test_growth_is_seen() -> None:
    warm = Use(100_000, 40)
    assert Growth("x", warm, Use(104_000, 40)).sound
    assert not Growth("x", warm, Use(120_000, 40)).sound
    assert not Growth("x", warm, Use(100_000, 41)).sound
