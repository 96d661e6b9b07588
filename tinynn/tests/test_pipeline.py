"""tinynn.compile from model to results, against onnxruntime and numpy."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tinynn
import tinynn.__main__ as cli
from tinynn.render import toolchain
from tinynn.runtime.golden import relative_error, sample_inputs
from tinynn.tensor import trace


def value(name: str, shape: list[Any], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(shape: list[Any] | None = None) -> onnx.ModelProto:
    """y = relu(x w + b) + memory; total = sum(y)."""
    random = np.random.RandomState(0)
    w = random.standard_normal((8, 8)).astype(np.float32)
    b = random.standard_normal(8).astype(np.float32)
    shape = shape or [4, 8]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["g"]), helper.make_node("Relu", ["g"], ["r"]),
         helper.make_node("Add", ["r", "memory"], ["y"]),
         helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0)],
        "small", [value("x", shape), value("memory", shape)],
        [value("y", shape), value("total", [])],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reference(inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model().SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return dict(zip(["y", "total"], session.run(["y", "total"], inputs), strict=True))


def agree(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name in want:
        assert relative_error(got[name], want[name]) < 1e-5


def test_agrees_with_onnxruntime() -> None:
    with tinynn.load(tinynn.compile(model()).to_bytes(), trust=True) as runner:
        assert list(runner.inputs) == ["x", "memory"]
        for seed in (0, 1, 2):
            inputs = sample_inputs(runner.inputs.values(), seed)
            agree(runner(inputs), reference(inputs))
        assert all(result.passed for result in runner.verify())


def test_path_bytes_and_proto_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model(), path)
    compiled = [tinynn.compile(given) for given in (path, path.read_bytes(), model())]
    for artifact in compiled[1:]:
        assert artifact.manifest["targets"] == compiled[0].manifest["targets"]
        assert artifact.manifest["io"] == compiled[0].manifest["io"]


def test_same_model_same_bytes_in_any_folder(tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b/c"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        onnx.save(model(), folder / "small.onnx")
        monkeypatch.chdir(folder)
        tinynn.compile("small.onnx").save("small.tnn")
    assert (tmp_path / "a/small.tnn").read_bytes() == (tmp_path / "b/c/small.tnn").read_bytes()


def test_compiling_again_does_not_run_the_c_compiler(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDRIVE_CACHE", str(tmp_path))
    first = tinynn.compile(model())

    def refuse(*_: Any) -> None:
        raise AssertionError("the C compiler was run")

    monkeypatch.setattr(toolchain, "compile_object", refuse)
    assert tinynn.compile(model()).to_bytes() == first.to_bytes()
    with pytest.raises(AssertionError):
        tinynn.compile(model(), "cpu:aarch64")


def test_state_survives_between_runs() -> None:
    artifact = tinynn.compile(model(), state={"memory": "y"})
    with tinynn.load(artifact.to_bytes(), trust=True) as runner:
        assert list(runner.inputs) == ["x"] and list(runner.state) == ["memory"]
        memory = np.zeros((4, 8), np.float32)
        for seed in (0, 1):
            inputs = sample_inputs(runner.inputs.values(), seed)
            want = reference({**inputs, "memory": memory})
            agree(runner(inputs, {"y": np.empty((4, 8), np.float32),
                                  "total": np.empty((), np.float32)}), want)
            memory = want["y"]
        assert all(result.passed for result in runner.verify())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_threads_stay_on_their_cores() -> None:
    """A product that two threads share; the helper is the thread that is new."""
    weight = np.random.RandomState(0).standard_normal((256, 256)).astype(np.float32)
    artifact = tinynn.compile(trace(lambda x: {"y": x @ weight}, {"x": ("f32", (256, 256))}))
    allowed = os.sched_getaffinity(0)
    first, second = sorted(allowed)[:2]
    before = set(os.listdir("/proc/self/task"))
    try:
        with tinynn.load(artifact.to_bytes(), trust=True, threads=2,
                         cores=[second, first]) as runner:
            assert os.sched_getaffinity(0) == {second}
            assert all(result.passed for result in runner.verify())
            (helper,) = set(os.listdir("/proc/self/task")) - before
            deadline = time.monotonic() + 60  # it goes to its core when it first gets to run
            while os.sched_getaffinity(int(helper)) != {first} and time.monotonic() < deadline:
                runner.verify()
            assert os.sched_getaffinity(int(helper)) == {first}
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("state", "words"), [
    ({"memory": "z"}, "state memory=z: there is no such input and output"),
    ({"z": "y"}, "state z=y: there is no such input and output"),
    ({"memory": "total"}, "both must have one type and shape"),
    ({"memory": "y", "x": "y"}, "output y is the next value of two inputs")])
def test_state_that_does_not_fit(state: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tinynn.compile(model(), state=state)


def test_progress_names_every_stage() -> None:
    told: list[tuple[str, bool]] = []
    artifact = tinynn.compile(model(), progress=lambda stage, s: told.append((stage, s is None)))
    target = artifact.manifest["targets"][0]["target"]
    stages = ["import", f"lower to {target}", "golden vectors", "lay out"]
    assert told == [(stage, start) for stage in stages for start in (True, False)]


def test_several_targets_and_threads() -> None:
    artifact = tinynn.compile(model(), "cpu:x86-64-v3, cpu:aarch64", threads=3)
    assert [t["target"] for t in artifact.manifest["targets"]] == ["cpu:x86-64-v3", "cpu:aarch64"]
    assert artifact.manifest["threads"] == 3


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """compile, inspect, verify, run and bench, as the README shows them."""
    source, path = tmp_path / "small.onnx", tmp_path / "out" / "small.tnn"
    onnx.save(model(["batch", 8]), source)
    assert cli.main(["compile", str(source), "-o", str(path)]) == 2
    assert "batch" in capsys.readouterr().err
    assert cli.main(["compile", str(source), "-o", str(path), "--shape", "x=4x8",
                     "--shape", "memory=4x8"]) == 0
    captured = capsys.readouterr()
    assert "golden vectors ..." in captured.err and "small.tnn" in captured.out
    assert cli.main(["inspect", str(source), "--shape", "x=4x8", "--shape", "memory=4x8"]) == 0
    assert cli.main(["verify", str(path)]) == 0
    np.savez(tmp_path / "in.npz", x=np.ones((4, 8), np.float32),
             memory=np.zeros((4, 8), np.float32))
    assert cli.main(["run", str(path), "--inputs", str(tmp_path / "in.npz"),
                     "--outputs", str(tmp_path / "out.npz")]) == 0
    given = {"x": np.ones((4, 8), np.float32), "memory": np.zeros((4, 8), np.float32)}
    agree(cli.load_arrays(tmp_path / "out.npz"), reference(given))
    capsys.readouterr()
    assert cli.main(["bench", str(path), "--runs", "5", "--against", str(source)]) == 0
    assert "of the faster peer's time" in capsys.readouterr().out


def test_a_model_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "bad.onnx"
    source.write_bytes(b"\xff" * 100)
    assert cli.main(["compile", str(source), "-o", str(tmp_path / "bad.tnn")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert str(source) in err[-1] and err[-1].startswith("tinynn: ")
    assert not (tmp_path / "bad.tnn").exists()
