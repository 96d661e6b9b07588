"""Liveness and placement of scratch tensors in one arena.

A tensor lives from the first step that touches it to the last. Large tensors are placed first, each
in the smallest gap between tensors that are alive at the same time.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinynn.index import ceil_div

ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass(frozen=True)
class Lifetime:
    """Steps first .. last (both included) during which `nbytes` bytes must be kept."""

    nbytes: int
    first: int
    last: int


def plan_arena(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offset of every tensor, in the order given, and the size of the arena in bytes.

    Offsets are multiples of 64; tensors whose lifetimes meet do not overlap.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].nbytes, i))
    for i in order:
        meets = [j for j in placed if lifetimes[j].first <= lifetimes[i].last
                 and lifetimes[i].first <= lifetimes[j].last]
        taken = sorted((offsets[j], offsets[j] + aligned(lifetimes[j].nbytes)) for j in meets)
        offsets[i] = _smallest_gap(taken, aligned(lifetimes[i].nbytes))
        placed.append(i)
    ends = [o + aligned(t.nbytes) for o, t in zip(offsets, lifetimes, strict=True)]
    return offsets, max(ends, default=0)


def _smallest_gap(taken: Sequence[tuple[int, int]], nbytes: int) -> int:
    """Start of the smallest free range of at least nbytes, or the end of what is taken."""
    best: tuple[int, int] | None = None
    end = 0
    for start, stop in taken:
        gap = start - end
        if gap >= nbytes and (best is None or gap < best[0]):
            best = (gap, end)
        end = max(end, stop)
    return end if best is None else best[1]


def aligned(nbytes: int) -> int:
    """nbytes rounded up to the alignment; an empty tensor still gets an address of its own."""
    return max(1, ceil_div(nbytes, ALIGNMENT)) * ALIGNMENT
