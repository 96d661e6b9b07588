"""Figures against numbers worked out by hand."""
import numpy as np
import pytest

from modeld.constants import T_IDXS, X_IDXS
from training.metrics import (
    area_under_curve,
    at,
    average_precision,
    figures,
    parsed,
    reached,
    table,
    within_one,
)
from training.outputs import LENGTH, OUTPUTS, PAD, TRUTHS, output_slices


def test_slices_are_those_of_the_published_contract() -> None:
    slices = output_slices()
    known = {"meta": (0, 55), "pose": (87, 99), "lane_lines": (117, 645), "lead": (917, 1061),
             "hidden_state": (1064, 1576), "plan": (1576, 2566), "desire_state": (2566, 2574)}
    assert {name: (slices[name].start, slices[name].stop) for name in known} == known
    assert slices["pad"] == slice(-2, None)
    assert LENGTH == 2576


def test_interpolation_is_exact_for_lines() -> None:
    assert at(3 * X_IDXS + 1, X_IDXS, 20.0) == pytest.approx(61)
    assert at(2 * T_IDXS, T_IDXS, 2.0) == pytest.approx(4)


def test_area_under_curve_counts_pairs() -> None:
    score, truth = np.array([0.9, 0.8, 0.8, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert area_under_curve(score, truth) == pytest.approx(3.5 / 4)


def test_average_precision_of_a_known_ranking() -> None:
    score, truth = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert average_precision(score, truth) == pytest.approx((1 + 2 / 3) / 2)


def test_within_one_leaves_out_what_is_not_known() -> None:
    truth = np.array([0.5, -0.5, 3.0, np.nan])
    assert within_one(np.zeros(4), np.ones(4), truth) == pytest.approx(200 / 3)


def test_figures_of_a_model_that_errs_by_known_amounts() -> None:
    random = np.random.RandomState(0)
    frames = 40
    truth = {name: random.normal(size=(frames, *output.shape)) for name, output in TRUTHS.items()}
    truth["lane_lines_prob"] = random.randint(0, 2, (frames, 4)).astype(float)
    truth["lead_prob"] = np.tile(random.randint(0, 2, (frames, 1)), (1, 3)).astype(float)
    truth["lead"][..., 0] = 40.0
    truth["pose"][:, 0] = 20.0
    vectors = np.zeros((frames, LENGTH))
    slices = output_slices()
    for name, output in OUTPUTS.items():
        if output.kind in ("laplace", "normal"):
            flat = truth[name].reshape(frames, -1)
            error = {"lane_lines": 0.05, "plan": 0.25}.get(name, 0.0)
            factor = {"lead": 1.04, "pose": 0.98}.get(name, 1.0)
            vectors[:, slices[name]] = np.concatenate([factor * flat + error, 0 * flat], axis=1)
    vectors[:, slices["lane_lines_prob"]][:, 1::2] = 8 * truth["lane_lines_prob"] - 4
    vectors[:, slices["lead_prob"]] = 8 * truth["lead_prob"] - 4
    values = figures(parsed(vectors), truth)
    expected = [0.05, 0.25, 1.0, 4.0, 1.0, 2.0]
    assert [*values.values()][:6] == pytest.approx(expected)
    assert values["plan, errors within one deviation, %"] == 100
    assert [reached(name, value) for name, value in values.items()][:3] == [True, False, True]
    assert table(values).count("\n") == 2 + len(values)
    assert PAD == 2
