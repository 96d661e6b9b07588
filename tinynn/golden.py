"""Golden vectors at compile time: what the program must give, by a path that shares no code with
the backend.

The reference interpreter runs the graph as imported, before any optimisation. Two runs follow each
other: the second has other inputs, so that outputs must change, and takes over the state.
"""
from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinynn import interp
from tinynn.artifact import GoldenVector
from tinynn.cache import kept
from tinynn.ir import DType, Graph, Op, toposort
from tinynn.program import TensorSpec
from tinynn.runtime.golden import Arrays, as_numbers, relative_error, sample_inputs
from tinynn.text import print_graph

SEEDS = (0, 1)
# Largest relative error by the precision of arithmetic. f16 and bf16 round every operation to
# 2^-11 and 2^-9; a program that computes wider differs from that by some of these roundings.
_TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1}
_ROUNDED = 1e-2  # of integers; a few of many that are off by one, or a few pixels of a picture
# A measured error may be exceeded by so much: where a sum is rounded differently in its last place,
# a value next to the middle of two bf16 numbers is rounded the other way.
_MARGIN = 1.5


def make_golden(graph: Graph, rounded: Graph | None = None) -> list[GoldenVector]:
    """Run the interpreter for every seed. Takes seconds for large models.

    rounded: the graph as it is computed, with the roundings of a reduced precision; the tolerances
    are then measured.
    """
    names = list(graph.outputs)
    allowed = {name: tolerance(graph, name) for name in names}
    vectors = [GoldenVector(seed, outputs, dict(allowed))
               for seed, outputs in zip(SEEDS, _kept_runs(graph), strict=True)]
    if rounded is not None:
        for vector, outputs in zip(vectors, _kept_runs(rounded), strict=True):
            for name in names:
                dtype = graph.outputs[name].dtype
                if dtype.is_float:
                    error = relative_error(as_numbers(outputs[name], dtype.value),
                                           as_numbers(vector.outputs[name], dtype.value))
                    if _MARGIN * error > 1:
                        raise ValueError(f"output {name}: in the reduced precision its relative "
                                         f"error is {error:.2g}. Compile with precision f32.")
                    vector.tolerance[name] = max(vector.tolerance[name], _MARGIN * error)
    return vectors


def _kept_runs(graph: Graph) -> list[Arrays]:
    """`_runs`, kept between compilations: they change only with the graph and its meaning."""
    meaning = [Path(module.__file__ or "").read_text(encoding="utf-8")
               for module in (interp, sys.modules[__name__], sys.modules[sample_inputs.__module__])]

    def make() -> bytes:
        file = io.BytesIO()
        np.savez(file, *(array for outputs in _runs(graph) for array in outputs.values()))
        return file.getvalue()

    key = [print_graph(graph), graph.state, SEEDS, meaning, np.__version__]
    with np.load(io.BytesIO(kept("golden", key, make)), allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
    size = len(graph.outputs)
    return [dict(zip(graph.outputs, arrays[i * size:], strict=False)) for i in range(len(SEEDS))]


def _runs(graph: Graph) -> Iterator[Arrays]:
    """Outputs for every seed; each run takes over the state of the one before."""
    state: Arrays = {name: np.zeros(graph.inputs[name].shape, graph.inputs[name].dtype.numpy)
                     for name in graph.state}
    for seed in SEEDS:
        arrays = sample_inputs(input_specs(graph), seed)
        given = {name: _to_graph(array, graph.inputs[name].dtype)
                 for name, array in arrays.items()}
        outputs = interp.run(graph, {**given, **state})
        state = {name: outputs[output] for name, output in graph.state.items()}
        yield {name: _from_graph(array) for name, array in outputs.items()}


def input_specs(graph: Graph) -> tuple[TensorSpec, ...]:
    """Inputs that the caller gives: all but state."""
    return tuple(TensorSpec(name, node.dtype.value, node.shape)
                 for name, node in graph.inputs.items() if name not in graph.state)


def target_tolerance(precision: str) -> float:
    """What a target may be off by because it computes in f16; for bf16 see make_golden."""
    return _TOLERANCE["f16"] if precision == "f16" else 0.0


def tolerance(graph: Graph, output: str) -> float:
    """How far this output may be from the interpreter's; integers must be equal, unless rounding a
    float made them: one in the middle between two integers may go either way."""
    node = graph.outputs[output]
    if not node.dtype.is_float:
        rounds = any(n.op is Op.CAST and n.dtype.is_integer and n.src[0].dtype.is_float
                     for n in toposort([node]))
        return _ROUNDED if rounds else 0.0
    computing = {node.dtype.value for node in graph.nodes()
                 if node.op in _ARITHMETIC and node.dtype.is_float}
    return max(_TOLERANCE[name] for name in {"f32", *computing} & set(_TOLERANCE))


# Operations that round; others only move values.
_ARITHMETIC = frozenset({Op.EXP2, Op.LOG2, Op.SQRT, Op.SIN, Op.ADD, Op.MUL, Op.DIV, Op.REDUCE})


def _to_graph(array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """The runtime holds bf16 as bit patterns, the graph as ml_dtypes numbers."""
    return array.view(dtype.numpy) if dtype is DType.BF16 else array


def _from_graph(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.view(np.uint16) if array.dtype == DType.BF16.numpy else array
