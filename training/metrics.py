"""Figures that say how good a model is, from arrays of what it said and what was true."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modeld.constants import T_IDXS, X_IDXS
from modeld.parser import parse
from training.outputs import OUTPUTS, TRUTHS

Arrays = Mapping[str, np.ndarray]
EGO_LINES = slice(1, 3)
LINE_X_M = 20.0
PLAN_T_S = 2.0
LEAD_X_M = (30.0, 50.0)  # "at 40 m"
MOVING_MS = 2.0  # speeds below have no error in per cent
# What a figure must reach, as issue and data sheet state it: (figure, bound, whether at most).
GOALS = {
    "lane lines, median lateral error at 20 m, m": (0.10, True),
    "plan, median lateral error at 2 s, m": (0.15, True),
    "lane probability, area under the curve": (0.97, False),
    "lead, median distance error at 30 to 50 m, %": (10.0, True),
    "lead, average precision": (0.9, False),
    "speed, median error, %": (5.0, True),
}
WITHIN_ONE = (60.0, 76.0)  # per cent of errors within one deviation


def parsed(outputs: np.ndarray) -> dict[str, np.ndarray]:
    """(N, 2574 or more) raw vectors -> what `modeld` makes of them, (N, ...) each."""
    rows = []
    for vector in outputs:
        at, named = 0, {}
        for name, output in OUTPUTS.items():
            named[name] = vector[at:at + output.width]
            at += output.width
        rows.append(parse(named))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def at(values: np.ndarray, grid: np.ndarray, where: float) -> np.ndarray:
    """Linear interpolation over the last axis, which runs over the grid; of tensors too."""
    right = int(np.searchsorted(grid, where))
    share = (where - grid[right - 1]) / (grid[right] - grid[right - 1])
    return (1 - share) * values[..., right - 1] + share * values[..., right]


def area_under_curve(score: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a true case scores above a false one, ties counting half (Mann and Whitney)."""
    values, place = np.unique(score, return_inverse=True)
    true = np.bincount(place, truth > 0.5, len(values))
    false = np.bincount(place, truth <= 0.5, len(values))
    if not true.sum() or not false.sum():
        return float("nan")
    below = np.cumsum(false) - false
    return float((true * (below + 0.5 * false)).sum() / (true.sum() * false.sum()))


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the true cases of the precision at their score (area under precision-recall)."""
    order = np.argsort(-score, kind="stable")
    hits = truth[order] > 0.5
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def within_one(mean: np.ndarray, deviation: np.ndarray, truth: np.ndarray) -> float:
    """Per cent of the known values that lie within one deviation of the mean."""
    known = np.isfinite(truth)
    return float(100 * np.mean(np.abs(mean - truth)[known] <= deviation[known]))


def figures(said: Arrays, truth: Arrays) -> dict[str, float]:
    """All figures. said: parsed outputs. truth: as in `outputs.TRUTHS`; (N, ...) each."""
    line_error = np.abs(said["lane_lines"] - truth["lane_lines"])[:, EGO_LINES, :, 0]
    plan_error = np.abs(said["plan"] - truth["plan"])[..., 1]
    distance, here = truth["lead"][:, 0, 0, 0], truth["lead_prob"][:, 0]
    near = (here > 0.5) & (distance >= LEAD_X_M[0]) & (distance <= LEAD_X_M[1])
    lead_error = np.abs(said["lead"][:, 0, 0, 0] / np.where(near, distance, 1.0) - 1)[near]
    speed = truth["pose"][:, 0]
    moving = speed > MOVING_MS
    speed_error = np.abs(said["pose"][:, 0] / np.where(moving, speed, 1.0) - 1)[moving]
    shown = said["lane_lines_prob"][:, 1::2]
    lines = ~np.isnan(truth["lane_lines_prob"])
    leads = ~np.isnan(truth["lead_prob"][:, 0])
    values = (
        median(at(line_error, X_IDXS, LINE_X_M)), median(at(plan_error, T_IDXS, PLAN_T_S)),
        area_under_curve(shown[lines], truth["lane_lines_prob"][lines]),
        100 * median(lead_error),
        average_precision(said["lead_prob"][leads, 0], here[leads]), 100 * median(speed_error))
    table = dict(zip(GOALS, values, strict=True))
    for name, output in TRUTHS.items():
        if output.kind in ("laplace", "normal"):
            share = within_one(said[name], said[f"{name}_stds"], truth[name])
            table[f"{name}, errors within one deviation, %"] = share
    return table


def median(values: np.ndarray) -> float:
    """Median of the known values, NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def reached(figure: str, value: float) -> bool:
    """Whether a figure is as good as it must be."""
    if figure in GOALS:
        bound, at_most = GOALS[figure]
        return bool(value <= bound if at_most else value >= bound)
    return WITHIN_ONE[0] <= value <= WITHIN_ONE[1]


def table(values: Mapping[str, float]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | measured | goal | reached |", "|---|---:|---:|---|"]
    for figure, value in values.items():
        goal = f"{WITHIN_ONE[0]:g} to {WITHIN_ONE[1]:g}"
        if figure in GOALS:
            bound, at_most = GOALS[figure]
            goal = f"at {'most' if at_most else 'least'} {bound:g}"
        lines.append(f"| {figure} | {value:.3g} | {goal} | "
                     f"{'yes' if reached(figure, value) else 'no'} |")
    return "\n".join(lines) + "\n"
