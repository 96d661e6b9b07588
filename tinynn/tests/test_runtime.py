"""Loading and running: inputs, state, threads, targets, and what the runtime may import."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tinynn
from tinynn.artifact import GoldenVector, build
from tinynn.program import Buffer, Program, TensorSpec, Weight
from tinynn.runtime import ArtifactError, Runner, host
from tinynn.runtime.cpu import CpuEngine
from tinynn.runtime.golden import sample_inputs
from tinynn.runtime.layout import DTYPES, DeviceLost
from tinynn.runtime.reader import read
from tinynn.runtime.runner import choose_targets
from tinynn.tests import handmade

X = np.array([1.0, -2.0, 3.0, 4.0], dtype=np.float32)


def load(artifact: tinynn.Artifact | None = None, **options: Any) -> Runner:
    return tinynn.load((artifact or handmade.artifact()).to_bytes(), trust=True, **options)


def run(runner: Runner, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Both outputs, also the one that becomes the state."""
    return runner({"x": x}, {"next": np.zeros(4, np.float32), "total": np.zeros(1, np.float32)})


def close_to(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)


def test_runs_and_carries_state() -> None:
    memory = np.zeros(4)
    with load() as runner:
        for step in range(3):
            want = handmade.expected(X + step, memory)
            close_to(run(runner, X + step), want)
            memory = want["next"]
        runner.reset()
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))


def test_describes_itself() -> None:
    with load() as runner:
        assert runner.inputs == {"x": TensorSpec("x", "f32", (4,))}
        assert runner.state == {"memory": TensorSpec("memory", "f32", (4,))}
        assert list(runner.outputs) == ["total"]  # the next state stays inside
        assert runner.metadata["output_slices"] == {"first": [0, 1, None]}
        assert runner.manifest["model"]["name"] == "handmade"
        assert runner.target == handmade.HOST


def test_outputs_are_the_callers_own() -> None:
    with load() as runner:
        first = runner({"x": X})
        kept = first["total"].copy()
        runner({"x": X + 1})
        np.testing.assert_array_equal(first["total"], kept)
        first["total"][...] = 99
        assert runner({"x": X + 1})["total"] != 99


def test_strided_inputs_are_read_correctly() -> None:
    with load() as runner:
        close_to(run(runner, np.repeat(X, 2)[::2]), handmade.expected(X, np.zeros(4)))


def test_outputs_that_do_not_fit() -> None:
    with load() as runner:
        for out, words in (({"sum": X}, "there is no output 'sum'"),
                           ({"next": X[:3]}, r"output 'next' is float32\[3\], expected")):
            with pytest.raises(ValueError, match=words):
                runner({"x": X}, out)
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))  # nothing had run


def test_an_output_that_is_also_the_state_is_a_result_if_there_is_no_other() -> None:
    code = handmade.target_code()
    made = handmade.program(outputs=(TensorSpec("next", "f32", (4,)),), targets=(
        replace(code, buffers=code.buffers[:5], steps=code.steps[:2]),))
    golden = [replace(vector, outputs={"next": vector.outputs["next"]})
              for vector in handmade.golden_vectors()]
    with load(build(made, golden)) as runner:
        assert list(runner.outputs) == list(runner({"x": X})) == ["next"]


LARGE = 1 << 15  # elements: beyond what is copied


def large_source() -> Program:
    """y = 2 x and next = x + memory, of many elements."""
    source = handmade.SOURCE + f"""
void k3_large(void *const *args, int64_t part, int64_t parts) {{
  float *y = args[0], *next = args[1];
  const float *x = args[2], *memory = args[3];
  for (int64_t i = 0; part == 0 && i < {LARGE}; i++) {{
    y[i] = 2 * x[i];
    next[i] = x[i] + memory[i];
  }}
}}
"""
    def spec(name: str) -> TensorSpec:
        return TensorSpec(name, "f32", (LARGE,))

    code = handmade.target_code(code=handmade.machine_code(source))
    step = replace(code.steps[0], kernel="k3_large", args=(0, 1, 2, 3), writes=(0, 1), parts=1)
    names = {"y": "output", "next": "output", "x": "input", "memory": "state"}
    return handmade.program(
        inputs=(spec("x"),), state=(spec("memory"),), outputs=(spec("y"), spec("next")),
        targets=(replace(code, weights=(), steps=(step,), arena_nbytes=0, buffers=tuple(
            Buffer(kind, name, "f32", (LARGE,), 0, 4 * LARGE) for name, kind in names.items())),))


def large_program() -> tinynn.Artifact:
    """The same with golden outputs that must be met exactly."""
    (x,) = sample_inputs([TensorSpec("x", "f32", (LARGE,))], 0).values()
    exact = GoldenVector(0, {"y": 2 * x, "next": x}, {"y": 0.0, "next": 0.0})
    return build(large_source(), [exact])


def test_large_inputs_are_read_where_they_lie() -> None:
    """Contiguous, read-only, strided and misaligned arrays in turn, while the state alternates."""
    x = np.arange(LARGE, dtype=np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False
    misaligned = np.zeros(4 * LARGE + 1, np.uint8)[1:].view(np.float32)
    misaligned[...] = x
    with load(large_program()) as runner:
        next_state = np.zeros(LARGE, np.float32)
        for turn, given in enumerate((x, frozen, np.repeat(x, 2)[::2], misaligned, x)):
            y = np.zeros(LARGE, np.float32)
            runner({"x": given}, {"y": y, "next": next_state})
            np.testing.assert_array_equal(y, 2 * x)
            np.testing.assert_array_equal(next_state, (turn + 1) * x)


def test_values_that_are_stored_as_a_hash() -> None:
    """Many that must be met exactly: pictures in a state, for instance."""
    made = large_program()
    (run_,) = made.manifest["golden"]["runs"]
    assert [output["sha256"] is None for output in run_["outputs"]] == [False, False]
    assert len(made.to_bytes()) < 60_000
    with load(made) as runner:
        assert all(result.passed for result in runner.verify())
        runner._golden[0][0].outputs[0].__dict__["sha256"] = "0" * 64
        assert [result.error for result in runner.verify()] == [float("inf"), 0.0]


def test_of_large_outputs_a_sample_is_stored() -> None:
    """Every third element: 2 is not a stride, because it would never meet an odd column."""
    (x,) = sample_inputs([TensorSpec("x", "f32", (LARGE,))], 0).values()
    loose = {"y": 1e-6, "next": 1e-6}
    wrong = 2 * x
    wrong[1] = wrong[2] = 99  # between the elements of the sample
    golden = [GoldenVector(0, {"y": wrong, "next": x}, loose)]
    reader = read(large_program().to_bytes())
    made = build(large_source(), golden)
    (run_,) = made.manifest["golden"]["runs"]
    assert [output["stride"] for output in run_["outputs"]] == [3, 3]
    assert len(made.to_bytes()) < len(reader.data()) + 2 * 4 * LARGE // 3 + 4096
    with load(made) as runner:
        assert all(result.passed for result in runner.verify())
    wrong[3] = 99
    with load(build(large_source(), golden)) as runner:
        assert [result.passed for result in runner.verify()] == [False, True]


def test_a_run_allocates_nothing() -> None:
    x = np.ones(LARGE, np.float32)
    out = {"y": np.zeros(LARGE, np.float32)}
    with load(large_program(), threads=2) as runner:
        for _ in range(100):
            runner({"x": x}, out)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0], sys.getallocatedblocks()
        tracemalloc.reset_peak()
        for _ in range(1000):
            runner({"x": x}, out)
        grown, peak = tracemalloc.get_traced_memory()
        blocks = sys.getallocatedblocks()
        tracemalloc.stop()
    assert grown - before[0] < 2000 and blocks - before[1] < 50
    assert peak - before[0] < LARGE  # a quarter of one tensor: only names and small objects


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
        memory = run(runner, X)["next"]
        poisoned = X.copy()
        poisoned[2] = bad
        assert not np.isfinite(run(runner, poisoned)["next"]).all()
        assert runner.state_rejected == 1
        close_to(run(runner, X), handmade.expected(X, memory))


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
        outputs = run(runner, np.array([3e38, 0, 0, 0], np.float32))
        assert np.isfinite(outputs["next"]).all() and np.isinf(outputs["total"]).all()
        assert runner.state_rejected == 1
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))


def test_profile_keeps_the_state() -> None:
    with load() as runner:
        assert runner.profile({"x": X}) == [100, 101, 102]  # what the handmade driver reports
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))


def test_verify_passes_and_keeps_the_state() -> None:
    with load() as runner:
        memory = run(runner, X)["next"]
        results = runner.verify()
        assert [(r.seed, r.output) for r in results] == [
            (0, "next"), (0, "total"), (1, "next"), (1, "total")]
        assert all(r.passed for r in results)
        close_to(run(runner, X), handmade.expected(X, memory))


def test_verify_notices_wrong_code() -> None:
    wrong = handmade.SOURCE.replace("x[i] * scale[i] + memory[i]", "x[i] * scale[i]")
    code = handmade.target_code(code=handmade.machine_code(wrong))
    with load(handmade.artifact(handmade.program(targets=(code,)))) as runner:
        passed = {(r.seed, r.output): r.passed for r in runner.verify()}
    # Without the state the first run is right and the second is not.
    assert passed == {(0, "next"): True, (0, "total"): True,
                      (1, "next"): False, (1, "total"): False}


def test_a_target_of_low_precision_may_be_off_by_more() -> None:
    """The stored values are 1 % off: too much for one target, and not for the other."""
    vectors = [replace(v, outputs={name: 1.01 * array for name, array in v.outputs.items()})
               for v in handmade.golden_vectors()]
    for allowed in (0.0, 2e-2):
        code = replace(handmade.target_code(), tolerance=allowed)
        with load(build(handmade.program(targets=(code,)), vectors)) as runner:
            assert {result.passed for result in runner.verify()} == {allowed > 0}


def test_threads_share_the_work_without_changing_it() -> None:
    results = []
    for threads in (1, 2, 3, 4):
        with load(threads=threads) as runner:
            assert runner.threads == threads
            results.append(run(runner, X)["next"])
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
            np.testing.assert_array_equal(run(runner, X)["next"], X * handmade.SCALE)
        np.testing.assert_array_equal(run(other, X)["next"], 3 * X * handmade.SCALE)


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
                outputs = run(runner, given)
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
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))
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
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))


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

    def chosen(wanted: str | None, machine: list[str]) -> list[str]:
        return [target.target for target in choose_targets(manifest, wanted, machine, "m")]

    assert chosen(None, runnable) == ["cpu:x86-64-v4"]
    assert chosen("cpu", runnable[1:]) == chosen("cpu:x86-64-v2", runnable) == ["cpu:x86-64-v2"]
    with pytest.raises(ArtifactError, match="compiled for cpu:aarch64, and this machine runs only"):
        chosen("cpu:aarch64", runnable)
    with pytest.raises(ArtifactError, match="it has no target opencl, only"):
        chosen("opencl", runnable)


def with_device() -> tinynn.Artifact:
    """The handmade program for a device and for this CPU."""
    code = handmade.target_code()
    return handmade.artifact(handmade.program(targets=(code, replace(code, target="gpu"))))


def test_devices_come_before_cpus_and_lists_say_what_comes_next() -> None:
    manifest = read(with_device().to_bytes()).manifest

    def chosen(wanted: str | None, machine: list[str]) -> list[str]:
        return [target.target for target in choose_targets(manifest, wanted, machine, "m")]

    machine = ["gpu", handmade.HOST]
    assert chosen(None, machine) == chosen("gpu, cpu", machine) == machine
    assert chosen("cpu,gpu", machine) == [handmade.HOST, "gpu"]
    assert chosen("gpu", machine) == ["gpu"]
    assert chosen("gpu,cpu", [handmade.HOST]) == [handmade.HOST]


class Device(CpuEngine):
    """A device that is the CPU, and breaks when its time has come."""

    runs_left = 2

    def __init__(self, source: Any, target: Any) -> None:
        if Device.runs_left == 0:
            raise ArtifactError("the driver does not start")
        super().__init__(source, target, 1)

    def run(self, inputs: Any, nanoseconds: Any = None) -> None:
        if Device.runs_left == 0:
            raise DeviceLost("the device does not answer")
        Device.runs_left -= 1
        super().run(inputs, nanoseconds)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    fake = types.ModuleType("tinynn.runtime.opencl")
    fake.__dict__.update(OpenCLEngine=Device, runnable_targets=lambda: ["gpu"])
    monkeypatch.setitem(sys.modules, "tinynn.runtime.opencl", fake)
    monkeypatch.setattr(Device, "runs_left", 2)
    return Device


def test_a_device_that_is_lost_is_replaced(device: type[Device], tmp_path: Path,
                                           caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.tnn"
    with_device().save(path)
    with tinynn.load(path) as runner:
        assert runner.target == "gpu"
        memory = run(runner, X)["next"]
        close_to(run(runner, X), handmade.expected(X, memory))
        assert not caplog.records
        # Lost in the third run, which is done again: the state starts from zero.
        close_to(run(runner, X), handmade.expected(X, np.zeros(4)))
        assert runner.target == handmade.HOST
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: the device does not answer; going on with {handmade.HOST} from zero state"]
        assert all(result.passed for result in runner.verify())


def test_a_device_that_does_not_start_is_passed_over(device: type[Device],
                                                     caplog: pytest.LogCaptureFixture) -> None:
    device.runs_left = 0
    with load(with_device()) as runner:
        assert runner.target == handmade.HOST
    assert f"the driver does not start; going on with {handmade.HOST}" in caplog.text
    with pytest.raises(ArtifactError, match="the driver does not start"):
        load(with_device(), target="gpu")


def test_without_another_target_the_loss_is_told(device: type[Device]) -> None:
    device.runs_left = 1
    with load(with_device(), target="gpu") as runner:
        runner({"x": X})
        with pytest.raises(DeviceLost, match="does not answer"):
            runner({"x": X})


def test_another_file_in_its_place_does_not_take_over(device: type[Device],
                                                      tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    with_device().save(path)
    device.runs_left = 1
    with tinynn.load(path) as runner:
        runner({"x": X})
        handmade.artifact().save(path)
        with pytest.raises(ArtifactError, match="the file is another artifact now"):
            runner({"x": X})


# Cores

def test_cores_that_cannot_be() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for cores in ([allowed[0]] * 2, [allowed[0]], [*allowed[:1], 10_000]):
        with pytest.raises(ValueError, match="name 2 different ones, a core for each thread, out"):
            load(threads=2, cores=cores)


def test_threads_on_cores() -> None:
    """The calling thread is moved; of helpers the handmade code knows nothing, and says so."""
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    try:
        with load(threads=1, cores=[core]) as runner:
            assert os.sched_getaffinity(0) == {core}
            close_to(run(runner, X), handmade.expected(X, np.zeros(4)))
    finally:
        os.sched_setaffinity(0, allowed)
    if len(allowed) > 1:
        with pytest.raises(ArtifactError, match="could not yet pin threads to cores"):
            load(threads=2, cores=sorted(allowed)[:2])


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
        engine = runner._engine
        assert isinstance(engine, CpuEngine)
        area = engine._areas["weight"]
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
            filled = np.zeros((3, 1), ml_dtypes.bfloat16 if dtype == "bf16" else as_numpy)
            runner(given, {"y": filled})
            np.testing.assert_array_equal(filled.view(as_numpy), got)
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
