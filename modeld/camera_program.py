"""A program that takes camera frames itself: warp, history and network compiled into one.

`compiled_models.compose` makes such programs. The host copies one or two frames and a few dozen
floats in and reads one vector; the queues are state of the program.
"""
from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modeld.contract import ContractError, Runner, read_slices
from modeld.model_state import ModelOutputs
from modeld.pairing import Frame, check_intact
from modeld.parser import parse
from modeld.warp import chroma_matrix

KEY = "camera_program"  # of the artifact's metadata
CAMERAS = ("main", "extra")
WARP_SHAPE = (2, 3, 3)  # of the luma plane and of the chroma planes


class Described(NamedTuple):
    """What the planner asks a model for: the rules that turn its plan into an action."""

    era: str


def is_camera_program(runner: Runner) -> bool:
    """Whether a loaded artifact takes frames instead of packed pictures."""
    return KEY in runner.metadata


class CameraProgram:
    """Runs a camera program. Raises ContractError or ParseError if it is not a sound one."""

    def __init__(self, runner: Runner) -> None:
        self.runners = (runner,)
        self._runner = runner
        try:
            description: Mapping[str, Any] = runner.metadata[KEY]
            self.contract = Described(description["era"])
            self.sampling = str(description["sampling"])
            self._capacity = int(description["frame_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"The model's metadata '{KEY}' is incomplete ({error!r}); compile "
                                "it again.") from None
        for name in CAMERAS:
            warp = runner.inputs.get(f"{name}_warp")
            if warp is not None and tuple(warp.shape) != WARP_SHAPE:
                raise ContractError(f"The model's {name}_warp is {tuple(warp.shape)} and must be "
                                    f"{WARP_SHAPE}: it was made by another version. Compile it "
                                    "again.")
        length = int(np.prod(runner.outputs["outputs"].shape))
        self._slices = read_slices(runner.metadata.get("output_slices"), length, "camera program")
        parse({name: np.zeros(where.stop - where.start) for name, where in self._slices.items()})
        # They stay where they are and begin at a page, so that a GPU may read them in place.
        self._frames = {name: np.frombuffer(mmap.mmap(-1, self._capacity), np.uint8)
                        for name in CAMERAS}

    def run(self, frames: Sequence[Frame], warps: Sequence[np.ndarray],
            vectors: Mapping[str, np.ndarray]) -> ModelOutputs:
        """Run on the frames behind the main and the extra view.

        warps: model pixel -> camera pixel, (3, 3) float32 each. vectors: desire (8,) one-hot and
        the others of `ModelInputs`; what the program does not have is ignored. Its history moves on
        only if all of its next state is finite.

        Raises ContractError for a frame that is larger than the program has room for,
        OverwrittenError for one that did not last until it was copied.
        """
        given: dict[str, np.ndarray] = dict(vectors)
        for name, frame, warp in zip(CAMERAS, frames, warps, strict=True):
            if f"{name}_frame" in self._runner.inputs:
                given[f"{name}_geometry"] = self._copy(name, frame)
                given[f"{name}_frame"] = self._frames[name]
                given[f"{name}_warp"] = np.stack([warp, chroma_matrix(warp, self.sampling)])
        check_intact(*frames)
        inputs = {name: given[name].reshape(spec.shape)
                  for name, spec in self._runner.inputs.items()}
        flat = self._runner(inputs)["outputs"].astype(np.float32, copy=False).reshape(-1)
        named = {name: flat[where] for name, where in self._slices.items()}
        return ModelOutputs(flat, named, bool(np.isfinite(flat).all()))

    def _copy(self, name: str, frame: Frame) -> np.ndarray:
        """Bring a frame into the program's input, rows close together; gives its geometry."""
        luma, chroma = frame.luma, frame.chroma
        height, width = luma.shape
        needed = luma.size + chroma.size
        if needed > self._capacity:
            raise ContractError(
                f"A frame of {width} x {height} has {needed} bytes and the program has room for "
                f"{self._capacity}. Compile it with a larger frame_bytes.")
        place = self._frames[name]
        np.copyto(place[:luma.size].reshape(luma.shape), luma)
        np.copyto(place[luma.size:needed].reshape(chroma.shape), chroma)
        return np.array([width, height, width, luma.size], np.int32)
