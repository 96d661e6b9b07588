"""A bus of its own for each test."""

import os
import random
import signal
from collections.abc import Iterator

import pytest

from messaging import Bus


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    yield bus
    bus.remove()


@pytest.fixture
def msgq() -> Iterator[Bus]:
    """Rings of our own; SIGUSR2 is blocked in this thread as it was before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    bus = Bus.msgq(f"test-{os.getpid()}-{random.SystemRandom().getrandbits(32):x}")
    yield bus
    bus.remove()
    signal.sigtimedwait({signal.SIGUSR2}, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
