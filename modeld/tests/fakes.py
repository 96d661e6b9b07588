"""Stand-ins for a compiled model, with the contracts of real generations."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Tensor = tuple[tuple[int, ...], str]  # shape and dtype
Arrays = dict[str, np.ndarray]
Answer = Callable[[Arrays], Arrays]

PICTURE = (1, 12, 128, 256)
DTYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}

SUPERCOMBO_SLICES: dict[str, Any] = {  # the small model of 0.11.2
    "meta": [0, 55, None], "desire_pred": [55, 87, None], "pose": [87, 99, None],
    "wide_from_device_euler": [99, 105, None], "road_transform": [105, 117, None],
    "lane_lines": [117, 645, None], "lane_lines_prob": [645, 653, None],
    "road_edges": [653, 917, None], "lead": [917, 1061, None], "lead_prob": [1061, 1064, None],
    "hidden_state": [1064, 1576, None], "plan": [1576, 2566, None],
    "desire_state": [2566, 2574, None], "pad": [-2, None, None]}
SUPERCOMBO_INPUTS: dict[str, Tensor] = {
    "img": (PICTURE, "u8"), "big_img": (PICTURE, "u8"), "desire_pulse": ((1, 25, 8), "f32"),
    "traffic_convention": ((1, 2), "f32"), "action_t": ((1, 2), "f32"),
    "features_buffer": ((1, 24, 512), "f32")}


@dataclass(frozen=True)
class Spec:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class FakeRunner:
    """Answers with `answer(inputs)`; remembers what it was given and checks it."""

    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    metadata: dict[str, Any]
    answer: Answer
    seen: list[Arrays] = field(default_factory=list)
    target: str = "fake"

    def __call__(self, inputs: Arrays) -> Arrays:
        assert inputs.keys() == self.inputs.keys()
        for name, spec in self.inputs.items():
            assert inputs[name].shape == spec.shape, name
            assert inputs[name].dtype == DTYPES[spec.dtype], name
        self.seen.append({name: array.copy() for name, array in inputs.items()})
        return self.answer(inputs)


def spread(inputs: Arrays, size: int) -> np.ndarray:
    """A vector within +-1 that depends on every input."""
    total = sum(float(array.astype(np.float64).mean()) * (i + 1)
                for i, (_, array) in enumerate(sorted(inputs.items())))
    return np.sin(total + np.arange(size)).astype(np.float32)[None]


def runner(
    inputs: dict[str, Tensor], size: int, slices: dict[str, Any] | None,
    answer: Answer | None = None, outputs: dict[str, Tensor] | None = None,
) -> FakeRunner:
    every = {"outputs": ((1, size), "f32"), **(outputs or {})}
    return FakeRunner(
        {name: Spec(name, dtype, shape) for name, (shape, dtype) in inputs.items()},
        {name: Spec(name, dtype, shape) for name, (shape, dtype) in every.items()},
        {} if slices is None else {"output_slices": slices},
        answer or (lambda given: {"outputs": spread(given, size)}))


def supercombo(answer: Answer | None = None) -> FakeRunner:
    """The contract of 0.11.2."""
    return runner(SUPERCOMBO_INPUTS, 2576, SUPERCOMBO_SLICES, answer)
