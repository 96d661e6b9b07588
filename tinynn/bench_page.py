"""docs/benchmarks.md: every model of some folders, compiled and measured beside other runtimes.

    python -m tinynn.bench FOLDER [OTHERS...] [--markdown docs/benchmarks.md]

Models of the first folder are measured in all ways, those of others for their time only; a
file that was there already is left out. One order, one format: two pages differ in what was
measured and in nothing else.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tinynn.bench import (
    NOT_INSTALLED,
    Comparison,
    Contender,
    Timing,
    Worker,
    bench_peers,
    closing,
    compare_peers,
    competition,
)
from tinynn.inspect import costs
from tinynn.machine import TargetError
from tinynn.onnx.reader import import_model
from tinynn.pipeline import compile as compile_model
from tinynn.runtime import host
from tinynn.runtime.reader import read

THREADS = (1, 2)
TITLES = {"tinynn": "ours", "onnxruntime": "onnxruntime", "openvino": "OpenVINO",
          "tinygrad": "tinygrad"}
LOADS = 3  # processes that are started for one load time; the fastest counts
# Features of CPUs that decide how fast such models run, as Linux names them.
_FEATURES = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
             "avx512_fp16", "amx_tile", "asimd", "asimdhp", "asimddp", "bf16", "sve")


@dataclass(frozen=True)
class Compiled:
    """What compiling one model took and gave.

    seconds: with an empty cache, golden vectors included; again: the same once more; changed:
    without the largest unit of kernels in the cache, as after a change of one of them.
    weights_nbytes: as the model file stores them. macs: multiply-adds of one run.
    """

    seconds: float
    again: float
    changed: float
    artifact_nbytes: int
    weights_nbytes: int
    macs: int


@dataclass(frozen=True)
class Row:
    """One model: how it was compiled, how fast it runs.

    Of the first folder only: loads: engine -> ms to first output. busy: engine -> times at two
    threads while other processes compete for the cores. reduced: the same in bf16, or None where
    this machine has none.
    """

    name: str
    compiled: Compiled
    times: Comparison
    loads: dict[str, float] = field(default_factory=dict)
    busy: dict[str, Timing] = field(default_factory=dict)
    reduced: Comparison | None = None


def measure_model(model: Path, runs: int, shapes: Mapping[str, Sequence[int]], full: bool) -> Row:
    """Compile a model, and measure it in every installed runtime. shapes: of inputs that it or
    other models leave open.

    full: in all ways.
    """
    graph = _onnx_graph(model)
    open_inputs = {value.name for value in graph.input if any(
        dim.WhichOneof("value") != "dim_value" for dim in value.type.tensor_type.shape.dim)}
    fitting = {name: tuple(shape) for name, shape in shapes.items() if name in open_inputs}
    with tempfile.TemporaryDirectory() as folder, _cache(Path(folder) / "cache"):
        seconds, artifact = _timed_compile(model, fitting)
        again, _ = _timed_compile(model, fitting)
        shutil.rmtree(Path(folder) / "cache" / "programs")
        units = (Path(folder) / "cache" / "objects").iterdir()
        max(units, key=lambda unit: unit.stat().st_size).unlink()
        changed, _ = _timed_compile(model, fitting)
        # Trust is given for this run: a measurement should leave nothing behind.
        path = Path(folder) / f"{model.stem}.tnn"
        path.write_bytes(artifact)
        times = compare_peers(path, model, THREADS, runs, trust=True)
        loads: dict[str, float] = {}
        busy: dict[str, Timing] = {}
        reduced = None
        if full:
            loads = {engine: _load_ms(engine, path, model, max(measured))
                     for engine, measured in times.timings.items()}
            with competition():
                result = compare_peers(path, model, THREADS[-1:], runs, trust=True)
            busy = {engine: times[THREADS[-1]] for engine, times in result.timings.items()}
            with contextlib.suppress(TargetError):
                reduced = bench_peers(model, runs=runs, shapes=fitting, precision="bf16")
    macs = costs(import_model(model, shapes=fitting or None)).macs
    weights = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    compiled = Compiled(seconds, again, changed, len(artifact), weights, macs)
    return Row(model.stem, compiled, times, loads, busy, reduced)


def _timed_compile(model: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[float, bytes]:
    started = time.perf_counter()
    artifact = compile_model(model, shapes=shapes)
    return time.perf_counter() - started, artifact.to_bytes()


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Use this compile cache: an empty one, so that compiling is measured and not finding."""
    before = os.environ.get("TINYDRIVE_CACHE")
    os.environ["TINYDRIVE_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TINYDRIVE_CACHE"]
        else:
            os.environ["TINYDRIVE_CACHE"] = before


def _load_ms(engine: str, artifact: Path, model: Path, threads: int) -> float:
    """From opening the file to the first output: the fastest of a few processes."""
    manifest = read(artifact).manifest
    specs = [*manifest.inputs, *manifest.state]
    contender = (Contender(engine, artifact, trust=True) if engine == "tinynn"
                 else Contender(engine, model))
    nanoseconds = []
    for _ in range(LOADS):
        with closing([Worker(contender, threads, specs)]) as (worker,):
            nanoseconds.append(worker.first_ns)
    return min(nanoseconds) / 1e6


def _onnx_graph(path: Path) -> onnx.GraphProto:
    try:
        return onnx.load(path).graph
    except DecodeError as error:
        raise ValueError(f"{path}: this is not an ONNX file ({error})") from None


def bare_nbytes() -> int:
    """Peak memory of a Python process that imports numpy and does nothing."""
    script = "import numpy; from tinynn.bench_worker import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=True)
    return int(done.stdout)


def page(rows: Sequence[Row], failed: Mapping[str, str], runs: int, bare: int,
         others: Sequence[Row] = ()) -> str:
    """The whole page in markdown. failed: model -> why it is in no table. others: models of other
    folders."""
    engines = [engine for engine in TITLES if any(engine in row.times.timings for row in rows)]
    parts = [
        "# Benchmarks", "",
        "Written by a command; nothing here is typed by hand:", "",
        "    pip install '.[compile,test]' openvino      # openvino may be left out",
        "    scons                                       # the driving models, in "
        "compiled_models/build",
        "    python -m tinynn.bench compiled_models/build FOLDER --markdown docs/benchmarks.md", "",
        "FOLDER holds the small models of the second table, and may be left out. For one model of "
        "your own: `tinynn bench MODEL.onnx --peers`, also with `--precision bf16`.", "",
        "Every runtime runs in a process of its own; they take turns "
        f"in blocks until each has done {runs} runs, and are stopped while another is measured. "
        "Inputs are random, copied in and out as a caller would.", "",
        "## Machine", "", *machine_lines(), "",
        "## Time per run", "",
        "Arithmetic in f32. Medians in milliseconds, at one and at two threads. The ratio is our "
        "time over that of the faster peer.", "",
        *time_table(rows, engines), ""]
    if others:
        parts += ["## Small models", "", "The same for small models with trained weights.", "",
                  *time_table(others, engines), ""]
    parts += [
        *reduced_table(rows), *busy_table(rows),
        "## Size and start", "",
        "Weights: as the ONNX file stores them. Compile: from the ONNX file to the artifact, "
        "golden vectors included; again: the same, objects and golden vectors coming from "
        "the cache; changed: as after a change of a kernel, golden vectors and all other units of "
        "kernels from the cache. First output: from opening the file to the first output at "
        f"{THREADS[-1]} threads, without the import of libraries, the fastest of {LOADS} "
        "processes. Memory: largest resident size of a process that loads the model and runs it "
        f"at {THREADS[-1]} threads, less that of a bare interpreter with numpy "
        f"({bare / 2**20:.0f} MiB).", "",
        *size_table(rows, engines, bare)]
    if failed:
        parts += ["", "## Not measured", "", *(f"- {name}: {why}" for name, why in failed.items())]
    return "\n".join(parts) + "\n"


def machine_lines() -> list[str]:
    """What the numbers depend on; no name of a machine or a person."""
    flags = host.cpu_flags()
    packages = ("numpy", "ziglang", "onnxruntime", "openvino", "tinygrad")
    versions = [f"{name} {_version(name)}" for name in packages]
    return [f"- CPU: {_cpu_model()}, {host.cores_available()} cores",
            f"- features: {', '.join(name for name in _FEATURES if name in flags)}",
            f"- memory: {host.memory_nbytes() / 2**30:.0f} GiB",
            f"- {platform.system()}, Python {platform.python_version()}, {', '.join(versions)}"]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return f"{value.strip()}, {platform.machine()}"
    return platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).partition("-")[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def time_table(rows: Sequence[Row], engines: Sequence[str]) -> list[str]:
    heads = ["model", "GMAC"]
    for threads in THREADS:
        heads += [f"{TITLES[engine]} {threads}" for engine in engines] + [f"ratio {threads}"]
    body = []
    for row in rows:
        cells = [row.name, f"{row.compiled.macs / 1e9:.3f}"]
        for threads in THREADS:
            timings = [_timing(row, engine, threads) for engine in engines]
            cells += [_cell(timing.median if timing else None, ".2f") for timing in timings]
            cells.append(_cell(row.times.ratio(threads), ".2f"))
        body.append(cells)
    lines = markdown_table(heads, body)
    absent = [f"- {row.name}: {what}: {_without_folders(why)}" for row in rows
              for what, why in row.times.absent.items() if why != NOT_INSTALLED]
    lines += ["", *absent] if absent else []
    for threads in THREADS:
        ratios = [r for r in (row.times.ratio(threads) for row in rows) if r is not None]
        if ratios:
            plural = "s" if threads > 1 else ""
            lines += ["", f"Mean ratio at {threads} thread{plural}: {statistics.mean(ratios):.2f}, "
                      f"largest {max(ratios):.2f}."]
    return lines


def reduced_table(rows: Sequence[Row]) -> list[str]:
    """In bf16, each precision against the like; nothing where this machine has none."""
    body = []
    for row in rows:
        if row.reduced is None:
            continue
        cells = [row.name]
        for threads in THREADS:
            for engine in ("tinynn", "openvino"):
                timing = row.reduced.timings.get(engine, {}).get(threads)
                cells.append(_cell(timing.median if timing else None, ".2f"))
            cells.append(_cell(row.reduced.ratio(threads), ".2f"))
        cells += [_cell(row.reduced.errors.get(engine), ".1e") for engine in ("tinynn", "openvino")]
        body.append(cells)
    heads = ["model", *(f"{title} {threads}" for threads in THREADS
                        for title in ("ours", "OpenVINO", "ratio")), "error ours", "error OpenVINO"]
    return ["## Time per run in bf16", "", "The same with products in bf16 and sums in f32. Error: "
            "of the output that differs most from onnxruntime's f32, its largest difference over "
            "its largest value.", "", *markdown_table(heads, body), ""] if body else []


def busy_table(rows: Sequence[Row]) -> list[str]:
    """Alone and with competing processes, for engines that were measured so."""
    engines = [engine for engine in TITLES if any(engine in row.busy for row in rows)]
    body = []
    for row in rows:
        cells = [row.name]
        for engine in engines:
            for timing in (_timing(row, engine, THREADS[-1]), row.busy.get(engine)):
                cells += [_cell(timing.median if timing else None, ".1f"),
                          _cell(timing.p99 if timing else None, ".1f")]
        body.append(cells)
    heads = ["model", *(f"{TITLES[engine]} {what}" for engine in engines
                        for what in ("p50", "p99", "busy p50", "busy p99"))]
    return ["## With competing processes", "", "Milliseconds at two threads: alone, and while "
            "another process computes on every core without a pause.", "",
            *markdown_table(heads, body), ""] if engines else []


def _without_folders(text: str) -> str:
    """A message whose files are named without the folders they happen to lie in."""
    return re.sub(r"\S*/", "", text)


def size_table(rows: Sequence[Row], engines: Sequence[str], bare: int) -> list[str]:
    heads = ["model", "weights MB", "artifact MB", "more", "compile s", "again s", "changed s",
             *(f"first output ms, {TITLES[engine]}" for engine in engines),
             *(f"memory MiB, {TITLES[engine]}" for engine in engines), "memory ratio"]
    body = []
    for row in rows:
        made = row.compiled
        memory = {engine: _memory(row, engine, bare) for engine in engines}
        ours, theirs = memory["tinynn"], memory.get("onnxruntime")
        body.append([
            row.name, f"{made.weights_nbytes / 1e6:.1f}", f"{made.artifact_nbytes / 1e6:.1f}",
            f"{made.artifact_nbytes / max(1, made.weights_nbytes) - 1:+.1%}",
            f"{made.seconds:.1f}", f"{made.again:.1f}", f"{made.changed:.1f}",
            *(_cell(row.loads.get(engine), ".0f") for engine in engines),
            *(_cell(memory[engine], ".0f") for engine in engines),
            _cell(ours / theirs if ours and theirs else None, ".2f")])
    return [*markdown_table(heads, body), "", "The memory ratio is ours over onnxruntime's."]


def _timing(row: Row, engine: str, threads: int) -> Timing | None:
    return row.times.timings.get(engine, {}).get(threads)


def _memory(row: Row, engine: str, bare: int) -> float | None:
    timing = _timing(row, engine, THREADS[-1])
    return None if timing is None else max(0, timing.peak_nbytes - bare) / 2**20


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The first column is text, all others are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 for a folder without models."""
    parser = argparse.ArgumentParser(prog="python -m tinynn.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER",
                        help="with .onnx models; those of the first one are measured in all ways")
    parser.add_argument("--markdown", type=Path, help="write the page here, not to the terminal")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=1x3x128x256",
                        type=_shape, help="of an input that models leave open; may be repeated")
    args = parser.parse_args(argv)
    found = [_different(sorted(folder.glob("*.onnx"))) for folder in args.folders]
    for folder, models in zip(args.folders, found, strict=True):
        if not models:
            print(f"{folder}: there is no .onnx model. Give a folder that has some.",
                  file=sys.stderr)
            return 2
    tables: tuple[list[Row], list[Row]] = ([], [])
    failed = {}
    for i, model in ((i, model) for i, models in enumerate(found) for model in models):
        print(f"{model.stem} ...", file=sys.stderr, flush=True)
        try:
            row = measure_model(model, args.runs, dict(args.shape), full=i == 0)
            tables[min(i, 1)].append(row)
        except (ValueError, RuntimeError) as error:
            failed[model.stem] = _without_folders(str(error).splitlines()[0])
    text = page(tables[0], failed, args.runs, bare_nbytes(), tables[1])
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


def _different(models: Sequence[Path]) -> list[Path]:
    """One file of each content: a recipe's copy of another recipe's model is the same model."""
    return list({hashlib.sha256(model.read_bytes()).digest(): model
                 for model in reversed(models)}.values())[::-1]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = text.rpartition("=")
    return name, tuple(int(dim) for dim in dims.split("x"))
