"""Machines: what the compiler knows about each CPU level it compiles for."""
from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path

OPENCL_TARGETS = ("opencl", "opencl:adreno630")


class TargetError(ValueError):
    """A target that is unknown, or that this machine cannot name; the message lists the known."""


@dataclass(frozen=True)
class Machine:
    """A CPU level.

    name: as targets spell it, after "cpu:". zig_flags, gcc_flags: how compilers are told.
    lanes: f32 numbers per vector. registers: vector registers.
    has_half: converts vectors of f16 to f32 in one instruction.
    has_bf16: adds two products of bf16 to every lane in one instruction.
    has_vnni: likewise four products of u8 and i8 to every lane of i32.
    near_bytes: local data that a loop may use again at full speed, well within the L2 cache.
    """

    name: str
    zig_flags: tuple[str, ...]
    gcc_flags: tuple[str, ...]
    lanes: int
    registers: int
    has_half: bool
    near_bytes: int = 256 * 1024
    has_bf16: bool = False
    has_vnni: bool = False


_WIDE = "-mprefer-vector-width=512"  # compilers use half of AVX-512 registers unless told


def _x86(level: int, lanes: int, registers: int, *extra: str) -> Machine:
    return Machine(f"x86-64-v{level}",
                   ("-target", "x86_64-linux-gnu", f"-mcpu=x86_64_v{level}", *extra),
                   (f"-march=x86-64-v{level}", *extra), lanes, registers, level > 2)


def _with_features(machine: Machine, *names: str) -> Machine:
    """The machine with instructions beyond its level, as targets spell them: +bf16, +vnni."""
    return replace(
        machine, name="+".join([machine.name, *names]),
        zig_flags=tuple(f"{flag}+" + "+".join(f"avx512{n}" for n in names)
                        if flag.startswith("-mcpu") else flag for flag in machine.zig_flags),
        gcc_flags=(*machine.gcc_flags, *(f"-mavx512{n}" for n in names)),
        has_bf16="bf16" in names, has_vnni="vnni" in names)


_V4 = _x86(4, 16, 32, _WIDE)
MACHINES = {m.name: m for m in (
    _x86(2, 4, 16), _x86(3, 8, 16), _V4, _with_features(_V4, "vnni"),
    _with_features(_V4, "bf16", "vnni"),
    Machine("aarch64", ("-target", "aarch64-linux-gnu", "-mcpu=baseline"), ("-march=armv8-a",),
            4, 32, True),
)}

# Flags in /proc/cpuinfo that a level needs beyond the one before it.
_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v4+vnni", {"avx512_vnni"}),
    ("x86-64-v4+bf16+vnni", {"avx512_bf16"}),
)


def resolve_target(target: str) -> str:
    """The full name of a target: "cpu" becomes that of this host, such as "cpu:x86-64-v3".

    Raises TargetError for a name that is not known.
    """
    if target == "cpu":
        return f"cpu:{_host_level()}"
    if target in OPENCL_TARGETS or (target.startswith("cpu:") and target[4:] in MACHINES):
        return target
    known = ", ".join(["cpu", *(f"cpu:{name}" for name in MACHINES), *OPENCL_TARGETS])
    raise TargetError(f"target {target!r} is not known; choose one of {known}")


def usual_precision(target: str) -> str:
    """Precision of arithmetic where none is asked for: half on Adreno, which is built for it."""
    return "f16" if target.startswith("opencl:adreno") else "f32"


def machine_of(target: str) -> Machine:
    """The machine of a target name; "cpu" is this host."""
    return MACHINES[resolve_target(target)[4:]]


def _host_level() -> str:
    if platform.machine() in ("aarch64", "arm64"):
        return "aarch64"
    if platform.machine() not in ("x86_64", "AMD64"):
        raise TargetError(f"this machine ({platform.machine()}) is not one the compiler knows; "
                          f"name a target: {', '.join(f'cpu:{name}' for name in MACHINES)}")
    try:
        level = level_of_flags(Path("/proc/cpuinfo").read_text())
    except OSError:
        level = "x86-64-v2"
    return level


def level_of_flags(cpuinfo: str) -> str:
    """Highest x86-64 level whose features all appear in the text of /proc/cpuinfo."""
    flags = next((set(line.split(":", 1)[1].split()) for line in cpuinfo.splitlines()
                  if line.startswith("flags")), set())
    best = "x86-64-v2"
    for name, needed in _LEVELS:
        if not needed <= flags:
            break
        best = name
    return best
