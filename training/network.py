"""The network: one convolutional tower over both views, heads, and a small policy over the past.

Layers are those that compile to fast kernels everywhere: 3x3 strided, depthwise, 1x1, dense, ReLU.
Batch normalisation is folded into the convolutions by the export. Beside the tower, `motion` tells
how far the road moved. 0.21 GMAC, 5.8 M weights.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeld.constants import DESIRE_LEN, PICTURE_SHAPE
from training.motion import MOTION, RoadMotion
from training.outputs import CONTEXT, FEATURES, OUTPUTS, PAD, PAST_FEATURES

CHANNELS = (24, 48, 96, 192)  # of the maps 64x128, 32x64, 16x32, 8x16
DEPTHS = (1, 3, 4)  # residual blocks behind each halving after the stem
MAPS = 28  # channels that the dense layers see of the last map
TOKEN = 32  # values that the policy sees of each past feature
WIDE, NARROW = 512, 128
PICTURE_CHANNELS = 4 * PICTURE_SHAPE[0]  # two views, two times
# Logarithms of deviations are kept within e^-7 .. e^7 of what is usual for the output.
LOG_RANGE = 7.0


def convolution(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution that keeps (or divides by the stride) the size, with batch normalisation."""
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out))


class Block(nn.Module):
    """Residual block: depthwise 3x3, then 1x1 to twice the channels and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = convolution(channels, channels, 3, groups=channels)
        self.expand = convolution(channels, 2 * channels, 1)
        self.project = convolution(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x + self.project(torch.relu(self.expand(self.spatial(x))))


class Tower(nn.Module):
    """Pictures (B, 24, 128, 256), values 0 to 255 -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        layers = [convolution(PICTURE_CHANNELS, CHANNELS[0], 3, 2), nn.ReLU()]
        for into, out, depth in zip(CHANNELS, CHANNELS[1:], DEPTHS, strict=False):
            layers += [convolution(into, into, 3, 2, groups=into), convolution(into, out, 1)]
            layers += [Block(out) for _ in range(depth)]
        layers += [convolution(CHANNELS[-1], MAPS, 1), nn.ReLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        pixels = (PICTURE_SHAPE[1] // 16) * (PICTURE_SHAPE[2] // 16)
        self.dense = nn.Linear(MAPS * pixels, WIDE)

    def forward(self, pictures: Tensor) -> Tensor:
        """Where things are matters, so the last map is flattened, not averaged.

        Training computes the convolutions in bfloat16, in which 0 to 255 are exact.
        """
        half = torch.bfloat16 if self.training else torch.float32
        # Channels side by side are what the convolutions of a CPU want.
        centred = pictures.to(half, memory_format=torch.channels_last) - 128.0
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.training):
            maps = self.layers(centred)  # the first normalisation scales them
        return torch.relu(self.dense(maps.float()))


class Head(nn.Module):
    """A hidden layer and an output; densities are scaled to what is usual for the output.

    mean, scale: (count,) buffers, of the truth in the training world; see `losses.Statistics`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, name: str, into: int, hidden: int) -> None:
        super().__init__()
        output = OUTPUTS[name]
        self.count = output.count
        self.density = output.kind in ("laplace", "normal")
        self.layers = nn.Sequential(
            nn.Linear(into, hidden), nn.ReLU(), nn.Linear(hidden, output.width))
        if self.density:
            self.register_buffer("mean", torch.zeros(output.count))
            self.register_buffer("scale", torch.ones(output.count))

    def forward(self, x: Tensor) -> Tensor:
        """(B, into) -> (B, width of the output)."""
        raw = self.layers(x)
        if not self.density:
            return raw
        mean, log_scale = raw[:, :self.count], raw[:, self.count:]
        log_scale = log_scale.clamp(-LOG_RANGE, LOG_RANGE) + self.scale.log()
        return torch.cat([self.mean + self.scale * mean, log_scale], 1)


class Policy(nn.Module):
    """What needs the past: plan and desire_state."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Linear(FEATURES, TOKEN)
        into = CONTEXT * TOKEN + FEATURES + CONTEXT * DESIRE_LEN + 2
        self.join = nn.Sequential(nn.Linear(into, WIDE), nn.ReLU())
        self.heads = nn.ModuleDict({
            name: Head(name, WIDE, 256) for name, output in OUTPUTS.items() if output.temporal})

    def forward(self, features: Tensor, desire: Tensor, traffic: Tensor) -> dict[str, Tensor]:
        """features (B, 25, 512), newest last; desire (B, 25, 8); traffic (B, 2)."""
        tokens = torch.relu(self.token(features))
        parts = [tokens.flatten(1), features[:, -1], desire.flatten(1), traffic]
        joined = self.join(torch.cat(parts, 1))
        return {name: head(joined) for name, head in self.heads.items()}


class DrivingNetwork(nn.Module):
    """The whole model. `forward` is one run; training calls `see` and `policy` on whole clips."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.motion = Tower(), RoadMotion()
        self.road = nn.Sequential(nn.Linear(WIDE + MOTION, WIDE), nn.ReLU())
        # Bounded, so that a history never carries a fault further than it was large.
        self.summary = nn.Sequential(nn.Linear(WIDE + MOTION, FEATURES), nn.Tanh())
        self.heads = nn.ModuleDict({
            name: Head(name, WIDE, 256 if output.count > 10 else NARROW)
            for name, output in OUTPUTS.items()
            if not output.temporal and output.kind != "features"})
        self.policy = Policy()

    def see(self, pictures: Tensor) -> dict[str, Tensor]:
        """(B, 24, 128, 256) -> everything that follows from the pictures alone."""
        seen = torch.cat([self.tower(pictures), self.motion(pictures)], 1)
        road = self.road(seen)
        said = {name: head(road) for name, head in self.heads.items()}
        return said | {"hidden_state": self.summary(seen)}

    def forward(self, img: Tensor, big_img: Tensor, features_buffer: Tensor, desire_pulse: Tensor,
                traffic_convention: Tensor, action_t: Tensor) -> Tensor:
        """The inputs of `outputs.INPUTS` -> (1, 2576). action_t is not read, as in real files."""
        said = self.see(torch.cat([img, big_img], 1))
        features = torch.cat([features_buffer, said["hidden_state"][:, None]], 1)
        said |= self.policy(features, desire_pulse, traffic_convention)
        pad = img.new_zeros(1, PAD, dtype=torch.float32)
        return torch.cat([*(said[name] for name in OUTPUTS), pad], 1)


def run_clips(network: DrivingNetwork,
              groups: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """Run on clips as the daemon would on drives that start with them.

    groups: clips of equal length B at a time, (pictures, desire, traffic):
    pictures (B, T, 2, 6, 128, 256) uint8, 0.2 s apart, narrow view first;
    desire (B, 24 + T, 8) pulses; traffic (B, 2).
    Result: name -> (sum of B * T, width). Before the start there were no pictures.
    """
    said = network.see(torch.cat([pairs(pictures) for pictures, _, _ in groups]))
    runs = [pictures.shape[:2] for pictures, _, _ in groups]
    features = said["hidden_state"].split([batch * steps for batch, steps in runs])
    past = [windows(nothing_before(rows.unflatten(0, run)))
            for rows, run in zip(features, runs, strict=True)]
    pulses = torch.cat([windows(desire) for _, desire, _ in groups])
    sides = torch.cat([traffic.repeat_interleave(pictures.shape[1], 0)
                       for pictures, _, traffic in groups])
    return said | network.policy(torch.cat(past), pulses, sides)


def pairs(pictures: Tensor) -> Tensor:
    """(B, T, 2, 6, H, W) -> (B * T, 24, H, W): narrow before and now, wide before and now."""
    before = torch.cat([torch.zeros_like(pictures[:, :1]), pictures[:, :-1]], 1)
    return torch.stack([before, pictures], 3).flatten(2, 4).flatten(0, 1)


def nothing_before(rows: Tensor) -> Tensor:
    """(B, T, W) -> (B, 24 + T, W): zeros, then the rows."""
    return functional.pad(rows, (0, 0, PAST_FEATURES, 0))


def windows(rows: Tensor) -> Tensor:
    """(B, 24 + T, W) -> (B * T, 25, W): each of the last T rows behind its 24 predecessors."""
    return rows.unfold(1, CONTEXT, 1).transpose(2, 3).flatten(0, 1)
