"""Runs compiled code without an artifact: what the tests of the backend share."""
from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynn.compiler import generate
from tinynn.ir import DType, Graph, Node, input_, substitute
from tinynn.program import Buffer, TargetCode
from tinynn.runtime.native import STEP, Library

Arrays = dict[str, np.ndarray[Any, Any]]


class Direct:
    """Code in this process with memory of its own. Scratch starts as 0xAA, never as zero."""

    def __init__(self, code: TargetCode) -> None:
        self.code = code
        self.library = Library(code.code, "test")
        weights_nbytes = max(
            (b.offset + b.nbytes for b in code.buffers if b.kind == "weight"), default=0)
        self.areas = {"arena": _aligned(code.arena_nbytes), "weight": _aligned(weights_nbytes)}
        self.areas["arena"][:] = 0xAA
        self.arrays = [self._array(b) for b in code.buffers]
        for weight in code.weights:
            array = self.arrays[weight.buffer]
            stored = np.frombuffer(weight.data, DType(weight.storage).numpy)
            array[...] = stored.astype(array.dtype).reshape(array.shape)
        self.table = np.zeros(len(code.steps), STEP)
        self.arguments = []
        for entry, step in zip(self.table, code.steps, strict=True):
            pointers = (ctypes.c_void_p * len(step.args))(
                *(self.arrays[i].ctypes.data for i in step.args))
            self.arguments.append(pointers)
            entry["kernel"] = self.library.addresses([step.kernel])[0]
            entry["args"], entry["parts"] = ctypes.addressof(pointers), step.parts

    def _array(self, buffer: Buffer) -> np.ndarray[Any, Any]:
        area = self.areas.get(buffer.kind)
        if area is None:
            area = _aligned(buffer.nbytes)
        raw = area[buffer.offset:buffer.offset + buffer.nbytes]
        return raw.view(DType(buffer.dtype).numpy).reshape(buffer.shape)

    def __call__(self, inputs: Mapping[str, Any], threads: int = 1) -> Arrays:
        """Outputs for inputs; inputs the program does not read may be missing."""
        for buffer, array in zip(self.code.buffers, self.arrays, strict=True):
            if buffer.kind in ("input", "state") and buffer.name in inputs:
                array[...] = inputs[buffer.name]
        self.library.run(self.table, threads)
        return {b.name: a.copy() for b, a in zip(self.code.buffers, self.arrays, strict=True)
                if b.kind == "output"}

    def close(self) -> None:
        self.library.close()


def _aligned(nbytes: int) -> np.ndarray[Any, Any]:
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + nbytes]


def run(graph: Graph, inputs: Mapping[str, Any], target: str = "cpu", threads: int = 1) -> Arrays:
    """Outputs of a graph compiled as it is."""
    program = Direct(generate(graph, target))
    try:
        return program(inputs, threads)
    finally:
        program.close()


def joined(graphs: list[Graph]) -> Graph:
    """Many graphs as one, so that they are compiled together: x of graph 3 becomes 3.x."""
    inputs: dict[str, Node] = {}
    outputs: dict[str, Node] = {}
    for number, graph in enumerate(graphs):
        renamed = {f"{number}.{name}": input_(f"{number}.{name}", node.dtype, node.shape)
                   for name, node in graph.inputs.items()}
        replace = dict(zip(graph.inputs.values(), renamed.values(), strict=True))
        inputs |= renamed
        new = substitute(graph.outputs, replace)
        outputs |= {f"{number}.{name}": node for name, node in new.items()}
    return Graph("joined", inputs, outputs)


def assert_close(got: Mapping[str, Any], want: Mapping[str, Any], tolerance: float) -> None:
    """Equal names, dtypes, shapes, NaNs and infinities; finite floats to a relative tolerance, with
    the largest finite value of an output as the scale of its small ones."""
    assert sorted(got) == sorted(want)
    for name, expected in want.items():
        actual = got[name]
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), name
        if not np.issubdtype(expected.dtype, np.floating) and expected.dtype.kind != "V":
            np.testing.assert_array_equal(actual, expected, err_msg=name)
            continue
        with np.errstate(invalid="ignore"):  # signalling NaNs become quiet ones
            a, e = actual.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(e)
        np.testing.assert_array_equal(a[~finite], e[~finite], err_msg=name)
        scale = np.abs(e[finite]).max(initial=0.0)
        np.testing.assert_allclose(a[finite], e[finite], rtol=tolerance, atol=tolerance * scale,
                                   err_msg=name)
