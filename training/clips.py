"""Clips to learn from: pictures as the model sees them with the truth of every frame, by seed.

A clip is some runs of the model, 0.2 s apart, in one world of `drivesim`. Nothing is stored: a
seed is a clip. Worlds with seeds from HELD_OUT on are never trained on.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np

from drivesim.episode import Episode, Frame
from modeld.constants import CONTEXT_STRIDE, MODEL_RATE_HZ
from modeld.queues import rising_edge
from training.outputs import CONTEXT, STEP_S, TRUTHS

STEPS = 30  # 6 s: somewhat more than the history that the model sees
HELD_OUT = 1_000_000_000
LATEST_START = 4 * MODEL_RATE_HZ  # frames into a world where a clip may begin
PRESSING = 1 / 3  # of the clips have somebody close ahead who makes us brake
# Fields of drivesim's truth that have other names than the outputs.
NAMES = {"lane_lines_prob": "lane_line_probs"}


@dataclass(frozen=True)
class Clip:
    """T runs.

    pictures: (T, 2, 6, 128, 256) uint8, the main view first.
    desire: (24 + T, 8) pulses, those of the steps before the clip first.
    traffic: (2,) one-hot. truth: name -> (T, *shape) float32 as in `outputs.TRUTHS`, NaN unknown.
    """

    pictures: np.ndarray
    desire: np.ndarray
    traffic: np.ndarray
    truth: dict[str, np.ndarray]


def make_clip(seed: int, steps: int = STEPS, start: int = 0, winding: bool = False,
              pressing: bool = False) -> Clip:
    """The clip of a seed that begins so many frames into its world; equal seeds, equal clips."""
    seconds = (start + steps * CONTEXT_STRIDE) / MODEL_RATE_HZ
    episode = Episode(seed, seconds=seconds, winding=winding, pressing=pressing)
    shown = [*islice(episode.frames(CONTEXT_STRIDE, start), steps)]
    truths = [frame_truth(frame) for frame in shown]
    past = [episode.desires(shown[0].time - STEP_S * back) for back in range(CONTEXT, 0, -1)]
    return Clip(
        np.stack([np.stack([frame.narrow, frame.wide]) for frame in shown]),
        desire_pulses(np.stack([*past, *(frame.desire for frame in shown)]))[1:],
        shown[0].traffic_convention, {name: np.stack([t[name] for t in truths]) for name in TRUTHS})


def glimpse(seed: int, steps: int) -> Clip:
    """A short clip that begins anywhere: after gusts, in lane changes, on the way back.

    Every other road is winding: on roads as they are, most of what is learned from is straight. On
    every third somebody ahead makes us brake, which is as rare.
    """
    random = np.random.RandomState(seed & 0xFFFFFFFF)
    start, pressing = int(random.randint(LATEST_START)), bool(random.uniform() < PRESSING)
    return make_clip(seed, steps, start, winding=seed % 2 == 0, pressing=pressing)


def desire_pulses(desire: np.ndarray) -> np.ndarray:
    """Commands (T, 8), each held for seconds -> pulses (T, 8): 1 in the step where one begins."""
    before = np.concatenate([np.zeros_like(desire[:1]), desire[:-1]])
    return np.stack([rising_edge(new, old) for new, old in zip(desire, before, strict=True)])


def frame_truth(frame: Frame) -> dict[str, np.ndarray]:
    """Truth of a frame, name -> (*shape,); lines and leads that are not there are NaN.

    Raises ValueError if a shape is not the contract's.
    """
    truth = {name: np.asarray(getattr(frame.truth, NAMES.get(name, name)), np.float32)
             for name in TRUTHS}
    for name, output in TRUTHS.items():
        if truth[name].shape != output.shape:
            raise ValueError(f"drivesim's truth of {name} has shape {truth[name].shape}, "
                             f"not {output.shape}")
    return truth | {
        "lane_lines": where(truth["lane_lines_prob"], truth["lane_lines"]),
        "lead": where(truth["lead_prob"], truth["lead"])}


def where(probability: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values (N, ...) with NaN where the probability (N,) is below a half."""
    there = probability.reshape(-1, *[1] * (values.ndim - 1)) >= 0.5
    return np.where(there, values, np.float32(np.nan)).astype(np.float32)
