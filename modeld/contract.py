"""What a model wants and gives, read from its input names, shapes and metadata.

Models of every generation since 0.8 are brought to one form: a list of `Feed`s per graph (which
rows of which queue make an input) and named slices of its output. Nothing else in the daemon knows
about generations. What is not known by name and shape is refused, never guessed.

How the generations are told apart:

- Step of the history. Feature histories of 99 or 100 rows are at 20 Hz, those of 24, 25, 32 rows at
  5 Hz (every fourth run).
- Step of the pictures. Since March 2025 models see the pictures of 4 runs ago and of this run;
  those are the models with a history at 5 Hz, but for single files with inputs named `input_imgs`,
  which are older. All others see the pictures of the previous and of this run.
- Whether the current features are among the rows: in a policy, which runs behind its vision model,
  yes; in a single file, which computes them itself, no.
- `initial_state` (GRU) and `state_x` with an output `next_state_x`: fed back from run to run.
- `lat_planner_state` (0.9.5) follows from the solution that the run before put out.
- How an action follows from the plan changed with the releases; see `_era`.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modeld.constants import CONTEXT_STRIDE, DESIRE_LEN, PICTURE_SHAPE


class Spec(Protocol):
    """Name, dtype ("f32", "f16", "u8") and shape of a tensor at the border of a model."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Runner(Protocol):
    """A loaded model, as `tinynn.load` gives it; target: what it runs on now."""

    target: str

    @property
    def inputs(self) -> Mapping[str, Spec]: ...
    @property
    def outputs(self) -> Mapping[str, Spec]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class ContractError(ValueError):
    """The model asks for something, or lacks something, so that the daemon cannot run it."""


@dataclass(frozen=True)
class Feed:
    """How one model input is made.

    queues: their names; the rows taken from each are stacked one behind the other.
    rows: negative positions in the queue, -1 is the newest. pool: maximum over so many rows.
    shape, dtype: of the input.
    """

    name: str
    queues: tuple[str, ...]
    rows: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    pool: int = 1


@dataclass(frozen=True)
class QueueSpec:
    """A queue of `length` rows, each of `shape` and `dtype`."""

    length: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Graph:
    """One model file: its inputs, where its outputs lie, which outputs are fed back.

    slices: name -> range of the flat output `outputs`. carried: state queue -> output.
    """

    feeds: tuple[Feed, ...]
    slices: dict[str, slice]
    carried: dict[str, str]


@dataclass(frozen=True)
class Contract:
    """The whole model: one graph; vision and policy; or vision, off-policy and on-policy.

    The graphs run in this order. Where two have an output of the same name, the later one counts.

    era: "direct", "0.9", "0.10" or "0.11", the rules of `action`.
    """

    graphs: tuple[Graph, ...]
    queues: dict[str, QueueSpec]
    era: str


# Inputs without history, and their widths; the queue has the name of the input.
VECTORS = {"traffic_convention": 2, "lateral_control_params": 2, "action_t": 2,
           "lat_planner_state": 4}
# Inputs that are known to be fed zeros: navigation, gone since April 2024.
ZEROS = {"nav_features": (1, 256), "nav_instructions": (1, 150)}
# Inputs that are known by name, but not well enough to feed them.
UNKNOWN = {
    "driving_style": "whose values are not known (December 2022 to January 2024)",
    "radar_tracks": "whose layout is not known (one experimental model)",
}
PICTURES = {
    "input_imgs": ("main",), "img": ("main",), "big_input_imgs": ("extra",), "big_img": ("extra",),
    "new_img": ("main", "extra"),
}
# Rows of a history input -> runs from one row to the next, or runs pooled into one row.
FEATURE_STRIDE = {99: 1, 100: 1, 24: CONTEXT_STRIDE, 25: CONTEXT_STRIDE, 32: CONTEXT_STRIDE}
DESIRE_POOL = {100: 1, 25: CONTEXT_STRIDE, 33: CONTEXT_STRIDE}
CURVATURE_STRIDE = {100: 1, 25: CONTEXT_STRIDE}
DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "u8": np.dtype(np.uint8)}
_STATE = "state_"
_TITLES = {1: ("model",), 2: ("vision model", "policy model"),
           3: ("vision model", "off-policy model", "on-policy model")}
_F32 = np.dtype(np.float32)


def in_order(
    model: Runner, policy: Runner | None = None, off_policy: Runner | None = None,
) -> tuple[Runner, ...]:
    """The files of a model in the order in which they run."""
    return tuple(runner for runner in (model, off_policy, policy) if runner is not None)


def describe(
    model: Runner, policy: Runner | None = None, off_policy: Runner | None = None,
) -> Contract:
    """The contract of a model file, of a vision file with its policy, or of all three files.

    Raises ContractError, naming the input or output that does not fit.
    """
    titles = _TITLES[len(in_order(model, policy, off_policy))]
    graphs = [_Builder(runner, title, len(titles) == 1) for runner, title
              in zip(in_order(model, policy, off_policy), titles, strict=True)]
    _check_outputs(graphs)
    stride = _picture_stride(graphs)
    built = tuple(graph.build(stride) for graph in graphs)
    return Contract(built, _queues(graphs, built), _era(graphs))


def _picture_stride(graphs: list[_Builder]) -> int:
    """Runs between the two pictures that a model sees."""
    if len(graphs) == 1 and "input_imgs" in graphs[0].inputs:
        return 1
    lengths = [graph.feature_rows() for graph in graphs]
    return next((FEATURE_STRIDE[rows] for rows in lengths if rows), 1)


def _check_outputs(graphs: list[_Builder]) -> None:
    first, last = graphs[0], graphs[-1]
    if not any("plan" in graph.slices for graph in graphs):
        hint = "" if len(graphs) > 1 else " If it is a vision model, give its policy with --policy."
        raise ContractError(f"The {last.title} has no output 'plan', so nothing to drive by.{hint}")
    wants_features = any(graph.feature_rows() or "initial_state" in graph.inputs
                         for graph in graphs)
    if wants_features and "hidden_state" not in first.slices:
        raise ContractError(f"The {first.title} has no output 'hidden_state', but its features "
                            "are wanted as an input.")
    if "lat_planner_state" in first.inputs and "lat_planner_solution" not in first.slices:
        raise ContractError("The input 'lat_planner_state' is wanted, but there is no output "
                            "'lat_planner_solution' to take it from.")
    wants_curvature = any("prev_desired_curv" in graph.inputs for graph in graphs)
    if wants_curvature and "desired_curvature" not in last.slices:
        raise ContractError("The input 'prev_desired_curv' is wanted, but there is no output "
                            "'desired_curvature' to take it from.")


def _queues(graphs: list[_Builder], built: tuple[Graph, ...]) -> dict[str, QueueSpec]:
    """Every queue that some feed reads, as long as the farthest row read."""
    queues: dict[str, QueueSpec] = {}
    for graph, done in zip(graphs, built, strict=True):
        for feed in done.feeds:
            for name in feed.queues:
                shape, dtype = graph.row(name, feed)
                length = -min(feed.rows)
                if name in queues:
                    if queues[name].shape != shape:
                        raise ContractError(
                            f"The {graph.title} wants '{feed.name}' in rows of {shape}, another "
                            f"input wants them as {queues[name].shape}.")
                    length = max(length, queues[name].length)
                queues[name] = QueueSpec(length, shape, dtype)
    features = queues.get("features")
    if features:
        hidden = graphs[0].slices["hidden_state"]
        if math.prod(features.shape) != hidden.stop - hidden.start:
            raise ContractError(f"'hidden_state' has {hidden.stop - hidden.start} values, but rows "
                                f"of the features input have {math.prod(features.shape)}.")
    return queues


def _era(graphs: list[_Builder]) -> str:
    """Which rules turn the plan into an action.

    "0.11": models that get action_t (0.11.2 and later). "0.10": vision and policies with inputs
    named `img`. "0.9": vision and policy with inputs named `input_imgs`. "direct": single files
    with a `desired_curvature` output, which is used as it is. Older single files count as "0.9".
    """
    names = {name for graph in graphs for name in graph.inputs}
    if "action_t" in names or "new_img" in names:
        return "0.11"
    if "img" in names:
        return "0.10"
    return "direct" if len(graphs) == 1 and "desired_curvature" in graphs[0].slices else "0.9"


class _Builder:
    """Reads one model file; `title` names it in errors."""

    def __init__(self, runner: Runner, title: str, single: bool) -> None:
        self.title = title
        self.single = single
        self.inputs = runner.inputs
        self.outputs = runner.outputs
        if "outputs" not in self.outputs:
            raise ContractError(f"The {title} has no output tensor 'outputs'; it has "
                                f"{_names(self.outputs)}. It is not a driving model.")
        length = math.prod(self.outputs["outputs"].shape)
        self.slices = read_slices(runner.metadata.get("output_slices"), length, title)

    def feature_rows(self) -> int:
        """Rows of the features input, 0 if there is none."""
        if "features_buffer" not in self.inputs:
            return 0
        shape = self.inputs["features_buffer"].shape
        rows = shape[1] if len(shape) >= 3 and shape[0] == 1 else 0
        if rows not in FEATURE_STRIDE:
            raise self.refusal("features_buffer", f"{sorted(FEATURE_STRIDE)} rows of features")
        if (rows in (25, 100)) == self.single:
            place = "past rows only" if self.single else "the current row too"
            raise self.refusal("features_buffer", f"{place}, hence "
                               f"{'99, 24 or 32' if self.single else '100 or 25'} rows")
        return rows

    def refusal(self, name: str, wanted: str) -> ContractError:
        spec = self.inputs[name]
        return ContractError(f"The {self.title} has the input '{name}' with shape "
                             f"{tuple(spec.shape)} and dtype {spec.dtype}; expected {wanted}.")

    def build(self, stride: int) -> Graph:
        feeds = tuple(self.feed(name, stride) for name in self.inputs)
        carried = {name: f"next_{name}" for name in self.inputs if name.startswith(_STATE)}
        return Graph(feeds, self.slices, carried)

    def feed(self, name: str, stride: int) -> Feed:
        """The feed of one input. Raises ContractError if the daemon has nothing to feed it with."""
        spec = self.inputs[name]
        if spec.dtype not in DTYPES:
            raise self.refusal(name, f"dtype {', '.join(DTYPES)}")
        shape = tuple(spec.shape)
        dtype = DTYPES[spec.dtype]

        def feed(queue: str | tuple[str, ...], rows: Iterable[int] = (-1,), pool: int = 1) -> Feed:
            names = (queue,) if isinstance(queue, str) else queue
            return Feed(name, names, tuple(rows), shape, dtype, pool)

        if name in PICTURES:
            rows = (-1,) if name == "new_img" else (-1 - stride, -1)
            wanted = (2, *PICTURE_SHAPE) if name == "new_img" else (1, 12, *PICTURE_SHAPE[1:])
            if shape != wanted:
                raise self.refusal(name, f"shape {wanted}")
            return feed(PICTURES[name], rows)
        if name == "features_buffer":
            return feed("features", self.strided(name, FEATURE_STRIDE, current=not self.single))
        if name == "prev_desired_curv":
            queue = "zeros/prev_desired_curv" if self.curvature_unused() else "curvature"
            return feed(queue, self.strided(name, CURVATURE_STRIDE, current=True))
        if name in ("desire", "desire_pulse"):
            return self.desire(name, feed)
        if name in VECTORS:
            if shape != (1, VECTORS[name]):
                raise self.refusal(name, f"shape {(1, VECTORS[name])}")
            return feed(name)
        if name in UNKNOWN:
            raise ContractError(f"The {self.title} has the input '{name}' {shape}, {UNKNOWN[name]}."
                                " This daemon does not run such models.")
        if name in ZEROS:
            if shape != ZEROS[name]:
                raise self.refusal(name, f"shape {ZEROS[name]}")
            return feed(f"zeros/{name}")
        if name == "initial_state":
            return feed("features")
        if name.startswith(_STATE):
            return self.state(name, feed)
        raise ContractError(
            f"The {self.title} has the input '{name}' {shape}, which this daemon cannot feed. It "
            f"knows {_names([*PICTURES, 'features_buffer', 'desire', 'desire_pulse', *VECTORS])}, "
            f"prev_desired_curv, {_names(ZEROS)}, initial_state and state_*.")

    def strided(self, name: str, strides: dict[int, int], current: bool) -> range:
        """Rows of an evenly spaced history, oldest first.

        With the newest row in the queue (`current`) it is the last one taken; without, the row one
        step further back is.
        """
        shape = self.inputs[name].shape
        if len(shape) < 3 or shape[1] not in strides:
            raise self.refusal(name, f"shape (1, rows, width) with {sorted(strides)} rows")
        count, stride = shape[1], strides[shape[1]]
        newest = -1 if current else -stride
        return range(newest - stride * (count - 1), newest + 1, stride)

    def curvature_unused(self) -> bool:
        """From 0.10.0 on policies, which leave the leads to the vision model, are fed zeros."""
        return not self.single and "lead" not in self.slices

    def desire(self, name: str, feed: Any) -> Feed:
        """A pulse (8,) or (1, 8), or its history in windows (1, windows, 8)."""
        shape = tuple(self.inputs[name].shape)
        if shape in ((DESIRE_LEN,), (1, DESIRE_LEN)):
            return feed("desire")
        if len(shape) != 3 or shape[2] != DESIRE_LEN or shape[1] not in DESIRE_POOL:
            raise self.refusal(name, f"(8,), (1, 8) or (1, n, 8) with n of {sorted(DESIRE_POOL)}")
        pool = DESIRE_POOL[shape[1]]
        return feed("desire", range(-pool * shape[1], 0), pool)

    def state(self, name: str, feed: Any) -> Feed:
        after = self.outputs.get(f"next_{name}")
        spec = self.inputs[name]
        if after is None or (tuple(after.shape), after.dtype) != (tuple(spec.shape), spec.dtype):
            raise self.refusal(name, f"an output 'next_{name}' of the same shape and dtype")
        return feed(name)

    def row(self, queue: str, feed: Feed) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of the rows of a queue that `feed` reads."""
        if queue in ("main", "extra"):
            return PICTURE_SHAPE, np.dtype(np.uint8)
        if queue.startswith(_STATE):
            return feed.shape, feed.dtype
        rows = len(feed.rows) // feed.pool
        return (math.prod(feed.shape) // rows,), _F32


def read_slices(table: Any, length: int, title: str) -> dict[str, slice]:
    """Metadata `output_slices`, name -> [start, stop, step], as ranges of a vector of `length`.

    Open and negative ends are resolved. `meta` of 80 values (0.8) is split into `meta` and
    `desire_pred`. Raises ContractError for a missing table, a slice outside the output, or a step.
    """
    if not isinstance(table, Mapping) or not table:
        raise ContractError(
            f"The {title} carries no metadata 'output_slices', so its {length} outputs have no "
            "names. Compile it from an ONNX file that has them.")
    slices = {}
    for name, ends in table.items():
        try:
            start, stop, step = ends
            inside = all(end is None or -length <= end <= length for end in (start, stop))
            where = range(length)[slice(start, stop, step)]
        except (TypeError, ValueError):
            raise ContractError(f"The {title} has a malformed output slice '{name}': {ends!r}; "
                                "expected [start, stop, step].") from None
        if not inside or step not in (None, 1) or (not where and name != "pad"):
            raise ContractError(
                f"The {title} names the output slice '{name}' = [{start}:{stop}:{step}], which "
                f"does not fit its output of {length} values. The model file is inconsistent.")
        slices[name] = slice(where.start, where.stop)
    meta = slices.get("meta")
    if meta and meta.stop - meta.start == 80:
        slices["meta"] = slice(meta.start, meta.start + 48)
        slices["desire_pred"] = slice(meta.start + 48, meta.stop)
    slices.pop("pad", None)
    return slices


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
