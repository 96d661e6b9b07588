"""A compiled program as plain data: what the compiler hands to the artifact.

Everything here is numbers, text and bytes. `artifact.py` writes it as canonical JSON and blobs, the
runtime reads that back; neither needs the graph it came from.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor at the border of the program. `dtype` as in ir.DType values ("f32", "u8")."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Buffer:
    """A range of memory that steps read and write.

    kind: "input", "output", "state" (survives between runs), "weight" or "arena" (scratch).
    name: of the tensor for input, output, state; otherwise what it holds, for people.
    offset: bytes from the start of the arena or of the weights; 0 for the other kinds.
    nbytes: size; always the full extent that any step touches.
    image: None for plain memory. OpenCL only: the buffer is read and written as a two-dimensional
        RGBA image of (width, height, pitch, channel); width and pitch (from row to row) in texels,
        channel "half" or "float". Its shape is (height, pitch, 4) and its dtype f16 or f32.

    Several buffers of the same kind, name, offset and nbytes are views of one memory: as an image
    and as plain memory, or as images of different widths.
    """

    kind: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    image: tuple[int, int, int, str] | None = None


@dataclass(frozen=True)
class Step:
    """One kernel launch: `kernel` is its symbol, `args` are indices into the buffers.

    writes: which positions of `args` are written; all others are only read.
    parts: the largest number of shares the work can be split into (1: serial).
    global_size, local_size: work-items in all and per work-group, three numbers each, the first
        ones multiples of the second ones; empty for CPU targets.
    flop, nbytes: arithmetic operations and bytes moved, for reports.
    note: one line for people: which nodes it computes.
    schedule: for people: its family of schedules, and the tile, for example "contract 14x2x16".
    reason: for people: why its result is stored instead of computed where it is read.
    predicted_ns, bound: what the target's cost model says at compile time, and what binds it; 0
        and "" where `explain` predicts.
    """

    kernel: str
    args: tuple[int, ...]
    writes: tuple[int, ...]
    parts: int
    flop: int
    nbytes: int
    note: str
    schedule: str = ""
    reason: str = ""
    predicted_ns: int = 0
    bound: str = ""
    global_size: tuple[int, ...] = ()
    local_size: tuple[int, ...] = ()


@dataclass(frozen=True)
class Weight:
    """A constant in the weights of the artifact.

    dtype, shape: as kernels see it. storage: dtype it is stored in ("f16" where every value is
    exactly representable, else equal to dtype); the loader widens it.
    data: its bytes in storage form.
    """

    buffer: int
    storage: str
    data: bytes


@dataclass(frozen=True)
class TargetCode:
    """The program for one target.

    target: resolved name, for instance "cpu:x86-64-v4". precision: "f32".
    source: C text of all kernels (OpenCL C for OpenCL targets). code: shared object; empty for
        OpenCL targets, whose source is built on the device.
    toolchain: version text of what built it.
    tolerance: relative error allowed for any output that needs not be exact; golden vectors may
        allow more.
    """

    target: str
    precision: str
    toolchain: str
    source: str
    code: bytes
    arena_nbytes: int
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    weights: tuple[Weight, ...]
    tolerance: float = 0.0


@dataclass(frozen=True)
class Program:
    """A model compiled for one or more targets.

    inputs: tensors the caller gives, in the order of the source model. state: tensors the program
    keeps between runs (they are also inputs of the model, and start as zeros). outputs: results.
    carry: state name -> name of the output that is its next value.
    source_sha256: of the ONNX file. metadata: plain data that came with the model.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    carry: dict[str, str]
    source_sha256: str
    metadata: dict[str, Any]
    targets: tuple[TargetCode, ...]
    options: dict[str, Any] = field(default_factory=dict)
