"""How fast, how much memory: of an artifact, and beside other runtimes.

    tinynn bench FILE                              one artifact
    tinynn bench MODEL.onnx|FILE --peers           beside onnxruntime and OpenVINO, if installed
    python -m tinynn.bench FOLDER... --markdown F  all models of folders: bench_page.py

Every measured engine runs in a process of its own. They take turns in blocks of runs, so that a
busy machine slows all; who is not measured is stopped, so that waiting threads take no core.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.program import TensorSpec
from tinynn.runtime.golden import Array
from tinynn.runtime.host import cores_available
from tinynn.runtime.layout import MAGIC
from tinynn.runtime.reader import read

WARM_UP_RUNS = 3
WARM_UP_IN_BLOCK = 1  # the caches hold what another process left
BLOCKS = 10
NOT_INSTALLED = "it is not installed"
# Who computes in a precision; elsewhere onnxruntime would fall back to f32.
PEERS: dict[str, tuple[str, ...]] = {"f32": ("onnxruntime", "openvino", "tinygrad"),
                                     "bf16": ("openvino",)}
GPU_PEERS = ("tinygrad",)  # on the same OpenCL device, whatever the precision


@dataclass(frozen=True)
class Timing:
    """Milliseconds over many runs, the peak memory of the process in bytes, and milliseconds from
    opening the file to the first output."""

    median: float
    p99: float
    minimum: float
    runs: int
    peak_nbytes: int
    first: float

    @staticmethod
    def of(nanoseconds: Sequence[int], peak_nbytes: int, first_ns: int) -> Timing:
        ms = np.array(nanoseconds) / 1e6
        return Timing(float(np.median(ms)), float(np.percentile(ms, 99)), float(ms.min()), len(ms),
                      peak_nbytes, first_ns / 1e6)


@dataclass(frozen=True)
class Contender:
    """What is measured: a file and who runs it. target, trust: for artifacts; they know their
    precision. device: of tinygrad, as its variable DEV names it."""

    engine: str
    path: Path
    target: str | None = None
    trust: bool = False
    precision: str = "f32"
    device: str = "CPU"


class Worker:
    """A bench_worker process. It is stopped except while it answers."""

    def __init__(self, contender: Contender, threads: int, specs: Iterable[TensorSpec]) -> None:
        """Start it, and open and run the model once. Raises RuntimeError if that fails."""
        self._name = f"{contender.engine} on {contender.path}"
        # A file: nobody empties a pipe while the process writes warnings.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tinynn.bench_worker"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors)
        shapes = [(spec.name, spec.dtype, spec.shape) for spec in specs]
        reply = self._ask({**asdict(contender), "path": str(contender.path), "threads": threads,
                           "specs": shapes})
        self.version: str = reply["version"]
        self.first_ns: int = reply["first_ns"]

    def run(self, runs: int, warm: int) -> tuple[list[int], int]:
        """Nanoseconds of each run after `warm` others, and the peak memory so far in bytes."""
        self._process.send_signal(signal.SIGCONT)
        reply = self._ask({"runs": runs, "warm": warm})
        return reply["ns"], reply["peak"]

    def outputs(self) -> list[Array]:
        """What the model gives, in its order."""
        self._process.send_signal(signal.SIGCONT)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            self._ask({"save": str(path)})
            with np.load(path) as archive:
                return [archive[name] for name in archive.files]

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise RuntimeError(f"{self._name}: {self._last_words()}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(reply)

    def _last_words(self) -> str:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        self._errors.close()
        status = self._process.returncode
        if status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        return lines[-1].strip() if lines else f"the process ended with status {status}"


def measure(workers: Sequence[Worker], runs: int) -> list[Timing]:
    """Time every worker: they take turns in blocks of runs until each has done `runs`."""
    for worker in workers:
        worker.run(WARM_UP_RUNS, 0)
    times: list[list[int]] = [[] for _ in workers]
    peaks = [0] * len(workers)
    block = max(1, -(-runs // BLOCKS))
    while len(times[0]) < runs:
        for i, worker in enumerate(workers):
            count = min(block, runs - len(times[i]))
            ns, peaks[i] = worker.run(count, WARM_UP_IN_BLOCK)
            times[i] += ns
    return [Timing.of(ns, peak, worker.first_ns)
            for ns, peak, worker in zip(times, peaks, workers, strict=True)]


@contextlib.contextmanager
def competition() -> Iterator[None]:
    """A process that computes without a pause for every core, as long as this lasts."""
    script = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(cores_available())]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextlib.contextmanager
def closing(workers: list[Worker]) -> Iterator[list[Worker]]:
    """The list, whose workers are ended afterwards."""
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


@dataclass(frozen=True)
class Comparison:
    """One model in all runtimes.

    timings: engine -> number of threads -> Timing. versions: engine -> text.
    absent: engine, and the number of threads if it is not all -> why it was not measured.
    errors: engine -> largest error over largest value of an output, of the worst output, against
    onnxruntime's f32; measured for reduced precisions.
    """

    timings: dict[str, dict[int, Timing]]
    versions: dict[str, str]
    absent: dict[str, str]
    precision: str = "f32"
    errors: dict[str, float] = field(default_factory=dict)

    def ratio(self, threads: int) -> float | None:
        """Our median time over that of the faster peer; None if there is none."""
        peers = [times[threads].median for engine, times in self.timings.items()
                 if engine != "tinynn" and threads in times]
        return self.timings["tinynn"][threads].median / min(peers) if peers else None


def compare_peers(artifact: Path, model: Path | None, threads: Sequence[int], runs: int,
                  target: str | None = None, trust: bool = False,
                  precision: str = "f32") -> Comparison:
    """Measure an artifact and every installed peer on its model, for each number of threads.

    model: None measures the artifact alone. precision: the artifact's, and that of the peers. A
    peer that is not installed, or fails on the model, is named in `absent`.
    """
    manifest = read(artifact).manifest
    specs = [*manifest.inputs, *manifest.state]
    gpu = (target or manifest.targets[0].target).startswith("opencl")
    peers: tuple[str, ...] = ()
    if model is not None:
        peers = GPU_PEERS if gpu else PEERS.get(precision, ())
    installed = [peer for peer in peers if importlib.util.find_spec(peer) is not None]
    result = Comparison({}, {}, {peer: NOT_INSTALLED for peer in peers
                                 if peer not in installed}, precision)
    for count in threads:
        ours = Worker(Contender("tinynn", artifact, target, trust), count, specs)
        with closing([ours]) as workers:
            engines = ["tinynn"]
            for peer in installed:
                assert model is not None
                try:
                    contender = Contender(peer, model, precision=precision,
                                          device="CL" if gpu else "CPU")
                    workers.append(Worker(contender, count, specs))
                    engines.append(peer)
                except RuntimeError as error:
                    result.absent[f"{peer}, {_threads(count)}"] = str(error)
            for engine, worker, timing in zip(engines, workers, measure(workers, runs),
                                              strict=True):
                result.timings.setdefault(engine, {})[count] = timing
                result.versions[engine] = worker.version
            if precision != "f32" and model is not None and not manifest.state:
                result.errors.update(_errors(dict(zip(engines, workers, strict=True)), model,
                                             specs))
    return result


def _errors(workers: Mapping[str, Worker], model: Path, specs: Sequence[TensorSpec]
            ) -> dict[str, float]:
    """Engine -> error against onnxruntime, where that is installed and runs the model."""
    if importlib.util.find_spec("onnxruntime") is None:
        return {}
    with closing([Worker(Contender("onnxruntime", model), 1, specs)]) as (reference,):
        want = reference.outputs()
    return {engine: max(_error(a, b) for a, b in zip(worker.outputs(), want, strict=True))
            for engine, worker in workers.items()}


def _error(got: Array, want: Array) -> float:
    difference = np.abs(got.astype(np.float64) - want).max(initial=0.0)
    return float(difference / max(np.abs(want).max(initial=0.0), np.finfo(np.float32).tiny))


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def bench_peers(path: Path, against: Path | None = None, *, peers: bool = True,
                threads: int | None = None, runs: int = 100, target: str | None = None,
                trust: bool = False, shapes: Mapping[str, Sequence[int]] | None = None,
                precision: str = "f32") -> Comparison:
    """Compare a model, or an artifact and the model it was compiled from, with the peers.

    peers: False measures an artifact alone. threads: None measures one and two. Raises ValueError
    if the artifact's model is not found.
    """
    counts = [threads] if threads else sorted({1, min(2, cores_available())})
    with path.open("rb") as file:
        is_artifact = file.read(len(MAGIC)) == MAGIC
    if is_artifact:
        (precision, *_) = (t.precision for t in read(path).manifest.targets)
        model = source_model(path, against) if peers else None
        return compare_peers(path, model, counts, runs, target, trust, precision)
    from tinynn.pipeline import compile as compile_model

    with tempfile.TemporaryDirectory() as folder:
        # Trust is given for this run: a measurement should leave nothing behind.
        artifact = Path(folder) / f"{path.stem}.tnn"
        compiled = compile_model(path, target or "cpu", precision, shapes=shapes)
        artifact.write_bytes(compiled.to_bytes())
        return compare_peers(artifact, path, counts, runs, trust=True, precision=precision)


def source_model(artifact: Path, against: Path | None) -> Path:
    """The ONNX file of an artifact: the given one, or the one that lies beside it."""
    model = against or artifact.with_suffix(".onnx")
    if against is None and not model.exists():
        raise ValueError(f"{artifact}: the peers need the model it was compiled from, and {model} "
                         "is not there. Name it with --against MODEL.onnx.")
    source = read(artifact).json["model"]["source_sha256"]
    if hashlib.sha256(model.read_bytes()).hexdigest() != source:
        raise ValueError(f"{model}: this is not the model that {artifact} was compiled from. Name "
                         "that one with --against, or compile this one.")
    return model


def peer_lines(comparison: Comparison) -> list[str]:
    """A table for people: medians and 99th percentiles for each number of threads, load time and
    peak memory."""
    counts = list(comparison.timings["tinynn"])
    heads = "".join(f"{_threads(n):>12}{'p99':>10}" for n in counts)
    lines = [f"{'runtime':<14}{'version':<12}{heads}{'first ms':>12}{'peak MiB':>12}"]
    for engine, times in comparison.timings.items():
        medians = "".join(f"{times[n].median:>12.3f}{times[n].p99:>10.3f}" if n in times
                          else f"{'-':>12}{'-':>10}" for n in counts)
        last = times[max(times)]
        lines.append(f"{engine:<14}{comparison.versions[engine]:<12}{medians}{last.first:>12.0f}"
                     f"{last.peak_nbytes / 2**20:>12.0f}")
    ratios = [comparison.ratio(n) for n in counts]
    if any(ratios):
        cells = "".join(f"{'-' if r is None else format(r, '.3f'):>12}{'':10}" for r in ratios)
        lines.append(f"{'ratio':<26}{cells}  of the faster peer's time")
    lines += [f"{engine}: not measured, {why}" for engine, why in comparison.absent.items()]
    lines += [f"{engine}: error {error:.1e} of the largest value, against onnxruntime's f32"
              for engine, error in comparison.errors.items()]
    return [*lines, f"Medians in ms; {comparison.precision}; first: from opening the file to the "
            "first output; peak memory with Python and libraries."]


def peer_summary(comparison: Comparison) -> dict[str, Any]:
    """The same as plain data."""
    counts = list(comparison.timings["tinynn"])
    return {"engines": {engine: {"version": comparison.versions[engine],
                                 "threads": {str(n): summary(t) for n, t in times.items()}}
                        for engine, times in comparison.timings.items()},
            "ratio": {str(n): comparison.ratio(n) for n in counts}, "absent": comparison.absent,
            "precision": comparison.precision, "errors": comparison.errors}


def summary(timing: Timing) -> dict[str, float]:
    """The numbers of a timing, named with their units."""
    return {"median_ms": timing.median, "p99_ms": timing.p99, "min_ms": timing.minimum,
            "runs": timing.runs, "peak_nbytes": timing.peak_nbytes, "first_ms": timing.first}


if __name__ == "__main__":
    from tinynn.bench_page import main

    sys.exit(main())
