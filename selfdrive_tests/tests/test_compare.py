"""Comparison of plans: tolerances, alignment by frame id, references, logs, JUnit XML."""

import gzip
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from messaging import LogWriter, new_message
from selfdrive_tests.compare import (
    FIELDS,
    Claim,
    CompareError,
    Tolerance,
    compare,
    moment,
    tolerances,
    worst_moments,
)
from selfdrive_tests.job import Outcome
from selfdrive_tests.junit import write_junit
from selfdrive_tests.plans import Lead, Plan
from selfdrive_tests.references import (
    read_log_plans,
    read_reference,
    reference_file,
    write_reference,
)
from selfdrive_tests.results import Summary

TIMES = 10 * (np.arange(33) / 32) ** 2
FAR = 192 * (np.arange(33) / 32) ** 2


def plan(frame_id: int, shift: float = 0.0, **changes: Any) -> Plan:
    """A car at 20 m/s whose path drifts `shift` metres per second to the right."""
    zero = np.zeros(33)
    values: dict[str, Any] = {
        "frame_id": frame_id,
        "valid": True,
        "execution_s": 0.01,
        "drop_percent": 0.0,
        "position": np.column_stack([20 * TIMES, shift * TIMES, zero]),
        "lane_lines": tuple(np.column_stack([FAR, zero + y, zero + 1.22]) for y in (-5, -2, 2, 5)),
        "lane_probabilities": (0.1, 0.9, 0.8, 0.2),
        "road_edges": (),
        "leads": (Lead(0.9, 40.0, 0.5, 18.0),),
        "curvature": 0.001,
        "acceleration": 0.2,
        "should_stop": False,
        "confidence": "green",
        "times": TIMES,
    }
    return Plan(**(values | changes))


def differing(here: Plan, there: Plan, *texts: str) -> list[str]:
    """Names of the fields in which two plans differ."""
    result = compare({0: here}, {0: moment(there)}, "that", tolerances(texts))
    return [row.field.name for row in result.fields if row.differing]


def test_values_are_what_the_plan_says() -> None:
    values = moment(plan(3, shift=0.5)).values
    # 20 m/s for 2 s, drifting 0.5 m/s; 2 s lies between two points of the path.
    assert values["forward_2s"] == pytest.approx(40, rel=1e-6)
    assert values["lateral_1s"] == pytest.approx(0.5)
    assert values["lateral_4s"] == pytest.approx(2.0)
    assert values["line_left_10m"] == -2.0 and values["line_far_left_10m"] is None
    assert values["lead_distance"] == 40.0
    assert set(values) == {item.name for item in FIELDS}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"shift": 0.049}, []),
        ({"shift": 0.051}, ["lateral_1s", "lateral_2s"]),
        ({"shift": -0.1}, ["lateral_1s", "lateral_2s", "lateral_4s"]),
        ({"curvature": 0.0014}, []),
        ({"curvature": 0.0016}, ["curvature"]),
        ({"curvature": float("nan")}, ["curvature"]),
        ({"acceleration": 0.31}, ["acceleration"]),
        ({"valid": False}, ["valid"]),
        ({"should_stop": True}, ["should_stop"]),
        ({"lane_probabilities": (0.1, 0.84, 0.8, 0.2)}, ["line_left_probability"]),
        # 0.5 m + 5 % of the greater of 40 and 42.4 m.
        ({"leads": (Lead(0.9, 42.6, 0.5, 18.0),)}, []),
        ({"leads": (Lead(0.9, 42.7, 0.5, 18.0),)}, ["lead_distance"]),
        # Where a lead is not believed in, its place is not compared, its probability is.
        ({"leads": (Lead(0.1, 99.0, 0.5, 3.0),)}, ["lead_probability"]),
        ({"leads": ()}, ["lead_probability"]),
    ],
)
def test_each_field_has_its_tolerance(changes: dict[str, Any], fields: list[str]) -> None:
    assert differing(plan(0, **changes), plan(0)) == fields
    assert differing(plan(0), plan(0, **changes)) == fields


def test_tolerances_can_be_given() -> None:
    moved = plan(0, shift=0.051)
    assert differing(moved, plan(0), "lateral_1s=0.06", "lateral_2s=ignore") == []
    assert differing(plan(0, curvature=0.001001), plan(0), "all=exact") == ["curvature"]
    # The least step of a float32 is seen by exact, nothing smaller is.
    step = float(np.nextafter(np.float32(0.2), np.float32(1)))
    assert differing(plan(0, acceleration=step), plan(0), "all=exact") == ["acceleration"]
    (field,) = (f for f in tolerances(["lead_speed=0.5+10%"]) if f.name == "lead_speed")
    assert field.tolerance == Tolerance(0.5, 0.1)


@pytest.mark.parametrize("text", ["speed=1", "curvature", "curvature=much", "curvature=-1"])
def test_wrong_tolerances_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=")[0]):
        tolerances([text])


def test_frames_are_aligned_by_their_ids() -> None:
    here: dict[int, Plan | None] = {i: plan(i, curvature=i * 0.01) for i in range(10, 30)}
    there = {i: moment(plan(i, curvature=i * 0.01)) for i in range(20)}
    result = compare(here, there, "that")
    assert result.passed and result.frames == 10
    assert result.notes == ["that lacks 10 of 20 frames."]
    shifted = {i: moment(plan(i, curvature=(i + 1) * 0.01)) for i in range(20)}
    assert len(compare(here, shifted, "that").bad) == 10
    with pytest.raises(CompareError, match=r"none of the frames 10 to 29 .* but 0 to 4"):
        compare(here, {i: there[i] for i in range(5)}, "that")


def test_frames_without_a_plan_count() -> None:
    here = {0: plan(0), 1: None, 2: plan(2), 3: None}
    there = {0: moment(plan(0)), 1: moment(plan(1)), 2: None, 3: None}
    result = compare(here, there, "that")
    assert (result.frames, result.unanswered, result.new) == (1, [1], [2])
    assert not result.passed
    assert "1 frames have no plan here" in result.verdict


def test_worst_moments_are_apart_and_sorted() -> None:
    size = {4: 0.05, 5: 0.5, 6: 0.4, 40: 0.3, 80: 0.9}
    here: dict[int, Plan | None] = {i: plan(i, curvature=size.get(i, 0.0)) for i in range(100)}
    there = {i: moment(plan(i, curvature=0.0)) for i in range(100)}
    result = compare(here, there, "that")
    assert len(result.bad) == 5
    assert [one.frame_id for one in worst_moments(result.bad)] == [80, 5, 40]
    assert [one.frame_id for one in worst_moments(result.bad, 1)] == [80]
    row = next(row for row in result.fields if row.field.name == "curvature")
    assert (row.compared, row.differing, row.worst_frame) == (100, 5, 80)
    assert row.worst == pytest.approx(0.9)


def test_results_can_be_sent_to_another_process() -> None:
    result = compare({0: plan(0, valid=False)}, {0: moment(plan(0))}, "that")
    assert pickle.loads(pickle.dumps(result)).verdict == result.verdict


def test_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    plans = {0: plan(0, curvature=1 / 3, shift=0.1), 1: None, 2: plan(2, valid=False)}
    file = reference_file(tmp_path / "refs", "drive")
    write_reference(file, plans, "drive", "toy")
    again = read_reference(file)
    assert compare(plans, again, "that", tolerances(["all=exact"])).passed
    assert again[1] is None and again[0] is not None
    # What is drawn is thinned out, and still the same road.
    drawn = again[0].plan
    assert drawn is not None
    assert drawn.position.shape == (9, 3) and drawn.position[-1] == pytest.approx([200, 1, 0])
    assert drawn.lane_probabilities == pytest.approx((0.1, 0.9, 0.8, 0.2))
    assert drawn.leads == (Lead(0.9, 40.0, 0.5, 18.0),)
    first = file.read_bytes()
    write_reference(file, plans, "drive", "toy")
    assert file.read_bytes() == first
    # Any JSON reader reads it, packed or not.
    text = gzip.decompress(first).decode()
    assert json.loads(text.splitlines()[1])["values"]["curvature"] == pytest.approx(1 / 3)
    plain = tmp_path / "plain.jsonl"
    plain.write_text(text)
    assert read_reference(plain).keys() == again.keys()


def test_reference_without_a_field_is_noted_and_the_rest_compared(tmp_path: Path) -> None:
    file = reference_file(tmp_path, "drive")
    write_reference(file, {0: plan(0)}, "drive", "toy")
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    frame = json.loads(lines[1])
    del frame["values"]["lead_speed"]
    frame["values"]["from_the_future"] = 1
    old = tmp_path / "old.jsonl"
    old.write_text(f"{lines[0]}\n{json.dumps(frame)}\n")
    result = compare({0: plan(0, valid=False)}, read_reference(old), "old")
    assert result.notes == ["old does not have lead_speed."]
    assert [row.field.name for row in result.fields if row.differing] == ["valid"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json\n", "damaged or no reference"),
        ("", "its first line does not say so"),
        ('{"format": "tinydrive reference plans", "version": 2}\n', "of version 2"),
        (
            '{"format": "tinydrive reference plans", "version": 1}\n{"frame": 1}\n',
            "has a frame that cannot be read",
        ),
        (
            '{"format": "tinydrive reference plans", "version": 1}\n{"frame": 1, "values": 3}\n',
            "has a frame that cannot be read",
        ),
    ],
)
def test_bad_references_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(CompareError, match=message):
        read_reference(file)
    write_reference(tmp_path / "whole.jsonl.gz", {0: plan(0)}, "drive", "toy")
    data = bytearray((tmp_path / "whole.jsonl.gz").read_bytes())
    data[40] ^= 0xFF
    (tmp_path / "flipped.jsonl.gz").write_bytes(data)
    with pytest.raises(CompareError, match="damaged or no reference"):
        read_reference(tmp_path / "flipped.jsonl.gz")
    with pytest.raises(CompareError, match="Write it with --update-refs"):
        read_reference(tmp_path / "missing.jsonl.gz")


def log(path: Path, version: str, offset: int, start: int) -> Path:
    """A log of 5 plans whose camera counts from `offset`; its first picture is `start`."""
    with LogWriter(path) as writer:
        first = new_message("initData", valid=True)
        first.initData.version = version
        writer.write(first)
        for i in range(5):
            index = new_message("narrowRoadEncodeIdx", valid=True)
            index.narrowRoadEncodeIdx.frameId = offset + i
            index.narrowRoadEncodeIdx.segmentId = start + i
            writer.write(index)
            message = new_message("modelV2", valid=True)
            message.modelV2.frameId = offset + i
            message.modelV2.action.desiredCurvature = i / 100
            writer.write(message)
    return path


def test_log_of_a_device_is_aligned_by_its_encoder(tmp_path: Path) -> None:
    plans = read_log_plans(log(tmp_path / "rlog.zst", "0.11", offset=7000, start=3))
    assert sorted(plans) == [3, 4, 5, 6, 7]
    assert plans[4] is not None and plans[4].plan is not None
    assert plans[4].plan.curvature == pytest.approx(0.01)


def test_log_of_a_replay_speaks_of_the_drives_frames(tmp_path: Path) -> None:
    plans = read_log_plans(log(tmp_path / "rlog.zst", "tinydrive 0.1.0", offset=100, start=0))
    assert sorted(plans) == [100, 101, 102, 103, 104]


def test_log_without_plans_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rlog.zst"
    with LogWriter(path) as writer:
        writer.write(new_message("initData", valid=True))
    with pytest.raises(CompareError, match=r"holds no plans.*\(modelV2\)"):
        read_log_plans(path)


def test_junit_counts_and_names_what_differs(tmp_path: Path) -> None:
    result = compare({0: plan(0, curvature=1.0)}, {0: moment(plan(0))}, "that\x00 log")
    result.claims += [Claim("outputs", 1e-4, 2e-4, 0, 40), Claim("features", 1e-4, 1e-5, 0, 40)]
    summary = Summary(1, 1, 1, 0, 10.0, 10.0, 0.05, 1.0)
    good = Outcome("seg--0", tmp_path, summary, [replace(result)])
    bad = Outcome("seg--1", tmp_path, error="no video <here>.", error_code=2)
    file = tmp_path / "deep" / "junit.xml"
    write_junit(file, [good, bad])
    root = ElementTree.parse(file).getroot()
    counts = [root.get(name) for name in ("tests", "failures", "errors")]
    # One case per field and claim, one for answered frames, one for each replay.
    assert counts == [str(len(FIELDS) + 5), "2", "1"]
    (broken,) = root.findall("testsuite/testcase[@name='precision of outputs']/failure")
    assert "DOES NOT HOLD: at most 2.0e-04 apart" in str(broken.get("message"))
    (failure,) = root.findall("testsuite/testcase[@name='curvature']/failure")
    assert "1 of 1 frames differ; largest 0.999 1/m" in str(failure.get("message"))
    (error,) = root.findall("testsuite[@name='seg--1']/testcase/error")
    assert error.get("message") == "no video <here>."
