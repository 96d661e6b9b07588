"""aarch64 programs as static executables for qemu-user, and the assembly of kernels.

The executable is built without a C library, because building one takes longer than all tests: the
few functions that `main` and the driver need are system calls. No thread can be started there, and
the driver then runs every step alone.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tinynn.machine import Machine
from tinynn.program import TargetCode
from tinynn.render import toolchain
from tinynn.tests.executable import write_sources

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")

_FLAGS = [flag for flag in (*toolchain._FLAGS, "-ffp-contract=on") if flag != "-w"]

_SYSTEM = """\
typedef __SIZE_TYPE__ size_t;
enum { READ = 63, WRITE = 64, EXIT = 94, MAP = 222, AGAIN = 11 };

static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
long read(int file, void *memory, size_t size) {
    return call(READ, file, (long)memory, size, 0, 0, 0);
}
long write(int file, const void *memory, size_t size) {
    return call(WRITE, file, (long)memory, size, 0, 0, 0);
}
/* Memory that ends, but for its alignment, at the end of a page; the next page is not there. */
int posix_memalign(void **memory, size_t alignment, size_t size) {
    const size_t page = 65536, room = (size + page) / page * page;
    enum { NONE = 0, READ_WRITE = 3, PRIVATE_ANONYMOUS = 0x22, FIXED = 0x10 };
    const long start = call(MAP, 0, room + page, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
    if (start < 0)
        return AGAIN;
    call(MAP, start + room, page, NONE, PRIVATE_ANONYMOUS | FIXED, -1, 0);
    *memory = (void *)(start + (room - size) / alignment * alignment);
    return 0;
}
void *memset(void *memory, int value, size_t size) {
    volatile unsigned char *at = memory;
    while (size--)
        *at++ = value;
    return memory;
}
void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    volatile unsigned char *at = to;
    for (const unsigned char *source = from; size--;)
        *at++ = *source++;
    return to;
}
int pthread_create(unsigned long *thread, const void *attributes, void *(*run)(void *),
                   void *argument) {
    return AGAIN;
}
int pthread_join(unsigned long thread, void **result) { return 0; }
int pthread_attr_init(void *attributes) { return 0; }
int pthread_attr_setstacksize(void *attributes, unsigned long nbytes) { return 0; }
int pthread_attr_destroy(void *attributes) { return 0; }
int clock_gettime(int clock, void *time) { return 0; }
long syscall(long number, ...) { return 0; }
int main(void);
void _start(void) { call(EXIT, main(), 0, 0, 0, 0, 0); }
"""


def build_bare(code: TargetCode, machine: Machine, folder: Path) -> list[str | Path]:
    """Build the executable in the folder; the command that runs it."""
    names = write_sources(code, folder)
    (folder / "system.c").write_text(_SYSTEM)
    zig([*machine.zig_flags, *_FLAGS, "-static", "-nostdlib", "-w", "-o", "program", *names,
         "system.c"], folder)
    assert QEMU is not None
    return [QEMU, folder / "program"]


def build_musl(code: TargetCode, machine: Machine, folder: Path) -> list[str | Path]:
    """The same with musl, whose building takes a minute.

    Zig would set a stack size in the file, which musl heeds for threads; here it is musl's own.
    """
    names = write_sources(code, folder)
    flags = [flag.replace("-gnu", "-musl") for flag in machine.zig_flags]
    stack = "-Wl,-z,stack-size=131072"
    zig([*flags, *_FLAGS, "-static", stack, "-w", "-o", "program", *names], folder)
    assert QEMU is not None
    return [QEMU, folder / "program"]


def zig(arguments: Sequence[str], folder: Path) -> str:
    """What `zig cc` prints, run in a folder that is also its cache."""
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(folder), "LC_ALL": "C",
                                "ZIG_LOCAL_CACHE_DIR": str(folder)}
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assembly(source: str, machine: Machine, folder: Path) -> str:
    """The assembly text of a C source, built as the toolchain builds it."""
    (folder / "program.c").write_text(source)
    zig([*machine.zig_flags, *_FLAGS, "-w", "-S", "-o", "program.s", "program.c"], folder)
    return (folder / "program.s").read_text()


def frames(source: str, machine: Machine, folder: Path) -> dict[str, int]:
    """Bytes of stack of every function that has a frame."""
    (folder / "program.c").write_text(source)
    said = zig([*machine.zig_flags, *_FLAGS, "-Wframe-larger-than=1", "-S", "-o", "program.s",
                "program.c"], folder)
    return {name: int(size) for size, name
            in re.findall(r"stack frame size \((\d+)\) exceeds limit \(1\) in '(\w+)'", said)}


_LABEL = re.compile(r"^(\.LBB\w+):")
_BRANCH = re.compile(r"^\s+(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s(?:.*\s)?(\.LBB\w+)")
_MULTIPLY_ADD = re.compile(r"^\s+(?:vfn?madd\d+ps|fmla)\s")


def hot_loops(text: str) -> list[list[str]]:
    """Lines of the innermost loops that add up products of vectors."""
    lines = text.splitlines()
    labels = {m[1]: i for i, line in enumerate(lines) if (m := _LABEL.match(line))}
    branches = [(labels.get(m[1], len(lines)), i) for i, line in enumerate(lines)
                if (m := _BRANCH.match(line))]
    loops = [(first, last) for first, last in branches if first < last]
    innermost = [(first, last) for first, last in loops
                 if not any(first <= a and b <= last and (a, b) != (first, last)
                            for a, b in loops)]
    bodies = [lines[first:last + 1] for first, last in innermost]
    return [body for body in bodies if sum(bool(_MULTIPLY_ADD.match(line)) for line in body) > 3]


def spills(lines: Sequence[str]) -> list[str]:
    """The lines that save a register to the stack or restore it, as the compiler marks them."""
    return [line.strip() for line in lines if re.search(r"-byte (Folded )?(Spill|Reload)", line)]
