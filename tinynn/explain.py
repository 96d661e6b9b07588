"""What the compiler made of a model: a row per kernel with its work, its cost and its reason.

An explanation is made of a plan (a graph on its way to code, with the reasons of fusion) or of an
artifact (what its manifest holds). The predicted time of a kernel is

    launch + max(arithmetic, weights, data)

where arithmetic is FLOP over the rate of its family of schedules, weights are read from main
memory because a model's weights do not fit the caches, and data is what moves through them.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinynn.program import Buffer, Step

if TYPE_CHECKING:
    from tinynn.compiler import Plan
    from tinynn.ir import Graph
    from tinynn.kernel import Tensor
    from tinynn.runtime.manifest import Target
    from tinynn.schedule import Schedule

# Nominal rates, for ranking kernels before anything is measured. f32 numbers per vector:
LANES = {"cpu:x86-64-v2": 4, "cpu:x86-64-v3": 8, "cpu:x86-64-v4": 16, "cpu:aarch64": 4}
CLOCK_GHZ = 4.0
# FLOP per lane and cycle: of 4 at best, what generated kernels of each family reach.
FLOP_PER_LANE = {"contract": 3.0, "depthwise": 1.5, "lanes": 1.0, "loops": 0.5}
MEMORY_GBYTES_PER_S = 40.0  # of all threads together
CACHE_GBYTES_PER_S = 30.0  # of one thread
LAUNCH_NS = 300.0


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

    schedule: family and tile. reason: why its result is stored instead of computed where it is
    read; empty where that is not known. source: its C function. measured_ns: None if not measured.
    """

    step: Step
    schedule: str
    reason: str
    source: str
    predicted: Prediction
    measured_ns: float | None = None

    @property
    def ns(self) -> float:
        """Measured time, or else the predicted one."""
        return self.predicted.ns if self.measured_ns is None else self.measured_ns

    @property
    def family(self) -> str:
        return self.schedule.split()[0]


@dataclass(frozen=True)
class Explanation:
    """All kernels of one target, in the order they run. Steps name buffers by position."""

    name: str
    target: str
    threads: int
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
    flop_per_ns = FLOP_PER_LANE.get(family, 0.5) * LANES.get(target, 4) * CLOCK_GHZ * cores
    return Prediction(LAUNCH_NS, step.flop / flop_per_ns, weights / MEMORY_GBYTES_PER_S,
                      max(0, step.nbytes - weights) / (CACHE_GBYTES_PER_S * cores))


def explain_target(name: str, target: Target, source: str, threads: int) -> Explanation:
    """What an artifact says about a target; it does not hold the reasons of fusion."""
    functions = split_functions(source, [step.kernel for step in target.steps])
    rows = []
    for step in target.steps:
        text = functions.get(step.kernel, "")
        family = family_of(text)
        rows.append(KernelRow(step, family, "", text, predict(
            step, target.buffers, family, target.target, threads)))
    return Explanation(name, target.target, threads, target.buffers, tuple(rows))


def family_of(function: str) -> str:
    """The family of schedules that the comment above a C function names."""
    match = re.search(r"^\s+(\w+): [\dx ]+", function, re.MULTILINE)
    return match[1] if match else "other"


def split_functions(source: str, symbols: Sequence[str]) -> dict[str, str]:
    """Symbol -> its C function with the comment above it."""
    functions: dict[str, str] = {}
    for symbol in symbols:
        head = re.search(rf"^[^\n;]*\bvoid {re.escape(symbol)}\(void", source, re.MULTILINE)
        if head is None:
            continue
        # Generated functions begin behind an empty line and end with a brace at the margin.
        begin = source.rfind("\n\n", 0, head.start()) + 2
        end = source.find("\n}", head.end()) + 2
        functions[symbol] = source[max(begin, 0):end if end > 1 else len(source)].strip()
    return functions


def explain_graph(graph: Graph, target: str, threads: int) -> Explanation:
    """What the compiler makes of a graph; no C compiler is run.

    target: "cpu" for this host, or a resolved name. Raises TargetError for an unknown one.
    """
    from tinynn.compiler import plan, resolve_target
    from tinynn.machine import machine_of
    from tinynn.simplify import simplify, widen_f16

    simple = simplify(widen_f16(graph))
    planned = plan(simple, machine_of(target))
    return explain_plan(simple, planned, resolve_target(target), threads)


def explain_plan(graph: Graph, planned: Plan, target: str, threads: int) -> Explanation:
    """The kernels of a plan. graph: what was planned."""
    from tinynn.cost import work
    from tinynn.render.c import render_program

    source, symbols = render_program(planned.functions)
    functions = split_functions(source, symbols)
    numbers: dict[Tensor, int] = {}
    for function in planned.functions:
        for tensor in function.tensors:
            numbers.setdefault(tensor, len(numbers))
    buffers = tuple(Buffer(t.kind, t.name, t.dtype.value, t.shape, 0, t.nbytes) for t in numbers)
    reasons = _stored_reasons(graph, planned.fusion.notes)
    rows = []
    for symbol, function, scheduled in zip(symbols, planned.functions, planned.schedules,
                                           strict=True):
        kernel = scheduled.kernel
        step = Step(symbol, tuple(numbers[t] for t in function.tensors), (0,), scheduled.parts,
                    work(kernel), sum(t.nbytes for t in function.tensors), kernel.note)
        rows.append(KernelRow(
            step, describe_schedule(scheduled), reasons.get(function.tensors[0].name, ""),
            functions.get(symbol, ""), predict(step, buffers, scheduled.family, target, threads)))
    return Explanation(graph.name, target, threads, buffers, tuple(rows))


def describe_schedule(scheduled: Schedule) -> str:
    """Family and tile, for example "contract 14x2x16": rows x vectors x lanes."""
    parts = [str(getattr(scheduled, name)) for name in ("tile_rows", "tile_vectors", "lanes")
             if hasattr(scheduled, name)]
    return f"{scheduled.family} {'x'.join(parts)}".strip()


def _stored_reasons(graph: Graph, notes: Sequence[str]) -> dict[str, str]:
    """Name of a tensor -> why it is stored.

    There is a note for every node that computes something, in the order of the graph, and scratch
    tensors are called after the position of their node.
    """
    from tinynn.ir import VIEWS, Op

    nodes = graph.nodes()
    noted = [i for i, n in enumerate(nodes)
             if n.op not in VIEWS and n.op not in (Op.INPUT, Op.CONST)]
    if len(noted) != len(notes):
        return {}
    reasons = dict.fromkeys(graph.outputs, "output of the graph")
    for number, note in zip(noted, notes, strict=True):
        head, _, reason = note.partition(">: ")
        if head.startswith("store"):
            reasons[f"{nodes[number].op.name.lower()} {number}"] = reason
    return reasons


# For people

def table(explanation: Explanation) -> Iterator[str]:
    """One line per kernel under a heading, and sums."""
    measured = explanation.measured and bool(explanation.rows)
    times = f"{'predicted us':>13}" + (f"{'measured us':>13}{'GFLOPS':>8}{'GB/s':>7}{'share':>7}"
                                       if measured else "")
    reasons = any(row.reason for row in explanation.rows)
    yield (f"{'#':>4}  {'kernel':<40}  {'schedule':<18}{'MFLOP':>9}{'kB':>9}{times}  "
           f"{'bound by':<11}computes" + (" | stored because" if reasons else ""))
    total = explanation.ns or 1.0
    for number, row in enumerate(explanation.rows):
        step = row.step
        cells = f"{row.predicted.ns / 1e3:>13.1f}"
        if row.measured_ns is not None:
            ns = row.measured_ns or 1.0
            cells += (f"{ns / 1e3:>13.1f}{step.flop / ns:>8.1f}{step.nbytes / ns:>7.1f}"
                      f"{row.ns / total:>7.1%}")
        yield (f"{number:>4}  {step.kernel[:40]:<40}  {row.schedule:<18}{step.flop / 1e6:>9.3f}"
               f"{step.nbytes / 1e3:>9.1f}{cells}  {row.predicted.bound:<11}{step.note}"
               + (f" | {row.reason}" if row.reason else ""))
    yield from _sums(explanation)


def _sums(explanation: Explanation) -> Iterator[str]:
    rows = explanation.rows
    predicted = sum(row.predicted.ns for row in rows) / 1e6
    line = (f"{len(rows)} kernels, {sum(r.step.flop for r in rows) / 1e6:.1f} MFLOP, "
            f"{sum(r.step.nbytes for r in rows) / 1e6:.1f} MB; predicted {predicted:.3f} ms")
    if explanation.measured and rows:
        line += f", measured {explanation.ns / 1e6:.3f} ms"
    yield f"{line} on {explanation.target}, {explanation.threads} threads"
    shares: dict[str, float] = {}
    for row in rows:
        shares[row.predicted.bound] = shares.get(row.predicted.bound, 0.0) + row.ns
    total = explanation.ns or 1.0
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    yield "bound by " + ", ".join(f"{name} {ns / total:.0%}" for name, ns in ranked)


def as_data(explanation: Explanation) -> dict[str, Any]:
    """Plain data for JSON: what `table` shows."""
    return {"name": explanation.name, "target": explanation.target,
            "threads": explanation.threads,
            "kernels": [{"kernel": row.step.kernel, "computes": row.step.note,
                         "schedule": row.schedule, "parts": row.step.parts,
                         "flop": row.step.flop, "nbytes": row.step.nbytes,
                         "predicted_ns": round(row.predicted.ns, 1), "bound": row.predicted.bound,
                         "measured_ns": row.measured_ns, "stored_because": row.reason}
                        for row in explanation.rows]}


def type_text(buffer: Buffer) -> str:
    """For example f32[1,64,32]."""
    return f"{buffer.dtype}[{','.join(map(str, buffer.shape))}]"


def debug_lines(explanation: Explanation, source: str, level: int) -> Iterator[str]:
    """What $DEBUG shows. 1: device; 2: and a line per kernel; 3: and its schedule; 4: and source.

    source: the whole C text.
    """
    if level >= 1:
        yield f"target {explanation.target}, {explanation.threads} threads"
    if level >= 2:
        yield from table(explanation)
    if level >= 3:
        for row in explanation.rows:
            buffers = [explanation.buffers[arg] for arg in row.step.args]
            args = ", ".join(f"{b.kind} {b.name} {type_text(b)}" for b in buffers)
            yield (f"{row.step.kernel}: {row.schedule}, at most {row.step.parts} shares; "
                   f"{row.step.note}; {args}")
    if level >= 4:
        yield source


def debug_level(env: Mapping[str, str] = os.environ) -> int:
    """$DEBUG if it is one of our levels; other programs use the variable for other things."""
    value = env.get("DEBUG", "")
    return int(value) if value in ("1", "2", "3", "4") else 0


def graph_wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether $GRAPH asks for a picture."""
    return env.get("GRAPH", "0") not in ("", "0")
