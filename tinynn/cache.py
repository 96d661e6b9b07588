"""Results of the C compiler, kept between runs: the same source is compiled once.

An entry is named by the sha256 of everything that decides the result: source text, machine, the
compiler and its version, and the flags (the text of render/toolchain.py stands for them). It holds
its own sha256, so that a damaged one is noticed and made again. A cache that cannot be used is no
error: the compiler runs, as it would without one.

Entries are machine code that will be run as if it had been built here. So a folder that others
than its owner may write to, or that belongs to somebody else, is not used.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tinynn.machine import Machine
from tinynn.render import toolchain

MAX_NBYTES = 256 << 20  # of all entries; the ones not used for longest go first


def build(source: str, machine: Machine, compiler: str | None = None) -> tuple[bytes, str]:
    """`toolchain.build` with its results kept: object and version text. Raises ToolchainError."""
    home = cache_folder()
    folder = usable(home / "objects") if home is not None else None
    key = _key(source, machine, compiler) if folder is not None else None
    if folder is None or key is None:
        return toolchain.build(source, machine, compiler)
    found = load(folder / key)
    if found is None:
        found = toolchain.build(source, machine, compiler)
        store(folder / key, *found)
    return found


def cache_folder(env: Mapping[str, str] = os.environ) -> Path | None:
    """$TINYDRIVE_CACHE (empty: no cache), else $XDG_CACHE_HOME/tinydrive or ~/.cache/tinydrive."""
    if "TINYDRIVE_CACHE" in env:
        return Path(env["TINYDRIVE_CACHE"]) if env["TINYDRIVE_CACHE"] else None
    if os.path.isabs(env.get("XDG_CACHE_HOME", "")):
        return Path(env["XDG_CACHE_HOME"]) / "tinydrive"
    home = env.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".cache" / "tinydrive" if os.path.isabs(home) else None


def usable(folder: Path) -> Path | None:
    """The folder, made if need be, if it is ours alone to write; otherwise None."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return None
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return None if shared or found.st_uid != os.geteuid() else folder


def load(path: Path) -> tuple[bytes, str] | None:
    """Object and version text of an entry; None if it is absent or damaged."""
    try:
        data = path.read_bytes()
        digest, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        os.utime(path)  # used now
    except OSError:
        return None
    version, _, code = body.partition(b"\n")
    return code, version.decode()


def store(path: Path, code: bytes, version: str) -> None:
    """Write an entry, whole or not at all, and drop old ones beyond the limit."""
    body = version.encode() + b"\n" + code
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix="new-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(hashlib.sha256(body).digest() + body)
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


def _key(source: str, machine: Machine, compiler: str | None) -> str | None:
    """Name of the entry; None if the compiler does not tell what it is."""
    chosen = compiler or os.environ.get("TINYNN_CC") or "zig"
    identity = _zig_identity() if chosen == "zig" else _compiler_identity(chosen)
    if identity is None:
        return None
    flags = Path(toolchain.__file__).read_text(encoding="utf-8")
    parts = json.dumps([source, asdict(machine), identity, flags])
    return hashlib.sha256(parts.encode()).hexdigest()


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
