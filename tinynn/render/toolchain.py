"""C source -> shared object, with the compiler from PyPI's `ziglang` or one of the system.

The same source gives the same bytes: the compiler sees one fixed file name, nothing records a path
or a time, and the version of Zig is pinned by the package.
"""
from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tinynn.machine import Machine


class ToolchainError(RuntimeError):
    """No C compiler, or one that failed; the message says what to install, or where the source is
    kept."""


# -ffp-contract: Zig's clang fuses a * b + c where it stands in one expression and keeps every
# rounding otherwise ("on"); gcc has only "fast", and needs it to fuse at all.
_FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
          "-fno-strict-aliasing", "-fvisibility=hidden", "-fPIC", "-w")
_LINK_FLAGS = ("-shared", "-nostdlib", "-s", "-Wl,--build-id=none")


def build(source: str, machine: Machine, compiler: str | None = None) -> tuple[bytes, str]:
    """Compile to a shared object that needs no library at link time: its bytes, and the version
    text of the compiler. Arguments and errors: `compile_object`."""
    code = link([compile_object(source, machine, compiler)], machine, compiler)
    return code, version(compiler)


def compile_object(source: str, machine: Machine, compiler: str | None = None) -> bytes:
    """Compile one source to an object file.

    compiler: path or name of a gcc or clang; by default $TINYNN_CC, else Zig.
    Raises ToolchainError.
    """
    with tempfile.TemporaryDirectory(prefix="tinynn-") as folder:
        (Path(folder) / "program.c").write_text(source)
        command = [*_command(machine, compiler), *_FLAGS, "-c", "-o", "program.o", "program.c"]
        try:
            _run(command, folder)
        except ToolchainError as error:
            raise ToolchainError(f"{error} The source is kept in {_keep(source)}.") from error
        return (Path(folder) / "program.o").read_bytes()


def link(objects: Sequence[bytes], machine: Machine, compiler: str | None = None) -> bytes:
    """Join object files, in this order, to a shared object. Raises ToolchainError."""
    with tempfile.TemporaryDirectory(prefix="tinynn-") as folder:
        names = [f"{number}.o" for number in range(len(objects))]
        for name, content in zip(names, objects, strict=True):
            (Path(folder) / name).write_bytes(content)
        _run([*_command(machine, compiler), *_LINK_FLAGS, "-o", "program.so", *names], folder)
        return (Path(folder) / "program.so").read_bytes()


def version(compiler: str | None = None) -> str:
    """The version text of the compiler. Raises ToolchainError."""
    chosen = chosen_compiler(compiler)
    with tempfile.TemporaryDirectory(prefix="tinynn-") as folder:
        if chosen == "zig":
            return "zig " + _run([*_zig(), "version"], folder).strip()
        return _run([chosen, "--version"], folder).splitlines()[0].strip()


def chosen_compiler(compiler: str | None) -> str:
    """The compiler asked for, that of the environment, or "zig"."""
    return compiler or os.environ.get("TINYNN_CC") or "zig"


def _command(machine: Machine, compiler: str | None) -> list[str]:
    chosen = chosen_compiler(compiler)
    if chosen == "zig":
        return [*_zig(), "cc", *machine.zig_flags, "-ffp-contract=on"]
    return [chosen, *machine.gcc_flags, "-ffp-contract=fast"]


def _zig() -> list[str]:
    """The program itself: a start of Python for every source would take as long as compiling it."""
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        raise ToolchainError("compiling needs a C compiler: run pip install 'tinydrive[compile]', "
                             "or name one in TINYNN_CC")
    return [str(Path(package.origin).with_name("zig"))]


def _run(command: list[str], folder: str) -> str:
    """Standard output of a command run in a folder that is also its home and cache."""
    environment = os.environ | {
        "HOME": folder, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder,
        "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
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
