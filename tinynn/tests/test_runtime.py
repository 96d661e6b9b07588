"""Loading and running: inputs, state, threads, targets, and what the runtime may import."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynn
from tinynn.artifact import GoldenVector, build
from tinynn.program import Buffer, TensorSpec, Weight
from tinynn.runtime import ArtifactError, Runner, host
from tinynn.runtime.golden import sample_inputs
from tinynn.runtime.layout import DTYPES
from tinynn.runtime.reader import read
from tinynn.runtime.runner import choose_target
from tinynn.tests import handmade

X = np.array([1.0, -2.0, 3.0, 4.0], dtype=np.float32)


def load(artifact: tinynn.Artifact | None = None, **options: Any) -> Runner:
    return tinynn.load((artifact or handmade.artifact()).to_bytes(), trust=True, **options)


def close_to(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)


def test_runs_and_carries_state() -> None:
    memory = np.zeros(4)
    with load() as runner:
        for step in range(3):
            want = handmade.expected(X + step, memory)
            close_to(runner({"x": X + step}), want)
            memory = want["next"]
        runner.reset()
        close_to(runner({"x": X}), handmade.expected(X, np.zeros(4)))


def test_describes_itself() -> None:
    with load() as runner:
        assert runner.inputs == {"x": TensorSpec("x", "f32", (4,))}
        assert runner.state == {"memory": TensorSpec("memory", "f32", (4,))}
        assert list(runner.outputs) == ["next", "total"]
        assert runner.metadata["output_slices"] == {"first": [0, 1, None]}
        assert runner.manifest["model"]["name"] == "handmade"
        assert (runner.target, runner.source) == (handmade.HOST, handmade.SOURCE)


def test_outputs_are_the_callers_own() -> None:
    with load() as runner:
        first = runner({"x": X})
        kept = first["next"].copy()
        first["total"][...] = 99
        runner({"x": X})
        np.testing.assert_array_equal(first["next"], kept)


def test_strided_inputs_are_read_correctly() -> None:
    with load() as runner:
        close_to(runner({"x": np.repeat(X, 2)[::2]}), handmade.expected(X, np.zeros(4)))


@pytest.mark.parametrize(("inputs", "words"), [
    ({}, r"missing \['x'\], unexpected \[\]"),
    ({"x": X, "y": X}, r"unexpected \['y'\]"),
    ({"x": X, "memory": X}, r"unexpected \['memory'\]"),
    ({"x": X.astype(np.float64)}, r"'x' is float64\[4\], expected float32\[4\]"),
    ({"x": X[:3]}, r"'x' is float32\[3\], expected float32\[4\]"),
    ({"x": X[None]}, r"'x' is float32\[1, 4\], expected float32\[4\]"),
    ({"x": [1.0, 2.0, 3.0, 4.0]}, "'x' is float64"),
    ({"x": "text"}, "'x' is <U4"),
])
def test_inputs_that_do_not_fit(inputs: dict[str, Any], words: str) -> None:
    with load() as runner, pytest.raises(ValueError, match=words):
        runner(inputs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_state_that_is_not_finite_is_not_taken_over(bad: float) -> None:
    with load() as runner:
        memory = runner({"x": X})["next"]
        poisoned = X.copy()
        poisoned[2] = bad
        assert not np.isfinite(runner({"x": poisoned})["next"]).all()
        assert runner.state_rejected == 1
        close_to(runner({"x": X}), handmade.expected(X, memory))


def test_state_is_taken_over_together_or_not_at_all() -> None:
    """Two states; only one of their next values is not finite: both stay."""
    code = handmade.target_code()
    vector = code.buffers[0]
    made = handmade.program(
        state=(TensorSpec("memory", "f32", (4,)), TensorSpec("sum", "f32", (1,))),
        carry={"memory": "next", "sum": "total"},
        targets=(replace(code, buffers=(*code.buffers, replace(
            vector, kind="state", name="sum", shape=(1,), nbytes=4))),))
    with load(handmade.artifact(made)) as runner:
        # next is finite, total = 2 * sum(next) is not
        outputs = runner({"x": np.array([3e38, 0, 0, 0], np.float32)})
        assert np.isfinite(outputs["next"]).all() and np.isinf(outputs["total"]).all()
        assert runner.state_rejected == 1
        close_to(runner({"x": X}), handmade.expected(X, np.zeros(4)))


def test_profile_keeps_the_state() -> None:
    with load() as runner:
        assert runner.profile({"x": X}) == [100, 101, 102]  # what the handmade driver reports
        close_to(runner({"x": X}), handmade.expected(X, np.zeros(4)))


def test_verify_passes_and_keeps_the_state() -> None:
    with load() as runner:
        memory = runner({"x": X})["next"]
        results = runner.verify()
        assert [(r.seed, r.output) for r in results] == [
            (0, "next"), (0, "total"), (1, "next"), (1, "total")]
        assert all(r.passed for r in results)
        close_to(runner({"x": X}), handmade.expected(X, memory))


def test_verify_notices_wrong_code() -> None:
    wrong = handmade.SOURCE.replace("x[i] * scale[i] + memory[i]", "x[i] * scale[i]")
    code = handmade.target_code(code=handmade.machine_code(wrong))
    with load(handmade.artifact(handmade.program(targets=(code,)))) as runner:
        passed = {(r.seed, r.output): r.passed for r in runner.verify()}
    # Without the state the first run is right and the second is not.
    assert passed == {(0, "next"): True, (0, "total"): True,
                      (1, "next"): False, (1, "total"): False}


def test_threads_share_the_work_without_changing_it() -> None:
    results = []
    for threads in (1, 2, 3, 4):
        with load(threads=threads) as runner:
            assert runner.threads == threads
            results.append(runner({"x": X})["next"])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_default_threads() -> None:
    with load() as runner:
        assert runner.threads == min(2, len(os.sched_getaffinity(0)))
    with load(handmade.artifact(threads=3)) as runner:
        assert runner.threads == 3


def test_threads_out_of_range() -> None:
    with pytest.raises(ValueError, match="threads is 0 and must be from 1 to 64"):
        load(threads=0)


def test_a_run_that_the_code_refuses() -> None:
    """The handmade driver takes at most eight threads."""
    with load(threads=9) as runner, pytest.raises(RuntimeError, match="failed with status 1"):
        runner({"x": X})


def test_closed_runner() -> None:
    runner = load()
    runner.close()
    runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        runner({"x": X})


def test_runners_do_not_share_state_or_code() -> None:
    """Libraries are loaded from descriptors, whose numbers are used again."""
    tripled = handmade.SOURCE.replace("= x[i] * scale[i]", "= 3 * x[i] * scale[i]")
    code = handmade.target_code(code=handmade.machine_code(tripled))
    load().close()
    with load() as plain, load(handmade.artifact(
            handmade.program(targets=(code,)))) as other, load() as again:
        for runner in (plain, again):
            np.testing.assert_array_equal(runner({"x": X})["next"], X * handmade.SCALE)
        np.testing.assert_array_equal(other({"x": X})["next"], 3 * X * handmade.SCALE)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    load().close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        load().close()
        load()  # dropped without close
        tinynn.load(path).close()
        read(path)  # dropped without close
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_calls_from_many_threads() -> None:
    wrong: list[int] = []
    with load() as runner:
        def call(value: int) -> None:
            given = np.full(4, value, np.float32)
            for _ in range(50):
                outputs = runner({"x": given})
                if outputs["total"][0] != 2 * outputs["next"].sum():
                    wrong.append(value)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_without_memory_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some systems forbid memfd_create; a temporary file serves then and is removed."""
    def refuse(*_: Any) -> int:
        raise OSError("not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with load() as runner:
        close_to(runner({"x": X}), handmade.expected(X, np.zeros(4)))
    assert not list(tmp_path.glob("*.so"))


def test_code_that_is_no_shared_object() -> None:
    code = handmade.target_code(code=b"no machine code")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(handmade.artifact(handmade.program(targets=(code,))))


def test_code_without_a_kernel() -> None:
    renamed = handmade.machine_code(handmade.SOURCE.replace("void k1_double", "void k9_double"))
    code = handmade.target_code(code=renamed)
    with pytest.raises(ArtifactError, match="has no kernel k1_double"):
        load(handmade.artifact(handmade.program(targets=(code,))))


def test_more_memory_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_nbytes", lambda: 100)
    with pytest.raises(ArtifactError, match="of memory"):
        load()


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    with tinynn.load(path) as runner:
        path.write_bytes(b"")  # the file is not needed any more
        close_to(runner({"x": X}), handmade.expected(X, np.zeros(4)))


@pytest.mark.parametrize("kind", ["weights", "code", "source", "golden"])
def test_damage_is_named_before_anybody_is_asked_to_trust(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.tnn"
    made = handmade.artifact()
    blob = next(blob for blob in made.manifest["blobs"] if blob["kind"] == kind)
    damaged = bytearray(made.to_bytes())
    damaged[blob["offset"]] ^= 1
    path.write_bytes(damaged)
    before = len(os.listdir("/proc/self/fd"))
    for trust in (False, True):
        with pytest.raises(ArtifactError, match=rf"model.tnn: blob \d \({kind}\).*sha256"):
            tinynn.load(path, trust=trust)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_becomes_shorter_while_it_is_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(ArtifactError, match="became shorter while"):
        tinynn.load(path)


# Targets

V2_FLAGS = {"fpu", "cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V3_FLAGS = V2_FLAGS | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
V4_FLAGS = V3_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def test_targets_of_machines() -> None:
    assert host.runnable_targets("x86_64", V3_FLAGS) == ["cpu:x86-64-v3", "cpu:x86-64-v2"]
    assert host.runnable_targets("x86_64", V4_FLAGS)[0] == "cpu:x86-64-v4"
    # A level needs the ones below.
    assert host.runnable_targets("x86_64", V4_FLAGS - V2_FLAGS) == []
    assert host.runnable_targets("aarch64", {"asimd"}) == ["cpu:aarch64"]
    assert host.runnable_targets("riscv64", set()) == []


def test_the_best_of_several_targets_is_taken() -> None:
    code = handmade.target_code()
    names = ("cpu:x86-64-v2", "cpu:x86-64-v4", "cpu:aarch64")
    both = handmade.artifact(handmade.program(
        targets=tuple(replace(code, target=name) for name in names)))
    manifest = read(both.to_bytes()).manifest
    runnable = ["cpu:x86-64-v4", "cpu:x86-64-v3", "cpu:x86-64-v2"]
    assert choose_target(manifest, None, runnable, "m").target == "cpu:x86-64-v4"
    assert choose_target(manifest, "cpu", runnable[1:], "m").target == "cpu:x86-64-v2"
    assert choose_target(manifest, "cpu:x86-64-v2", runnable, "m").target == "cpu:x86-64-v2"
    with pytest.raises(ArtifactError, match="compiled for cpu:aarch64, and this machine runs only"):
        choose_target(manifest, "cpu:aarch64", runnable, "m")
    with pytest.raises(ArtifactError, match="it has no target opencl, only"):
        choose_target(manifest, "opencl", runnable, "m")


def test_a_target_this_machine_cannot_run() -> None:
    foreign = "cpu:x86-64-v3" if handmade.HOST == "cpu:aarch64" else "cpu:aarch64"
    made = handmade.artifact(handmade.program(targets=(handmade.target_code(foreign),)))
    with pytest.raises(ArtifactError, match=f"compiled for {foreign}, and this machine runs only"):
        load(made)


# Weights

def test_weights_are_widened_and_placed() -> None:
    """Two weights, one stored as f16 and one as f32, at offsets of their own."""
    code = handmade.target_code()
    vector = code.buffers[2]
    value = np.array([0.1, 0.2, 0.3, 0.4], np.float32)  # not on the f16 grid
    made = handmade.program(targets=(replace(
        code, buffers=(*code.buffers, replace(vector, name="second", offset=192)),
        weights=(Weight(6, "f32", value.tobytes()), *code.weights)),))
    with load(handmade.artifact(made)) as runner:
        area = runner._areas["weight"]
        np.testing.assert_array_equal(area[192:208].view(np.float32), value)
        np.testing.assert_array_equal(area[64:80].view(np.float32), handmade.SCALE)
        assert area.ctypes.data % 64 == 0


def test_every_dtype_passes_through() -> None:
    """A program that copies one tensor of each dtype, bf16 as bit patterns."""
    source = handmade.SOURCE + """
void k3_copy(void *const *args, int64_t part, int64_t parts) {
  if (part == 0)
    for (int i = 0; i < 3 * BYTES; i++) ((char *)args[0])[i] = ((char *)args[1])[i];
}
"""
    for dtype, as_numpy in DTYPES.items():
        spec = TensorSpec("x", dtype, (3, 1))
        size = as_numpy.itemsize
        code = handmade.target_code(code=handmade.machine_code(
            source.replace("BYTES", str(size))))
        step = replace(code.steps[0], kernel="k3_copy", args=(1, 0), writes=(0,))
        made = handmade.program(
            inputs=(spec,), state=(), carry={}, outputs=(replace(spec, name="y"),),
            targets=(replace(code, weights=(), steps=(step,), arena_nbytes=0, buffers=(
                Buffer("input", "x", dtype, (3, 1), 0, 3 * size),
                Buffer("output", "y", dtype, (3, 1), 0, 3 * size))),))
        given = sample_inputs([spec], seed=5)
        golden = [GoldenVector(5, {"y": given["x"]}, {"y": 0.0})]
        with tinynn.load(build(made, golden).to_bytes(), trust=True) as runner:
            got = runner(given)["y"]
            assert all(result.passed for result in runner.verify())
        assert got.dtype == as_numpy
        np.testing.assert_array_equal(got, given["x"])


# What loads what

@pytest.mark.parametrize("statement", ["import tinynn", "import tinynn; tinynn.load",
                                       "import tinynn.__main__", "import tinynn.artifact"])
def test_the_runtime_needs_no_compiler(statement: str) -> None:
    script = f"""{statement}
import sys
heavy = {{"onnx", "ml_dtypes", "ziglang", "onnxruntime", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_runtime_imports_little_of_the_package() -> None:
    script = """import sys, tinynn.runtime
own = {name for name in sys.modules if name.startswith("tinynn")}
assert own <= {"tinynn", "tinynn.program"} | {n for n in own if n.startswith("tinynn.runtime")}, own
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
