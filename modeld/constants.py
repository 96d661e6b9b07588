"""Numbers the driving models were trained with: index grids, widths, thresholds.

Times are seconds, distances metres. Everything that differs between models (queue lengths, feature
width, offsets of outputs) is not here: it is read from the model by `contract`.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IDX_N = 33
# Quadratic spacing: dense near the car. All values are exact in float32.
T_IDXS = 10.0 * (np.arange(IDX_N, dtype=np.float32) / 32) ** 2
X_IDXS = 192.0 * (np.arange(IDX_N, dtype=np.float32) / 32) ** 2
LEAD_T_IDXS = np.arange(0, 12, 2, dtype=np.float32)
LEAD_T_OFFSETS = (0.0, 2.0, 4.0)
META_T_IDXS = np.arange(2, 12, 2, dtype=np.float32)

MODEL_RATE_HZ = 20
DT_MDL = 1 / MODEL_RATE_HZ
CONTEXT_STRIDE = 4  # model runs per step of the 5 Hz context

# A model picture: 512 x 256 pixels as six planes (four luma phases, U, V).
MODEL_WIDTH, MODEL_HEIGHT = 512, 256
PICTURE_SHAPE = (6, MODEL_HEIGHT // 2, MODEL_WIDTH // 2)

DESIRE_LEN = 8
DESIRE_NONE, DESIRE_LANE_CHANGE_LEFT, DESIRE_LANE_CHANGE_RIGHT = 0, 3, 4
PLAN_WIDTH = 15
PLAN_HYPOTHESES = 5
LANE_LINES, ROAD_EDGES, LINE_WIDTH = 4, 2, 2
LEADS, LEAD_STEPS, LEAD_WIDTH, LEAD_HYPOTHESES = 3, 6, 4, 2
POSE_WIDTH = 6
EULER_WIDTH = 3
DESIRE_PRED_STEPS = 4

# Columns of the plan, per time step.
POSITION, VELOCITY, ACCELERATION = slice(0, 3), slice(3, 6), slice(6, 9)
ORIENTATION, ORIENTATION_RATE = slice(9, 12), slice(12, 15)

POLY_PATH_DEGREE = 4
CONFIDENCE_STEPS = 5
CONFIDENCE_EVERY = 40  # frames between two looks at the disengage predictions: 2 s
CONFIDENCE_GREEN, CONFIDENCE_YELLOW = 0.01165, 0.06157
FCW_BRAKE_5 = (0.05, 0.05, 0.15, 0.15, 0.15)  # oldest to newest
FCW_BRAKE_3 = (0.7, 0.7)


@dataclass(frozen=True)
class MetaLayout:
    """Where the probabilities are in the `meta` output (after the sigmoid).

    The disengage and hard brake rows have an entry for 2, 4, 6, 8, 10 s; the press and blinker rows
    of the newest layout start at 0 s and have six. `brake_press` is empty where a model lacks it.
    """

    engaged: int
    gas_disengage: tuple[int, ...]
    brake_disengage: tuple[int, ...]
    steer_override: tuple[int, ...]
    hard_brake_3: tuple[int, ...]
    hard_brake_4: tuple[int, ...]
    hard_brake_5: tuple[int, ...]
    gas_press: tuple[int, ...]
    brake_press: tuple[int, ...]
    left_blinker: tuple[int, ...]
    right_blinker: tuple[int, ...]


def _every(start: int, step: int, count: int) -> tuple[int, ...]:
    return tuple(range(start, start + step * count, step))


def _layout(
    step: int, gas_press: tuple[int, ...], brake_press: tuple[int, ...], blinkers: int,
    blinker_step: int,
) -> MetaLayout:
    """All layouts begin alike; a horizon takes `step` entries. blinkers: where they start."""
    return MetaLayout(
        engaged=0,
        gas_disengage=_every(1, step, 5), brake_disengage=_every(2, step, 5),
        steer_override=_every(3, step, 5), hard_brake_3=_every(4, step, 5),
        hard_brake_4=_every(5, step, 5), hard_brake_5=_every(6, step, 5),
        gas_press=gas_press, brake_press=brake_press,
        left_blinker=_every(blinkers, blinker_step, 6),
        right_blinker=_every(blinkers + 1, blinker_step, 6))


# Keyed by the width of `meta`: nothing else tells the layouts apart.
META_LAYOUTS: dict[int, MetaLayout] = {
    55: _layout(6, _every(31, 4, 6), _every(32, 4, 6), 33, 4),
    53: _layout(8, _every(7, 8, 5), _every(8, 8, 5), 41, 2),
    48: _layout(7, _every(7, 7, 5), (), 36, 2),
}
