"""The training loop: clips from workers, a checkpoint every few minutes, curves as a text file.

Clip n of a run is the world of seed `first + n`, whatever the number of workers, so a run that is
continued from its checkpoint sees the worlds that it would have seen.
"""
from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.clips import STEPS, make_clip
from training.losses import losses_of, standardise
from training.network import DrivingNetwork, run_clip

CHECKPOINT, CURVES = "checkpoint.pt", "curves.tsv"
Batch = tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]  # as the fields of a Clip, (B, ...)
# Means and scales of the outputs are taken from so many worlds, a few runs in each.
STATISTICS_CLIPS, STATISTICS_STEPS = 64, 3


@dataclass(frozen=True)
class Settings:
    """How to train.

    clips: of the whole run; the learning rate falls to zero over them. batch: clips per step.
    pool: clips that are kept and shown again, so that `repeat` steps are made per new batch: a fast
    device need not wait for the worlds to be drawn. hours: stop earlier, to be continued.
    """

    clips: int = 100_000
    batch: int = 4
    rate: float = 1e-3
    warmup: int = 200
    seed: int = 0
    workers: int = 2
    pool: int = 64
    repeat: int = 1
    hours: float = math.inf
    save_every_s: float = 300.0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


class Clips(Dataset[Batch]):
    """Clips of that many steps by seed; PyTorch's workers make them."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __getitem__(self, seed: int) -> Batch:
        clip = make_clip(seed, self._steps)
        truth = {name: torch.from_numpy(values) for name, values in clip.truth.items()}
        return (torch.from_numpy(clip.pictures), torch.from_numpy(clip.desire),
                torch.from_numpy(clip.traffic), truth)


def batches(seeds: range, batch: int, workers: int, steps: int = STEPS) -> Iterator[Batch]:
    """The clips of those seeds, in order, in whole batches."""
    loader: DataLoader[Batch] = DataLoader(
        Clips(steps), batch, sampler=seeds, num_workers=workers, drop_last=True)
    return iter(loader)


def on_device(batch: Batch, device: str) -> Batch:
    """The batch in the memory of a device; truth as (B * T, ...)."""
    pictures, desire, traffic, truth = batch
    moved = {name: values.flatten(0, 1).to(device) for name, values in truth.items()}
    return pictures.to(device), desire.to(device), traffic.to(device), moved


def step(network: DrivingNetwork, optimizer: torch.optim.Optimizer,
         batch: Batch) -> dict[str, float]:
    """One step on a batch that is on the device; gives the losses."""
    pictures, desire, traffic, truth = batch
    losses = losses_of(network, run_clip(network, pictures, desire, traffic), truth)
    optimizer.zero_grad()
    losses["total"].backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def rate_at(settings: Settings, clips: int) -> float:
    """Learning rate after so many clips: a linear rise, then half a cosine down to zero."""
    rise = settings.warmup * settings.batch
    if clips < rise:
        return settings.rate * (clips + settings.batch) / rise
    return settings.rate * 0.5 * (1 + math.cos(math.pi * min(clips / settings.clips, 1.0)))


class Training:
    """A run in a folder: its network, optimiser, and how many clips it has seen."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Continues from the folder's checkpoint if there is one, else begins."""
        torch.manual_seed(settings.seed)
        self.folder, self.settings = folder, settings
        self.network = DrivingNetwork().to(settings.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.rate,
                                           weight_decay=0.01)
        self.clips = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self.restore()
        else:
            self._standardise()

    @property
    def first_seed(self) -> int:
        """Seed of clip 0: runs with other seeds see other worlds."""
        return self.settings.seed * 10_000_000

    def _standardise(self) -> None:
        seeds = range(self.first_seed, self.first_seed + STATISTICS_CLIPS)
        rows = [on_device(batch, self.settings.device)[3]
                for batch in batches(seeds, 1, self.settings.workers, STATISTICS_STEPS)]
        truth = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        standardise(self.network, truth)

    def run(self, say: Callable[[str], None] = print) -> None:
        """Train to the end of the clips or of the time; saves at the end, and now and then."""
        settings = self.settings
        began = saved = time.monotonic()
        seeds = range(self.first_seed + self.clips, self.first_seed + settings.clips)
        pool: deque[Batch] = deque(maxlen=max(settings.pool // settings.batch, 1))
        chance = torch.Generator().manual_seed(settings.seed + self.clips)
        for fresh in batches(seeds, settings.batch, settings.workers):
            pool.append(on_device(fresh, settings.device))
            self._set_rate()
            losses = step(self.network, self.optimizer, pool[-1])
            for _ in range(settings.repeat - 1):
                again = int(torch.randint(len(pool), (1,), generator=chance))
                step(self.network, self.optimizer, pool[again])
            self.clips += settings.batch
            if self.clips // settings.batch % 10 == 0:
                self._note(losses)
                say(f"{self.clips} clips, loss {losses['total']:.3f}, "
                    f"{(time.monotonic() - began) / 3600:.2f} h")
            now = time.monotonic()
            if now - saved > settings.save_every_s:
                self.save()
                saved = now
            if now - began > settings.hours * 3600:
                break
        self.save()

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.settings, self.clips)

    def _note(self, losses: dict[str, float]) -> None:
        """Append a line to the curves: clips seen, then the losses in order of their names."""
        file = self.folder / CURVES
        names = sorted(losses)
        head = "" if file.exists() else "\t".join(["clips", *names]) + "\n"
        row = "\t".join([str(self.clips), *(f"{losses[name]:.4f}" for name in names)])
        with file.open("a", encoding="utf-8") as curves:
            curves.write(f"{head}{row}\n")

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save({"network": self.network.state_dict(), "clips": self.clips,
                    "optimizer": self.optimizer.state_dict()}, part)
        part.replace(self.folder / CHECKPOINT)

    def restore(self) -> None:
        """Read the checkpoint; only tensors and plain data are read from it."""
        kept = torch.load(self.folder / CHECKPOINT, self.settings.device, weights_only=True)
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.clips = kept["clips"]


def load_network(folder: Path) -> DrivingNetwork:
    """The network of a run's checkpoint, on the CPU, for inference.

    Raises FileNotFoundError if the folder has none.
    """
    network = DrivingNetwork()
    kept = torch.load(folder / CHECKPOINT, "cpu", weights_only=True)
    network.load_state_dict(kept["network"])
    return network.eval()
