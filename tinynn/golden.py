"""Golden vectors at compile time: what the program must give, by a path that shares no code with
the backend.

The reference interpreter runs the graph as imported, before any optimisation. Two runs follow each
other: the second has other inputs, so that outputs must change, and takes over the state.
"""
from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
# Largest relative error by the precision of a graph's own arithmetic. f16 and bf16 round every
# operation to 2^-11 and 2^-9; a program that computes wider differs by some of these roundings.
_TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1}
_ROUNDED = 1e-2  # of integers; a few of many that are off by one, or a few pixels of a picture
# The error that a reduced precision makes on PROBES may be exceeded by so much: other inputs round
# otherwise, and sums are added in another order.
_MARGIN = 2.0
MOST_ERROR = 0.1  # bounds above this would hide mistakes
PROBES = (*((seed, 0.0) for seed in SEEDS), (2, 1.0), (3, 0.1))  # seed, light: see probe_inputs
_PICTURE = 16  # least height and width of what is taken for a picture

Run = Callable[[Graph, Arrays], Arrays]


def make_golden(graph: Graph, bounds: Mapping[str, float] | None = None) -> list[GoldenVector]:
    """Run the interpreter for every seed. Takes seconds for large models.

    bounds: output name -> what it may be off by in the precision it is computed in, if that is a
    reduced one (`reduced_bounds`).
    """
    allowed = {name: max(tolerance(graph, name), (bounds or {}).get(name, 0.0))
               for name in graph.outputs}
    runs = _kept_runs(graph, interp.run, tuple((seed, 0.0) for seed in SEEDS))
    return [GoldenVector(seed, outputs, dict(allowed))
            for seed, outputs in zip(SEEDS, runs, strict=True)]


def reduced_bounds(graph: Graph, rounded: Graph, run: Run = interp.run) -> dict[str, float]:
    """Floating-point output -> its bound: _MARGIN times the largest relative error on any probe.

    rounded: the graph as it is computed, with the roundings of a reduced precision; run: who
    evaluates it. Raises ValueError for an output whose bound would exceed MOST_ERROR.
    """
    bounds: dict[str, float] = {}
    runs = (_kept_runs(graph, interp.run, PROBES), _kept_runs(rounded, run, PROBES))
    for want, got in zip(*runs, strict=True):
        for name, node in graph.outputs.items():
            if node.dtype.is_float:
                error = relative_error(as_numbers(got[name], node.dtype.value),
                                       as_numbers(want[name], node.dtype.value))
                bounds[name] = max(bounds.get(name, 0.0), _MARGIN * error)
    for name, bound in bounds.items():
        if bound > MOST_ERROR:
            raise ValueError(f"output {name}: in the reduced precision its relative error is "
                             f"{bound / _MARGIN:.2g}, and at most {MOST_ERROR / _MARGIN:.2g} is "
                             "allowed. Compile with --precision f32.")
    return {name: _two_digits(bound) for name, bound in bounds.items()}


def _two_digits(value: float) -> float:
    """Rounded up to two digits, so that the last bits of a machine's arithmetic do not show."""
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.1e}")


def probe_inputs(specs: Sequence[TensorSpec], seed: int, light: float) -> Arrays:
    """Inputs to measure errors on: `sample_inputs`, with scenes in the place of pictures if light
    is not 0: a bright sky over a dark road, with hard edges and a little noise.

    light: of the brightest pixel. Noise alone averages out what smooth areas add up.
    """
    arrays = sample_inputs(specs, seed)
    for spec in specs:
        long = [axis for axis, size in enumerate(spec.shape) if size >= _PICTURE][-2:]
        if light and len(long) == 2 and spec.dtype in ("u8", "f16", "f32"):
            y, x = (np.linspace(0, 1, spec.shape[axis]).reshape(
                [-1 if a == axis else 1 for a in range(len(spec.shape))]) for axis in long)
            noise = np.random.RandomState(seed).uniform(0, 0.1, spec.shape)
            picture = light * (0.6 * (1 - y) + 0.3 * (np.floor(8 * x + 3 * y) % 2) + noise)
            top = 255 if spec.dtype == "u8" else 1
            arrays[spec.name] = (top * picture).astype(arrays[spec.name].dtype)
    return arrays


def _kept_runs(graph: Graph, run: Run, probes: Sequence[tuple[int, float]]) -> list[Arrays]:
    """`_runs`, kept between compilations: they change only with the graph and its meaning."""
    modules = dict.fromkeys((interp.__name__, run.__module__, __name__, sample_inputs.__module__))
    meaning = [Path(sys.modules[name].__file__ or "").read_text(encoding="utf-8")
               for name in modules]

    def make() -> bytes:
        file = io.BytesIO()
        outputs = _runs(graph, run, probes)
        np.savez(file, *(array for arrays in outputs for array in arrays.values()))
        return file.getvalue()

    key = [print_graph(graph), graph.state, probes, meaning, np.__version__]
    with np.load(io.BytesIO(kept("golden", key, make)), allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
    size = len(graph.outputs)
    return [dict(zip(graph.outputs, arrays[i * size:], strict=False)) for i in range(len(probes))]


def _runs(graph: Graph, run: Run, probes: Sequence[tuple[int, float]]) -> Iterator[Arrays]:
    """Outputs for every probe; each run takes over the state of the one before."""
    state: Arrays = {name: np.zeros(graph.inputs[name].shape, graph.inputs[name].dtype.numpy)
                     for name in graph.state}
    for seed, light in probes:
        arrays = probe_inputs(input_specs(graph), seed, light)
        given = {name: _to_graph(array, graph.inputs[name].dtype)
                 for name, array in arrays.items()}
        outputs = run(graph, {**given, **state})
        state = {name: outputs[output] for name, output in graph.state.items()}
        yield {name: _from_graph(array) for name, array in outputs.items()}


def input_specs(graph: Graph) -> tuple[TensorSpec, ...]:
    """Inputs that the caller gives: all but state."""
    return tuple(TensorSpec(name, node.dtype.value, node.shape)
                 for name, node in graph.inputs.items() if name not in graph.state)


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
