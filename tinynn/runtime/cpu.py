"""Runs a program on the CPU: memory, the step table, worker threads."""
from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinynn.program import Buffer, TensorSpec
from tinynn.runtime import host
from tinynn.runtime.check import memory_needed
from tinynn.runtime.golden import Array, Arrays, is_finite
from tinynn.runtime.layout import DTYPES, MEMORY_ALIGN, ArtifactError
from tinynn.runtime.manifest import Target, nbytes_of
from tinynn.runtime.native import STEP, Library
from tinynn.runtime.reader import Source
from tinynn.runtime.weights import fill_weights

_BIND_NBYTES = 1 << 16  # from here on an input is read where it lies; below, copying is as quick


@dataclass(frozen=True)
class _Turn:
    """The launches of a run. arguments: the pointers of all steps one behind the other."""

    table: Array
    arguments: Array


class CpuEngine:
    """See runner.Engine. A state and its next value change places after every run."""

    def __init__(self, source: Source, target: Target, threads: int) -> None:
        """Raises ArtifactError for too little memory and for code that cannot be loaded."""
        manifest = source.manifest
        self._name = source.name
        self._threads = threads
        self._carry = manifest.carry
        self._specs = {(kind, spec.name): spec for kind, specs in (
            ("input", manifest.inputs), ("state", manifest.state), ("output", manifest.outputs))
            for spec in specs}
        needed, present = memory_needed(manifest, target), host.memory_nbytes()
        if needed > present:
            raise ArtifactError(f"{self._name}: it needs {needed >> 20} MiB of memory and this "
                                f"machine has {present >> 20}. Use a smaller model.")
        self._arrays = {key: _typed(_allocate(nbytes_of(spec.dtype, spec.shape)), spec)
                        for key, spec in self._specs.items()}
        self._finite = {name: np.empty(self._specs["output", name].shape, np.bool_)
                        for name in self._carry.values()}
        self._areas = {"arena": _allocate(target.arena_nbytes),
                       "weight": _allocate(target.weights_nbytes)}
        fill_weights(self._areas["weight"], source, target)
        library = Library(source.code(target.code), self._name)
        # Without close() the threads end when the engine is collected.
        self._close = weakref.finalize(self, library.close)
        self._library = library
        self._turns = [self._turn(target)]
        if self._carry:
            self._swap_state()
            self._turns.append(self._turn(target))
            self._swap_state()
        # Positions in `arguments` at which large inputs are passed.
        order = np.array([arg for step in target.steps for arg in step.args], dtype=np.intp)
        self._passed = {buffer.name: np.flatnonzero(order == number)
                        for number, buffer in enumerate(target.buffers)
                        if buffer.kind == "input" and buffer.nbytes >= _BIND_NBYTES}

    def _turn(self, target: Target) -> _Turn:
        """Pointers for every launch, made once so that a run does no work per step in Python."""
        pointers = np.array([self._address(buffer) for buffer in target.buffers], dtype=np.uintp)
        order = [arg for step in target.steps for arg in step.args]
        arguments = pointers[np.array(order, dtype=np.intp)]
        table = np.zeros(len(target.steps), dtype=STEP)
        table["kernel"] = self._library.addresses([step.kernel for step in target.steps])
        counts = np.array([len(step.args) for step in target.steps], dtype=np.uintp)
        first = np.cumsum(counts) - counts
        table["args"] = arguments.ctypes.data + first * arguments.itemsize
        table["parts"] = [step.parts for step in target.steps]
        return _Turn(table, arguments)

    def _address(self, buffer: Buffer) -> int:
        area = self._areas.get(buffer.kind)
        if area is None:
            area = self._arrays[buffer.kind, buffer.name]
        return area.ctypes.data + buffer.offset

    def run(self, inputs: Arrays, nanoseconds: Array | None = None) -> None:
        turn = self._turns[0]
        for name, array in inputs.items():
            own = self._arrays["input", name]
            passed = self._passed.get(name)
            in_place = passed is not None and array.flags.c_contiguous and array.flags.aligned
            if not in_place:
                np.copyto(own, array)
            if passed is not None:
                turn.arguments[passed] = (array if in_place else own).ctypes.data
        self._library.run(turn.table, self._threads, nanoseconds)

    def output(self, name: str) -> Array:
        return self._arrays["output", name]

    def advance(self) -> bool:
        finite = all(is_finite(self._arrays["output", output], self._specs["output", output].dtype,
                               self._finite[output]) for output in self._carry.values())
        if finite:
            self._swap_state()
            self._turns.reverse()
        return finite

    def _swap_state(self) -> None:
        arrays = self._arrays
        for name, output in self._carry.items():
            state, following = ("state", name), ("output", output)
            arrays[state], arrays[following] = arrays[following], arrays[state]

    def read_state(self) -> Arrays:
        return {name: self._arrays["state", name].copy() for name in self._carry}

    def write_state(self, values: Arrays) -> None:
        for name in self._carry:
            self._arrays["state", name][...] = values.get(name, 0)

    def pin(self, cores: Sequence[int]) -> None:
        self._library.pin(cores)

    def close(self) -> None:
        self._close()


def _allocate(nbytes: int) -> Array:
    """Zeroed bytes that start at a multiple of MEMORY_ALIGN."""
    raw = np.zeros(nbytes + MEMORY_ALIGN, dtype=np.uint8)
    skip = -raw.ctypes.data % MEMORY_ALIGN
    return raw[skip:skip + nbytes]


def _typed(area: Array, spec: TensorSpec) -> Array:
    return area.view(DTYPES[spec.dtype]).reshape(spec.shape)
