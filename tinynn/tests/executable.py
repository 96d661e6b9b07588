"""Compiled programs as executables of their own, for what cannot be loaded into this process.

A small `main` in C gets every buffer from malloc at its exact size, so that a sanitizer sees a read
or write beyond it. It reads inputs and weights from standard input, runs all steps with one share,
with three shares and through the driver with three threads, and writes the outputs of each run to
standard output. Memory that steps write is filled with 0xFF before each run: a number that nothing
was written to is NaN.
"""
from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tinynn import compiler
from tinynn.ir import DType, Graph
from tinynn.program import Buffer, TargetCode
from tinynn.tests.direct import assert_close

Arrays = dict[str, np.ndarray[Any, Any]]
RUNS = ("one share", "three shares", "three threads")
_COARSE = {DType.F16.numpy: 2e-2, DType.BF16.numpy: 8e-2}
_GIVEN = ("input", "state", "weight")

_MAIN = """\
typedef __INT64_TYPE__ int64_t;
typedef __SIZE_TYPE__ size_t;
typedef void (*tinynn_kernel)(void *const *args, int64_t part, int64_t parts);
struct tinynn_step { tinynn_kernel kernel; void *const *args; int64_t parts; };
extern int tinynn_run(const struct tinynn_step *steps, int64_t count, int64_t threads,
                      int64_t *nanoseconds);
extern void tinynn_stop(void);
extern int posix_memalign(void **memory, size_t alignment, size_t size);
extern void *memset(void *memory, int value, size_t size);
extern long read(int file, void *memory, size_t size);
extern long write(int file, const void *memory, size_t size);
@prototypes@

static struct { size_t nbytes; int given, result; unsigned char *data; } buffers[] = {
@buffers@
};
static const int numbers[] = {@numbers@};
static struct { struct tinynn_step step; int count; } steps[] = {
@steps@
};
enum {
    BUFFERS = sizeof buffers / sizeof *buffers,
    STEPS = sizeof steps / sizeof *steps,
    ARGUMENTS = sizeof numbers / sizeof *numbers
};
static void *arguments[ARGUMENTS];
static struct tinynn_step list[STEPS];

static int prepare(void) {
    for (int i = 0; i < BUFFERS; ++i) {
        if (posix_memalign((void **)&buffers[i].data, 64, buffers[i].nbytes))
            return 1;
        size_t done = 0;
        while (buffers[i].given && done < buffers[i].nbytes) {
            const long got = read(0, buffers[i].data + done, buffers[i].nbytes - done);
            if (got <= 0)
                return 1;
            done += got;
        }
    }
    int next = 0;
    for (int i = 0; i < STEPS; ++i) {
        list[i] = steps[i].step;
        list[i].args = arguments + next;
        for (int k = 0; k < steps[i].count; ++k, ++next)
            arguments[next] = buffers[numbers[next]].data;
    }
    return 0;
}
static void clear(void) {
    for (int i = 0; i < BUFFERS; ++i)
        if (!buffers[i].given)
            memset(buffers[i].data, 0xFF, buffers[i].nbytes);
}
static int tell(void) {
    for (int i = 0; i < BUFFERS; ++i) {
        size_t done = 0;
        while (buffers[i].result && done < buffers[i].nbytes) {
            const long put = write(1, buffers[i].data + done, buffers[i].nbytes - done);
            if (put <= 0)
                return 1;
            done += put;
        }
    }
    return 0;
}
static void run_shares(int64_t most) {
    for (int i = 0; i < STEPS; ++i) {
        const int64_t parts = list[i].parts < most ? list[i].parts : most;
        for (int64_t part = parts - 1; part >= 0; --part)
            list[i].kernel(list[i].args, part, parts);
    }
}
int main(void) {
    if (prepare())
        return 2;
    for (int64_t most = 1; most <= 3; most += 2) {
        clear();
        run_shares(most);
        if (tell())
            return 3;
    }
    clear();
    if (tinynn_run(list, STEPS, 3, 0) || tell())
        return 4;
    tinynn_stop();
    return 0;
}
"""


def code_of(graph: Graph, target: str) -> TargetCode:
    """The program of a graph with its C text; no shared object is built."""
    with mock.patch.object(compiler, "build_units", return_value=(b"", "none")):
        return compiler.generate(graph, target)


def write_sources(code: TargetCode, folder: Path) -> list[str]:
    """Write program.c and main.c into the folder; their names."""
    kernels = sorted({s.kernel for s in code.steps})
    fields = {
        "prototypes": "\n".join(
            f"extern void {k}(void *const *args, int64_t part, int64_t parts);" for k in kernels),
        "buffers": "\n".join(
            f"    {{{b.nbytes}, {int(b.kind in _GIVEN)}, {int(b.kind == 'output')}, 0}},"
            for b in code.buffers),
        "numbers": ", ".join(str(number) for s in code.steps for number in s.args),
        "steps": "\n".join(f"    {{{{{s.kernel}, 0, {s.parts}}}, {len(s.args)}}},"
                           for s in code.steps),
    }
    text = _MAIN
    for name, value in fields.items():
        text = text.replace(f"@{name}@", value)
    (folder / "program.c").write_text(code.source)
    (folder / "main.c").write_text(text)
    return ["program.c", "main.c"]


def execute(command: Sequence[str | Path], code: TargetCode, inputs: Mapping[str, Any],
            environment: Mapping[str, str] | None = None) -> dict[str, Arrays]:
    """Run the executable; for each of RUNS its outputs. What it says on failure is raised."""
    given = [b for b in enumerate(code.buffers) if b[1].kind in _GIVEN]
    weights = {w.buffer: np.frombuffer(w.data, DType(w.storage).numpy) for w in code.weights}
    data = b"".join(_bytes(b, weights[i] if b.kind == "weight" else inputs[b.name])
                    for i, b in given)
    done = subprocess.run(command, input=data, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n" + done.stderr.decode(
        errors="replace")
    results: dict[str, Arrays] = {}
    position = 0
    for run in RUNS:
        results[run] = {}
        for buffer in (b for b in code.buffers if b.kind == "output"):
            raw = done.stdout[position:position + buffer.nbytes]
            values = np.frombuffer(raw, DType(buffer.dtype).numpy)
            results[run][buffer.name] = values.reshape(buffer.shape)
            position += buffer.nbytes
    assert position == len(done.stdout)
    return results


def assert_all_runs(results: Mapping[str, Arrays], want: Arrays, tolerance: float) -> None:
    """Every run gives the same bits, and the wanted values to a relative tolerance."""
    first, *others = results.values()
    for name, value in want.items():
        assert_close({name: first[name]}, {name: value}, _COARSE.get(value.dtype, tolerance))
        for other in others:
            assert other[name].tobytes() == first[name].tobytes(), name


def _bytes(buffer: Buffer, values: np.ndarray[Any, Any]) -> bytes:
    """Values as the kernels read them: weights that are stored in f16 are widened."""
    return np.asarray(values).astype(DType(buffer.dtype).numpy).tobytes()
