"""The console commands: Ctrl-C is quiet from the first moment on, while Python still imports."""
from __future__ import annotations

import os
import signal
from importlib import import_module
from types import FrameType


def modeld() -> int:
    """The command `modeld`."""
    return _run("modeld.__main__")


def dmonitoringmodeld() -> int:
    """The command `dmonitoringmodeld`."""
    return _run("modeld.dmonitoring")


def _run(module: str) -> int:
    """`main` of a module. Until it looks after signals itself, they end the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    return int(import_module(module).main())


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing has begun yet that would have to be ended
