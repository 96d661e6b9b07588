"""A full memory barrier, for what processes share without a lock."""

import threading

_lock = threading.Lock()


def fence() -> None:
    """Keep memory accesses before this call before those after it, also on ARM.

    Python has no such instruction, but releasing a lock and then taking it again has that effect:
    a release holds back what stands before it, an acquisition what stands behind it, and neither
    ARM nor x86 lets an acquisition overtake a release.
    """
    for _ in range(2):
        with _lock:
            pass
