"""`tinynn explain`: rows of artifacts and of models, predictions, what $DEBUG shows."""
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tinynn
import tinynn.__main__ as cli
from tinynn import explain
from tinynn.ir import Graph
from tinynn.program import Buffer, Step
from tinynn.runtime.reader import read
from tinynn.tensor import Tensor, trace
from tinynn.tests import handmade

DOCS = Path(__file__).resolve().parents[2] / "docs"


def network(x: Tensor) -> dict[str, Tensor]:
    """Two products; the first is read twice through a sum, so that it is stored."""
    weight = np.random.RandomState(0).standard_normal((64, 64)).astype(np.float32)
    hidden = (x @ weight).relu()
    return {"scores": hidden @ weight, "share": hidden / hidden.sum(-1, keepdims=True)}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(network, {"x": ("f32", (32, 64))})


@pytest.fixture(scope="module")
def explanation(graph: Graph) -> explain.Explanation:
    return explain.explain_graph(graph, "cpu:x86-64-v3", 2)


# Predictions

BUFFERS = (Buffer("output", "y", "f32", (1000,), 0, 4000),
           Buffer("weight", "w", "f32", (10_000,), 0, 40_000),
           Buffer("arena", "x", "f32", (1000,), 0, 4000))


def step(flop: int, nbytes: int, args: tuple[int, ...] = (0, 2), parts: int = 1) -> Step:
    return Step("k000_loops_1", args, (0,), parts, flop, nbytes, "note")


def test_what_binds() -> None:
    """By hand: v3 has 8 lanes; a contraction does 3 FLOP per lane and cycle at 4 GHz."""
    few = explain.predict(step(10, 100), BUFFERS, "contract", "cpu:x86-64-v3", 1)
    assert few.bound == "launch"
    hot = explain.predict(step(9_600_000, 8000), BUFFERS, "contract", "cpu:x86-64-v3", 1)
    assert hot.bound == "arithmetic"
    assert hot.arithmetic == pytest.approx(9_600_000 / (3 * 8 * 4.0))
    assert hot.ns == pytest.approx(hot.arithmetic + explain.LAUNCH_NS)
    heavy = explain.predict(step(10, 48_000, (0, 1, 2)), BUFFERS, "contract", "cpu:x86-64-v3", 1)
    assert heavy.bound == "weights" and heavy.weights == pytest.approx(1000)
    assert heavy.data == pytest.approx(8000 / 30)


def test_threads_share_what_can_be_shared() -> None:
    one, two, serial = (
        explain.predict(step(10**7, 8000, parts=parts), BUFFERS, "loops", "cpu:aarch64", threads)
        for parts, threads in ((8, 1), (8, 2), (1, 2)))
    assert two.arithmetic == pytest.approx(one.arithmetic / 2)
    assert serial == one


# Of a graph

def test_rows_of_a_graph(explanation: explain.Explanation) -> None:
    assert explanation.name == "network" and explanation.target == "cpu:x86-64-v3"
    assert not explanation.measured
    flop = [row.step.flop for row in explanation.rows]
    assert sum(f >= 2 * 32 * 64 * 64 for f in flop) == 2
    products = [row for row in explanation.rows if row.family == "contract"]
    assert all(re.fullmatch(r"contract \d+x\d+x8", row.step.schedule) for row in products)
    for row in explanation.rows:
        assert f"void {row.step.kernel}(" in row.source and row.source.endswith("}")
        assert row.source.startswith("/*") and row.step.note in row.source
        written = explanation.buffers[row.step.args[row.step.writes[0]]]
        assert written.kind in ("arena", "output")


def test_every_kernel_has_its_reason(explanation: explain.Explanation) -> None:
    rows = {explanation.buffers[row.step.args[0]].name: row for row in explanation.rows}
    for name in ("scores", "share"):
        assert rows[name].step.reason == "output of the graph" and rows[name].readers == ()
    inner = [row for name, row in rows.items() if name not in ("scores", "share")]
    assert inner and all(row.step.reason and row.readers for row in inner)


def test_details_name_both_kinds_of_neighbours(explanation: explain.Explanation) -> None:
    number, row = next((i, row) for i, row in enumerate(explanation.rows) if row.readers)
    reader = row.readers[0]
    lines = list(explain.details(explanation, number))
    assert f"  not merged with #{reader}, which reads the result: {row.step.reason}" in lines
    assert sum(" reads " in line for line in lines) >= len(row.step.args) - 1
    above = list(explain.details(explanation, reader))
    assert f"  not merged with #{number}, whose result it reads: {row.step.reason}" in above


def test_a_result_ends_where_its_memory_is_written_again() -> None:
    """0 and 1 write halves of one tensor, 2 reads both; 3 writes it anew, 4 reads that."""
    code = handmade.target_code()
    rows = [([4], 0), ([4], 0), ([3, 4], 0), ([4], 0), ([5, 4], 0)]
    steps = tuple(Step("k", tuple(args), (position,), 1, 0, 0, "") for args, position in rows)
    explained = explain.explain_code("m", replace(code, steps=steps), "", 1)
    assert [row.readers for row in explained.rows] == [(2,), (2,), (), (4,), ()]


def test_what_the_compiler_predicted_counts() -> None:
    code = handmade.target_code()
    step = replace(code.steps[0], predicted_ns=1234, bound="texels", schedule="image 4x2")
    (row, *_) = explain.explain_code("m", replace(code, steps=(step,)), "", 1).rows
    assert (row.predicted_ns, row.bound, row.family) == (1234.0, "texels", "image")


def test_table(explanation: explain.Explanation) -> None:
    lines = list(explain.table(explanation))
    assert len(lines) == len(explanation.rows) + 3
    for word in ("MFLOP", "predicted us", "bound by", "stored because"):
        assert word in lines[0]
    assert "measured" not in lines[0]
    assert lines[-2].startswith(f"{len(explanation.rows)} kernels, ")
    # The shares of what binds are of the whole.
    assert sum(int(n) for n in re.findall(r"(\d+)%", lines[-1])) == pytest.approx(100, abs=2)


def test_table_with_times(explanation: explain.Explanation) -> None:
    timed = explanation.with_times([2000.0] * len(explanation.rows))
    lines = list(explain.table(timed))
    assert "measured us" in lines[0] and "GB/s" in lines[0]
    assert f"measured {len(timed.rows) * 0.002:.3f} ms" in lines[-2]
    share = f"{1 / len(timed.rows):.1%}"
    assert all(share in line for line in lines[1:-2])
    data = json.loads(json.dumps(explain.as_data(timed)))
    assert {kernel["measured_ns"] for kernel in data["kernels"]} == {2000.0}


def test_an_empty_program() -> None:
    empty = explain.Explanation("empty", "cpu:aarch64", 1, "", "", (), ())
    assert list(explain.table(empty))[1].startswith("0 kernels")


# Of an artifact

def test_an_artifact_and_its_graph_agree(graph: Graph) -> None:
    reader = read(tinynn.compile(graph).to_bytes())
    (target,) = reader.manifest.targets
    from_file = explain.explain_artifact(reader, target, 2)
    from_graph = explain.explain_graph(graph, "cpu", 2)
    assert replace(from_file, toolchain="") == replace(from_graph, toolchain="")


def test_functions_of_a_source() -> None:
    symbols = ["k0_scale_add", "k1_double", "k2_sum", "k3_absent"]
    functions = explain.split_functions(handmade.SOURCE, symbols)
    assert list(functions) == symbols[:3]
    assert functions["k1_double"].startswith("/* total = sum of 2 * next */\nvoid k1_double(")
    assert functions["k2_sum"].endswith("*total += twice[i];\n}")


# The command

@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    return path


def test_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(model)]) == 0
    out = capsys.readouterr().out
    assert "k1_double" in out and "x * scale + memory" in out and "measured" not in out
    assert cli.main(["explain", str(model), "--measure", "--json"]) == 0
    kernels = json.loads(capsys.readouterr().out)["kernels"]
    # The handmade driver reports 100, 101, 102 ns.
    assert [kernel["measured_ns"] for kernel in kernels] == [100, 101, 102]
    assert [kernel["flop"] for kernel in kernels] == [8, 4, 4]


def test_command_writes_a_graph(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "folder" / "page.html"
    assert cli.main(["explain", str(model), "--graph", str(page)]) == 0
    assert "k1_double" in page.read_text(encoding="utf-8")
    assert str(page) in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPH", "1")
    assert cli.main(["explain", str(model)]) == 0
    assert (tmp_path / "tinynn-graph.html").exists()


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """y = exp(relu(x))."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Exp", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "model", values[:1], values[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)
    return path


def test_command_on_a_model(onnx_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(onnx_model), "--target", "cpu:aarch64"]) == 0
    out = capsys.readouterr().out
    assert "1 kernels" in out and "cpu:aarch64" in out
    assert "| the caller | output of the graph" in out
    assert cli.main(["explain", str(onnx_model), "--measure"]) == 0
    assert "measured us" in capsys.readouterr().out
    assert cli.main(["explain", str(onnx_model), "--kernel", "0"]) == 0
    out = capsys.readouterr().out
    assert "reads      input x f32[4,8]" in out and out.rstrip().endswith("}")
    assert cli.main(["explain", str(onnx_model), "--kernel", "1"]) == 2
    assert "there is no kernel 1; it has 1" in capsys.readouterr().err


def test_compile_and_run_show_what_they_do(onnx_model: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    compiled, page, arrays = (tmp_path / name for name in ("m.tnn", "page.html", "in.npz"))
    assert cli.main(["compile", str(onnx_model), "-o", str(compiled), "--graph", str(page),
                     "--debug", "3"]) == 0
    err = capsys.readouterr().err
    assert "built by" in err and "predicted us" in err and "loops, at most" in err
    assert "measured us" not in err and "void k000" not in err
    assert '"measured":false' in page.read_text(encoding="utf-8")
    np.savez(arrays, x=np.ones((4, 8), np.float32))
    assert cli.main(["run", str(compiled), "--inputs", str(arrays), "--outputs",
                     str(tmp_path / "out.npz"), "--graph", str(page), "--debug", "2"]) == 0
    assert "measured us" in capsys.readouterr().err
    assert '"measured":true' in page.read_text(encoding="utf-8")


def test_command_errors(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(model), "--target", "cpu:none"]) == 2
    assert "it has no target cpu:none, only" in capsys.readouterr().err
    path = tmp_path / "foreign.tnn"
    path.write_bytes(handmade.artifact(threads=1).to_bytes())
    assert cli.main(["explain", str(path)]) == 0  # looking needs no trust, running does
    capsys.readouterr()
    assert cli.main(["explain", str(path), "--measure"]) == 2
    assert "tinynn trust" in capsys.readouterr().err


def test_debug_level() -> None:
    assert [explain.debug_level({"DEBUG": v}) for v in ("0", "1", "4", "5", "all", "")] == [
        0, 1, 4, 0, 0, 0]
    assert [explain.graph_wanted(env) for env in ({}, {"GRAPH": "0"}, {"GRAPH": "1"})] == [
        False, False, True]


def test_documentation_names_every_column() -> None:
    text = (DOCS / "explain.md").read_text(encoding="utf-8")
    for word in ("predicted us", "measured us", "bound by", "stored because", "tinynn diff",
                 "DEBUG", "GRAPH"):
        assert word in text
