"""The conformance suite of the onnx package: what passes, and that nothing is wrong."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tinynn.tests import conformance
from tinynn.tests.conformance import Outcome

# The counts of docs/conformance.md, for the version of onnx they were made with.
VERSION = "1.23.2"
CASES = {"node": 1884, "simple": 23, "pytorch-operator": 35, "pytorch-converted": 82}
PASSED = {"node": 1652, "simple": 15, "pytorch-operator": 35, "pytorch-converted": 82}

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return conformance.run()


def test_nothing_is_wrong(outcomes: list[Outcome]) -> None:
    assert [o for o in outcomes if o.status in ("wrong", "error")] == []


def test_as_many_pass_as_are_recorded(outcomes: list[Outcome]) -> None:
    table = conformance.counts(outcomes)
    if onnx.__version__ == VERSION:
        assert {kind: row.total() for kind, row in table.items()} == CASES
    for kind, recorded in PASSED.items():
        assert table[kind]["pass"] >= recorded, kind


def test_refusals_name_operator_and_opset(outcomes: list[Outcome]) -> None:
    refused = [o for o in outcomes if o.status == "refused"]
    assert refused
    for outcome in refused:
        assert re.search(r"opset \d+", outcome.detail), outcome
        assert re.search(r"node", outcome.detail), outcome


@pytest.mark.skipif(onnx.__version__ != VERSION, reason=f"the page is about onnx {VERSION}")
def test_the_page_is_what_the_command_writes(outcomes: list[Outcome]) -> None:
    assert PAGE.read_text(encoding="utf-8").splitlines() == conformance.report(outcomes)


def first_of_each_operator() -> Iterator[Any]:
    seen = set()
    for case in conformance.cases(["node"]):
        operator = case.model.graph.node[0].op_type
        if operator not in seen:
            seen.add(operator)
            yield case


@pytest.mark.slow
def test_machine_code_is_not_wrong_either() -> None:
    """The first case of each operator through the C backend."""
    outcomes = [conformance.run_case(case, compiled=True) for case in first_of_each_operator()]
    assert [o for o in outcomes if o.status in ("wrong", "error")] == []
    assert sum(o.status == "pass" for o in outcomes) > 150


# The harness itself

def test_differences_are_found() -> None:
    x = np.array([1, 2], np.float32)
    assert conformance.difference([x], [x], 0, 0) == ""
    assert conformance.difference([[x, x]], [[x, x]], 0, 0) == ""
    for got, message in (
            ([], "0 outputs instead of 1"),
            ([x.astype(np.float64)], "output 0: float64 (2,) instead of float32 (2,)"),
            ([x[None]], "output 0: float32 (1, 2) instead of float32 (2,)"),
            ([x + 0.01], "output 0: Mismatched elements: 2 / 2")):
        assert conformance.difference(got, [x], 1e-3, 1e-7).startswith(message)
    assert "output 0: output 1: " in conformance.difference([[x, x]], [[x, -x]], 1e-3, 1e-7)
    assert conformance.difference([x * np.nan], [x], 1e-3, 1e-7) != ""


def case_that(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A case of the suite whose model does this when it is run."""
    monkeypatch.setattr("tinynn.onnx_backend.TinynnBackendRep.run", run)
    return next(c for c in conformance.cases(["node"]) if c.name == "test_abs")


def test_other_exceptions_and_endless_cases_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, inputs: Any) -> Any:
        raise KeyError("lost")

    def hangs(self: Any, inputs: Any) -> Any:
        while True:
            pass

    outcome = conformance.run_case(case_that(fails, monkeypatch))
    assert (outcome.status, outcome.detail) == ("error", "KeyError: 'lost'")
    outcome = conformance.run_case(case_that(hangs, monkeypatch), seconds=1)
    assert (outcome.status, outcome.detail) == ("error", "TimeoutError: no result after 1 s")


def test_a_wrong_result_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def negates(self: Any, inputs: Any) -> Any:
        return [-np.abs(inputs[0])]
    assert conformance.run_case(case_that(negates, monkeypatch)).status == "wrong"


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    arguments = ["--kinds", "simple", "--filter", "sign|strnorm", "--markdown", str(page)]
    assert conformance.main(arguments) == 0
    assert "| simple | 7 | 1 | 6 | 0 | 0 |" in capsys.readouterr().out
    text = page.read_text()
    assert "StringNormalizer (ai.onnx): this operator is not supported" in text
    assert text.count("| all | 7 | 1 | 6 | 0 | 0 |") == 1
