"""Machine code from memory into the process, and the C functions every artifact exports."""
from __future__ import annotations

import _ctypes
import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinynn.runtime.layout import ArtifactError

# struct tinynn_step of docs/architecture.md
STEP = np.dtype([("kernel", np.uintp), ("args", np.uintp), ("parts", np.int64)])


class Library:
    """A loaded shared object. Only trusted code may get here."""

    def __init__(self, code: bytes, name: str) -> None:
        """Load; raises ArtifactError if the system refuses. `name`: for messages."""
        self._name = name
        self._fd, path = _executable_file(code)
        try:
            self._library = ctypes.CDLL(path)
            self._run = self._library.tinynn_run
            self._stop = self._library.tinynn_stop
        except (OSError, AttributeError) as error:
            os.close(self._fd)
            raise ArtifactError(f"{name}: its machine code cannot be loaded ({error}). Compile the "
                                "model again on this machine.") from None
        finally:
            if not path.startswith("/proc/"):
                os.unlink(path)
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        self._run.restype = ctypes.c_int
        self._stop.argtypes, self._stop.restype = [], None

    def addresses(self, kernels: Sequence[str]) -> list[int]:
        """Addresses of functions by name; raises ArtifactError for one that is missing."""
        found = []
        for kernel in kernels:
            try:
                pointer = ctypes.cast(getattr(self._library, kernel), ctypes.c_void_p)
            except AttributeError:
                raise ArtifactError(f"{self._name}: its machine code has no kernel {kernel}. "
                                    "Compile the model again.") from None
            found.append(pointer.value or 0)
        return found

    def run(self, steps: np.ndarray[Any, Any], threads: int,
            nanoseconds: np.ndarray[Any, Any] | None = None) -> None:
        """Run a table of STEP entries; `nanoseconds` (int64, one per step) receives times."""
        times = None if nanoseconds is None else nanoseconds.ctypes.data
        status = self._run(steps.ctypes.data, len(steps), threads, times)
        if status != 0:
            raise RuntimeError(f"{self._name}: running {len(steps)} steps with {threads} threads "
                               f"failed with status {status}. Try fewer threads.")

    def pin(self, cores: Sequence[int]) -> None:
        """Put the helper threads on these cores, also those that are started later."""
        if not cores:
            return
        try:
            pin = self._library.tinynn_pin
        except AttributeError:
            raise ArtifactError(f"{self._name}: the compiler that wrote it could not yet pin "
                                "threads to cores. Compile the model again.") from None
        pin.argtypes, pin.restype = [ctypes.c_void_p, ctypes.c_int64], None
        numbers = np.array(cores, dtype=np.int32)
        pin(numbers.ctypes.data, len(numbers))

    def close(self) -> None:
        """End the worker threads and unload. Call once."""
        self._stop()
        _ctypes.dlclose(self._library._handle)
        os.close(self._fd)


def _executable_file(code: bytes) -> tuple[int, str]:
    """A file descriptor and path that hold the code: in memory, or where that is forbidden a
    temporary file that the caller removes.

    The descriptor stays open while the library is loaded: the dynamic linker knows libraries by
    path, and a reused descriptor would give it the older library again.
    """
    try:
        fd = os.memfd_create("tinynn", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{fd}"
    except (OSError, AttributeError):
        import tempfile  # slow to import and seldom needed

        fd, path = tempfile.mkstemp(prefix="tinynn-", suffix=".so")
    with open(fd, "wb", closefd=False) as file:
        file.write(code)
    return fd, path
