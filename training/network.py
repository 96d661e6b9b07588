"""The network: one convolutional tower over both views, heads, and a small policy over the past.

Layers are those that compile to fast kernels everywhere: 3x3 strided, depthwise, 1x1, dense, ReLU.
Batch normalisation is folded into the convolutions by the export. 0.21 GMAC, 5.7 M weights.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from modeld.constants import DESIRE_LEN, PICTURE_SHAPE
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
        """Where things are matters, so the last map is flattened, not averaged."""
        return torch.relu(self.dense(self.layers((pictures - 128.0) / 64.0)))


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
        self.tower = Tower()
        self.road = nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU())
        # Bounded, so that a history never carries a fault further than it was large.
        self.summary = nn.Sequential(nn.Linear(WIDE, FEATURES), nn.Tanh())
        self.heads = nn.ModuleDict({
            name: Head(name, WIDE, 256 if output.count > 10 else NARROW)
            for name, output in OUTPUTS.items()
            if not output.temporal and output.kind != "features"})
        self.policy = Policy()

    def see(self, pictures: Tensor) -> dict[str, Tensor]:
        """(B, 24, 128, 256) -> everything that follows from the pictures alone."""
        seen = self.tower(pictures)
        road = self.road(seen)
        said = {name: head(road) for name, head in self.heads.items()}
        return said | {"hidden_state": self.summary(seen)}

    def forward(self, img: Tensor, big_img: Tensor, features_buffer: Tensor, desire_pulse: Tensor,
                traffic_convention: Tensor, action_t: Tensor) -> Tensor:
        """The inputs of `outputs.INPUTS` -> (1, 2576). action_t is not read, as in real files."""
        said = self.see(torch.cat([img, big_img], 1).float())
        features = torch.cat([features_buffer, said["hidden_state"][:, None]], 1)
        said |= self.policy(features, desire_pulse, traffic_convention)
        pad = img.new_zeros(1, PAD, dtype=torch.float32)
        return torch.cat([*(said[name] for name in OUTPUTS), pad], 1)


def run_clip(network: DrivingNetwork, pictures: Tensor, desire: Tensor,
             traffic: Tensor) -> dict[str, Tensor]:
    """Run on clips as the daemon would on a drive that starts with them.

    pictures: (B, T, 2, 6, 128, 256) uint8, 0.2 s apart, narrow view first.
    desire: (B, T, 8) pulses. traffic: (B, 2). Result: name -> (B * T, width).
    Before the start the history is zero.
    """
    batch, steps = pictures.shape[:2]
    now = pictures.float()
    before = torch.cat([torch.zeros_like(now[:, :1]), now[:, :-1]], 1)
    # Channels: narrow before, narrow now, wide before, wide now.
    joined = torch.stack([before, now], 3).reshape(batch * steps, -1, *pictures.shape[-2:])
    said = network.see(joined)
    features = windows(said["hidden_state"].reshape(batch, steps, FEATURES))
    each = traffic[:, None].expand(batch, steps, 2).reshape(batch * steps, 2)
    return said | network.policy(features, windows(desire), each)


def windows(rows: Tensor) -> Tensor:
    """(B, T, W) -> (B * T, 25, W): each row behind its 24 predecessors, zeros before the first."""
    batch, _, width = rows.shape
    padded = torch.cat([rows.new_zeros(batch, PAST_FEATURES, width), rows], 1)
    return padded.unfold(1, CONTEXT, 1).transpose(2, 3).reshape(-1, CONTEXT, width)
