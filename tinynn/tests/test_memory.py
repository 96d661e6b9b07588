"""The arena: nothing that lives at the same time shares a byte."""
from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tinynn.memory import ALIGNMENT, Lifetime, plan_arena

_LIFETIMES = st.builds(
    lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
    st.integers(0, 1000), st.integers(0, 20), st.integers(0, 8))


@given(st.lists(_LIFETIMES, max_size=30))
@settings(deadline=None)
def test_live_tensors_never_overlap(lifetimes: list[Lifetime]) -> None:
    offsets, total = plan_arena(lifetimes)
    for (a, at_a), (b, at_b) in itertools.combinations(
            list(zip(lifetimes, offsets, strict=True)), 2):
        if a.first <= b.last and b.first <= a.last:
            assert at_a + a.nbytes <= at_b or at_b + b.nbytes <= at_a
    for lifetime, offset in zip(lifetimes, offsets, strict=True):
        assert offset % ALIGNMENT == 0
        assert offset >= 0 and offset + lifetime.nbytes <= total


def test_a_chain_needs_two_tensors_at_a_time() -> None:
    chain = [Lifetime(640, step, step + 1) for step in range(50)]
    assert plan_arena(chain)[1] == 2 * 640


def test_the_place_of_a_dead_tensor_is_used_again() -> None:
    lifetimes = [Lifetime(640, 0, 1), Lifetime(320, 0, 9), Lifetime(256, 2, 3)]
    assert plan_arena(lifetimes) == ([0, 640, 0], 960)


def test_of_two_gaps_the_smaller_is_taken() -> None:
    forever = [Lifetime(1280, 0, 9), Lifetime(1216, 0, 9)]
    gaps = [Lifetime(1344, 0, 1), Lifetime(1152, 0, 1)]
    offsets, _ = plan_arena([*forever, *gaps, Lifetime(1088, 0, 9), Lifetime(64, 2, 3)])
    # 1344 | 1280 | 1216 | 1152 | 1088: the two dead ranges are of 1344 and of 1152 bytes.
    assert offsets[5] == offsets[3]


def test_nothing_needs_nothing() -> None:
    assert plan_arena([]) == ([], 0)
