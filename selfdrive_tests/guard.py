"""Runs a command that ends when the process that started it ends, even if that one is killed.

    python guard.py PARENT_PID COMMAND...

The command takes this process's place, so it has its process id. On systems other than Linux it is
just run.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have this process get a signal when the parent ends; kept over exec."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    # The parent may have ended before that.
    if os.getppid() != parent:
        sys.exit(f"guard: the parent process {parent} has ended already.")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), signal.SIGKILL)
    os.execvp(sys.argv[2], sys.argv[2:])
