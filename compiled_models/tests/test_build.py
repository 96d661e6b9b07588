"""The builder: the right model goes to the compiler with the right options."""
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import onnx
import pytest

from compiled_models.build import find_recipe, main
from compiled_models.standin import build

COSTS = [{"kernels": 3, "arena_bytes": 64, "artifact_bytes": 8, "flop": 9, "predicted_us": 20},
         {"kernels": 2, "arena_bytes": 100, "artifact_bytes": 8, "flop": 7, "predicted_us": 30}]
Calls = list[tuple[Path, dict[str, Any]]]
RECIPE = """
name = "tiny"
source = "{source}"
targets = ["cpu", "cpu:aarch64"]
precision = "f32"
threads = 2
"""


class FakeArtifact:
    """Two targets; what they cost is in COSTS."""

    manifest: ClassVar = {"targets": [{"target": "cpu:best"}, {"target": "cpu:aarch64"}]}

    def to_bytes(self) -> bytes:
        return b"artifact"

    def save(self, path: Path) -> None:
        path.write_bytes(b"artifact")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand in for the compiler; collects (path, options) of every call."""
    calls: Calls = []

    def compile_model(path: Path, **options: Any) -> FakeArtifact:
        calls.append((path, options))
        options["progress"]("import", None)
        options["progress"]("import", 0.25)
        return FakeArtifact()

    fake = types.ModuleType("tinynn")
    fake.__dict__["compile"] = compile_model
    monkeypatch.setitem(sys.modules, "tinynn", fake)
    monkeypatch.setattr("compiled_models.build.costs", lambda _, position: COSTS[position])
    return calls


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(b"any bytes")
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(source="m.onnx"))
    return path


def test_build_copies_the_source_and_compiles_it(tmp_path: Path, recipe: Path, calls: Calls, capsys:
                                                 pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([str(recipe), "--out", str(out)]) == 0
    assert (out / "tiny.onnx").read_bytes() == b"any bytes"
    assert (out / "tiny.tnn").read_bytes() == b"artifact"
    [(path, options)] = calls
    assert path == out / "tiny.onnx"
    options.pop("progress")
    assert options == {"target": "cpu,cpu:aarch64", "precision": "f32", "threads": 2,
                       "state": {}, "shapes": {}}
    shown = capsys.readouterr().out
    assert "import: 0.2 s" in shown
    assert "tiny.tnn: 0.00 MB" in shown
    assert not list(out.glob("*.partial"))


def test_each_step_alone(tmp_path: Path, recipe: Path, calls: Calls) -> None:
    out = tmp_path / "out"
    assert main([str(recipe), "--out", str(out), "--step", "onnx"]) == 0
    assert not calls
    (out / "tiny.onnx").write_bytes(b"other bytes")
    assert main([str(recipe), "--out", str(out), "--step", "artifact"]) == 0
    assert (out / "tiny.onnx").read_bytes() == b"other bytes"
    assert len(calls) == 1


def test_a_standin_is_written_as_the_model_it_is(tmp_path: Path, calls: Calls) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(source="standin:driving_policy") + "[options]\nseed = 0\n")
    assert main([str(path), "--out", str(tmp_path), "--step", "onnx"]) == 0
    written = onnx.load(tmp_path / "tiny.onnx")
    assert written == build("driving_policy")


def test_errors_are_one_line_and_status_2(tmp_path: Path, recipe: Path,
                                          monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.toml")]) == 2
    fake = types.ModuleType("tinynn")

    def compile_model(path: Path, **options: Any) -> None:
        raise ValueError("the model has a node that cannot be compiled")

    fake.__dict__["compile"] = compile_model
    monkeypatch.setitem(sys.modules, "tinynn", fake)
    assert main([str(recipe), "--out", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("compiled_models.build: ")
    assert "absent.toml" in first
    assert second == "compiled_models.build: the model has a node that cannot be compiled"


def test_within_its_budget(tmp_path: Path, recipe: Path, calls: Calls) -> None:
    budget = ("[budget]\nkernels = 3\narena_bytes = 1\nartifact_bytes = 8\nflop = 9\n"
              "[budget.cpu]\narena_bytes = 2\n[budget.'cpu:best']\narena_bytes = 64\n"
              "[budget.'cpu:aarch64']\narena_bytes = 100\npredicted_us = 30\n")
    recipe.write_text(recipe.read_text() + budget)
    assert main([str(recipe), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "tiny.tnn").exists()


@pytest.mark.parametrize(("text", "words"), [
    ("[budget]\nflop = 10\nkernels = 2", "kernels is 3 for cpu:best and may be 2 (line 9)"),
    ("[budget]\n  arena_bytes=9_9", "arena_bytes is 100 for cpu:aarch64 and may be 99 (line 8)"),
    ("budget.cpu.artifact_bytes = 7", "artifact_bytes is 8 for cpu:best and may be 7 (line 7)"),
    ("budget = {'flop' = 8}", "flop is 9 for cpu:best and may be 8 (line 7)"),
    ("[budget]\nkernels = 9\n[budget.'cpu:aarch64']\nkernels = 1\npredicted_us = 29",
     "kernels is 2 for cpu:aarch64 and may be 1 (line 10); "
     "predicted_us is 30 for cpu:aarch64 and may be 29 (line 11)"),
])
def test_over_budget_is_one_line_and_writes_nothing(
        tmp_path: Path, recipe: Path, calls: Calls, capsys: pytest.CaptureFixture[str],
        text: str, words: str) -> None:
    recipe.write_text(f"{recipe.read_text()}{text}\n")
    assert main([str(recipe), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"compiled_models.build: {recipe}: over budget: {words}. Make the compiled model smaller, "
        "or raise the number in that line and say why.\n")
    assert not (tmp_path / "tiny.tnn").exists()


def test_a_recipe_can_be_named(tmp_path: Path) -> None:
    assert find_recipe("driving_policy").name == "driving_policy.toml"
    assert find_recipe("driving_policy").is_file()
    assert find_recipe("x/y.toml").as_posix() == "x/y.toml"
