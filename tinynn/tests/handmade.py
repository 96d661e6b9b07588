"""A small program made by hand: its C source, its shared object and its artifact.

It lets the runtime be tested without the compiler. One kernel adds a scaled input and the state,
another sums; all follow the C interface of docs/architecture.md. Its meaning in numpy: `expected`.
"""
from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.artifact import Artifact, GoldenVector, build
from tinynn.program import Buffer, Program, Step, TargetCode, TensorSpec, Weight
from tinynn.runtime.golden import sample_inputs

SOURCE = """
#include <stdint.h>
typedef void (*tinynn_kernel)(void *const *args, int64_t part, int64_t parts);
struct tinynn_step { tinynn_kernel kernel; void *const *args; int64_t parts; };

static int64_t stopped;

/* next[i] = x[i] * scale[i] + memory[i] */
void k0_scale_add(void *const *args, int64_t part, int64_t parts) {
  float *next = args[0];
  const float *x = args[1], *scale = args[2], *memory = args[3];
  for (int64_t i = 4 * part / parts; i < 4 * (part + 1) / parts; i++)
    next[i] = x[i] * scale[i] + memory[i];
}

/* total = sum of 2 * next */
void k1_double(void *const *args, int64_t part, int64_t parts) {
  float *twice = args[0];
  const float *next = args[1];
  for (int64_t i = 4 * part / parts; i < 4 * (part + 1) / parts; i++) twice[i] = 2 * next[i];
}

void k2_sum(void *const *args, int64_t part, int64_t parts) {
  float *total = args[0];
  const float *twice = args[1];
  *total = 0;
  for (int64_t i = 0; i < 4; i++) *total += twice[i];
}

int tinynn_run(const struct tinynn_step *steps, int64_t count, int64_t threads, int64_t *ns) {
  if (threads > 8) return 1;
  for (int64_t i = 0; i < count; i++) {
    int64_t shares = steps[i].parts < threads ? steps[i].parts : threads;
    for (int64_t part = 0; part < shares; part++) steps[i].kernel(steps[i].args, part, shares);
    if (ns) ns[i] = 100 + i;
  }
  return 0;
}

void tinynn_stop(void) { stopped++; }
"""
SCALE = np.array([1.0, 2.0, -3.0, 0.5], dtype=np.float32)
HOST = "cpu:aarch64" if platform.machine() == "aarch64" else "cpu:x86-64-v2"


@functools.cache
def machine_code(source: str = SOURCE) -> bytes:
    """Compile C for this machine with the toolchain the compiler uses too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "program.c").write_text(source, encoding="ascii")
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-nostdlib", "-O1", "-g0",
             "-target", f"{platform.machine()}-linux-gnu", "-o", "program.so", "program.c"],
            cwd=path, check=True, capture_output=True, timeout=300,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder})
        return (path / "program.so").read_bytes()


def expected(x: np.ndarray[Any, Any], memory: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The meaning of the program in float64."""
    after = x.astype(np.float64) * SCALE + memory
    return {"next": after, "total": np.array([2 * after.sum()])}


def target_code(target: str = HOST, code: bytes | None = None) -> TargetCode:
    vector: dict[str, Any] = {"dtype": "f32", "shape": (4,), "nbytes": 16}
    return TargetCode(
        target=target, precision="f32", toolchain="by hand", source=SOURCE,
        code=machine_code() if code is None else code, arena_nbytes=64,
        buffers=(Buffer("input", "x", offset=0, **vector),
                 Buffer("state", "memory", offset=0, **vector),
                 Buffer("weight", "scale", offset=64, **vector),
                 Buffer("output", "next", offset=0, **vector),
                 Buffer("arena", "twice", offset=0, **vector),
                 Buffer("output", "total", "f32", (1,), 0, 4)),
        steps=(Step("k0_scale_add", (3, 0, 2, 1), (0,), 4, 8, 64, "x * scale + memory"),
               Step("k1_double", (4, 3), (0,), 4, 4, 32, "2 * next"),
               Step("k2_sum", (5, 4), (0,), 1, 4, 20, "sum")),
        weights=(Weight(2, "f16", SCALE.astype(np.float16).tobytes()),))


def program(**changes: Any) -> Program:
    """x, memory -> next = x * scale + memory, total = sum(2 next); memory takes next."""
    made = Program(
        name="handmade", inputs=(TensorSpec("x", "f32", (4,)),),
        state=(TensorSpec("memory", "f32", (4,)),),
        outputs=(TensorSpec("next", "f32", (4,)), TensorSpec("total", "f32", (1,))),
        carry={"memory": "next"}, source_sha256="0" * 64,
        metadata={"output_slices": {"first": [0, 1, None]}, "unit": "m/s²"},
        targets=(target_code(),), options={"precision": "f32"})
    return replace(made, **changes)


def golden_vectors() -> list[GoldenVector]:
    memory, vectors = np.zeros(4), []
    for seed in (0, 1):
        (x,) = sample_inputs([TensorSpec("x", "f32", (4,))], seed).values()
        outputs = expected(x, memory)
        memory = outputs["next"]
        vectors.append(GoldenVector(seed, outputs, {"next": 1e-6, "total": 1e-6}))
    return vectors


def artifact(made: Program | None = None, threads: int | None = None) -> Artifact:
    return build(made or program(), golden_vectors(), threads)
