"""Checks on real frames what two artifacts claim of their precision.

Every artifact states how far its outputs may be from the exact ones (norm of the difference over
norm of the value). Two of them, given the same inputs, then differ by no more than both together.
Here one drives through the pictures, and the other is run beside it on the very same inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tinynn
from modeld.cameras import MEDMODEL, SBIGMODEL, Intrinsics
from modeld.constants import DESIRE_LEN
from modeld.contract import ContractError
from modeld.model_state import DrivingModel, ModelInputs
from modeld.warp import NO_WARP, prepare_warp, warp_matrix
from selfdrive_tests.compare import Claim
from selfdrive_tests.drives import Calibration, Camera, Drive
from selfdrive_tests.video import Picture
from tinynn.runtime.golden import relative_error

FRAMES = 40
LATERAL_DELAY_S = 0.2


class UncheckedError(Exception):
    """The claim cannot be checked; the text says why."""


@dataclass(frozen=True)
class Artifact:
    """An artifact, and which of its targets; None: the best that runs here."""

    path: Path
    target: str | None = None


class Pair:
    """Two runners as one: the first one's results are given, the second one's compared with them.

    worst: output -> (largest error, number of the run).
    """

    def __init__(self, own: Any, other: Any) -> None:
        self._own, self._other = own, other
        self._runs = 0
        self.worst: dict[str, tuple[float, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = {name: np.array(array) for name, array in self._own(inputs).items()}
        for name, theirs in self._other(inputs).items():
            if name in results:
                error = relative_error(theirs, results[name])
                self.worst[name] = max(self.worst.get(name, (-1.0, 0)), (error, self._runs))
        self._runs += 1
        return results

    def bound(self, output: str) -> float:
        """How far the two may be apart: both claims, in parts of the first one's result."""
        own, other = (claimed(runner, output) for runner in (self._own, self._other))
        return (own + other) / (1.0 - own)


def claimed(runner: Any, output: str) -> float:
    """What an artifact states of an output: norm of the error over norm of the exact value."""
    runs = runner.manifest["golden"]["runs"]
    stated = [
        one["tolerance"] for run in runs for one in run["outputs"] if one["name"] == output
    ]
    return float(max(stated, default=0.0))


def check_precision(drive: Drive, one: Artifact, other: Artifact, rest: list[Path]) -> list[Claim]:
    """One claim per output of the model, over frames spread evenly over the drive.

    rest: further files of the model, the same for both. Raises UncheckedError, ArtifactError.
    """
    pair = Pair(*(tinynn.load(each.path, target=each.target) for each in (one, other)))
    if pair.state:
        raise UncheckedError("a model that keeps its state inside cannot be given equal inputs")
    try:
        model = DrivingModel(pair, *(tinynn.load(path) for path in rest))
    except ContractError as error:
        raise UncheckedError(str(error)) from error
    step = max((drive.ticks or FRAMES) // FRAMES, 1)
    shown: list[int] = []
    for frame in drive.frames():
        if frame.index % step == 0 and len(shown) < FRAMES:
            wide = frame.wide if frame.wide is not None else frame.narrow
            model.run(model_inputs(drive, frame.narrow, wide))
            shown.append(frame.index)
    return [
        Claim(output, pair.bound(output), error, shown[number], len(shown))
        for output, (error, number) in pair.worst.items()
    ]


def model_inputs(drive: Drive, narrow: Picture, wide: Picture) -> ModelInputs:
    """What a model is told of a frame: its pictures, and a car that drives straight on."""
    wide_camera = drive.wide_camera or drive.camera
    convention = np.array([1.0, 0.0], np.float32)
    return ModelInputs(
        pack(narrow, drive.camera, drive.calibration, MEDMODEL),
        pack(wide, wide_camera, drive.calibration, SBIGMODEL),
        np.zeros(DESIRE_LEN, np.float32),
        convention,
        np.array([20.0, LATERAL_DELAY_S], np.float32),
        np.zeros(2, np.float32),
    )


def pack(
    picture: Picture, camera: Camera, calibration: Calibration | None, view: Any
) -> np.ndarray:
    """The packed picture (6, 128, 256) of a model's view, as modeld makes it."""
    matrix = NO_WARP
    if calibration is not None:
        intrinsics = Intrinsics(camera.focal_px, *camera.center_px)
        matrix = warp_matrix(calibration.rpy_rad, intrinsics, view)
    warp = prepare_warp(matrix, *picture.luma.shape)
    return np.array(warp.pack(picture.luma, picture.chroma))
