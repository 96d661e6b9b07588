"""`tinynn diff`: each kind of change is told, and only it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynn
import tinynn.__main__ as cli
from tinynn import diff
from tinynn.artifact import Artifact, build
from tinynn.program import Program
from tinynn.runtime.reader import read
from tinynn.tensor import Tensor, trace
from tinynn.tests import handmade


def told(a: Artifact, b: Artifact) -> list[str]:
    return diff.differences(read(a.to_bytes()), read(b.to_bytes()))


def handmade_told(**changes: Any) -> list[str]:
    """What is told of the handmade program after a change of it."""
    return told(handmade.artifact(), handmade.artifact(handmade.program(**changes)))


def compiled(function: Callable[..., Tensor], size: int = 64) -> Artifact:
    return tinynn.compile(replace(trace(function, {"x": ("f32", (size, 64))}), name="model"))


def test_nothing() -> None:
    assert told(handmade.artifact(), handmade.artifact()) == []


def test_facts_of_the_model() -> None:
    assert handmade_told(name="other") == ['model.name: "handmade" -> "other"']
    assert handmade_told(options={"precision": "f32", "new": 1}) == [
        "model.options.new: absent -> 1"]
    assert handmade_told(metadata={"output_slices": {"first": [0, 2, None]}, "unit": "m/s²"}) == [
        "model.metadata.output_slices.first: [0, 1, null] -> [0, 2, null]"]
    assert told(handmade.artifact(), handmade.artifact(threads=2)) == ["threads: null -> 2"]


def test_values_of_plain_data() -> None:
    assert list(diff.changed_values("x", {"a": 1, "b": [1]}, {"b": [1], "c": None})) == [
        "x.a: 1 -> absent", "x.c: absent -> null"]
    assert list(diff.changed_values("x", True, 1)) == ["x: true -> 1"]
    (long,) = diff.changed_values("x", "a" * 999, "b")
    assert len(long) < 300


def with_code(**changes: Any) -> Program:
    return handmade.program(targets=(replace(handmade.target_code(), **changes),))


def test_a_weight() -> None:
    code = handmade.target_code()
    scale = np.array([1.0, 2.0, -3.0, 0.75], np.float16)
    changed = with_code(weights=(replace(code.weights[0], data=scale.tobytes()),))
    (line,) = told(handmade.artifact(), handmade.artifact(changed))
    error = 0.25 / float(np.linalg.norm(handmade.SCALE))
    assert line == (f"{handmade.HOST}: weight scale -> scale, f32[4] stored as f16: 1 of 4 values "
                    f"changed, relative difference {error:.2e}")


def test_machine_code_alone() -> None:
    wrong = handmade.machine_code(handmade.SOURCE.replace("2 * next[i]", "3 * next[i]"))
    (line,) = told(handmade.artifact(), handmade.artifact(with_code(code=wrong)))
    assert line == f"{handmade.HOST}: machine code differs though the source is the same"


def test_one_kernel_of_a_source() -> None:
    changed = with_code(source=handmade.SOURCE.replace("2 * next[i]", "3 * next[i]"))
    lines = told(handmade.artifact(), handmade.artifact(changed))
    text = "\n".join(lines)
    assert f"{handmade.HOST}: kernel k1_double -> k1_double: changed" in lines
    removed, added = (next(line for line in lines if line.startswith(f"    {sign}  for"))
                      for sign in "-+")
    assert removed.endswith("twice[i] = 2 * next[i];")
    assert added.endswith("twice[i] = 3 * next[i];")
    assert "k0_scale" not in text and "k2_sum" not in text


def test_shared_source() -> None:
    changed = with_code(source=handmade.SOURCE.replace("int64_t stopped;", "int64_t ended;"))
    text = "\n".join(told(handmade.artifact(), handmade.artifact(changed)))
    assert "source that kernels share: changed" in text and ": kernel k" not in text


def test_a_step_more() -> None:
    code = handmade.target_code()
    changed = with_code(steps=(*code.steps, replace(code.steps[2], parts=2)))
    lines = told(handmade.artifact(), handmade.artifact(changed))
    assert f"{handmade.HOST}: all steps, steps: 3 -> 4" in lines
    (step,) = [line for line in lines if "step 3" in line]
    assert step.endswith(
        "step 3 of the second: k2_sum(output total f32[1], arena f32[4]), 2 shares")


def test_targets() -> None:
    other = replace(handmade.target_code(), target="cpu:other")
    both = handmade.artifact(handmade.program(targets=(handmade.target_code(), other)))
    assert told(handmade.artifact(), both) == ["target cpu:other: only in the second"]
    assert told(both, handmade.artifact()) == ["target cpu:other: only in the first"]


def test_golden_vectors() -> None:
    vectors = handmade.golden_vectors()
    vectors[1].outputs["total"] *= 1.5
    vectors[0] = replace(vectors[0], tolerance={"next": 1e-6, "total": 1e-3})
    changed = build(handmade.program(), vectors)
    assert told(handmade.artifact(), changed) == [
        "golden run 0, output total: tolerance 1.00e-06 -> 1.00e-03",
        "golden run 1, output total: relative difference 5.00e-01"]
    assert told(handmade.artifact(), build(handmade.program(), vectors[:1])) == [
        "golden run 0, output total: tolerance 1.00e-06 -> 1.00e-03",
        "golden run with seed 1: only in the first"]


def test_compiled_models() -> None:
    """A changed constant changes one kernel; the others keep their text though not their number."""
    weight = np.random.RandomState(0).standard_normal((64, 64)).astype(np.float32)
    first = compiled(lambda x: ((x @ weight).softmax() @ weight) * 2.0)
    second = compiled(lambda x: ((x @ weight).softmax() @ weight) * 3.0)
    lines = told(first, second)
    changed = [line for line in lines if line.endswith(": changed")]
    assert len(changed) == 1 and "kernel k" in changed[0]
    assert not any(": weight " in line or ": step " in line for line in lines)
    assert any("golden run 0" in line for line in lines)
    larger = told(first, compiled(lambda x: ((x @ weight).softmax() @ weight) * 2.0, size=96))
    assert any(line.startswith("io.inputs: ") for line in larger)


def test_kernels_are_matched_by_text_label_and_family() -> None:
    old = {"k0_loops_4": "void k0_loops_4() { a; }", "k1_loops_8": "void k1_loops_8() { }",
           "k2_lanes_1": "void k2_lanes_1() { b; }"}
    new = {"k0_loops_9": "void k0_loops_9() { n; }", "k1_loops_4": "void k1_loops_4() { a; }",
           "k2_depthwise_1": "void k2_depthwise_1() { c; }"}
    lines = list(diff.kernel_changes(old, new, diff.pair_kernels(old, new)))
    assert [line for line in lines if not line.startswith(" ")] == [
        "kernel k1_loops_8 -> k0_loops_9: changed", "kernel k2_lanes_1: only in the first",
        "kernel k2_depthwise_1: only in the second"]


def test_long_changes_are_cut() -> None:
    old, new = ("\n".join(f"{letter}{i}" for i in range(50)) for letter in "ab")
    lines = list(diff.kernel_changes({"k0_a": old}, {"k0_a": new}, {"k0_a": "k0_a"}, most_lines=10))
    assert len(lines) == 12 and lines[-1] == "    ... 93 more lines"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (tmp_path / name for name in ("a.tnn", "b.tnn", "c.tnn"))
    for path in (a, b):
        path.write_bytes(handmade.artifact().to_bytes())
    c.write_bytes(handmade.artifact(handmade.program(name="other")).to_bytes())
    assert cli.main(["diff", str(a), str(b)]) == 0
    assert "are the same artifact" in capsys.readouterr().out
    assert cli.main(["diff", str(a), str(c)]) == 1
    assert capsys.readouterr().out == 'model.name: "handmade" -> "other"\n'
    assert cli.main(["diff", str(a), str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
