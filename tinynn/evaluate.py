"""Run lazy expressions: compile them in memory, once for every form, and call the result.

Two expressions have the same form if they differ only in the arrays they are bound to. Since equal
nodes are one object, a form is found again by its output nodes.
"""
from __future__ import annotations

import functools
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinynn import explain, interp
from tinynn.compiler import lower
from tinynn.ir import Graph, Node, Op, input_, substitute, toposort
from tinynn.picture import write_picture
from tinynn.program import TargetCode, TensorSpec
from tinynn.runtime import Runner
from tinynn.runtime.host import cores_available
from tinynn.runtime.manifest import Manifest, Target, WeightEntry
from tinynn.text import print_graph

Array = np.ndarray[Any, Any]

BACKENDS = ("c", "interp")
MOST_PROGRAMS = 128  # compiled forms that are kept


def form(roots: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """The graph of an expression with its leaves named x0, x1, ... and its results y0, y1, ...;
    and those leaves in that order."""
    leaves = [n for n in toposort(roots) if n.op is Op.INPUT]
    named = {leaf: input_(f"x{i}", leaf.dtype, leaf.shape) for i, leaf in enumerate(leaves)}
    outputs = substitute({f"y{i}": root for i, root in enumerate(roots)}, named)
    return Graph("tensor", {n.arg: n for n in named.values()}, outputs), leaves


def evaluate(roots: Sequence[Node], data: Mapping[Node, Array], backend: str = "c") -> list[Array]:
    """Values of the roots. data: array of every leaf.

    backend: "c" compiles, "interp" is the reference interpreter in numpy. $DEBUG and $GRAPH apply
    to "c". Raises ValueError for an unknown backend or a leaf without data.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not known; choose one of {', '.join(BACKENDS)}.")
    graph, leaves = form(roots)
    unbound = [leaf.arg for leaf in leaves if leaf not in data]
    if unbound:
        raise ValueError(f"{', '.join(unbound)} has no value: it is an input of a function that is "
                         "being traced. Compile the traced graph and run that.")
    feed = {name: data[leaf] for name, leaf in zip(graph.inputs, leaves, strict=True)}
    if backend == "interp":
        return list(interp.run(graph, feed).values())
    runner = compiled(tuple(graph.outputs.values()))
    results = runner(feed)
    _report(graph, runner, feed)
    return [results[name].view(node.dtype.numpy) for name, node in graph.outputs.items()]


@functools.lru_cache(maxsize=MOST_PROGRAMS)
def compiled(outputs: tuple[Node, ...]) -> Runner:
    """The runner of a form, given by the outputs of its graph."""
    graph, _ = form(outputs)
    return in_memory(graph, lower(graph))


def in_memory(graph: Graph, code: TargetCode, threads: int | None = None) -> Runner:
    """A runner of code that this process has just compiled; no artifact is written.

    graph: without state. threads: None takes up to two.
    """
    threads = threads or min(2, cores_available())
    return Runner(_Compiled(graph, code), [_target(code)], threads)


class _Compiled:
    """The Source of a runner for a program that is in memory only."""

    def __init__(self, graph: Graph, code: TargetCode) -> None:
        self.name = graph.name
        self.json: dict[str, Any] = {}
        self.manifest = Manifest(
            blobs=(), name=graph.name, metadata=graph.metadata,
            inputs=_specs(graph.inputs), state=(), outputs=_specs(graph.outputs), carry={},
            threads=None, memory_nbytes=0, targets=(_target(code),), golden_blob=0, golden=())
        self._blobs = (code.source.encode(), code.code, b"".join(w.data for w in code.weights))

    def blob(self, index: int) -> memoryview:
        return memoryview(self._blobs[index])

    def code(self, index: int) -> bytes:
        return self._blobs[index]

    def text(self, index: int) -> str:
        return self._blobs[index].decode()

    def release_pages(self) -> None:
        """There is no file behind the bytes."""


def _target(code: TargetCode) -> Target:
    """The parts of the target; its blobs are numbered as in `_Compiled`."""
    table, end = [], 0
    for weight in code.weights:
        table.append(WeightEntry(weight.buffer, weight.storage, end))
        end += len(weight.data)
    weights = [b for b in code.buffers if b.kind == "weight"]
    return Target(
        target=code.target, precision=code.precision, toolchain=code.toolchain, source=0, code=1,
        weights=2, arena_nbytes=code.arena_nbytes,
        weights_nbytes=max((b.offset + b.nbytes for b in weights), default=0),
        buffers=code.buffers, steps=code.steps, table=tuple(table), expect={})


def _specs(nodes: Mapping[str, Node]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, n.dtype.value, n.shape) for name, n in nodes.items())


# What $DEBUG and $GRAPH show

def _report(graph: Graph, runner: Runner, feed: Mapping[str, Array]) -> None:
    """Device, kernel times, schedules and source as $DEBUG asks; a picture if $GRAPH does."""
    level, wanted = explain.debug_level(), explain.graph_wanted()
    if not level and not wanted:
        return
    explanation = explain.explain_graph(graph, runner.target, runner.threads)
    explanation = explanation.with_times(runner.profile(feed))
    lines = list(explain.debug_lines(explanation, level))
    if wanted:
        path = graph_path(graph)
        write_picture(path, explanation)
        lines.append(f"tinynn: the graph is in {path}")
    print("\n".join(lines), file=sys.stderr)


def graph_path(graph: Graph) -> Path:
    """Where $GRAPH puts the picture of an expression: the same file for the same form."""
    digest = hashlib.sha256(print_graph(graph).encode()).hexdigest()
    return Path(tempfile.gettempdir()) / f"tinynn-{digest[:12]}.html"
