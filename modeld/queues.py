"""History of a model: queues that get one row per run.

A queue is a tuple of arrays, newest last. Pushing makes a new tuple, so a run can be prepared on a
candidate history that replaces the old one only if the run came out finite.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Queue = tuple[np.ndarray, ...]


def empty(length: int, shape: Sequence[int], dtype: np.dtype) -> Queue:
    """A queue of zeros: the first runs see black pictures and no past."""
    return (np.zeros(shape, dtype),) * length


def push(queue: Queue, row: np.ndarray) -> Queue:
    """The queue with `row` as its newest entry and without its oldest."""
    return (*queue[1:], row)


def take(queue: Queue, rows: Sequence[int], pool: int = 1) -> np.ndarray:
    """Rows of a queue, stacked: (len(rows) / pool, *shape of a row).

    rows: negative positions, -1 is the newest. pool: the maximum over groups of so many
    consecutive rows.
    """
    picked = np.stack([queue[row] for row in rows])
    return picked if pool == 1 else picked.reshape(-1, pool, *picked.shape[1:]).max(axis=1)


def rising_edge(desire: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """A wish as the model wants it: 1 only in the run in which it appears.

    Both are one-hot vectors (8,) with entry 0 for "none"; entry 0 never passes.
    """
    pulse = np.where(desire - previous > 0.99, desire, 0).astype(np.float32)
    pulse[0] = 0
    return pulse
