"""Results as JUnit XML, the form in which CI systems show tests: a suite per segment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from selfdrive_tests.compare import Comparison, FieldResult, value_text
from selfdrive_tests.job import Outcome

# Characters that XML 1.0 cannot hold.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one test suite per segment: the replay, and every field of every comparison."""
    root = ElementTree.Element("testsuites", name="drive-replay")
    for outcome in outcomes:
        _suite(root, outcome)
    for element in (root, *root):
        cases = element.findall(".//testcase")
        element.set("tests", str(len(cases)))
        for kind in ("failure", "error"):
            plural = f"{kind}s"
            element.set(plural, str(sum(case.find(kind) is not None for case in cases)))
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(root: ElementTree.Element, outcome: Outcome) -> None:
    name = _clean(outcome.name)
    seconds = f"{outcome.stages.total:.3f}"
    suite = ElementTree.SubElement(root, "testsuite", name=name, time=seconds)
    replay = ElementTree.SubElement(
        suite, "testcase", classname=name, name="replay", time=seconds
    )
    if outcome.error:
        _problem(replay, "error", outcome.error)
    elif outcome.summary is not None and not outcome.summary.answered:
        _problem(replay, "failure", outcome.summary.verdict)
    for comparison in outcome.comparisons:
        _comparison(suite, name, comparison)


def _comparison(suite: ElementTree.Element, name: str, comparison: Comparison) -> None:
    group = f"{name}.{_clean(comparison.against)}"
    answered = ElementTree.SubElement(suite, "testcase", classname=group, name="answered", time="0")
    if comparison.unanswered or comparison.new:
        text = f"{len(comparison.unanswered)} frames only there, {len(comparison.new)} only here"
        _problem(answered, "failure", text)
    for claim in comparison.claims:
        case = ElementTree.SubElement(
            suite, "testcase", classname=group, name=f"precision of {claim.output}", time="0"
        )
        if not claim.holds:
            _problem(case, "failure", str(claim))
    for row in comparison.fields:
        case = ElementTree.SubElement(
            suite, "testcase", classname=group, name=row.field.name, time="0"
        )
        if row.differing:
            _problem(case, "failure", field_text(row))


def field_text(row: FieldResult) -> str:
    """What is wrong with a field, in one line."""
    largest = value_text(row.worst, row.field.unit)
    return (
        f"{row.differing} of {row.compared} frames differ; largest {largest} "
        f"at frame {row.worst_frame}, tolerance {row.field.tolerance}"
    )


def _problem(case: ElementTree.Element, kind: str, text: str) -> None:
    ElementTree.SubElement(case, kind, message=_clean(text))


def _clean(text: str) -> str:
    return NOT_XML.sub("?", text)
