"""C source -> shared object, with the compiler from PyPI's `ziglang` or one of the system.

The same source gives the same bytes: the compiler sees one fixed file name, nothing records a path
or a time, and the version of Zig is pinned by the package.
"""
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tinynn.machine import Machine


class ToolchainError(RuntimeError):
    """No C compiler, or one that failed; the message says what to install, or where the source is
    kept."""


# -ffp-contract: Zig's clang fuses a * b + c where it stands in one expression and keeps every
# rounding otherwise ("on"); gcc has only "fast", and needs it to fuse at all.
_FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
          "-fno-strict-aliasing", "-fvisibility=hidden", "-fPIC", "-shared", "-nostdlib", "-s",
          "-w", "-Wl,--build-id=none")


def build(source: str, machine: Machine, compiler: str | None = None) -> tuple[bytes, str]:
    """Compile to a shared object that needs no library at link time.

    compiler: path or name of a gcc or clang; by default $TINYNN_CC, else Zig.
    Returns the bytes of the object and the version text of the compiler.
    Raises ToolchainError.
    """
    chosen = compiler or os.environ.get("TINYNN_CC") or "zig"
    with tempfile.TemporaryDirectory(prefix="tinynn-") as folder:
        (Path(folder) / "program.c").write_text(source)
        if chosen == "zig":
            version = "zig " + _run([*_zig(), "version"], folder)
            command = [*_zig(), "cc", *machine.zig_flags, "-ffp-contract=on"]
        else:
            version = _run([chosen, "--version"], folder).splitlines()[0]
            command = [chosen, *machine.gcc_flags, "-ffp-contract=fast"]
        try:
            _run([*command, *_FLAGS, "-o", "program.so", "program.c"], folder)
        except ToolchainError as error:
            raise ToolchainError(f"{error} The source is kept in {_keep(source)}.") from error
        return (Path(folder) / "program.so").read_bytes(), version.strip()


def _zig() -> list[str]:
    if importlib.util.find_spec("ziglang") is None:
        raise ToolchainError("compiling needs a C compiler: run pip install 'tinydrive[compile]', "
                             "or name one in TINYNN_CC")
    return [sys.executable, "-m", "ziglang"]


def _run(command: list[str], folder: str) -> str:
    """Standard output of a command run in a folder that is also its home and cache."""
    environment = os.environ | {
        "HOME": folder, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder,
        "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    environment.pop("PYTHONSAFEPATH", None)
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True,
                              errors="replace", check=False)
    except OSError as error:
        raise ToolchainError(f"the C compiler {command[0]!r} cannot be run: {error.strerror}. "
                             "Check TINYNN_CC.") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        first = (lines or done.stderr.splitlines() or [f"exit status {done.returncode}"])[0]
        raise ToolchainError(f"the C compiler failed: {first.strip()}.")
    return done.stdout


def _keep(source: str) -> str:
    handle, path = tempfile.mkstemp(prefix="tinynn-", suffix=".c")
    with os.fdopen(handle, "w") as file:
        file.write(source)
    return path
