"""The conformance suite of the onnx package, run through tinynn.

    python -m tinynn.tests.conformance [--kinds node simple ...] [--markdown docs/conformance.md]

Every case gives inputs and the outputs that the ONNX reference computes. A case ends as

    pass       all outputs have the right type, shape and, within the case's tolerance, values
    refused    the import says that something is not supported
    wrong      an output differs
    error      anything else: another exception, or no result in time
"""
from __future__ import annotations

import argparse
import re
import signal
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test import loader

from tinynn.onnx import UnsupportedModel
from tinynn.onnx_backend import TinynnBackend

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
STATUSES = ("pass", "refused", "wrong", "error")
SECONDS_PER_CASE = 60


@dataclass(frozen=True)
class Outcome:
    """How one case ended; `detail` says why it did not pass."""

    kind: str
    name: str
    status: str
    detail: str = ""


def cases(kinds: Sequence[str] = KINDS) -> list[Any]:
    """The test cases of the onnx package, sorted by name within each kind."""
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite overflows on purpose while it makes its data
        for kind in kinds:
            found += sorted(loader.load_model_tests(kind=kind), key=lambda case: str(case.name))
    return found


def run_case(case: Any, compiled: bool = False, seconds: int = SECONDS_PER_CASE) -> Outcome:
    """Run all data sets of a case. compiled: through machine code instead of the interpreter."""
    def ends(status: str, detail: str = "") -> Outcome:
        return Outcome(case.kind, case.name, status, detail)

    try:
        with _time_limit(seconds):
            model, data = _load(case)
            prepared = TinynnBackend.prepare(model, compiled=compiled)
            for inputs, wanted in data:
                problem = difference(prepared.run(inputs), wanted, case.rtol, case.atol)
                if problem:
                    return ends("wrong", problem)
    except UnsupportedModel as error:
        return ends("refused", str(error))
    except Exception as error:  # whatever it is, it is an outcome of this case
        return ends("error", f"{type(error).__name__}: {error}")
    return ends("pass")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds; only in the main thread."""
    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"no result after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _load(case: Any) -> tuple[Any, list[tuple[list[Any], list[Any]]]]:
    """The model, and per data set its inputs and wanted outputs."""
    if case.model is not None:
        return case.model, [([_plain(v) for v in inputs], [_plain(v) for v in wanted])
                            for inputs, wanted in case.data_sets]
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    return model, [(_stored(data, "input", model.graph.input),
                    _stored(data, "output", model.graph.output))
                   for data in sorted(folder.glob("test_data_set*"))]


def _plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _stored(folder: Path, prefix: str, declared: Any) -> list[Any]:
    """The values in files prefix_0.pb, prefix_1.pb, ..."""
    values = []
    for i in range(len(list(folder.glob(f"{prefix}_*.pb")))):
        data = (folder / f"{prefix}_{i}.pb").read_bytes()
        if declared[i].type.HasField("sequence_type"):
            values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
        elif declared[i].type.HasField("optional_type"):
            values.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
        else:
            values.append(numpy_helper.to_array(onnx.TensorProto.FromString(data)))
    return values


def difference(got: Sequence[Any], wanted: Sequence[Any], rtol: float, atol: float) -> str:
    """What is wrong with the outputs; "" if nothing. The rules of the onnx package's own runner."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs instead of {len(wanted)}"
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if isinstance(b, (list, tuple)):
            problem = difference(a, b, rtol, atol)
        else:
            problem = _array_difference(np.asarray(a), np.asarray(b), rtol, atol)
        if problem:
            return f"output {i}: {problem}"
    return ""


def _array_difference(a: Any, b: Any, rtol: float, atol: float) -> str:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {a.shape} instead of {b.dtype} {b.shape}"
    if a.dtype.name == "bfloat16":
        # numpy compares only its own floats; two units in the last place, as the onnx runner.
        a, b, rtol = a.astype(np.float32), b.astype(np.float32), max(rtol, 2**-6)
    try:
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    except AssertionError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "; ".join(lines[1:4])
    return ""


def run(kinds: Sequence[str] = KINDS, pattern: str = "", compiled: bool = False,
        progress: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """All cases of these kinds whose name matches the pattern."""
    outcomes = []
    for case in cases(kinds):
        if re.search(pattern, case.name):
            outcomes.append(run_case(case, compiled))
            progress(outcomes[-1])
    return outcomes


def counts(outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
    """Kind -> status -> number of cases."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        rows[outcome.kind][outcome.status] += 1
    return dict(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a case is wrong or ends in an error."""
    parser = argparse.ArgumentParser(prog="python -m tinynn.tests.conformance",
                                     description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--filter", default="", metavar="REGEX", help="only cases so named")
    parser.add_argument("--compiled", action="store_true",
                        help="through machine code (minutes), not the interpreter")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there")
    options = parser.parse_args(arguments)

    def show(outcome: Outcome) -> None:
        if outcome.status in ("wrong", "error"):
            print(f"{outcome.status}: {outcome.kind} {outcome.name}: {outcome.detail}")

    outcomes = run(options.kinds, options.filter, options.compiled, show)
    print("\n".join(table(outcomes)))
    if options.markdown:
        options.markdown.write_text("\n".join(report(outcomes)) + "\n", encoding="utf-8")
    return int(any(outcome.status in ("wrong", "error") for outcome in outcomes))


# The report

def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Counts per kind as a Markdown table."""
    rows = counts(outcomes)
    lines = ["| kind | cases | " + " | ".join(STATUSES) + " |", "|---|" + "---:|" * 5]
    for kind, row in rows.items():
        numbers = [row.total(), *(row[status] for status in STATUSES)]
        lines.append(f"| {kind} | " + " | ".join(map(str, numbers)) + " |")
    every = Counter(outcome.status for outcome in outcomes)
    numbers = [every.total(), *(every[status] for status in STATUSES)]
    return [*lines, "| all | " + " | ".join(map(str, numbers)) + " |"]


def reason(detail: str) -> str:
    """What a refusal is about, without names and numbers of the single case."""
    lines = detail.splitlines()
    if len(lines) > 1:  # the list of all nodes that have no lowering
        found = {re.sub(r"^\s*(.*?), node '.*', domain '(.*)', opset \d+: (.*)$", r"\1 (\2): \3", x)
                 for x in lines if ", node '" in x}
        return "; ".join(sorted(found))
    where = r"(the|node) .*?\b(\w+)( node that makes '.*?'|\)), opset \d+"
    text = re.sub(rf"^{where}: ", r"\2: ", detail)
    text = re.sub(rf"; {where}, reads it", "", text)
    return re.sub(r"^(initialiser|input) '.*?':? ", "", text)


def report(outcomes: Sequence[Outcome]) -> list[str]:
    """The Markdown of docs/conformance.md: the same text for the same outcomes."""
    groups: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status != "pass":
            groups[f"{outcome.status}: {reason(outcome.detail)}"].append(outcome.name)
    lines = [
        "# Conformance", "",
        f"The test suite of onnx {onnx.__version__}, run by `python -m tinynn.tests.conformance "
        "--markdown docs/conformance.md`, which writes this page. The reference interpreter "
        "computes; `--compiled` does the same through machine code. Inputs that the import needs "
        "as constants (shapes, axes, trip counts) are made constants.", "", *table(outcomes), "",
        "## What does not pass", "", "| cases | reason | for example |", "|---:|---|---|"]
    for text, names in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"| {len(names)} | {text.replace('|', '/')} | {min(names)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
