"""What takes long to make, kept between runs: what the C compiler made, and golden outputs.

An entry is named by the sha256 of everything that decides it: for an object the source text,
machine, compiler with its version, and flags (the text of render/toolchain.py stands for them).
Programs are compiled in units of a few kernels, so that a change of one costs little. An entry
holds its own sha256, so that a damaged one is noticed and made again. A cache that cannot be used
is no error: things are made, as they would be without one.

Objects are machine code that will be run as if it had been built here. So a folder that others
than its owner may write to, or that belongs to somebody else, is not used.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinynn.machine import Machine
from tinynn.render import toolchain
from tinynn.runtime.host import cache_folder, cores_available, usable

MAX_NBYTES = 256 << 20  # of all entries of a kind; the ones not used for longest go first


def build(source: str, machine: Machine, compiler: str | None = None) -> tuple[bytes, str]:
    """Shared object of one source, and the version text of the compiler. Raises ToolchainError."""
    return build_units([source], machine, compiler)


def build_units(sources: Sequence[str], machine: Machine,
                compiler: str | None = None) -> tuple[bytes, str]:
    """`build` for a program in several sources: those that changed are compiled, side by side."""
    decides = _identity(machine, compiler)

    def key(what: str | Sequence[str]) -> list[Any] | None:
        return None if decides is None else [what, *decides]

    def compiled(source: str) -> bytes:
        return kept("objects", key(source),
                    lambda: toolchain.compile_object(source, machine, compiler))

    def make() -> bytes:
        with ThreadPoolExecutor(cores_available()) as pool:
            objects = list(pool.map(compiled, sources))
        code = toolchain.link(objects, machine, compiler)
        return toolchain.version(compiler).encode() + b"\n" + code

    version, _, code = kept("programs", key(sources), make).partition(b"\n")
    return code, version.decode()


def kept(kind: str, key: Sequence[Any] | None, make: Callable[[], bytes]) -> bytes:
    """What `make` gives, or gave for an equal key before. key: plain data; None: never keep it."""
    home = cache_folder()
    folder = usable(home / kind) if home is not None else None
    if folder is None or key is None:
        return make()
    path = folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()
    found = load(path)
    if found is None:
        found = make()
        store(path, found)
    return found


def load(path: Path) -> bytes | None:
    """The content of an entry; None if it is absent or damaged."""
    try:
        data = path.read_bytes()
        digest, content = data[:32], data[32:]
        if hashlib.sha256(content).digest() != digest:
            return None
        os.utime(path)  # used now
    except OSError:
        return None
    return content


def store(path: Path, content: bytes) -> None:
    """Write an entry, whole or not at all, and drop old ones beyond the limit."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix="new-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        trim(path.parent, MAX_NBYTES)


def trim(folder: Path, limit: int) -> None:
    """Remove the entries that were not used for longest until `limit` bytes are left."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process trims too
            found = path.stat()
            entries.append((found.st_mtime_ns, found.st_size, path))
    total = sum(nbytes for _, nbytes, _ in entries)
    for _, nbytes, path in sorted(entries):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= nbytes


def _identity(machine: Machine, compiler: str | None) -> list[Any] | None:
    """What decides an object beside its source; None if the compiler does not tell what it is."""
    chosen = toolchain.chosen_compiler(compiler)
    identity = _zig_identity() if chosen == "zig" else _compiler_identity(chosen)
    if identity is None:
        return None
    return [asdict(machine), identity, Path(toolchain.__file__).read_text(encoding="utf-8")]


def _zig_identity() -> list[str] | None:
    try:
        return ["ziglang", importlib.metadata.version("ziglang")]
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler_identity(name: str) -> list[str] | None:
    """Path, size and time of the program, and what it says of itself."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        program = os.stat(path)
        says = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [os.path.realpath(path), str(program.st_size), str(program.st_mtime_ns), says.stdout]
