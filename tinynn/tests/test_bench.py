"""Measuring: processes of their own, stopped while others run; tables that say what they should."""
from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tinynn
import tinynn.__main__ as cli
from tinynn import bench, bench_page
from tinynn.bench import Comparison, Contender, Timing, Worker
from tinynn.bench_page import Compiled, Row
from tinynn.program import TensorSpec
from tinynn.tests import handmade
from tinynn.tests.opencl_tools import find_device

X = TensorSpec("x", "f32", (4,))
MEMORY = TensorSpec("memory", "f32", (4,))


def half_model(path: Path) -> Path:
    """y = relu(x w) in float16, with an open batch dimension and an input nobody uses."""
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float16)
    half = TensorProto.FLOAT16
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["g"]), helper.make_node("Relu", ["g"], ["y"])],
        "half", [helper.make_tensor_value_info("x", half, ["batch", 8])],
        [helper.make_tensor_value_info("y", half, ["batch", 8])],
        [onnx.numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)
    return path


def timing(median: float, first: float = 1.0, peak: int = 1 << 20) -> Timing:
    return Timing(median, median, median, 10, peak, first)


def state_of(worker: Worker) -> str:
    """One letter: T is stopped, S sleeps, R runs."""
    text = Path(f"/proc/{worker._process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^State:\s+(\S)", text, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An artifact that nobody has vouched for."""
    path = tmp_path / "model.tnn"
    path.write_bytes(handmade.artifact().to_bytes())
    return path


def test_numbers_of_a_timing() -> None:
    t = Timing.of([3_000_000, 1_000_000, 2_000_000, 90_000_000], 5, 7_000_000)
    assert (t.median, t.minimum, t.runs, t.peak_nbytes, t.first) == (2.5, 1.0, 4, 5, 7.0)
    assert 80 < t.p99 <= 90


def test_workers_are_stopped_but_while_they_answer(foreign: Path) -> None:
    contender = Contender("tinynn", foreign, trust=True)
    with bench.closing([Worker(contender, 1, [X, MEMORY]) for _ in range(2)]) as workers:
        assert all(worker.version == "0.1.0" and worker.first_ns > 0 for worker in workers)
        for turn in range(2):
            times, peak = workers[turn].run(3, 1)
            assert len(times) == 3 and min(times) > 0 and peak > 1 << 20
            # A process stops when its threads have all noticed the signal.
            for worker in workers:
                os.waitid(os.P_PID, worker._process.pid, os.WSTOPPED | os.WNOWAIT)
            assert [state_of(worker) for worker in workers] == ["T", "T"]
        assert [t.runs for t in bench.measure(workers, 7)] == [7, 7]
        pids = [worker._process.pid for worker in workers]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"tinynn on .*none.tnn: .*No such file"):
        Worker(Contender("tinynn", tmp_path / "none.tnn"), 1, [])


def test_the_ratio_is_to_the_faster_peer() -> None:
    result = Comparison({"tinynn": {1: timing(3), 2: timing(2)},
                         "onnxruntime": {1: timing(6), 2: timing(2.5)},
                         "openvino": {1: timing(4), 2: timing(5)}}, {}, {})
    assert (result.ratio(1), result.ratio(2)) == (0.75, 0.8)
    assert Comparison({"tinynn": {1: timing(3)}}, {}, {}).ratio(1) is None


def test_a_peer_that_runs_with_two_threads_only() -> None:
    result = Comparison({"tinynn": {1: timing(3), 2: timing(2)}, "openvino": {2: timing(4)}},
                        {"tinynn": "0.1.0", "openvino": "9"},
                        {"openvino, 1 thread": "the process was ended by SIGSEGV"})
    lines = bench.peer_lines(result)
    assert lines[2].split() == ["openvino", "9", "-", "-", "4.000", "4.000", "1", "1"]
    assert lines[3].split()[:3] == ["ratio", "-", "0.500"]
    assert lines[4] == "openvino, 1 thread: not measured, the process was ended by SIGSEGV"


def test_the_end_of_a_worker_by_a_signal_is_named(foreign: Path) -> None:
    worker = Worker(Contender("tinynn", foreign, trust=True), 1, [X, MEMORY])
    worker._process.kill()
    with pytest.raises(RuntimeError, match="the process was ended by SIGKILL"):
        worker.run(1, 0)


def test_peers_of_a_model_with_half_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """A model is compiled first; a peer that is not there is named."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "openvino" else find_spec(name))
    path = half_model(tmp_path / "half.onnx")
    assert cli.main(["bench", str(path), "--runs", "4", "--threads", "1",
                     "--shape", "x=3x8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["runtime", "version", "1", "thread", "p99", "first", "ms", "peak",
                                "MiB"]
    ours, theirs = lines[1].split(), lines[2].split()
    assert (ours[0], theirs[0]) == ("tinynn", "onnxruntime")
    ratio = float(lines[3].split()[1])
    # Printed with three digits, of numbers of the order of 0.01.
    assert ratio == pytest.approx(float(ours[2]) / float(theirs[2]), rel=0.2)
    assert lines[4] == "openvino: not measured, it is not installed"
    assert sorted(os.listdir(tmp_path)) == ["half.onnx"]


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
def test_openvino_is_measured_where_it_is_installed(tmp_path: Path) -> None:
    path = half_model(tmp_path / "half.onnx")
    result = bench.bench_peers(path, threads=1, runs=2, shapes={"x": (3, 8)})
    assert list(result.timings) == ["tinynn", "onnxruntime", "openvino"]
    assert result.timings["openvino"][1].median > 0
    assert all(why == bench.NOT_INSTALLED for why in result.absent.values())


def test_a_peer_that_refuses_the_model_is_named(
        foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = foreign.with_suffix(".onnx")
    model.write_bytes(b"no model")
    data = handmade.program(source_sha256=hashlib.sha256(b"no model").hexdigest())
    foreign.write_bytes(handmade.artifact(data).to_bytes())
    assert cli.main(["bench", str(foreign), "--peers", "--trust", "--threads", "1", "--runs", "2",
                     "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["engines"]) == ["tinynn"] and result["ratio"] == {"1": None}
    assert str(model) in result["absent"]["onnxruntime, 1 thread"]
    assert result["engines"]["tinynn"]["threads"]["1"]["runs"] == 2


def test_a_gpu_target_is_compared_with_who_runs_on_the_gpu(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_device("Oclgrind")
    monkeypatch.setenv("TINYNN_OPENCL", "Oclgrind")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    compared = bench.bench_peers(half_model(tmp_path / "half.onnx"), threads=1, runs=1,
                                 target="opencl", shapes={"x": (1, 8)})
    assert list(compared.timings) == ["tinynn"]
    assert compared.absent == {"tinygrad": bench.NOT_INSTALLED}


def test_the_model_of_an_artifact(foreign: Path) -> None:
    with pytest.raises(ValueError, match=r"model.onnx is not there. Name it with --against"):
        bench.source_model(foreign, None)
    other = foreign.with_suffix(".onnx")
    other.write_bytes(b"another model")
    for against in (None, other):
        with pytest.raises(ValueError, match="not the model that"):
            bench.source_model(foreign, against)


def made_rows() -> list[Row]:
    """Two models with round numbers; OpenVINO could not read the second."""
    times = {"tinynn": {1: timing(3, peak=40 << 20), 2: timing(2, peak=60 << 20)},
             "onnxruntime": {1: timing(6, peak=90 << 20), 2: timing(5, peak=110 << 20)},
             "openvino": {1: timing(4), 2: timing(2.5)}}
    fewer = {engine: times[engine] for engine in ("tinynn", "onnxruntime")}
    compiled = Compiled(12.34, 2.0, 4.0, 10_300_000, 10_000_000, 849_000_000)
    return [Row("first", compiled, Comparison(times, {}, {}),
                {"tinynn": 99.6, "onnxruntime": 250, "openvino": 300}),
            Row("second", compiled, Comparison(fewer, {}, {
                "openvino, 1 thread": "openvino on /a/b/second.onnx: it failed"}),
                {"tinynn": 9, "onnxruntime": 20})]


def cells(lines: list[str], row: int) -> list[str]:
    return lines[row].strip("| ").split(" | ")


def test_tables_of_the_page() -> None:
    engines = ["tinynn", "onnxruntime", "openvino"]
    lines = bench_page.time_table(made_rows(), engines)
    assert cells(lines, 0) == ["model", "GMAC", "ours 1", "onnxruntime 1", "OpenVINO 1", "ratio 1",
                               "ours 2", "onnxruntime 2", "OpenVINO 2", "ratio 2"]
    assert cells(lines, 2) == ["first", "0.849", "3.00", "6.00", "4.00", "0.75",
                               "2.00", "5.00", "2.50", "0.80"]
    assert cells(lines, 3)[4:6] == ["-", "0.50"]
    assert "- second: openvino, 1 thread: openvino on second.onnx: it failed" in lines
    assert "Mean ratio at 2 threads: 0.60, largest 0.80." in lines
    lines = bench_page.size_table(made_rows(), engines, bare=10 << 20)
    assert cells(lines, 2) == ["first", "10.0", "10.3", "+3.0%", "12.3", "2.0", "4.0", "100",
                               "250", "300", "50", "100", "0", "0.50"]
    assert cells(lines, 3)[9] == "-"


def test_tables_of_bf16_and_of_competing_processes() -> None:
    times = {"tinynn": {1: timing(2), 2: timing(1)}, "openvino": {1: timing(4), 2: timing(4)}}
    reduced = Comparison(times, {}, {}, "bf16", {"tinynn": 0.012, "openvino": 0.04})
    rows = [replace(row, reduced=reduced, busy={"tinynn": timing(9)}) for row in made_rows()]
    lines = bench_page.reduced_table(rows)
    assert cells(lines, -2)[1:] == ["2.00", "4.00", "0.50", "1.00", "4.00", "0.25", "1.2e-02",
                                    "4.0e-02"]
    assert cells(bench_page.busy_table(rows), -2) == ["second", "2.0", "2.0", "9.0", "9.0"]
    assert bench_page.reduced_table(made_rows()) == bench_page.busy_table(made_rows()) == []


def test_a_reduced_precision_is_compared_with_the_like(tmp_path: Path) -> None:
    """OpenVINO in bf16 too; both errors are against onnxruntime's f32."""
    path = half_model(tmp_path / "half.onnx")
    artifact = tmp_path / "half.tnn"
    artifact.write_bytes(tinynn.compile(path, shapes={"x": (3, 8)}).to_bytes())
    result = bench.compare_peers(artifact, path, [1], 2, trust=True, precision="bf16")
    assert set(result.timings) | set(result.absent) == {"tinynn", "openvino"}
    assert 0 <= result.errors["tinynn"] < 2e-3  # this one computes in f16 and f32


def test_the_page_is_the_same_for_the_same_numbers() -> None:
    pages = {bench_page.page(made_rows(), {"third": "no such op"}, 100, 10 << 20) for _ in "ab"}
    (text,) = pages
    assert "- third: no such op" in text
    assert os.uname().nodename not in text


def test_the_command_that_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PEERS", {})
    monkeypatch.setattr(bench_page, "LOADS", 1)
    main_folder, others = tmp_path / "main", tmp_path / "others"
    for folder in (main_folder, others):
        folder.mkdir()
    half_model(main_folder / "half.onnx")
    half_model(main_folder / "same.onnx")  # left out: it is the same
    half_model(others / "other.onnx")
    (others / "broken.onnx").write_bytes(b"\xff" * 100)
    out = tmp_path / "page.md"
    assert bench_page.main([str(main_folder), str(others), "--markdown", str(out), "--runs", "2",
                            "--shape", "x=3x8"]) == 0
    text = out.read_text(encoding="utf-8")
    for name in ("half", "other"):
        times = rf"^\| {name} \| 0\.000 \| [\d.]+ \| - \| [\d.]+ \| - \|$"
        assert len(re.findall(times, text, re.MULTILINE)) == 1
    assert "same" not in re.findall(r"^\| (\w+) \|", text, re.MULTILINE)
    assert re.search(r"^- broken: .*broken.onnx", text, re.MULTILINE)
    busy = text[text.index("## With competing"):text.index("## Size and start")]
    assert re.search(r"^\| half( \| [\d.]+){4} \|$", busy, re.MULTILINE)
    assert "| other" not in busy


def test_a_folder_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_page.main([str(tmp_path)]) == 2
    assert "there is no .onnx model" in capsys.readouterr().err
