"""From a model to an artifact: import, lower for every target, golden vectors, layout."""
from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinynn import artifact, golden, halves
from tinynn.compiler import lower, resolve_target
from tinynn.ir import Graph
from tinynn.machine import usual_precision
from tinynn.onnx.reader import import_model
from tinynn.precision import round_products
from tinynn.program import Program, TensorSpec
from tinynn.simplify import simplify, widen_f16
from tinynn.text import print_graph

if TYPE_CHECKING:
    import onnx

Progress = Callable[[str, float | None], None]


def compile(  # noqa: A001  (the public name)
        model: str | os.PathLike[str] | bytes | onnx.ModelProto | Graph, target: str = "cpu",
        precision: str | None = None, threads: int | None = None, *,
        shapes: Mapping[str, Sequence[int]] | None = None, state: Mapping[str, str] | None = None,
        compiler: str | None = None, tuning: Sequence[str | os.PathLike[str]] = (),
        progress: Progress | None = None) -> artifact.Artifact:
    """Compile an ONNX model (path, bytes or ModelProto) or a traced graph into an artifact.

    target: "cpu" (this host), "cpu:x86-64-v3", "cpu:aarch64", ...; several separated by commas.
    precision: of arithmetic: "f32", or "bf16" or "f16" where the target has it (precision.py); None
    is "f16" on Adreno GPUs and "f32" elsewhere.
    threads: for the runtime's default; None decides when loaded.
    shapes: input name -> shape, for inputs whose shape the model leaves open.
    state: input name -> output name. Such an input starts at zero and takes that output's value
    after every run; the caller does not give it.
    compiler: path of a C compiler to use instead of the pinned one.
    tuning: records of `tinynn tune`, for OpenCL targets.
    progress: called as progress(stage, None) when a stage starts, with its seconds when it ends.

    Raises UnsupportedModel with all nodes that cannot be compiled; ValueError for options that do
    not fit the model.
    """
    stage = _Stages(progress)
    with stage("import"):
        fixed = {name: tuple(shape) for name, shape in (shapes or {}).items()}
        if isinstance(model, Graph):
            if fixed:
                raise ValueError("shapes: a graph has all its shapes; give them to trace().")
            graph = replace(model, state=dict(model.state))
        else:
            graph = import_model(model, shapes=fixed or None)
        declare_state(graph, state or {})
    codes = []
    targets = [resolve_target(name.strip()) for name in target.split(",")]
    for resolved in targets:
        with stage(f"lower to {resolved}"):
            code = lower(graph, resolved, _precision_of(resolved, targets, precision),
                         compiler=compiler, tuning=[Path(record) for record in tuning])
            codes.append(code)
    with stage("golden vectors"):
        bounds = None
        if precision == "bf16":
            bounds = golden.reduced_bounds(graph, round_products(simplify(widen_f16(graph))))
        vectors = golden.make_golden(graph, bounds)
        if any(code.precision == "f16" for code in codes):
            # Of these targets alone: others beside them are exact.
            rounded = halves.round_stored(simplify(widen_f16(graph)))
            bounds = golden.reduced_bounds(graph, rounded, halves.run)
            codes = [replace(code, tolerance=max(bounds.values(), default=0.0))
                     if code.precision == "f16" else code for code in codes]
    with stage("lay out"):
        program = Program(
            name=graph.name, inputs=golden.input_specs(graph),
            state=tuple(_spec(name, graph.inputs[name]) for name in graph.state),
            outputs=tuple(_spec(name, node) for name, node in graph.outputs.items()),
            carry=dict(graph.state), source_sha256=_source_sha256(model),
            metadata=graph.metadata, targets=tuple(codes),
            options={"precision": precision, "target": [code.target for code in codes],
                     "threads": threads, "state": dict(state or {}),
                     "shapes": {name: list(shape) for name, shape in fixed.items()}})
        return artifact.build(program, vectors, threads)


def _precision_of(target: str, targets: Sequence[str], asked: str | None) -> str:
    """What a target computes in; a CPU that stands in for a GPU with half arithmetic is exact."""
    if asked == "f16" and target.startswith("cpu") and any(t.startswith("opencl") for t in targets):
        return "f32"
    return asked or usual_precision(target)


def declare_state(graph: Graph, state: Mapping[str, str]) -> None:
    """Mark inputs as state; raises ValueError if a name or a type does not fit."""
    for name, output in state.items():
        if name not in graph.inputs or output not in graph.outputs:
            raise ValueError(f"state {name}={output}: there is no such input and output. The model "
                             f"has inputs {list(graph.inputs)} and outputs {list(graph.outputs)}.")
        before, after = graph.inputs[name], graph.outputs[output]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            raise ValueError(f"state {name}={output}: the input is {before!r} and the output "
                             f"{after!r}; both must have one type and shape.")
        graph.state[name] = output
    twice = [name for name, count in Counter(graph.state.values()).items() if count > 1]
    if twice:
        raise ValueError(f"state: output {twice[0]} is the next value of two inputs. Give the "
                         "model an output for each.")


def _spec(name: str, node: Any) -> TensorSpec:
    return TensorSpec(name, node.dtype.value, node.shape)


def _source_sha256(model: Any) -> str:
    """Of the file's bytes; of a ModelProto in its deterministic encoding; of a graph's text."""
    if isinstance(model, Graph):
        data = print_graph(model).encode()
    elif isinstance(model, bytes):
        data = model
    elif isinstance(model, (str, os.PathLike)):
        data = Path(model).read_bytes()
    else:
        data = model.SerializeToString(deterministic=True)
    return hashlib.sha256(data).hexdigest()


class _Stages:
    """Reports start and seconds of every stage."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self._progress is None:
            yield
            return
        started = time.perf_counter()
        self._progress(name, None)
        try:
            yield
        finally:
            self._progress(name, time.perf_counter() - started)
