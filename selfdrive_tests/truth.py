"""What a perfect model would say: the ground truth beside a rendered drive's video, as plans."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from drivesim.grids import T_IDXS, X_IDXS
from selfdrive_tests.drives import Drive, DriveError
from selfdrive_tests.plans import Lead, Plan

FILE_NAME = "truth.npz"

# Arrays that are read, and their shapes after the axis of frames (see drivesim.truth).
SHAPES: dict[str, tuple[int, ...]] = {
    "curvature": (),
    "acceleration": (),
    "path_position": (33, 3),
    "lane_lines": (4, 33, 2),
    "lane_line_probs": (4,),
    "road_edges": (2, 33, 2),
    "lead": (6, 4),
    "lead_prob": (),
}


def truth_file(drive: Drive) -> Path | None:
    """Where the drive's truth is; None for drives that were not rendered."""
    path = drive.path / FILE_NAME
    return path if path.is_file() else None


def read_truth(path: Path) -> list[Plan]:
    """The true plan of every frame of a rendered drive, frame 0 first.

    Lines lie in the calibrated frame, metres, as in a model's plan. A lane line that the road does
    not have is NaN with probability 0. Raises DriveError if the file is not such a truth.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in SHAPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DriveError(
            f"{path} is no ground truth of a rendered drive ({error}). Render the drive again, "
            "or replay with --no-truth."
        ) from error
    frames = len(arrays["lead_prob"]) if arrays["lead_prob"].ndim else 0
    for name, shape in SHAPES.items():
        if arrays[name].shape != (frames, *shape):
            raise DriveError(
                f"{path}: {name} has the shape {arrays[name].shape}, expected {(frames, *shape)}. "
                "Render the drive again, or replay with --no-truth."
            )
    return [_plan(arrays, index) for index in range(frames)]


def _plan(truth: dict[str, np.ndarray], index: int) -> Plan:
    x, y, speed, _ = truth["lead"][index, 0]
    return Plan(
        frame_id=index,
        valid=True,
        execution_s=0.0,
        drop_percent=0.0,
        position=truth["path_position"][index],
        lane_lines=tuple(_line(line) for line in truth["lane_lines"][index]),
        lane_probabilities=tuple(truth["lane_line_probs"][index].tolist()),
        road_edges=tuple(_line(edge) for edge in truth["road_edges"][index]),
        leads=(Lead(float(truth["lead_prob"][index]), float(x), float(y), float(speed)),),
        curvature=float(truth["curvature"][index]),
        acceleration=float(truth["acceleration"][index]),
        should_stop=False,
        confidence="",
        times=T_IDXS,
    )


def _line(across: np.ndarray) -> np.ndarray:
    """y and z at X_IDXS, (33, 2), as points (33, 3)."""
    return np.column_stack([X_IDXS, across])
