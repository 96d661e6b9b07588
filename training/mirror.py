"""Clips as a mirror shows them: left is right, and traffic keeps to the other side."""
from __future__ import annotations

import torch
from torch import Tensor

from modeld.constants import DESIRE_LEN, META_LAYOUTS
from training.outputs import OUTPUTS

# none, turn left, turn right, change left, change right, keep left, keep right, null
DESIRES = [0, 2, 1, 4, 3, 6, 5, 7]
# Luma of even and odd rows of even columns, of odd columns, then U and V; twice, for both views.
PHASES = [2, 3, 0, 1, 4, 5]
# Values that change their sign: y of places, velocities and forces; roll and yaw of turns.
Y, ROLL_YAW = [1], [0, 2]
POSE = Y + [3 + i for i in ROLL_YAW]  # place or velocity, then turn or rates
PLAN = [1, 4, 7] + [9 + i for i in ROLL_YAW] + [12 + i for i in ROLL_YAW]
SIGNS = {"plan": PLAN, "pose": POSE, "road_transform": POSE, "wide_from_device_euler": ROLL_YAW,
         "lane_lines": [0], "road_edges": [0], "lead": Y}
# Outputs whose first axis runs from left to right.
LEFT_TO_RIGHT = ("lane_lines", "lane_lines_prob", "road_edges")


def mirrored(pictures: Tensor, desire: Tensor, traffic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pictures (..., 6, H, W), desire (..., 8) and traffic (..., 2) as a mirror shows them.

    Columns change places about the middle of the picture, half a pixel beside its principal point:
    0.6 mrad in the narrow view, far below what cameras differ by.
    """
    return pictures[..., PHASES, :, :].flip(-1), desire[..., DESIRES], traffic.flip(-1)


def mirrored_truth(truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Truth, name -> (N, *shape) as in `outputs.TRUTHS`, of mirrored pictures."""
    return {name: _mirrored_output(name, values) for name, values in truth.items()}


def _mirrored_output(name: str, values: Tensor) -> Tensor:
    if name in LEFT_TO_RIGHT:
        values = values.flip(1)
    if name in SIGNS:
        signs = torch.ones(values.shape[-1], device=values.device)
        signs[SIGNS[name]] = -1
        return values * signs
    if name == "meta":
        return values[:, _meta_order()]
    return values[..., DESIRES] if values.shape[-1] == DESIRE_LEN else values


def _meta_order() -> list[int]:
    """Where each value of mirrored `meta` comes from: left and right blinkers change places."""
    width = OUTPUTS["meta"].count
    order = [*range(width)]
    layout = META_LAYOUTS[width]
    for left, right in zip(layout.left_blinker, layout.right_blinker, strict=True):
        order[left], order[right] = right, left
    return order
