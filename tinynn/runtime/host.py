"""What this machine can run, and where it keeps things between runs."""
from __future__ import annotations

import os
import platform
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

# Features that each x86-64 level of the psABI adds, and instructions beyond them, as Linux names
# them.
_X86_LEVELS = {
    "cpu:x86-64-v2": "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3",
    "cpu:x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
    "cpu:x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    "cpu:x86-64-v4+vnni": "avx512_vnni",
    "cpu:x86-64-v4+bf16+vnni": "avx512_bf16",
}


def cpu_flags() -> set[str]:
    """Feature names of the first core; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def runnable_targets(machine: str, flags: Collection[str]) -> list[str]:
    """Targets that such a machine runs, best first."""
    if machine in ("aarch64", "arm64"):
        return ["cpu:aarch64"]
    found: list[str] = []
    if machine in ("x86_64", "AMD64"):
        for target, names in _X86_LEVELS.items():
            if not set(names.split()) <= set(flags):
                break
            found.insert(0, target)
    return found


def host_targets() -> list[str]:
    """Targets that this machine runs, best first. The machine code in artifacts is for Linux."""
    if platform.system() != "Linux":
        return []
    return runnable_targets(platform.machine(), cpu_flags())


def cores_available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_nbytes() -> int:
    """Physical memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
