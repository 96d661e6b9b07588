"""A bus of its own for each test."""

from collections.abc import Iterator

import pytest

from messaging import Bus


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    yield bus
    bus.remove()
