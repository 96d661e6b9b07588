"""Generated C under AddressSanitizer and UndefinedBehaviorSanitizer: no access beyond a buffer or a
local array, no undefined arithmetic, no conversion out of range; and the right results."""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinynn import interp, ir
from tinynn.compiler import resolve_target
from tinynn.ir import DType, Graph, Op
from tinynn.machine import machine_of
from tinynn.program import TargetCode
from tinynn.tests import random_graphs, sample_graphs
from tinynn.tests.direct import joined
from tinynn.tests.executable import assert_all_runs, code_of, execute, write_sources

# The flags of the toolchain that give C its meaning; -O1 keeps accesses that -O3 would remove.
_FLAGS = ("-std=gnu11", "-O1", "-g", "-w", "-fwrapv", "-fno-strict-aliasing", "-fno-math-errno",
          "-fno-trapping-math", "-ffp-contract=fast", "-fno-omit-frame-pointer",
          "-fno-sanitize-recover=all")
_CHECKS = "-fsanitize=address,undefined,float-cast-overflow"
_ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
                "UBSAN_OPTIONS": "print_stacktrace=1"}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A gcc or clang that can build sanitized programs."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    for name in ("gcc", "clang"):
        if shutil.which(name) and not subprocess.run(
                [name, _CHECKS, "-o", "probe", "probe.c"], cwd=folder, capture_output=True,
                check=False).returncode:
            return name
    pytest.skip("no gcc or clang with its sanitizer libraries on this machine")


def _build(compiler: str, code: TargetCode, folder: Path, checks: Sequence[str]) -> Path:
    names = write_sources(code, folder)
    flags = machine_of(code.target).gcc_flags
    subprocess.run([compiler, *_FLAGS, *checks, *flags, "-o", "program", *names, "-pthread"],
                   cwd=folder, check=True)
    return folder / "program"


def _check(graph: Graph, target: str, compiler: str, folder: Path, special: bool = False,
           tolerance: float = 1e-4) -> None:
    code = code_of(graph, target)
    program = _build(compiler, code, folder, [_CHECKS])
    feed = random_graphs.random_inputs(graph, 0, special)
    results = execute([program], code, feed, _ENVIRONMENT)
    assert_all_runs(results, interp.run(graph, feed), tolerance)


@pytest.mark.parametrize("target", ["cpu", pytest.param("cpu:x86-64-v2", marks=pytest.mark.skipif(
    "x86" not in resolve_target("cpu"), reason="needs an x86-64 machine"))])
def test_random_graphs_of_all_operations_and_dtypes(
        target: str, compiler: str, tmp_path: Path) -> None:
    """x86-64-v2 has conversions of f16 of its own."""
    graphs = sample_graphs.random_graphs()
    assert {n.op for g in graphs for n in g.nodes()} == set(Op)
    _check(joined(graphs), target, compiler, tmp_path, special=True)


@pytest.mark.parametrize("make", [sample_graphs.convs, sample_graphs.matmuls])
def test_every_family(make: Callable[[], list[Graph]], compiler: str, tmp_path: Path) -> None:
    _check(joined(make()), "cpu", compiler, tmp_path, tolerance=1e-5)


def test_the_fixed_set_reaches_every_family() -> None:
    graphs = [*sample_graphs.convs(), *sample_graphs.matmuls()]
    for target in ("cpu:x86-64-v3", "cpu:aarch64"):
        steps = code_of(joined(graphs), target).steps
        assert {s.kernel.split("_")[1] for s in steps} >= {"contract", "depthwise", "lanes"}


@pytest.mark.shared
@pytest.mark.parametrize("name", [
    "driving_policy", *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "driving_supercombo", "driving_vision", "supercombo_08", "supercombo_097", "dmonitoring",
        "driving_supercombo_stateful"))])
def test_driving_models(name: str, compiler: str, tmp_path: Path) -> None:
    _check(sample_graphs.driving_model(name, tmp_path), "cpu", compiler, tmp_path)


def test_threads_do_not_race(compiler: str, tmp_path: Path) -> None:
    """The driver and two workers under ThreadSanitizer."""
    graph = joined([g for g in sample_graphs.convs() if g.outputs["y"].size > 1000])
    code = code_of(graph, "cpu")
    assert sum(step.parts > 1 for step in code.steps) > 5
    program = _build(compiler, code, tmp_path, ["-fsanitize=thread"])
    feed = random_graphs.random_inputs(graph, 0)
    assert_all_runs(execute([program], code, feed), interp.run(graph, feed), 1e-5)


@pytest.mark.parametrize(("fault", "report"), [
    ("((volatile char *)args[0])[4 * 64] = 1;", "heap-buffer-overflow"),
    ("volatile float panel[8]; panel[8 * parts] = 1;", "index 8 out of bounds"),
    ("volatile float big = 3e9f; volatile int32_t n = (int32_t)(big * parts);", "outside the"),
])
def test_faults_are_seen(fault: str, report: str, compiler: str, tmp_path: Path) -> None:
    """What these tests rest on: a fault put into a kernel stops the program and is named."""
    x = ir.input_("x", DType.F32, (64,))
    code = code_of(Graph("one kernel", {"x": x}, {"y": ir.exp2(x)}), "cpu")
    head = f"{code.steps[0].kernel}(void *const *args, int64_t part, int64_t parts) {{"
    assert head in code.source
    broken = replace(code, source=code.source.replace(head, head + fault))
    program = _build(compiler, broken, tmp_path, [_CHECKS])
    with pytest.raises(AssertionError, match=report):
        execute([program], broken, {"x": np.zeros(64, np.float32)}, _ENVIRONMENT)
