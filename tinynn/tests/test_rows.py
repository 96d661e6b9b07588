"""Loads at computed places are taken apart from the arithmetic, and give the same elements."""
from __future__ import annotations

import numpy as np
import pytest

from tinynn import Tensor, interp, ir
from tinynn.compiler import generate
from tinynn.fuse import fuse
from tinynn.ir import DType, Graph
from tinynn.machine import machine_of
from tinynn.rows import MOST_ROW, Rows
from tinynn.schedule import schedule
from tinynn.tests.direct import Arrays, Direct

RNG = np.random.default_rng(0)


def _check(result: Tensor, inputs: Arrays, steps: list[tuple[int, int]]) -> None:
    """The compiled graph gives the interpreter's bytes; its last kernel has steps of so many
    indices and loads."""
    nodes = {n.arg: n for n in ir.toposort([result.node]) if n.op is ir.Op.INPUT}
    graph = Graph("rows", nodes, {"y": result.node})
    for target in ("cpu", "cpu:x86-64-v3"):
        plan = schedule(fuse(graph).kernels[-1], machine_of(target))
        assert isinstance(plan, Rows)
        assert [(len(s.indices), len(s.loads)) for s in plan.steps] == steps
        assert plan.kernel.axes[-1].size <= MOST_ROW
        run = Direct(generate(graph, target))
        np.testing.assert_array_equal(run(inputs, 2)["y"], interp.run(graph, inputs)["y"])
        run.close()


def _tensor(name: str, values: np.ndarray) -> tuple[Tensor, Arrays]:
    return Tensor.of(ir.input_(name, DType.of(values.dtype), values.shape)), {name: values}


@pytest.mark.parametrize("shape", [(5, 40), (3, 1500), (70000,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_gathers_with_computed_indices(shape: tuple[int, ...], dtype: type) -> None:
    data, given = _tensor("data", RNG.integers(0, 200, 999).astype(dtype))
    at, more = _tensor("at", (RNG.random(shape) * 1200 - 100).astype(np.float32))
    _check(data[(at * 0.5 + 3.0).cast("i32")].cast("f32") * 2.0 + at, given | more, [(1, 1)])


def test_two_gathers_that_wait_for_nothing_are_one_step() -> None:
    data, given = _tensor("data", RNG.standard_normal(300).astype(np.float32))
    at, more = _tensor("at", RNG.integers(0, 298, (4, 64)).astype(np.int32))
    _check(data[at] * 0.25 + data[at + 1] * 0.75, given | more, [(2, 2)])


def test_a_gather_at_what_another_one_gives_is_a_second_step() -> None:
    table, given = _tensor("table", RNG.integers(0, 50, 30).astype(np.int32))
    data, more = _tensor("data", RNG.standard_normal(50).astype(np.float32))
    at, most = _tensor("at", RNG.integers(0, 30, (6, 33)).astype(np.int32))
    _check(data[table[at]] + 1.0, given | more | most, [(1, 1), (1, 1)])


@pytest.mark.parametrize(("factor", "columns"), [(2, 20), (3, 7), (16, 4)])
def test_nearest_neighbours_are_added(factor: int, columns: int) -> None:
    """With a factor of 16 the row is not split into repeats; that changes nothing."""
    small, given = _tensor("small", RNG.integers(0, 255, (3, 6, columns)).astype(np.uint8))
    large, more = _tensor("large", RNG.integers(0, 255, (3, 12, columns * factor)).astype(np.uint8))
    twice = small.reshape(3, 6, 1, columns, 1).expand(3, 6, 2, columns, factor)
    spread = twice.reshape(3, 12, columns * factor)
    _check((large.cast("f32") * 0.5 + spread.cast("f32") * 0.25).cast("u8"), given | more, [(0, 1)])


def test_a_gather_from_within_a_border() -> None:
    """Beyond the border there is a fill value instead of a load."""
    data, given = _tensor("data", RNG.standard_normal(10).astype(np.float32))
    at, more = _tensor("at", RNG.integers(0, 14, 40).astype(np.int32))
    _check(data.pad([(2, 2)], value=7.0)[at] * 3.0, given | more, [(1, 1)])
