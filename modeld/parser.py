"""Raw named outputs -> means, standard deviations and probabilities.

Most outputs are mixture densities: means, then logarithms of standard deviations, and in older
models several hypotheses with weights. Which form an output has follows from its width.
"""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modeld import constants as c

Parsed = dict[str, np.ndarray]
_EXP_LIMIT = 11  # keeps exp within the range of float16


class ParseError(ValueError):
    """An output has a width that no layout explains."""


def safe_exp(x: np.ndarray) -> np.ndarray:
    """exp(min(x, 11))."""
    return np.exp(np.minimum(x, _EXP_LIMIT))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Elementwise logistic function."""
    return 1 / (1 + safe_exp(-x))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Exponentials of x over their sum along `axis`."""
    weights = safe_exp(x - x.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def mixture(
    name: str, raw: np.ndarray, shape: tuple[int, ...], hypotheses: int = 0, selections: int = 0,
) -> Parsed:
    """A mixture density output as `name` and `name_stds`.

    raw: (N,). shape: of the mean, with the selections as its first axis if there are several.
    Without hypotheses N = 2 n: means, then log-stds. With them each row of (hypotheses, 2 n +
    selections) ends with logits of the hypothesis, one per selection: the best is taken for each.
    All are kept as `name_hypotheses` and `name_hypotheses_stds` (hypotheses, ...) and
    `name_weights` (hypotheses, selections); with a single selection they are sorted by weight, best
    first. Raises ParseError if N does not fit.
    """
    count = int(np.prod(shape)) // max(selections, 1)
    if raw.size != (hypotheses or 1) * (2 * count + selections):
        raise ParseError(f"The model output '{name}' has {raw.size} values; they do not form "
                         f"means and deviations of shape {shape}. Its slices are wrong.")
    if not hypotheses:
        mean, log_std = raw.reshape(2, *shape)
        return {name: mean, f"{name}_stds": safe_exp(log_std)}
    table = raw.reshape(hypotheses, -1)
    weights = softmax(table[:, 2 * count:], axis=0)
    if selections == 1:
        order = np.argsort(-weights[:, 0], kind="stable")
        table, weights = table[order], weights[order]
    each = shape if selections == 1 else shape[1:]
    means = table[:, :count].reshape(hypotheses, *each)
    stds = safe_exp(table[:, count:2 * count]).reshape(hypotheses, *each)
    best = weights.argmax(axis=0)
    return {
        name: means[best].reshape(shape), f"{name}_stds": stds[best].reshape(shape),
        f"{name}_hypotheses": means, f"{name}_hypotheses_stds": stds, f"{name}_weights": weights}


_PLAN = (c.IDX_N, c.PLAN_WIDTH)
_LEAD = (c.LEADS, c.LEAD_STEPS, c.LEAD_WIDTH)
# Outputs that are densities of one shape in all models.
_DENSITIES: dict[str, tuple[int, ...]] = {
    "lane_lines": (c.LANE_LINES, c.IDX_N, c.LINE_WIDTH),
    "road_edges": (c.ROAD_EDGES, c.IDX_N, c.LINE_WIDTH),
    "pose": (c.POSE_WIDTH,), "sim_pose": (c.POSE_WIDTH,), "road_transform": (c.POSE_WIDTH,),
    "wide_from_device_euler": (c.EULER_WIDTH,),
    "desired_curvature": (1,),
    "lat_planner_solution": (c.IDX_N, 4),
    "planplus": _PLAN,
}
_PROBABILITIES = ("lane_lines_prob", "lead_prob", "meta")


def parse(named: Mapping[str, np.ndarray]) -> Parsed:
    """Parse the outputs of one run.

    named: output -> float32 vector. Result, where the model has them: plan (33, 15), lane_lines
    (4, 33, 2), road_edges (2, 33, 2), lead (3, 6, 4), pose and road_transform (6,),
    wide_from_device_euler (3,), each with `_stds`; lane_lines_prob, lead_prob, meta as
    probabilities; desire_state (8,) and desire_pred (4, 8) as distributions; others untouched.
    Raises ParseError for a width that fits no layout.
    """
    parsed: Parsed = {}
    for name, raw in named.items():
        if name == "plan":
            many = raw.size != 2 * c.IDX_N * c.PLAN_WIDTH
            parsed |= mixture(name, raw, _PLAN, *((c.PLAN_HYPOTHESES, 1) if many else ()))
        elif name == "lead":
            many = raw.size != 2 * c.LEADS * c.LEAD_STEPS * c.LEAD_WIDTH
            parsed |= mixture(name, raw, _LEAD, *((c.LEAD_HYPOTHESES, c.LEADS) if many else ()))
        elif name in _DENSITIES:
            parsed |= mixture(name, raw, _DENSITIES[name])
        elif name in _PROBABILITIES:
            parsed[name] = sigmoid(raw)
        elif name == "desire_state":
            parsed[name] = softmax(raw)
        elif name == "desire_pred":
            parsed[name] = softmax(raw.reshape(c.DESIRE_PRED_STEPS, c.DESIRE_LEN))
        else:
            parsed[name] = raw
    _check_widths(parsed)
    return parsed


_WIDTHS = {"lane_lines_prob": (2 * c.LANE_LINES,), "lead_prob": (c.LEADS,),
           "desire_state": (c.DESIRE_LEN,), "meta": tuple(c.META_LAYOUTS), "action": (4,)}


def _check_widths(parsed: Parsed) -> None:
    for name, widths in _WIDTHS.items():
        if name in parsed and parsed[name].size not in widths:
            raise ParseError(f"The model output '{name}' has {parsed[name].size} values; layouts "
                             f"with {' or '.join(map(str, widths))} are known.")
