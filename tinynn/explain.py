"""What the compiler made of a model: a row per kernel with its work, its cost and its reason.

All of it stands in the steps of a program, so an artifact explains itself; a model is compiled as
far as its source text. For a CPU the predicted time of a kernel is

    launch + max(arithmetic, weights, data)

where arithmetic is FLOP over the rate of its family of schedules, weights are read from main
memory because a model's weights do not fit the caches, and data is what moves through them. For
other targets it is what their cost model said at compile time.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinynn.program import Buffer, Step, TargetCode
from tinynn.runtime import Runner
from tinynn.runtime.golden import sample_inputs
from tinynn.runtime.manifest import Target
from tinynn.runtime.reader import Reader

if TYPE_CHECKING:
    from tinynn.ir import Graph

# Nominal rates, for ranking kernels before anything is measured. f32 numbers per vector:
LANES = {"cpu:x86-64-v2": 4, "cpu:x86-64-v3": 8, "cpu:x86-64-v4": 16, "cpu:aarch64": 4}
CLOCK_GHZ = 4.0
# FLOP per lane and cycle: of 4 at best, what generated kernels of each family reach.
FLOP_PER_LANE = {"contract": 3.0, "conv": 3.0, "depthwise": 1.5, "lanes": 1.0, "loops": 0.5,
                 "rows": 0.5}
MEMORY_GBYTES_PER_S = 40.0  # of all threads together
CACHE_GBYTES_PER_S = 30.0  # of one thread
LAUNCH_NS = 300.0
PRODUCTS = re.compile(r", (\d+) products a lane")  # of bf16 or bytes, as schedules say


@dataclass(frozen=True)
class Prediction:
    """Nanoseconds of a kernel by what could bind it."""

    launch: float
    arithmetic: float
    weights: float
    data: float

    @property
    def ns(self) -> float:
        return self.launch + max(self.arithmetic, self.weights, self.data)

    @property
    def bound(self) -> str:
        """The largest part: "launch", "arithmetic", "weights" or "data"."""
        parts = vars(self)
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class KernelRow:
    """One kernel launch.

    source: its function. predicted_ns, bound: expected time, and what binds it. readers: numbers of
    the launches that read its result; they could not compute it themselves because of
    `step.reason`. measured_ns: None if not measured.
    """

    step: Step
    source: str
    predicted_ns: float
    bound: str
    readers: tuple[int, ...] = ()
    measured_ns: float | None = None

    @property
    def ns(self) -> float:
        """Measured time, or else the predicted one."""
        return self.predicted_ns if self.measured_ns is None else self.measured_ns

    @property
    def family(self) -> str:
        """Of schedules: the first word of the schedule's text."""
        return family_of(self.step)


@dataclass(frozen=True)
class Explanation:
    """All kernels of one target, in the order they run. Steps name buffers by position.

    toolchain: who compiled it; empty if nobody did. source: the whole source text.
    """

    name: str
    target: str
    threads: int
    toolchain: str
    source: str
    buffers: tuple[Buffer, ...]
    rows: tuple[KernelRow, ...]

    @property
    def ns(self) -> float:
        return sum(row.ns for row in self.rows)

    @property
    def measured(self) -> bool:
        return all(row.measured_ns is not None for row in self.rows)

    def with_times(self, nanoseconds: Sequence[float]) -> Explanation:
        """The same with measured times, one per kernel."""
        rows = tuple(replace(row, measured_ns=float(ns))
                     for row, ns in zip(self.rows, nanoseconds, strict=True))
        return replace(self, rows=rows)


def predict(step: Step, buffers: Sequence[Buffer], family: str, target: str,
            threads: int) -> Prediction:
    """Estimated time of a launch on the nominal machine of a target."""
    weights = sum(buffers[arg].nbytes for arg in step.args if buffers[arg].kind == "weight")
    cores = min(threads, step.parts)
    lanes = LANES.get(target.partition("+")[0], 4)
    packed = PRODUCTS.search(step.schedule)
    products = int(packed[1]) if packed else 1
    flop_per_ns = FLOP_PER_LANE.get(family, 0.5) * products * lanes * CLOCK_GHZ * cores
    return Prediction(LAUNCH_NS, step.flop / flop_per_ns, weights / MEMORY_GBYTES_PER_S,
                      max(0, step.nbytes - weights) / (CACHE_GBYTES_PER_S * cores))


def family_of(step: Step) -> str:
    return step.schedule.partition(",")[0].partition(" ")[0] or "other"


def explain_code(name: str, code: Target | TargetCode, source: str, threads: int) -> Explanation:
    """The kernels of a program for one target. source: the text of all of them."""
    functions = split_functions(source, [step.kernel for step in code.steps])
    readers = _readers(code.steps, code.buffers)
    rows = []
    for number, step in enumerate(code.steps):
        ns, bound = float(step.predicted_ns), step.bound or "unknown"
        if not step.predicted_ns and code.target.startswith("cpu"):
            prediction = predict(step, code.buffers, family_of(step), code.target, threads)
            ns, bound = prediction.ns, prediction.bound
        rows.append(KernelRow(step, functions.get(step.kernel, ""), ns, bound,
                              tuple(readers[number])))
    return Explanation(name, code.target, threads, code.toolchain, source, code.buffers,
                       tuple(rows))


def explain_artifact(reader: Reader, target: Target, threads: int | None = None) -> Explanation:
    """One target of an artifact; threads: None takes its default."""
    manifest = reader.manifest
    return explain_code(manifest.name, target, reader.text(target.source),
                        threads or manifest.threads or 1)


def step_times(runner: Runner, runs: int) -> list[float]:
    """Median nanoseconds of every step."""
    inputs = sample_inputs(runner.inputs.values(), seed=0)
    runner.profile(inputs)
    return [float(ns) for ns in np.median([runner.profile(inputs) for _ in range(runs)], axis=0)]


def explain_graph(graph: Graph, target: str, threads: int, precision: str = "f32") -> Explanation:
    """What the compiler makes of a graph; no C compiler is run.

    target: "cpu" for this host, or a resolved name. Raises TargetError for an unknown one.
    """
    from tinynn.compiler import lower

    code = lower(graph, target, precision, machine_code=False)
    return explain_code(graph.name, code, code.source, threads)


def _readers(steps: Sequence[Step], buffers: Sequence[Buffer]) -> list[list[int]]:
    """For every step the later ones that read what it wrote.

    A result ends where its memory is written again after it was read; until then several steps may
    write parts of it.
    """
    found: list[list[int]] = [[] for _ in steps]
    writers: dict[tuple[Any, ...], list[int]] = {}
    was_read: set[tuple[Any, ...]] = set()
    for number, step in enumerate(steps):
        written = {step.args[position] for position in step.writes}
        for arg in dict.fromkeys(step.args):
            place = _place(buffers[arg])
            if arg not in written:
                was_read.add(place)
                for writer in writers.get(place, []):
                    found[writer].append(number)
        for arg in written:
            place = _place(buffers[arg])
            if place in was_read:
                was_read.remove(place)
                writers[place] = []
            writers.setdefault(place, []).append(number)
    return found


def _place(buffer: Buffer) -> tuple[Any, ...]:
    """What identifies a tensor: an image and plain memory may be views of one."""
    return buffer.kind, buffer.name, buffer.offset, buffer.nbytes


def split_functions(source: str, symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> its function with the comment above it."""
    functions: dict[str, str] = {}
    for symbol in symbols:
        head = re.search(rf"^[^\n;]*\bvoid {re.escape(symbol)}\(", source, re.MULTILINE)
        if head is None:
            continue
        # Generated functions begin behind an empty line and end with a brace at the margin.
        begin = source.rfind("\n\n", 0, head.start()) + 2
        end = source.find("\n}", head.end()) + 2
        functions[symbol] = source[max(begin, 0):end if end > 1 else len(source)].strip()
    return functions


# For people

def table(explanation: Explanation) -> Iterator[str]:
    """One line per kernel under a heading, and sums."""
    measured = explanation.measured and bool(explanation.rows)
    times = f"{'predicted us':>13}" + (f"{'measured us':>13}{'GFLOPS':>8}{'GB/s':>7}{'share':>7}"
                                       if measured else "")
    yield (f"{'#':>4}  {'kernel':<40}  {'schedule':<18}{'MFLOP':>9}{'kB':>9}{times}  "
           f"{'bound by':<11}computes | for | stored because")
    total = explanation.ns or 1.0
    for number, row in enumerate(explanation.rows):
        step = row.step
        cells = f"{row.predicted_ns / 1e3:>13.1f}"
        if row.measured_ns is not None:
            ns = row.measured_ns or 1.0
            cells += (f"{ns / 1e3:>13.1f}{step.flop / ns:>8.1f}{step.nbytes / ns:>7.1f}"
                      f"{row.ns / total:>7.1%}")
        schedule = step.schedule.partition(",")[0]  # details() shows all of it
        yield (f"{number:>4}  {step.kernel[:40]:<40}  {schedule:<18}{step.flop / 1e6:>9.3f}"
               f"{step.nbytes / 1e3:>9.1f}{cells}  {row.bound:<11}{step.note} | {_numbers(row)} | "
               f"{step.reason}")
    yield from _sums(explanation)


def _numbers(row: KernelRow) -> str:
    """Who reads the result: "#3 #7", or the caller."""
    return " ".join(f"#{number}" for number in row.readers) or "the caller"


def details(explanation: Explanation, number: int) -> Iterator[str]:
    """Everything about one kernel but its source: times, buffers, neighbours and why they are
    kernels of their own."""
    row = explanation.rows[number]
    step = row.step
    yield f"#{number} {step.kernel}: {step.note}"
    yield f"  schedule   {step.schedule}, {_extent(step)}"
    yield (f"  work       {step.flop / 1e6:.3f} MFLOP, {step.nbytes / 1e3:.1f} kB; predicted "
           f"{row.predicted_ns / 1e3:.1f} us, bound by {row.bound}"
           + ("" if row.measured_ns is None else f"; measured {row.measured_ns / 1e3:.1f} us"))
    for position, arg in enumerate(step.args):
        buffer = explanation.buffers[arg]
        access = "writes" if position in step.writes else "reads"
        yield f"  {access:<10} {buffer.kind} {buffer.name} {type_text(buffer)}"
    for other, above in enumerate(explanation.rows):
        if number in above.readers:
            yield f"  not merged with #{other}, whose result it reads: {above.step.reason}"
    for reader in row.readers:
        yield f"  not merged with #{reader}, which reads the result: {step.reason}"


def _extent(step: Step) -> str:
    if step.global_size:
        sizes = ("x".join(map(str, size)) for size in (step.global_size, step.local_size))
        return " work-items in groups of ".join(sizes)
    return f"at most {step.parts} shares"


def _sums(explanation: Explanation) -> Iterator[str]:
    rows = explanation.rows
    predicted = sum(row.predicted_ns for row in rows) / 1e6
    line = (f"{len(rows)} kernels, {sum(r.step.flop for r in rows) / 1e6:.1f} MFLOP, "
            f"{sum(r.step.nbytes for r in rows) / 1e6:.1f} MB; predicted {predicted:.3f} ms")
    if explanation.measured and rows:
        line += f", measured {explanation.ns / 1e6:.3f} ms"
    yield f"{line} on {explanation.target}, {explanation.threads} threads"
    shares: dict[str, float] = {}
    for row in rows:
        shares[row.bound] = shares.get(row.bound, 0.0) + row.ns
    total = explanation.ns or 1.0
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    yield "bound by " + ", ".join(f"{name} {ns / total:.0%}" for name, ns in ranked)


def as_data(explanation: Explanation) -> dict[str, Any]:
    """Plain data for JSON: what `table` shows."""
    return {"name": explanation.name, "target": explanation.target,
            "threads": explanation.threads,
            "kernels": [{"kernel": row.step.kernel, "computes": row.step.note,
                         "schedule": row.step.schedule, "parts": row.step.parts,
                         "flop": row.step.flop, "nbytes": row.step.nbytes,
                         "predicted_ns": round(row.predicted_ns, 1), "bound": row.bound,
                         "measured_ns": row.measured_ns, "read_by": list(row.readers),
                         "stored_because": row.step.reason}
                        for row in explanation.rows]}


def type_text(buffer: Buffer) -> str:
    """For example f32[1,64,32]."""
    return f"{buffer.dtype}[{','.join(map(str, buffer.shape))}]"


def debug_lines(explanation: Explanation, level: int) -> Iterator[str]:
    """What $DEBUG shows. 1: device; 2: and a line per kernel; 3: and its schedule, buffers and
    neighbours; 4: and the source."""
    if level >= 1:
        built = f", built by {explanation.toolchain}" if explanation.toolchain else ""
        yield f"target {explanation.target}, {explanation.threads} threads{built}"
    if level >= 2:
        yield from table(explanation)
    if level >= 3:
        for number in range(len(explanation.rows)):
            yield from details(explanation, number)
    if level >= 4:
        yield explanation.source


def debug_level(env: Mapping[str, str] = os.environ) -> int:
    """$DEBUG if it is one of our levels; other programs use the variable for other things."""
    value = env.get("DEBUG", "")
    return int(value) if value in ("1", "2", "3", "4") else 0


def graph_wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether $GRAPH asks for a picture."""
    return env.get("GRAPH", "0") not in ("", "0")
