"""How fast, how much memory: of an artifact, of its kernels, and beside onnxruntime.

    tinynn bench FILE [--against MODEL.onnx]          one artifact
    python -m tinynn.bench MODELS_DIR --markdown FILE  a table of all models in a folder

Every measured engine runs in a process of its own; two engines take turns in blocks of runs, so
that a busy machine slows both.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.program import Step, TensorSpec
from tinynn.runtime import Runner
from tinynn.runtime.golden import sample_inputs

WARM_UP_RUNS = 3
BLOCKS = 5


@dataclass(frozen=True)
class Timing:
    """Milliseconds over many runs, and the peak memory of the process in bytes."""

    median: float
    p99: float
    minimum: float
    runs: int
    peak_nbytes: int

    @staticmethod
    def of(nanoseconds: Sequence[int], peak_nbytes: int) -> Timing:
        ms = np.array(nanoseconds) / 1e6
        return Timing(float(np.median(ms)), float(np.percentile(ms, 99)), float(ms.min()), len(ms),
                      peak_nbytes)


@dataclass(frozen=True)
class KernelTime:
    """Median time of one step and what follows from it."""

    step: Step
    ns: float
    share: float

    @property
    def gflops(self) -> float:
        return self.step.flop / self.ns if self.ns else 0.0

    @property
    def gbytes_per_s(self) -> float:
        return self.step.nbytes / self.ns if self.ns else 0.0


class Worker:
    """A bench_worker process."""

    def __init__(self, engine: str, path: Path, threads: int, specs: Iterable[TensorSpec],
                 target: str | None = None, trust: bool = False) -> None:
        self._name = f"{engine} on {path}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tinynn.bench_worker"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        shapes = [(spec.name, spec.dtype, spec.shape) for spec in specs]
        self._ask({"engine": engine, "path": str(path), "threads": threads, "target": target,
                   "trust": trust, "specs": shapes})

    def run(self, runs: int) -> tuple[list[int], int]:
        """Nanoseconds of each run, and the peak memory so far in bytes."""
        reply = self._ask({"runs": runs})
        return reply["ns"], reply["peak"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            errors = self._process.communicate()[1].strip().splitlines()
            raise RuntimeError(f"{self._name}: {errors[-1] if errors else 'the process died'}")
        return json.loads(reply)


def measure(workers: Sequence[Worker], runs: int) -> list[Timing]:
    """Time every worker: they take turns in blocks of runs until each has done `runs`."""
    for worker in workers:
        worker.run(WARM_UP_RUNS)
    times: list[list[int]] = [[] for _ in workers]
    peaks = [0] * len(workers)
    block = max(1, -(-runs // BLOCKS))
    while len(times[0]) < runs:
        for i, worker in enumerate(workers):
            ns, peaks[i] = worker.run(min(block, runs - len(times[i])))
            times[i] += ns
    return [Timing.of(ns, peak) for ns, peak in zip(times, peaks, strict=True)]


def program_specs(runner: Runner) -> list[TensorSpec]:
    """Inputs of the source model: those the caller gives, and the state."""
    return [*runner.inputs.values(), *runner.state.values()]


def compare(runner: Runner, path: Path, model: Path | None, threads: int, runs: int,
            trust: bool = False) -> list[Timing]:
    """Timing of the artifact at `path`, followed by onnxruntime's if its model is given."""
    workers: list[Worker] = []
    try:
        specs = program_specs(runner)
        workers.append(Worker("tinynn", path, threads, specs, runner.target, trust))
        if model is not None:
            workers.append(Worker("onnxruntime", model, threads, specs))
        return measure(workers, runs)
    finally:
        for worker in workers:
            worker.close()


def profile_kernels(runner: Runner, runs: int) -> list[KernelTime]:
    """Median time of every step, in the order of the steps."""
    inputs = sample_inputs(runner.inputs.values(), seed=0)
    runner.profile(inputs)
    ns = np.median([runner.profile(inputs) for _ in range(runs)], axis=0)
    total = float(ns.sum()) or 1.0
    return [KernelTime(step, float(t), float(t) / total)
            for step, t in zip(runner.steps, ns, strict=True)]


def kernel_lines(kernels: Iterable[KernelTime]) -> list[str]:
    """A table for people, one line per kernel."""
    lines = [f"{'kernel':<40}{'us':>10}{'GFLOPS':>9}{'GB/s':>8}{'share':>8}"]
    lines += [f"{k.step.kernel[:39]:<40}{k.ns / 1e3:>10.1f}{k.gflops:>9.1f}"
              f"{k.gbytes_per_s:>8.1f}{k.share:>8.1%}" for k in kernels]
    return lines


def table(models: Sequence[Path], runs: int = 50) -> str:
    """A markdown table: each ONNX model compiled and measured beside onnxruntime.

    Times are medians in ms at one and two threads; peak is the largest resident memory of each
    process in MiB (two threads), Python and libraries included.
    """
    from tinynn.pipeline import compile as compile_model

    rows = ["| model | ours, 1 thread | onnxruntime | ratio | ours, 2 threads | onnxruntime "
            "| ratio | peak, ours | peak, onnxruntime | artifact MB | compile s | golden s |",
            "|---|" + "---:|" * 11]
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            print(f"{model.stem} ...", file=sys.stderr, flush=True)
            seconds: dict[str, float | None] = {}
            artifact = compile_model(model, progress=seconds.__setitem__)
            # Trust is given per run below: a measurement should leave nothing behind.
            path = Path(folder) / f"{model.stem}.tnn"
            path.write_bytes(artifact.to_bytes())
            golden = seconds.pop("golden vectors") or 0.0
            compiling = sum(s or 0.0 for s in seconds.values())
            rows.append(_row(model, path, runs, compiling, golden))
            path.unlink()
    return "\n".join(rows) + "\n"


def _row(model: Path, path: Path, runs: int, compile_s: float, golden_s: float) -> str:
    from tinynn.runtime import load

    cells = [model.stem]
    peaks: list[str] = []
    with load(path, trust=True) as runner:
        for threads in (1, 2):
            ours, theirs = compare(runner, path, model, threads, runs, trust=True)
            cells += [f"{ours.median:.2f}", f"{theirs.median:.2f}",
                      f"{ours.median / theirs.median:.2f}"]
            peaks = [f"{timing.peak_nbytes / 2**20:.0f}" for timing in (ours, theirs)]
    cells += [*peaks, f"{path.stat().st_size / 1e6:.1f}", f"{compile_s:.1f}", f"{golden_s:.1f}"]
    return "| " + " | ".join(cells) + " |"


def report(timings: Sequence[Timing], threads: int) -> list[str]:
    """Lines for people: ours, and if there is a second timing onnxruntime's and the ratio."""
    lines = [f"{name:<12} median {t.median:.3f} ms, p99 {t.p99:.3f}, min {t.minimum:.3f} "
             f"({t.runs} runs, {threads} threads), peak memory {t.peak_nbytes / 2**20:.0f} MiB"
             for name, t in zip(("tinynn", "onnxruntime"), timings, strict=False)]
    if len(timings) == 2:
        ratio = timings[0].median / timings[1].median
        lines.append(f"{'ratio':<12} {ratio:.3f} of onnxruntime's time")
    return lines


def summary(timing: Timing) -> dict[str, float]:
    """The numbers of a timing, named with their units."""
    return {"median_ms": timing.median, "p99_ms": timing.p99, "min_ms": timing.minimum,
            "runs": timing.runs, "peak_nbytes": timing.peak_nbytes}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tinynn.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with .onnx models")
    parser.add_argument("--markdown", type=Path, help="write the table here, not to the terminal")
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args(argv)
    models = sorted(args.folder.glob("*.onnx"))
    if not models:
        print(f"{args.folder}: there is no .onnx model. Give a folder that has some.",
              file=sys.stderr)
        return 2
    text = table(models, args.runs)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
