"""Golden vectors at compile time: what the program must give, by a path that shares no code with
the backend.

The reference interpreter runs the graph as imported, before any optimisation. Two runs follow each
other: the second has other inputs, so that outputs must change, and takes over the state.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from tinynn import interp
from tinynn.artifact import GoldenVector
from tinynn.ir import DType, Graph, Op
from tinynn.program import TensorSpec
from tinynn.runtime.golden import Arrays, sample_inputs

SEEDS = (0, 1)
# Largest relative error by the precision of arithmetic. f16 and bf16 round every operation to
# 2^-11 and 2^-9; a program that computes wider differs from that by some of these roundings.
_TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1}


def make_golden(graph: Graph) -> list[GoldenVector]:
    """Run the interpreter for every seed. Takes seconds for large models."""
    state: Arrays = {name: np.zeros(graph.inputs[name].shape, graph.inputs[name].dtype.numpy)
                     for name in graph.state}
    vectors = []
    for seed in SEEDS:
        arrays = sample_inputs(input_specs(graph), seed)
        given = {name: _to_graph(array, graph.inputs[name].dtype)
                 for name, array in arrays.items()}
        outputs = interp.run(graph, {**given, **state})
        state = {name: outputs[output] for name, output in graph.state.items()}
        vectors.append(GoldenVector(
            seed, {name: _from_graph(array) for name, array in outputs.items()},
            {name: tolerance(graph, name) for name in graph.outputs}))
    return vectors


def input_specs(graph: Graph) -> tuple[TensorSpec, ...]:
    """Inputs that the caller gives: all but state."""
    return tuple(TensorSpec(name, node.dtype.value, node.shape)
                 for name, node in graph.inputs.items() if name not in graph.state)


def tolerance(graph: Graph, output: str) -> float:
    """How far this output may be from the interpreter's; integers must be equal."""
    if not graph.outputs[output].dtype.is_float:
        return 0.0
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
