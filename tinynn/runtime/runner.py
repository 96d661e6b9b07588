"""A loaded artifact that runs: memory, the step table, state between runs."""
from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynn.program import Buffer, Step, TensorSpec
from tinynn.runtime import host
from tinynn.runtime import trust as trust_list
from tinynn.runtime.check import memory_needed
from tinynn.runtime.golden import Arrays, GoldenResult, as_numbers, relative_error, sample_inputs
from tinynn.runtime.layout import DTYPES, FLOATS, MEMORY_ALIGN, ArtifactError
from tinynn.runtime.manifest import MAX_THREADS, GoldenRun, Manifest, Target, nbytes_of
from tinynn.runtime.native import STEP, Library
from tinynn.runtime.reader import Reader, read

_RELEASE_NBYTES = 1 << 20


def load(source: str | os.PathLike[str] | bytes, target: str | None = None,
         threads: int | None = None, trust: bool = False) -> Runner:
    """Check an artifact (path, or the bytes of one) and make it ready to run.

    target: one of the artifact's targets; None takes the best that this machine runs.
    threads: None takes the number chosen at compile time, or else up to two.
    trust: run its machine code without asking the lists of trusted artifacts.

    Raises ArtifactError (damaged file, no fitting target, too little memory), UntrustedArtifact.
    """
    with contextlib.closing(read(source, wait=False)) as reader:
        try:
            runner = _runner(reader, target, threads, trust)
        finally:
            reader.wait()  # damage explains more than an error that follows from it
    return runner


def _runner(reader: Reader, target: str | None, threads: int | None, trust: bool) -> Runner:
    chosen = choose_target(reader.manifest, target, host.host_targets(), reader.name)
    if not trust:
        trust_list.require_trust(reader.sha256, reader.name)
    return Runner(reader, chosen, _thread_count(reader.manifest, threads))


def choose_target(manifest: Manifest, wanted: str | None, runnable: list[str],
                  name: str) -> Target:
    """The target to run; `runnable` names what the machine runs, best first."""
    offered = {target.target: target for target in manifest.targets}
    if wanted is not None and wanted != "cpu" and wanted not in offered:
        raise ArtifactError(f"{name}: it has no target {wanted}, only {', '.join(offered)}. Choose "
                            "one of these or compile the model for it.")
    candidates = runnable if wanted in (None, "cpu") else [t for t in runnable if t == wanted]
    for candidate in candidates:
        if candidate in offered:
            return offered[candidate]
    asked = ", ".join(offered) if wanted in (None, "cpu") else wanted
    raise ArtifactError(f"{name}: it is compiled for {asked}, and this machine runs only "
                        f"{', '.join(runnable) or 'none of our targets'}. Compile the model for "
                        "this machine.")


def _thread_count(manifest: Manifest, threads: int | None) -> int:
    if threads is None:
        threads = manifest.threads or min(2, host.cores_available())
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads} and must be from 1 to {MAX_THREADS}")
    return threads


class Runner:
    """Runs one program: `outputs = runner(inputs)`, by name. Made by `load`.

    inputs, outputs, state: name -> TensorSpec. metadata: plain data that came with the model.
    manifest: all of the artifact's manifest. target, threads: what runs, on how many threads.
    steps: the kernel launches of one run. state_rejected: how often a next state was not finite
    and the old one was kept.

    Calls from several threads are served one after the other. bf16 tensors are uint16 arrays of
    bit patterns.
    """

    def __init__(self, reader: Reader, target: Target, threads: int) -> None:
        manifest = reader.manifest
        self.name = reader.name
        self.manifest = reader.json
        self.metadata = manifest.metadata
        self.inputs = {spec.name: spec for spec in manifest.inputs}
        self.outputs = {spec.name: spec for spec in manifest.outputs}
        self.state = {spec.name: spec for spec in manifest.state}
        self.target = target.target
        self.threads = threads
        self.steps: tuple[Step, ...] = target.steps
        self.source = str(reader.blob(target.source), "utf-8", "replace")
        self.state_rejected = 0
        self._carry = manifest.carry
        self._golden = tuple((run, _stored(reader, run)) for run in manifest.golden)
        self._lock = threading.Lock()

        needed, present = memory_needed(manifest, target), host.memory_nbytes()
        if needed > present:
            raise ArtifactError(f"{self.name}: it needs {needed >> 20} MiB of memory and this "
                                f"machine has {present >> 20}. Use a smaller model.")
        self._arrays = {(kind, name): _typed(_allocate(nbytes_of(spec.dtype, spec.shape)), spec)
                        for kind, specs in (("input", self.inputs), ("state", self.state),
                                            ("output", self.outputs))
                        for name, spec in specs.items()}
        self._areas = {"arena": _allocate(target.arena_nbytes),
                       "weight": _load_weights(reader, target)}
        library = Library(reader.code(target.code), self.name)
        # Without close() the threads end when the runner is collected.
        self._close = weakref.finalize(self, library.close)
        self._library = library
        self._build_steps(target)

    def _build_steps(self, target: Target) -> None:
        """Pointers for every launch, made once so that a run does no work per step in Python."""
        pointers = np.array([self._address(buffer) for buffer in target.buffers], dtype=np.uintp)
        arguments = [pointers[list(step.args)] for step in target.steps]
        self._arguments = np.concatenate([np.empty(0, np.uintp), *arguments])
        self._table = np.zeros(len(target.steps), dtype=STEP)
        self._table["kernel"] = self._library.addresses([step.kernel for step in target.steps])
        counts = np.array([len(step.args) for step in target.steps], dtype=np.uintp)
        first = np.cumsum(counts) - counts
        self._table["args"] = self._arguments.ctypes.data + first * self._arguments.itemsize
        self._table["parts"] = [step.parts for step in target.steps]

    def _address(self, buffer: Buffer) -> int:
        area = self._areas.get(buffer.kind)
        if area is None:
            area = self._arrays[buffer.kind, buffer.name]
        return area.ctypes.data + buffer.offset

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run once. inputs: name -> array of exactly the dtype and shape of `self.inputs`.

        Returns new arrays. Afterwards the state has its next value, unless a float in it is not
        finite: then all state keeps its old value. Raises ValueError for inputs that do not fit.
        """
        with self._lock:
            self._run(inputs)
            self._advance()
            return self._results()

    def profile(self, inputs: Mapping[str, Any]) -> list[int]:
        """Nanoseconds of every step in one run, in the order of `steps`. State stays as it is."""
        nanoseconds = np.zeros(len(self.steps), dtype=np.int64)
        with self._lock:
            self._run(inputs, nanoseconds)
        return [int(n) for n in nanoseconds]

    def reset(self) -> None:
        """Set all state to zero, as after loading."""
        with self._lock:
            self._set_state({})

    def verify(self) -> list[GoldenResult]:
        """Run the golden vectors, one after the other from zero state, and compare.

        The state is afterwards what it was before.
        """
        results = []
        with self._lock:
            saved = {name: self._arrays["state", name].copy() for name in self.state}
            rejected = self.state_rejected
            self._set_state({})
            for run, stored in self._golden:
                self._run(sample_inputs(self.inputs.values(), run.seed))
                self._advance()
                for output in run.outputs:
                    got = as_numbers(self._arrays["output", output.name],
                                     self.outputs[output.name].dtype)
                    want = as_numbers(stored[output.name], output.dtype)
                    results.append(GoldenResult(run.seed, output.name, relative_error(got, want),
                                                output.tolerance))
            self._set_state(saved)
            self.state_rejected = rejected
        return results

    def close(self) -> None:
        """End the worker threads and unload the code. The runner cannot be used afterwards."""
        with self._lock:
            self._close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, inputs: Mapping[str, Any],
             nanoseconds: np.ndarray[Any, Any] | None = None) -> None:
        if not self._close.alive:
            raise RuntimeError(f"{self.name}: this runner is closed. Load the artifact again.")
        for name, array in self._checked(inputs).items():
            np.copyto(self._arrays["input", name], array)
        self._library.run(self._table, self.threads, nanoseconds)

    def _checked(self, inputs: Mapping[str, Any]) -> Arrays:
        missing = [name for name in self.inputs if name not in inputs]
        unexpected = [name for name in inputs if name not in self.inputs]
        if missing or unexpected:
            raise ValueError(f"inputs do not fit: missing {missing}, unexpected {unexpected}. "
                             f"The program takes {list(self.inputs)}.")
        arrays: Arrays = {}
        for name, spec in self.inputs.items():
            array = np.asarray(inputs[name])
            if spec.dtype == "bf16" and array.dtype.name == "bfloat16":
                array = array.view(np.uint16)
            expected = DTYPES[spec.dtype]
            if array.dtype != expected or array.shape != spec.shape:
                raise ValueError(f"input {name!r} is {array.dtype}{list(array.shape)}, expected "
                                 f"{expected}{list(spec.shape)}.")
            arrays[name] = array
        return arrays

    def _advance(self) -> None:
        """Make the carried outputs the next state, all of them or none."""
        finite = all(_is_finite(self._arrays["output", output], self.outputs[output].dtype)
                     for output in self._carry.values())
        if finite:
            self._set_state({name: self._arrays["output", output]
                             for name, output in self._carry.items()})
        else:
            self.state_rejected += 1

    def _set_state(self, values: Arrays) -> None:
        """Copy values in; state that is not named becomes zero."""
        for name in self.state:
            self._arrays["state", name][...] = values.get(name, 0)

    def _results(self) -> Arrays:
        return {name: self._arrays["output", name].copy() for name in self.outputs}


def _allocate(nbytes: int) -> np.ndarray[Any, Any]:
    """Zeroed bytes that start at a multiple of MEMORY_ALIGN."""
    raw = np.zeros(nbytes + MEMORY_ALIGN, dtype=np.uint8)
    skip = -raw.ctypes.data % MEMORY_ALIGN
    return raw[skip:skip + nbytes]


def _typed(area: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    return area.view(DTYPES[spec.dtype]).reshape(spec.shape)


def _is_finite(array: np.ndarray[Any, Any], dtype: str) -> bool:
    if dtype == "bf16":
        return not bool(np.any((array & 0x7F80) == 0x7F80))  # all exponent bits set
    return dtype not in FLOATS or bool(np.isfinite(array).all())


def _load_weights(reader: Reader, target: Target) -> np.ndarray[Any, Any]:
    """The weights area: every weight at its buffer's offset, widened to its buffer's dtype."""
    area = _allocate(target.weights_nbytes)
    blob = reader.blob(target.weights)
    for entry in target.table:
        buffer = target.buffers[entry.buffer]
        nbytes = nbytes_of(entry.storage, buffer.shape)
        stored = np.frombuffer(blob[entry.offset:entry.offset + nbytes], DTYPES[entry.storage])
        place = area[buffer.offset:buffer.offset + buffer.nbytes]
        np.copyto(place.view(DTYPES[buffer.dtype]), stored)
        # File and widened weights together would be the process's peak of memory.
        if nbytes > _RELEASE_NBYTES:
            reader.release_pages()
    return area


def _stored(reader: Reader, run: GoldenRun) -> Arrays:
    """The stored outputs of a golden run, as copies."""
    blob = reader.blob(reader.manifest.golden_blob)
    shapes = {spec.name: spec.shape for spec in reader.manifest.outputs}
    arrays: Arrays = {}
    for output in run.outputs:
        shape = shapes[output.name]
        nbytes = nbytes_of(output.dtype, shape)
        values = np.frombuffer(blob[output.offset:output.offset + nbytes], DTYPES[output.dtype])
        arrays[output.name] = values.reshape(shape).copy()
    return arrays
