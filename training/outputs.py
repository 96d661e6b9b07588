"""What the network says: the outputs of driving_supercombo, its inputs, and the layout of truth.

The contract is that of release 0.11.2 (one file, histories kept by the host, 2576 values). Frames
of reference are those of `modeld`: calibrated, x forward, y right, z down; metres, s, radians.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

from modeld.constants import DESIRE_LEN, PICTURE_SHAPE

FEATURES = 512  # width of hidden_state
PAST_FEATURES = 24  # rows of features_buffer, 0.2 s apart
CONTEXT = PAST_FEATURES + 1  # with the present one
STEP_S = 0.2  # between two steps of the history, and between the two pictures of an input
PAD = 2  # zeros at the end of `outputs`

# name -> (dtype, shape) of the inputs, as files of 0.11.2 have them.
INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "img": ("uint8", (1, 2 * PICTURE_SHAPE[0], *PICTURE_SHAPE[1:])),
    "big_img": ("uint8", (1, 2 * PICTURE_SHAPE[0], *PICTURE_SHAPE[1:])),
    "features_buffer": ("float32", (1, PAST_FEATURES, FEATURES)),
    "desire_pulse": ("float32", (1, CONTEXT, DESIRE_LEN)),
    "traffic_convention": ("float32", (1, 2)),
    "action_t": ("float32", (1, 2)),
}


@dataclass(frozen=True)
class Output:
    """One output.

    shape: of its truth. kind: "laplace" or "normal", a density that takes twice as many values
    (means, then logarithms of deviations); "binary", one logit per value; "pairs", two logits per
    value, of which the second counts; "classes", logits over the last axis, of which truth is a
    distribution; "features", which has no truth.
    temporal: made from the history and the desire too, not from the pictures alone.
    """

    shape: tuple[int, ...]
    kind: str
    temporal: bool = False

    @property
    def count(self) -> int:
        """Values of truth."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Values of the output."""
        per_value = {"laplace": 2, "normal": 2, "pairs": 2}
        return self.count * per_value.get(self.kind, 1)


# In the order of the file.
OUTPUTS: dict[str, Output] = {
    "meta": Output((55,), "binary"),
    "desire_pred": Output((4, DESIRE_LEN), "classes"),
    "pose": Output((6,), "normal"),
    "wide_from_device_euler": Output((3,), "normal"),
    "road_transform": Output((6,), "normal"),
    "lane_lines": Output((4, 33, 2), "laplace"),
    "lane_lines_prob": Output((4,), "pairs"),
    "road_edges": Output((2, 33, 2), "laplace"),
    "lead": Output((3, 6, 4), "laplace"),
    "lead_prob": Output((3,), "binary"),
    "hidden_state": Output((FEATURES,), "features"),
    "plan": Output((33, 15), "laplace", temporal=True),
    "desire_state": Output((DESIRE_LEN,), "classes", temporal=True),
}
TRUTHS = {name: output for name, output in OUTPUTS.items() if output.kind != "features"}


def output_slices() -> dict[str, slice]:
    """Where each output lies in the vector `outputs`, with `pad` at its end."""
    slices: dict[str, slice] = {}
    at = 0
    for name, output in OUTPUTS.items():
        slices[name] = slice(at, at + output.width)
        at += output.width
    return slices | {"pad": slice(-PAD, None)}


LENGTH = sum(output.width for output in OUTPUTS.values()) + PAD
