"""A loaded artifact that runs. What depends on the machine is behind `Engine`."""
from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tinynn.program import Step
from tinynn.runtime import host
from tinynn.runtime import trust as trust_list
from tinynn.runtime.cpu import CpuEngine
from tinynn.runtime.golden import (
    Array,
    Arrays,
    GoldenResult,
    difference,
    sample_inputs,
    stored_outputs,
)
from tinynn.runtime.layout import DTYPES, ArtifactError, DeviceLost
from tinynn.runtime.manifest import MAX_THREADS, Manifest, Target
from tinynn.runtime.reader import Reader, Source, read

_log = logging.getLogger("tinynn")


class Engine(Protocol):
    """Memory and launches of one program on one device. Making one raises ArtifactError if the
    device cannot run it."""

    def run(self, inputs: Arrays, nanoseconds: Array | None = None) -> None:
        """Run all steps. inputs: one array of the right type for every input, not kept.
        nanoseconds: int64, receives the time of every step. Raises RuntimeError."""

    def output(self, name: str) -> Array:
        """Any output of the last run; valid until the next one."""

    def advance(self) -> bool:
        """Make the carried outputs the state; not, and False, if a float in them is not finite."""

    def read_state(self) -> Arrays:
        """A copy of the state."""

    def write_state(self, values: Arrays) -> None:
        """Set the state; what is not named becomes zero."""

    def pin(self, cores: Sequence[int]) -> None:
        """Put helper threads on these cores."""

    def close(self) -> None:
        """Give everything back. May be called again."""


Opened = tuple[Target, Engine]


def load(source: str | os.PathLike[str] | bytes, target: str | None = None,
         threads: int | None = None, trust: bool = False, cores: Sequence[int] = ()) -> Runner:
    """Check an artifact (path, or the bytes of one) and make it ready to run.

    target: one of the artifact's targets, or several separated by commas in order of preference;
    "cpu" is the best CPU target that this machine runs. None takes devices before CPUs. If a
    device does not work, now or later, the next target takes over and the log says so.
    threads: None takes the number chosen at compile time, or else up to two.
    trust: run its machine code without asking the lists of trusted artifacts.
    cores: a core for every thread, the calling one first; empty leaves that to the system.

    Raises ArtifactError (damaged file, no fitting target, too little memory), UntrustedArtifact,
    ValueError for threads or cores that cannot be.
    """
    with contextlib.closing(read(source, wait=False)) as reader:
        try:
            candidates = choose_targets(reader.manifest, target, _runnable(reader.manifest),
                                        reader.name)
            if not trust:
                trust_list.require_trust(reader.sha256, reader.name)
            count = _thread_count(reader.manifest, threads)
            reopen = _reopener(source, reader.sha256) if len(candidates) > 1 else None
            runner = Runner(reader, candidates, count, reopen)
        finally:
            reader.wait()  # damage explains more than an error that follows from it
    if cores:
        runner.pin(cores)
    return runner


def _runnable(manifest: Manifest) -> list[str]:
    """Targets that this machine runs, best first; devices are looked for if one is of use."""
    found = host.host_targets()
    if all(target.target.startswith("cpu") for target in manifest.targets):
        return found
    from tinynn.runtime.opencl import runnable_targets

    return [*runnable_targets(), *found]


def choose_targets(manifest: Manifest, wanted: str | None, runnable: list[str],
                   name: str) -> list[Target]:
    """The targets to try in turn, at least one; `runnable` names what the machine runs, best
    first."""
    offered = {target.target: target for target in manifest.targets}
    fitting = [candidate for candidate in runnable if candidate in offered]
    chosen: list[str] = []
    for part in (wanted or "any").split(","):
        part = part.strip()
        if part not in ("any", "cpu", *offered):
            raise ArtifactError(f"{name}: it has no target {part}, only {', '.join(offered)}. "
                                "Choose one of these or compile the model for it.")
        cpu = [candidate for candidate in fitting if candidate.startswith("cpu")][:1]
        devices = [candidate for candidate in fitting if not candidate.startswith("cpu")]
        chosen += {"any": devices + cpu, "cpu": cpu}.get(part, [part] if part in fitting else [])
    if not chosen:
        asked = ", ".join(offered) if wanted in (None, "cpu") else wanted
        raise ArtifactError(f"{name}: it is compiled for {asked}, and this machine runs only "
                            f"{', '.join(runnable) or 'none of our targets'}. Compile the model "
                            "for this machine.")
    return [offered[candidate] for candidate in dict.fromkeys(chosen)]


def _thread_count(manifest: Manifest, threads: int | None) -> int:
    if threads is None:
        threads = manifest.threads or min(2, host.cores_available())
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads} and must be from 1 to {MAX_THREADS}")
    return threads


def _reopener(source: str | os.PathLike[str] | bytes, sha256: str) -> Callable[[], Reader]:
    """A function that reads the same artifact again."""
    def reopen() -> Reader:
        reader = read(source)
        if reader.sha256 != sha256:
            reader.close()
            raise ArtifactError(f"{reader.name}: the file is another artifact now. Load it again.")
        return reader

    return reopen


def _open(source: Source, candidates: list[Target], threads: int) -> Opened:
    """The first target that works; it and those before it are removed from the list."""
    while True:
        target = candidates.pop(0)
        try:
            if target.target.startswith("cpu"):
                return target, CpuEngine(source, target, threads)
            from tinynn.runtime.opencl import OpenCLEngine

            return target, OpenCLEngine(source, target)
        except ArtifactError as error:
            if not candidates:
                raise
            _log.warning("%s; going on with %s", error, candidates[0].target)


class Runner:
    """Runs one program: `outputs = runner(inputs)`, by name. Made by `load`.

    inputs, outputs, state: name -> TensorSpec; an output that is the next value of a state is not
    among `outputs`, unless all are. metadata: plain data that came with the model.
    manifest: all of the artifact's manifest. target, threads: what runs, on how many threads.
    steps: the kernel launches of one run. state_rejected: how often a next state was not finite
    and the old one was kept.

    Calls from several threads are served one after the other. bf16 tensors are uint16 arrays of
    bit patterns.
    """

    def __init__(self, source: Source, candidates: list[Target], threads: int,
                 reopen: Callable[[], Reader] | None = None) -> None:
        """candidates: targets to try in turn. reopen: reads the source again, for a target that
        takes over when a device is lost. Raises ArtifactError."""
        manifest = source.manifest
        self.name = source.name
        self.manifest = source.json
        self.metadata = manifest.metadata
        self._specs = {(kind, spec.name): spec for kind, specs in (
            ("input", manifest.inputs), ("output", manifest.outputs)) for spec in specs}
        inner = set(manifest.carry.values())
        self.inputs = {spec.name: spec for spec in manifest.inputs}
        self.outputs = {spec.name: spec for spec in manifest.outputs
                        if spec.name not in inner or len(inner) == len(manifest.outputs)}
        self.state = {spec.name: spec for spec in manifest.state}
        self.threads = threads
        self.state_rejected = 0
        self._golden = tuple((run, stored_outputs(source, run)) for run in manifest.golden)
        self._lock = threading.Lock()
        self._closed = False
        self._candidates = list(candidates)
        self._reopen = reopen
        self._use(_open(source, self._candidates, threads))

    def _use(self, opened: Opened) -> None:
        target, self._engine = opened
        self.target = target.target
        self.steps: tuple[Step, ...] = target.steps
        self._tolerance = target.tolerance

    def __call__(self, inputs: Mapping[str, Any], out: Arrays | None = None) -> Arrays:
        """Run once. inputs: name -> array of exactly the dtype and shape of `self.inputs`.

        out: name -> array that is filled and returned, for the outputs of interest (also those
        that `self.outputs` leaves out); nothing is allocated then. None: new arrays of all outputs.

        Afterwards the state has its next value, unless a float in it is not finite: then all state
        keeps its old value. Raises ValueError for arrays that do not fit.
        """
        with self._lock:
            places = {name: self._check("output", name, array)
                      for name, array in (out or {}).items()}
            self._run(inputs)
            for name, place in places.items():
                np.copyto(place, self._engine.output(name))
            if out is None:
                out = {name: self._engine.output(name).copy() for name in self.outputs}
            self._advance()
            return out

    def profile(self, inputs: Mapping[str, Any]) -> list[int]:
        """Nanoseconds of every step in one run, in the order of `steps`. State stays as it is."""
        nanoseconds = np.zeros(len(self.steps), dtype=np.int64)
        with self._lock:
            self._run(inputs, nanoseconds)
        return [int(n) for n in nanoseconds]

    def reset(self) -> None:
        """Set all state to zero, as after loading."""
        with self._lock:
            self._engine.write_state({})

    def verify(self) -> list[GoldenResult]:
        """Run the golden vectors, one after the other from zero state, and compare.

        The state is afterwards what it was before.
        """
        results = []
        with self._lock:
            saved, rejected = self._engine.read_state(), self.state_rejected
            self._engine.write_state({})
            for run, stored in self._golden:
                self._run(sample_inputs(self.inputs.values(), run.seed))
                for output in run.outputs:
                    dtype = self._specs["output", output.name].dtype
                    error = difference(self._engine.output(output.name), dtype, output,
                                       stored.get(output.name))
                    allowed = output.tolerance and max(output.tolerance, self._tolerance)
                    results.append(GoldenResult(run.seed, output.name, error, allowed))
                self._advance()
            self._engine.write_state(saved)
            self.state_rejected = rejected
        return results

    def pin(self, cores: Sequence[int]) -> None:
        """Give every thread its core: the calling thread the first one, helpers the others.

        Raises ValueError for cores that this process may not use, or another number of them.
        """
        allowed = sorted(os.sched_getaffinity(0))
        if len(cores) != self.threads or len(set(cores)) != len(cores) or not (
                set(cores) <= set(allowed)):
            raise ValueError(f"cores {list(cores)}: name {self.threads} different ones, a core for "
                             f"each thread, out of {allowed}.")
        with self._lock:
            self._engine.pin(cores[1:])
        os.sched_setaffinity(0, cores[:1])

    def close(self) -> None:
        """End the worker threads and unload the code. The runner cannot be used afterwards."""
        with self._lock:
            self._closed = True
            self._engine.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, inputs: Mapping[str, Any], nanoseconds: Array | None = None) -> None:
        if self._closed:
            raise RuntimeError(f"{self.name}: this runner is closed. Load the artifact again.")
        given = self._checked(inputs)
        try:
            self._engine.run(given, nanoseconds)
        except DeviceLost as error:
            self._fall_back(error)
            self._engine.run(given, nanoseconds)

    def _fall_back(self, error: DeviceLost) -> None:
        """Go on with the next target, from zero state: what the device held is lost."""
        if not self._candidates or self._reopen is None:
            raise error
        _log.warning("%s: %s; going on with %s from zero state", self.name, error,
                     self._candidates[0].target)
        with contextlib.suppress(RuntimeError):
            self._engine.close()
        with contextlib.closing(self._reopen()) as reader:
            self._use(_open(reader, self._candidates, self.threads))

    def _checked(self, inputs: Mapping[str, Any]) -> Arrays:
        missing = [name for name in self.inputs if name not in inputs]
        unexpected = [name for name in inputs if name not in self.inputs]
        if missing or unexpected:
            raise ValueError(f"inputs do not fit: missing {missing}, unexpected {unexpected}. "
                             f"The program takes {list(self.inputs)}.")
        return {name: self._check("input", name, inputs[name]) for name in self.inputs}

    def _check(self, kind: str, name: str, given: Any) -> Array:
        """What was given as an array; raises ValueError if it is not of the tensor's type."""
        spec = self._specs.get((kind, name))
        if spec is None:
            raise ValueError(f"there is no {kind} {name!r}.")
        array = np.asarray(given)
        if spec.dtype == "bf16" and array.dtype.name == "bfloat16":
            array = array.view(np.uint16)
        expected = DTYPES[spec.dtype]
        if array.dtype != expected or array.shape != spec.shape:
            raise ValueError(f"{kind} {name!r} is {array.dtype}{list(array.shape)}, expected "
                             f"{expected}{list(spec.shape)}.")
        return array

    def _advance(self) -> None:
        if not self._engine.advance():
            self.state_rejected += 1
