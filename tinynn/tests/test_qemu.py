"""aarch64 code under qemu-user; assembly and stack use of kernels on aarch64 and x86-64-v4."""
from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tinynn import derived, interp, ir
from tinynn.cost import MOST_LOCAL
from tinynn.ir import DType, Graph, Op
from tinynn.machine import MACHINES
from tinynn.tests import random_graphs, sample_graphs
from tinynn.tests.direct import joined
from tinynn.tests.emulated import (
    QEMU,
    assembly,
    build_bare,
    build_musl,
    frames,
    hot_loops,
    spills,
)
from tinynn.tests.executable import assert_all_runs, code_of, execute

AARCH64 = MACHINES["aarch64"]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None,
                                reason="ziglang, which builds for aarch64, is not installed")
emulated = pytest.mark.skipif(QEMU is None, reason="no qemu-aarch64 (Debian: qemu-user) here")


def _check(graph: Graph, folder: Path, special: bool = False, tolerance: float = 1e-4) -> None:
    code = code_of(graph, "cpu:aarch64")
    command = build_bare(code, AARCH64, folder)
    feed = random_graphs.random_inputs(graph, 0, special)
    assert_all_runs(execute(command, code, feed), interp.run(graph, feed), tolerance)


@emulated
def test_random_graphs_of_all_operations_and_dtypes(tmp_path: Path) -> None:
    graphs = sample_graphs.random_graphs()
    assert {n.op for g in graphs for n in g.nodes()} == set(Op)
    _check(joined(graphs), tmp_path, special=True)


@emulated
@pytest.mark.parametrize("make", [sample_graphs.convs, sample_graphs.matmuls])
def test_every_family(make: Callable[[], list[Graph]], tmp_path: Path) -> None:
    _check(joined(make()), tmp_path, tolerance=1e-5)


@emulated
@pytest.mark.shared
@pytest.mark.parametrize("name", [
    "driving_policy", *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "driving_supercombo", "driving_vision", "dmonitoring"))])
def test_driving_models(name: str, tmp_path: Path) -> None:
    _check(sample_graphs.driving_model(name, tmp_path), tmp_path)


# Stack

def _long_sums(rows: int, depth: int, columns: int) -> Graph:
    """A product of two inputs: what a kernel copies to local memory grows with the depth."""
    x = ir.input_("x", DType.F32, (rows, depth))
    y = ir.input_("y", DType.F32, (depth, columns))
    return Graph("long sums", {"x": x, "y": y}, {"z": derived.matmul(x, y)})


@pytest.mark.parametrize(("machine", "sizes"), [
    ("aarch64", (16, 8000, 16)), ("x86-64-v4", (16, 8000, 16)), ("aarch64", (2, 14000, 4))])
def test_frames_are_little_more_than_the_local_memory_that_is_allowed(
        machine: str, sizes: tuple[int, int, int], tmp_path: Path) -> None:
    """glibc gives a thread 2 MiB where the limit of the stack is not finite, else usually 8."""
    code = code_of(_long_sums(*sizes), f"cpu:{machine}")
    found = frames(code.source, MACHINES[machine], tmp_path)
    assert 100_000 < max(found.values()) < MOST_LOCAL + (128 << 10)


def test_the_padding_of_a_panel_of_few_columns_is_counted(tmp_path: Path) -> None:
    code = code_of(_long_sums(2, 40000, 4), "cpu:aarch64")
    assert max(frames(code.source, AARCH64, tmp_path).values()) < MOST_LOCAL


@emulated
@pytest.mark.slow
def test_threads_of_musl(tmp_path: Path) -> None:
    """Their stacks are 128 KiB unless the program asks for more."""
    graph = _long_sums(72, 4000, 256)
    code = code_of(graph, "cpu:aarch64")
    assert code.steps[0].parts > 8
    command = build_musl(code, AARCH64, tmp_path)
    feed = random_graphs.random_inputs(graph, 0)
    assert_all_runs(execute(command, code, feed), interp.run(graph, feed), 1e-4)


# Assembly

def _loops_of(graph: Graph, machine: str, folder: Path) -> list[list[str]]:
    code = code_of(graph, f"cpu:{machine}")
    return hot_loops(assembly(code.source, MACHINES[machine], folder))


def _family(graph: Graph, machine: str) -> str:
    return code_of(graph, f"cpu:{machine}").steps[-1].kernel.split("_")[1]


@pytest.mark.parametrize(("machine", "family", "name"), [
    (machine, family, name) for machine in ("aarch64", "x86-64-v3", "x86-64-v4")
    for family, name in (("contract", "convs"), ("contract", "matmuls"), ("depthwise", "convs"))])
def test_inner_loops_keep_everything_in_registers(
        machine: str, family: str, name: str, tmp_path: Path) -> None:
    made = sample_graphs.convs() if name == "convs" else sample_graphs.matmuls()
    graphs = [g for g in made if _family(g, machine) == family]
    assert len(graphs) > 2
    loops = _loops_of(joined(graphs), machine, tmp_path)
    assert len(loops) >= len(graphs)
    assert [line for loop in loops for line in spills(loop)] == []


@pytest.mark.parametrize("machine", ["aarch64", "x86-64-v4"])
def test_spills_are_seen(machine: str, tmp_path: Path) -> None:
    """What the test above rests on: with more sums than registers, the compiler says so."""
    sums = range(40)
    lines = ["typedef float v __attribute__((vector_size(16)));",
             "void f(v *out, const v *x, const float *y, long n) {",
             *(f"v c{i} = out[{i}];" for i in sums), "for (long k = 0; k < n; ++k) {",
             *(f"c{i} += x[k] * y[k * {len(sums)} + {i}];" for i in sums), "}",
             *(f"out[{i}] = c{i};" for i in sums), "}"]
    loops = hot_loops(assembly("\n".join(lines), MACHINES[machine], tmp_path))
    assert len(loops) == 1
    assert spills(loops[0])
