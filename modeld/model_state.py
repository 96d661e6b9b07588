"""A driving model and its history: vectors and pictures of one frame in, named outputs out."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modeld import constants as c
from modeld import queues
from modeld.contract import Graph, Runner, describe, in_order
from modeld.parser import parse


@dataclass(frozen=True)
class ModelInputs:
    """What one run is told.

    main, extra: packed pictures (6, 128, 256) uint8 of the main and the wide view.
    desire: one-hot (8,), as long as the wish lasts. traffic_convention: one-hot (2,), second entry
    for driving on the left. lateral_control_params: speed m/s, steering delay s. action_t: lateral
    and longitudinal action time, s. Inputs the model does not have are ignored.
    """

    main: np.ndarray
    extra: np.ndarray
    desire: np.ndarray
    traffic_convention: np.ndarray
    lateral_control_params: np.ndarray
    action_t: np.ndarray


@dataclass(frozen=True)
class ModelOutputs:
    """What one run gave.

    raw: the output vectors as they came, float32, graph after graph. named: slices of them.
    finite: False if a number in outputs or state is not finite; history is then as before the run.
    """

    raw: np.ndarray
    named: dict[str, np.ndarray]
    finite: bool


class DrivingModel:
    """Runs a model of one, two or three files and keeps its queues; see `contract`.

    Raises ContractError or ParseError if the daemon cannot feed the model or read its outputs.
    """

    def __init__(
        self, model: Runner, policy: Runner | None = None, off_policy: Runner | None = None,
    ) -> None:
        self.runners = in_order(model, policy, off_policy)
        self.contract = describe(model, policy, off_policy)
        for graph in self.contract.graphs:  # widths that no layout explains are found now
            widths = {name: where.stop - where.start for name, where in graph.slices.items()}
            parse({name: np.zeros(width) for name, width in widths.items()})
        self._history: dict[str, queues.Queue] = {
            name: queues.empty(spec.length, spec.shape, spec.dtype)
            for name, spec in self.contract.queues.items()}
        self._desire = np.zeros(c.DESIRE_LEN, np.float32)

    def run(self, inputs: ModelInputs) -> ModelOutputs:
        """Run on one frame. The history moves on only if everything came out finite."""
        history = dict(self._history)
        arrays: Mapping[str, np.ndarray] = vars(inputs)
        pulse = queues.rising_edge(inputs.desire, self._desire)
        for name, row in {**arrays, "desire": pulse}.items():
            _push(history, name, row)
        raw: list[np.ndarray] = []
        named: dict[str, np.ndarray] = {}
        finite = True
        for graph, runner in zip(self.contract.graphs, self.runners, strict=True):
            results = runner(make_inputs(graph, history))
            flat = results["outputs"].astype(np.float32).reshape(-1)
            raw.append(flat)
            named.update({name: flat[where] for name, where in graph.slices.items()})
            finite = finite and bool(np.isfinite(flat).all())
            for state, output in graph.carried.items():
                finite = finite and bool(np.isfinite(results[output]).all())
                _push(history, state, results[output])
            # Policies, which run next, see the features of this frame.
            if "hidden_state" in graph.slices:
                _push(history, "features", named["hidden_state"])
        if "lat_planner_solution" in named:
            _push(history, "lat_planner_state", lateral_state(named["lat_planner_solution"]))
        if "desired_curvature" in named:
            _push(history, "curvature", named["desired_curvature"][:1])
        if finite:
            self._history, self._desire = history, inputs.desire
        return ModelOutputs(np.concatenate(raw), named, finite)


def lateral_state(solution: np.ndarray) -> np.ndarray:
    """What models of 0.9.5 are told of their last solution: (4,) float32.

    solution: (264,), means of x, y, heading and yaw rate (33, 4) over T_IDXS, then deviations.
    Position is zero, as the car is where it is; heading and yaw rate are those of one frame ahead.
    """
    means = solution[:4 * c.IDX_N].reshape(c.IDX_N, 4)
    ahead = [np.interp(c.DT_MDL, c.T_IDXS, means[:, column]) for column in (2, 3)]
    return np.array([0.0, 0.0, *ahead], np.float32)


def _push(history: dict[str, queues.Queue], name: str, row: np.ndarray) -> None:
    """Push to a queue if the model has it."""
    if name in history:
        newest = history[name][-1]
        history[name] = queues.push(history[name], row.astype(newest.dtype).reshape(newest.shape))


def make_inputs(graph: Graph, history: Mapping[str, queues.Queue]) -> dict[str, np.ndarray]:
    """The input tensors of a graph, by name, with the shapes and dtypes it declares."""
    made = {}
    for feed in graph.feeds:
        rows = [queues.take(history[name], feed.rows, feed.pool) for name in feed.queues]
        made[feed.name] = np.concatenate(rows).reshape(feed.shape).astype(feed.dtype, copy=False)
    return made
