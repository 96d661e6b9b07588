"""What is minimised: negative logarithms of the likelihood of the truth.

Truth that is not known is NaN and counts for nothing. Densities have one hypothesis, as outputs of
the newest generation do, with a deviation learned for every value:

    laplace   |e| / b + log(2 b)                       63 % of the errors lie within one b
    normal    e^2 / (2 s^2) + log(s) + log(2 pi) / 2   68 % within one s

A wide deviation is learned for what is hard, a curve in the rain, and errors in units of it hardly
count: such cases would never be learned. So each value of a density counts in proportion to its
deviation to the power of BETA, taken as a constant (Seitzer et al., 2022, On the pitfalls of
heteroscedastic uncertainty estimation with probabilistic neural networks).
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeld.constants import (
    ACCELERATION,
    DESIRE_LEN,
    ORIENTATION,
    ORIENTATION_RATE,
    T_IDXS,
    VELOCITY,
)
from training.metrics import at
from training.network import DrivingNetwork, Head
from training.outputs import TRUTHS

# What a mean over the values of an output counts in the sum over outputs.
WEIGHTS = {
    "plan": 3.0, "lane_lines": 2.0, "road_edges": 0.5, "lead": 1.0, "pose": 2.0,
    "wide_from_device_euler": 0.1, "road_transform": 0.2, "lane_lines_prob": 1.5, "lead_prob": 0.5,
    "meta": 0.2, "desire_state": 0.2, "desire_pred": 0.1,
}
# A car steers by yaw and yaw rate of the next seconds, which are 34 of the 495 values of a plan; of
# the lead, the distance now matters most, and of the pose the speed. They count so much more than
# their neighbours in the mean over their output.
EARLY_S, EARLY_TURN, LEAD_NOW, POSE_SPEED = 2.5, 8.0, 8.0, 5.0
# Columns of a plan.
YAW, YAW_RATE = ORIENTATION.stop - 1, ORIENTATION_RATE.stop - 1
SPEED, PULL = VELOCITY.start, ACCELERATION.start
# What a car is told to do is made of differences of a plan's values (see `asked`). These have
# losses of their own: weight, seconds ahead (about those of RULES in modeld.action), and what
# counts as one (rad/s, m/s^2).
ASKED = {"steering": (2.0, 0.3, 0.01), "pulling": (3.0, 0.5, 0.5)}
BETA = 0.5  # see above
# A value that is always the same in the training world still gets a deviation of this much.
LEAST_SCALE = 1e-3


def laplace(error: Tensor, log_scale: Tensor) -> Tensor:
    """Elementwise -log of the Laplace density of `error` with scale exp(log_scale)."""
    return error.abs() * torch.exp(-log_scale) + log_scale + math.log(2)


def normal(error: Tensor, log_scale: Tensor) -> Tensor:
    """Elementwise -log of the normal density of `error` with deviation exp(log_scale)."""
    scaled = error * torch.exp(-log_scale)
    return 0.5 * scaled * scaled + log_scale + 0.5 * math.log(2 * math.pi)


DENSITIES = {"laplace": laplace, "normal": normal}


@cache
def value_weights(name: str) -> Tensor:
    """(values of the output,): what each counts in the mean, 1 on average."""
    weights = torch.ones(TRUTHS[name].shape)
    if name == "plan":
        early = torch.from_numpy(T_IDXS <= EARLY_S)
        for column in (YAW, YAW_RATE):
            weights[early, column] = EARLY_TURN
    elif name == "lead":
        weights[:, 0, 0] = LEAD_NOW
    elif name == "pose":
        weights[0] = POSE_SPEED
    return (weights / weights.mean()).flatten()


def asked(plan: Tensor, what: str) -> Tensor:
    """(N, 33, 15) -> (N,): the yaw rate (rad/s) or acceleration (m/s^2) that a plan asks for.

    As modeld.action computes it, 2 (value(t) - value(0)) / t - rate(0), of the yaw or the speed.
    """
    _, seconds, _ = ASKED[what]
    value, rate = {"steering": (YAW, YAW_RATE), "pulling": (SPEED, PULL)}[what]
    start = 0.0 if what == "steering" else plan[:, 0, value]
    return 2 * (at(plan[:, :, value], T_IDXS, seconds) - start) / seconds - plan[:, 0, rate]


def asked_loss(said: Tensor, truth: Tensor, what: str) -> Tensor:
    """Mean squared error of what a plan asks for, in units of ASKED; large ones count linearly.

    said: (N, 2 * 495) output `plan`. truth: (N, 33, 15). The mean, not the median of a likelihood:
    most of the time a car goes straight on, and a median would always do that.
    """
    means = said.chunk(2, dim=1)[0].unflatten(1, truth.shape[1:])
    error = (asked(means, what) - asked(truth, what)) / ASKED[what][2]
    return functional.huber_loss(error, torch.zeros_like(error), delta=3.0)


def output_loss(name: str, said: Tensor, truth: Tensor, scale: Tensor | None = None) -> Tensor:
    """Mean loss of one output over the values that are known, a scalar; 0 if none is.

    said: (N, width). truth: (N, *shape). scale: (count,) of a density, what is usual: errors count
    in these units, which changes the loss by a constant alone and keeps outputs comparable.
    """
    kind = TRUTHS[name].kind
    flat = truth.flatten(1)
    known = ~flat.isnan()
    target = torch.where(known, flat, torch.zeros_like(flat))
    if kind in DENSITIES:
        mean, log_scale = said.chunk(2, dim=1)
        losses = DENSITIES[kind](target - mean, log_scale)
        unit = torch.zeros(()) if scale is None else scale.log()
        losses = losses - unit
        heed = torch.exp(BETA * (log_scale.detach() - unit)) * known
        losses = losses * heed * known.sum() / heed.sum().clamp(min=1e-6)
    elif kind == "classes":
        chances = functional.log_softmax(said.unflatten(1, (-1, DESIRE_LEN)), -1)
        losses = -target * chances.flatten(1) * DESIRE_LEN  # a mean over classes becomes their sum
    else:
        logits = said[:, 1::2] if kind == "pairs" else said
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weights = value_weights(name).to(losses.device) * known
    kept = torch.where(known, losses, torch.zeros_like(losses))
    return (kept * weights).sum() / weights.sum().clamp(min=1)


def losses_of(network: DrivingNetwork, said: Mapping[str, Tensor],
              truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss of every output and of what a plan asks for, and their weighted sum as `total`."""
    losses = {}
    for name in TRUTHS:
        head = head_of(network, name)
        scale = head.scale if head.density else None
        losses[name] = output_loss(name, said[name], truth[name], scale)
    total = sum((WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros(()))
    for what, (weight, _, _) in ASKED.items():
        losses[what] = asked_loss(said["plan"], truth["plan"], what)
        total = total + weight * losses[what]
    return losses | {"total": total}


def head_of(network: DrivingNetwork, name: str) -> Head:
    """The head that makes an output."""
    heads: nn.ModuleDict = network.policy.heads if TRUTHS[name].temporal else network.heads
    head = heads[name]
    assert isinstance(head, Head)
    return head


def standardise(network: DrivingNetwork, truth: Mapping[str, Tensor]) -> None:
    """Set the mean and scale of every density to those of the truth of some clips, (N, *shape)."""
    for name in TRUTHS:
        head = head_of(network, name)
        if not head.density:
            continue
        flat = truth[name].flatten(1)
        known = ~flat.isnan()
        count = known.sum(0).clamp(min=1)
        zero = torch.zeros_like(flat)
        mean = torch.where(known, flat, zero).sum(0) / count
        spread = torch.where(known, flat - mean, zero).square().sum(0) / count
        head.mean.copy_(mean)
        head.scale.copy_(spread.sqrt().clamp(min=LEAST_SCALE))
