"""The parser against the same arithmetic written out in float64 for small numbers."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from modeld import parser
from modeld.parser import ParseError, parse


def values(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, count).astype(np.float32)


def close(actual: np.ndarray, expected: Any) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_safe_exp_is_capped() -> None:
    close(parser.safe_exp(np.array([0, 1, 11, 12, 1000], np.float32)),
          [1, math.e, math.exp(11), math.exp(11), math.exp(11)])


def test_sigmoid_and_softmax() -> None:
    x = np.array([-1000, -2, 0, 3, 1000], np.float32)
    expected = [1 / (1 + math.exp(min(-v, 11))) for v in x.tolist()]
    close(parser.sigmoid(x), expected)
    two = parser.softmax(np.array([1000.0, 1000.0 + math.log(3)], np.float32))
    np.testing.assert_allclose(two, [0.25, 0.75], rtol=1e-4)


def test_plan_without_hypotheses() -> None:
    raw = values(990)
    parsed = parse({"plan": raw})
    assert parsed["plan"].shape == parsed["plan_stds"].shape == (33, 15)
    assert parsed["plan"][2, 3] == raw[2 * 15 + 3]
    close(parsed["plan_stds"][2, 3], math.exp(float(raw[495 + 2 * 15 + 3])))


def test_plan_with_hypotheses_takes_the_heaviest_and_sorts() -> None:
    raw = values(4955)
    table = raw.reshape(5, 991)
    table[:, 990] = [0.5, -1.0, 2.0, 1.0, 0.0]
    parsed = parse({"plan": raw})
    np.testing.assert_array_equal(parsed["plan"], table[2, :495].reshape(33, 15))
    close(parsed["plan_stds"][32, 14], math.exp(float(table[2, 989])))
    np.testing.assert_array_equal(
        parsed["plan_hypotheses"][:, 0, 0], table[[2, 3, 0, 4, 1], 0])
    logits = [2.0, 1.0, 0.5, 0.0, -1.0]
    total = sum(math.exp(v) for v in logits)
    close(parsed["plan_weights"][:, 0], [math.exp(v) / total for v in logits])


def test_leads_with_hypotheses_choose_per_lead() -> None:
    raw = values(102)
    table = raw.reshape(2, 51)
    table[:, 48:] = [[0, 3, -1], [1, 2, 5]]  # logits: leads 0 and 2 prefer the second hypothesis
    parsed = parse({"lead": raw})
    assert parsed["lead"].shape == (3, 6, 4)
    for lead, best in enumerate((1, 0, 1)):
        np.testing.assert_array_equal(parsed["lead"][lead], table[best, :24].reshape(6, 4))
        close(parsed["lead_stds"][lead], np.exp(table[best, 24:48].astype(float)).reshape(6, 4))
    weight = 1 / (1 + math.exp(1.0))  # softmax over hypotheses, not over leads
    close(parsed["lead_weights"][:, 0], [weight, 1 - weight])


def test_leads_without_hypotheses() -> None:
    raw = values(144)
    parsed = parse({"lead": raw})
    assert parsed["lead"][1, 2, 3] == raw[24 + 2 * 4 + 3]
    close(parsed["lead_stds"][1, 2, 3], math.exp(float(raw[72 + 24 + 2 * 4 + 3])))


def test_lines_have_all_means_first() -> None:
    raw = values(528)
    parsed = parse({"lane_lines": raw, "road_edges": values(264)})
    assert parsed["lane_lines"][3, 32, 1] == raw[263]
    close(parsed["lane_lines_stds"][0, 0, 0], math.exp(float(raw[264])))
    assert parsed["road_edges"].shape == (2, 33, 2)


def test_probabilities_and_distributions() -> None:
    raw = values(32)
    parsed = parse({"desire_pred": raw, "desire_state": raw[:8], "meta": values(55),
                    "lane_lines_prob": raw[:8], "lead_prob": raw[:3]})
    row = [math.exp(v) for v in raw[8:16].tolist()]
    close(parsed["desire_pred"][1], [v / sum(row) for v in row])
    np.testing.assert_allclose(parsed["desire_pred"].sum(axis=1), 1, rtol=1e-6)
    close(parsed["lead_prob"][0], 1 / (1 + math.exp(-float(raw[0]))))


def test_untouched_and_small_densities() -> None:
    raw = values(12)
    parsed = parse({"pose": raw, "hidden_state": values(512, 3), "action": values(4),
                    "wide_from_device_euler": raw[:6], "desired_curvature": raw[:2]})
    np.testing.assert_array_equal(parsed["hidden_state"], values(512, 3))
    np.testing.assert_array_equal(parsed["pose"], raw[:6])
    close(parsed["wide_from_device_euler_stds"], np.exp(raw[3:6].astype(float)))
    assert parsed["desired_curvature"].tolist() == [raw[0]]


@pytest.mark.parametrize(("name", "count"), [
    ("plan", 991), ("lead", 103), ("lane_lines", 500), ("meta", 54), ("lead_prob", 2)])
def test_wrong_width_is_named(name: str, count: int) -> None:
    with pytest.raises(ParseError, match=f"'{name}' has {count} values"):
        parse({name: values(count)})
