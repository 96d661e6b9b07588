"""Golden vectors: inputs that a seed defines, and how results are compared with stored ones.

Stored results come from the reference interpreter at compile time (tinynn/golden.py), so that this
check needs neither the compiler nor the model.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn.program import TensorSpec
from tinynn.runtime.layout import DTYPES, FLOATS, sha256_hex
from tinynn.runtime.manifest import GoldenOutput, GoldenRun, stored_nbytes
from tinynn.runtime.reader import Source

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class GoldenResult:
    """One compared output. error: norm of the difference over norm of the stored value."""

    seed: int
    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def sample_inputs(specs: Iterable[TensorSpec], seed: int) -> Arrays:
    """Arrays for the specs, the same on every machine and numpy: RandomState is frozen.

    Floats lie in [-1, 1), u8 in 0..255 as pictures do, other integers in 0..9.
    """
    random = np.random.RandomState(seed)
    arrays: Arrays = {}
    for spec in specs:
        dtype = DTYPES[spec.dtype]
        if spec.dtype in FLOATS:
            values = random.uniform(-1.0, 1.0, spec.shape).astype(np.float32)
            arrays[spec.name] = bf16_bits(values) if spec.dtype == "bf16" else values.astype(dtype)
        else:
            high = {"bool": 2, "u8": 256}.get(spec.dtype, 10)
            integers = random.randint(0, high, spec.shape, dtype=np.int64)
            arrays[spec.name] = np.asarray(integers).astype(dtype)
    return arrays


def bf16_bits(values: Array) -> Array:
    """Finite float32 to bfloat16 bit patterns (uint16), rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).reshape(values.shape)


def as_numbers(array: Array, dtype: str) -> Array:
    """float64 values of a tensor of this dtype (bf16: bit patterns in uint16)."""
    if dtype == "bf16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def relative_error(got: Array, want: Array) -> float:
    """|got - want| / |want| in the Euclidean norm; |got| if want is zero.

    Values that are not finite must agree exactly, otherwise the error is infinite.
    """
    got, want = got.astype(np.float64), want.astype(np.float64)  # the norm of f16 would overflow
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True) or not np.all(
            np.isfinite(got[finite])):
        return float("inf")
    norm = float(np.linalg.norm(want[finite]))
    difference = float(np.linalg.norm(got[finite] - want[finite]))
    return difference / norm if norm else difference


def stored_outputs(source: Source, run: GoldenRun) -> Arrays:
    """The stored elements of a golden run, flat, as copies; not of what is stored as a hash."""
    blob = source.blob(source.manifest.golden_blob)
    specs = {spec.name: spec for spec in source.manifest.outputs}
    arrays: Arrays = {}
    for output in run.outputs:
        if output.sha256 is None:
            end = output.offset + stored_nbytes(output, specs[output.name])
            values = np.frombuffer(blob[output.offset:end], DTYPES[output.dtype])
            arrays[output.name] = values.copy()
    return arrays


def difference(got: Array, dtype: str, want: GoldenOutput, stored: Array | None) -> float:
    """Relative error of an output of this dtype against a golden one. stored: its elements, or None
    if it is a hash: then the error is 0 or infinity."""
    if stored is not None:
        sample = got.reshape(-1)[::want.stride]
        return relative_error(as_numbers(sample, dtype), as_numbers(stored, want.dtype))
    return 0.0 if sha256_hex(np.ascontiguousarray(got).tobytes()) == want.sha256 else float("inf")


def is_finite(array: Array, dtype: str, scratch: Array) -> bool:
    """Whether all numbers are finite. scratch: bool, of the same shape; saves an allocation."""
    if dtype == "bf16":
        return not bool(np.any((array & 0x7F80) == 0x7F80))  # all exponent bits set
    return dtype not in FLOATS or bool(np.isfinite(array, out=scratch).all())
