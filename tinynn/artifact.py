"""Write a compiled program as one file, and open such files. Layout: runtime/layout.py.

The same program gives the same bytes: no times, no paths, no names of machines go in.
"""
from __future__ import annotations

import bz2
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinynn import __version__
from tinynn.program import Program, TargetCode, TensorSpec
from tinynn.runtime.golden import Arrays, as_numbers
from tinynn.runtime.layout import (
    BLOB_ALIGN,
    DTYPES,
    FLOATS,
    HEADER_NBYTES,
    MEMORY_ALIGN,
    VERSION,
    ArtifactError,
    Header,
    align,
    canonical_json,
    sha256_hex,
)
from tinynn.runtime.manifest import PACKED_KINDS, nbytes_of
from tinynn.runtime.reader import read
from tinynn.runtime.trust import trust

GOLDEN_SIZE = 1 << 14  # elements of an output; of larger ones not all are stored


@dataclass(frozen=True)
class GoldenVector:
    """Expected outputs for the inputs that `seed` defines (runtime/golden.py).

    tolerance: output name -> largest norm of the difference over norm of the expected value.
    """

    seed: int
    outputs: Arrays
    tolerance: dict[str, float]


class Artifact:
    """One artifact in memory. `manifest` is its manifest as plain data."""

    def __init__(self, data: bytes, built_here: bool = False, name: str = "<bytes>") -> None:
        """Check the bytes; raises ArtifactError. built_here: `save` records it as trusted."""
        reader = read(data)
        self.manifest: dict[str, Any] = reader.json
        self.sha256 = reader.sha256
        self.name = name
        self._data = data
        self._built_here = built_here
        reader.close()

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Artifact:
        """Read and check a file; raises ArtifactError."""
        reader = read(path)
        try:
            return Artifact(reader.data(), name=os.fspath(path))
        finally:
            reader.close()

    def to_bytes(self) -> bytes:
        """The whole file."""
        return self._data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, all of it or nothing; the folder is made if needed.

        An artifact that was compiled by this process is added to the user's list of trusted
        artifacts. If that list cannot be written, a warning says so and the file is written all
        the same. Raises OSError if the file cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(fd, "wb") as file:
                file.write(self._data)
                os.fchmod(file.fileno(), 0o644)  # mkstemp makes it private
                file.flush()
                os.fsync(file.fileno())  # the name must not survive a crash that the bytes do not
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if self._built_here:
            try:
                trust(self.sha256, path.name)
            except ArtifactError as error:
                warnings.warn(f"{path} is written but not recorded as trusted: {error}",
                              stacklevel=2)


def build(program: Program, golden: Sequence[GoldenVector], threads: int | None = None) -> Artifact:
    """Lay a program and its golden vectors out as an artifact.

    threads: how many the runtime starts unless it is told otherwise; None leaves it to the runtime.
    Raises ArtifactError for a program that the reader would refuse.
    """
    blobs = _Blobs()
    targets = [_target(code, blobs) for code in program.targets]
    manifest = {
        "format": list(VERSION),
        "compiler": {"version": f"tinydrive {__version__}"},
        "model": {"name": program.name, "source_sha256": program.source_sha256,
                  "metadata": program.metadata, "options": program.options},
        "io": {"inputs": [asdict(spec) for spec in program.inputs],
               "state": [asdict(spec) for spec in program.state],
               "outputs": [asdict(spec) for spec in program.outputs],
               "carry": program.carry},
        "threads": threads,
        "limits": {"memory_nbytes": max((_memory(program, code) for code in program.targets),
                                        default=0)},
        "targets": targets,
        "golden": _golden(program.outputs, golden, blobs),
    }
    return Artifact(_lay_out(manifest, blobs), built_here=True, name=program.name)


@dataclass
class _Blobs:
    """Blobs in file order as they will be stored, and what the manifest says of each but its
    offset; equal ones are stored once."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)

    def add(self, kind: str, content: bytes) -> int:
        packed = kind in PACKED_KINDS
        data = bz2.compress(content) if packed else content
        entry = {"kind": kind, "nbytes": len(data), "sha256": sha256_hex(data),
                 "unpacked_nbytes": len(content) if packed else None}
        if entry not in self.entries:
            self.entries.append(entry)
            self.stored.append(data)
        return self.entries.index(entry)

    def table(self, start: int) -> list[dict[str, Any]]:
        """Manifest entries if the first blob may begin at byte `start`."""
        entries, end = [], start
        for entry in self.entries:
            offset = align(end, BLOB_ALIGN)
            end = offset + entry["nbytes"]
            entries.append({**entry, "offset": offset})
        return entries


def _lay_out(manifest: dict[str, Any], blobs: _Blobs) -> bytes:
    # The manifest holds offsets that depend on its own length: repeat until they agree. The length
    # only grows with the offsets, so this ends.
    text, start = b"", HEADER_NBYTES
    while True:
        try:
            text = canonical_json({**manifest, "blobs": blobs.table(start)})
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"The model's metadata or options are not plain data ({error}). "
                                "Remove them from the model.") from None
        if HEADER_NBYTES + len(text) <= start:
            break
        start = align(HEADER_NBYTES + len(text), BLOB_ALIGN)
    entries = blobs.table(start)
    file_nbytes = entries[-1]["offset"] + entries[-1]["nbytes"]
    data = bytearray(file_nbytes)
    header = Header(VERSION, len(text), HEADER_NBYTES, file_nbytes,
                    bytes.fromhex(sha256_hex(text)))
    data[:HEADER_NBYTES] = header.pack()
    data[HEADER_NBYTES:HEADER_NBYTES + len(text)] = text
    for entry, stored in zip(entries, blobs.stored, strict=True):
        data[entry["offset"]:entry["offset"] + len(stored)] = stored
    return bytes(data)


def _memory(program: Program, code: TargetCode) -> int:
    borders = (*program.inputs, *program.state, *program.outputs)
    return (code.arena_nbytes + _weights_nbytes(code)
            + sum(nbytes_of(spec.dtype, spec.shape) for spec in borders))


def _weights_nbytes(code: TargetCode) -> int:
    """Size of the area that the loader fills with widened weights."""
    return max((b.offset + b.nbytes for b in code.buffers if b.kind == "weight"), default=0)


def _target(code: TargetCode, blobs: _Blobs) -> dict[str, Any]:
    table, pieces, end = [], [], 0
    for weight in code.weights:
        table.append({"buffer": weight.buffer, "storage": weight.storage, "offset": end})
        padded = align(len(weight.data), MEMORY_ALIGN)
        pieces.append(weight.data + bytes(padded - len(weight.data)))
        end += padded
    return {
        "target": code.target, "precision": code.precision, "toolchain": code.toolchain,
        "weights": blobs.add("weights", b"".join(pieces)),
        "code": blobs.add("code", code.code),
        "source": blobs.add("source", code.source.encode()),
        "arena_nbytes": code.arena_nbytes, "weights_nbytes": _weights_nbytes(code),
        "buffers": [asdict(buffer) for buffer in code.buffers],
        "steps": [asdict(step) for step in code.steps],
        "table": table, "tolerance": code.tolerance,
        "expect": {"steps": len(code.steps), "flop": sum(s.flop for s in code.steps),
                   "nbytes": sum(s.nbytes for s in code.steps)},
    }


def _golden(outputs: Sequence[TensorSpec], golden: Sequence[GoldenVector],
            blobs: _Blobs) -> dict[str, Any]:
    """Floats are stored as f32, everything else in its own dtype. Of large tensors a sample is
    stored, or a hash where the values must be met exactly."""
    runs, pieces, end = [], [], 0
    for vector in golden:
        entries = []
        for spec in outputs:
            stored = "f32" if spec.dtype in FLOATS else spec.dtype
            values = as_numbers(vector.outputs[spec.name], spec.dtype) if stored == "f32" else (
                vector.outputs[spec.name])
            flat = np.ascontiguousarray(values, dtype=DTYPES[stored]).reshape(-1)
            tolerance = vector.tolerance[spec.name]
            large = flat.size > GOLDEN_SIZE
            hashed = large and tolerance == 0 and stored == spec.dtype
            # Odd, so that the sample meets all rows and columns of the usual even shapes.
            stride = -(-flat.size // GOLDEN_SIZE) | 1 if large and not hashed else 1
            data = flat[::stride].tobytes()
            entries.append({"name": spec.name, "dtype": stored, "offset": 0 if hashed else end,
                            "tolerance": tolerance, "stride": stride,
                            "sha256": sha256_hex(data) if hashed else None})
            if not hashed:
                padded = align(len(data), MEMORY_ALIGN)
                pieces.append(data + bytes(padded - len(data)))
                end += padded
        runs.append({"seed": vector.seed, "outputs": entries})
    return {"blob": blobs.add("golden", b"".join(pieces)), "runs": runs}
