"""The `tinynn` command on artifacts: output, exit status, one sentence per error."""
from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinynn.__main__ as cli
from tinynn.tests import handmade

X = np.array([1.0, -2.0, 3.0, 4.0], dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A trusted artifact on disk."""
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An artifact nobody has vouched for."""
    path = tmp_path / "foreign.tnn"
    path.write_bytes(handmade.artifact().to_bytes())
    return path


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that this command line is answered with."""
    assert cli.main([str(arg) for arg in argv]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tinynn: "), captured.err
    return lines[0]


def test_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", x=X)
    out = tmp_path / "out"  # written under exactly this name
    assert cli.main(["run", str(model), "--inputs", str(tmp_path / "in.npz"),
                     "--outputs", str(out)]) == 0
    with np.load(out) as written:
        want = handmade.expected(X, np.zeros(4))
        assert sorted(written.files) == ["total"]  # next is the state
        np.testing.assert_allclose(written["total"], want["total"], rtol=1e-6)
    assert f"{out}: total" in capsys.readouterr().out


def test_outputs_may_have_any_name(tmp_path: Path) -> None:
    arrays = {"file": X, "a/b": X[:1], "allow_pickle": X[:2]}
    for name in ("one.npz", "two.npz"):
        cli.save_arrays(tmp_path / name, arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = cli.load_arrays(tmp_path / "one.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_inputs_that_are_not_plain_arrays(model: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.npz"

    def answer() -> str:
        return refused(capsys, "run", model, "--inputs", path, "--outputs", tmp_path / "out.npz")

    path.write_bytes(pickle.dumps({"x": X}))
    assert "not an .npz archive of plain arrays" in answer()
    np.savez(path, x=np.array([{"an": "object"}], dtype=object))
    assert "not an .npz archive of plain arrays" in answer()
    path.write_bytes(b"PK\x03\x04 truncated")
    assert "not an .npz archive of plain arrays" in answer()
    with path.open("wb") as file:
        np.save(file, X)
    assert "not an .npz archive of plain arrays" in answer()
    path.unlink()
    assert "in.npz: No such file or directory" in answer()
    np.savez(path, y=X)
    assert "missing ['x'], unexpected ['y']" in answer()


def test_verify(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(model)]) == 0
    out = capsys.readouterr().out
    assert "structure and hashes are sound" in out and "golden vectors agree" in out
    rows = [line.split() for line in out.splitlines() if line.split()[0] in ("0", "1")]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("0", "ok", "next"), ("0", "ok", "total"), ("1", "ok", "next"), ("1", "ok", "total")]


def test_verify_of_wrong_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = handmade.SOURCE.replace("2 * next[i]", "3 * next[i]")
    code = handmade.target_code(code=handmade.machine_code(wrong))
    path = tmp_path / "model.tnn"
    handmade.artifact(handmade.program(targets=(code,))).save(path)
    assert cli.main(["verify", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("WRONG") == 2 and "differ from the golden" in captured.err


def test_damage(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    for command in ("verify", "inspect", "trust", "bench"):
        line = refused(capsys, command, model)
        assert str(model) in line and "(golden)" in line
    model.write_bytes(data[:5000])
    assert "truncated" in refused(capsys, "verify", model)


def test_trust(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "verify", foreign)
    assert line.endswith(f"tinynn trust {foreign}")
    assert cli.main(["verify", str(foreign), "--trust"]) == 0
    capsys.readouterr()
    assert refused(capsys, "verify", foreign) == line  # --trust leaves nothing behind
    assert cli.main(line.rpartition("tinynn ")[2].split()) == 0
    assert "trusted from now on" in capsys.readouterr().out
    assert cli.main(["verify", str(foreign)]) == 0


def test_inspect_artifact(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking needs no trust."""
    assert cli.main(["inspect", str(foreign)]) == 0
    captured = capsys.readouterr()
    for words in ("handmade", "input       x f32[4]", "state       memory f32[4] <- next",
                  "output      total f32[1]", "slice       first [0, 1, null]",
                  'metadata    unit "m/s', "section     weights", handmade.HOST, "3 steps",
                  "k1_double", "x * scale + memory"):
        assert words in captured.out
    assert captured.err == ""


def test_debug_levels(model: Path, capsys: pytest.CaptureFixture[str],
                      monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [f"target {handmade.HOST}", "GFLOPS", "at most 4 shares", "#include <stdint.h>"]
    for level in range(5):
        assert cli.main(["verify", str(model), "--debug", str(level)]) == 0
        err = capsys.readouterr().err
        assert [mark in err for mark in marks] == [level > i for i in range(4)]
    monkeypatch.setenv("DEBUG", "2")
    cli.main(["verify", str(model)])
    assert "GFLOPS" in capsys.readouterr().err
    cli.main(["verify", str(model), "--debug", "0"])
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("DEBUG", "other-program:*")
    assert cli.main(["verify", str(model)]) == 0
    assert capsys.readouterr().err == ""


def test_debug_of_a_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inspect", str(model), "--debug", "4"])
    err = capsys.readouterr().err
    assert "k2_sum" in err and "#include <stdint.h>" in err


def test_bench(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(model), "--runs", "7", "--threads", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    timing = result["engines"]["tinynn"]["threads"]["1"]
    assert timing["runs"] == 7
    assert 0 < timing["min_ms"] <= timing["median_ms"] <= timing["p99_ms"]
    assert timing["peak_nbytes"] > 1 << 20
    assert cli.main(["bench", str(model), "--runs", "2"]) == 0
    heading, ours, note = capsys.readouterr().out.splitlines()
    cores = min(2, len(os.sched_getaffinity(0)))
    columns = ["1", "thread", "p99", "2", "threads", "p99"]
    assert heading.split()[2:2 + 3 * cores] == columns[:3 * cores]
    assert ours.startswith("tinynn") and note.startswith("Medians in ms; f32")


def test_bench_of_a_model_that_is_not_the_artifacts(
        model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    assert "bad.onnx: this is not the model" in refused(capsys, "bench", model, "--against", bad)


def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = tmp_path / "none"
    for command in ("verify", "inspect", "trust", "bench"):
        assert "No such file" in refused(capsys, command, none)


def test_traceback_only_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path / "none"), "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [
    ["compile", "m.onnx", "-o", "m.tnn", "--shape", "x"],
    ["compile", "m.onnx", "-o", "m.tnn", "--shape", "x=1x-3"],
    ["compile", "m.onnx", "-o", "m.tnn", "--state", "x="],
    ["bench", "m.tnn", "--runs", "0"], ["verify", "m.tnn", "--debug", "5"], []])
def test_wrong_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        cli.main(argv)
    assert status.value.code == 2
    assert "usage: tinynn" in capsys.readouterr().err


def test_options_with_values() -> None:
    args = cli._parser().parse_args(["compile", "m.onnx", "-o", "m.tnn", "--shape", "a=b=1x3x8",
                                     "--shape", "c=4", "--state", "x=y"])
    assert dict(args.shape) == {"a=b": (1, 3, 8), "c": (4,)}
    assert args.state == [("x", "y")]


def test_threads_of_the_command_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "threads is 0" in refused(capsys, "verify", model, "--threads", "0")


def test_a_machine_without_this_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = "cpu:x86-64-v3" if handmade.HOST == "cpu:aarch64" else "cpu:aarch64"
    code = replace(handmade.target_code(), target=foreign)
    path = tmp_path / "model.tnn"
    handmade.artifact(handmade.program(targets=(code,))).save(path)
    assert f"compiled for {foreign}" in refused(capsys, "verify", path)
    assert cli.main(["inspect", str(path)]) == 0


def test_as_a_process(model: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tinynn", "verify", str(model)],
                          capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "golden vectors agree" in done.stdout
