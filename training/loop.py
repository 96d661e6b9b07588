"""The training loop: batches from workers, a checkpoint every few minutes, curves as a text file.

Batch n of a run is the same worlds whatever the number of workers, so a run that is continued from
its checkpoint sees the worlds that it would have seen.
"""
from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from training.clips import STEPS, Clip, glimpse, make_clip
from training.losses import losses_of, standardise
from training.mirror import mirrored, mirrored_truth
from training.network import DrivingNetwork, run_clips
from training.outputs import TRUTHS

CHECKPOINT, CURVES = "checkpoint.pt", "curves.tsv"
# Pictures, desire and traffic of clips of equal length, (B, ...) as the fields of a Clip.
Group = tuple[Tensor, Tensor, Tensor]
Batch = tuple[list[Group], dict[str, Tensor]]  # with the truth of all their runs, (runs, *shape)
GLIMPSE_STEPS = 5
# Means and scales of the outputs are taken from so many batches.
STATISTICS_BATCHES = 16
DECAY = 0.6  # share of the run over which the learning rate falls to zero


@dataclass(frozen=True)
class Settings:
    """How to train.

    batches: of new clips in the whole run. short: clips of five runs in a batch, which begin
    anywhere and show many worlds. long_every: of so many batches one has a long clip too, which
    shows the policy a history. repeat: steps per new batch, the further ones on one of the last
    `pool` batches, because worlds take longer to draw than to learn from; each is shown as it is
    or in a mirror, by chance. hours: stop earlier, to be continued.
    """

    batches: int = 4000
    short: int = 8
    long_every: int = 4
    rate: float = 1e-3
    warmup: int = 200
    seed: int = 0
    workers: int = 1
    pool: int = 40
    repeat: int = 2
    hours: float = math.inf
    save_every_s: float = 300.0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


class Clips(Dataset[Batch]):
    """Batch after batch of worlds from seed `first` on; PyTorch's workers make them.

    pressing: every other long clip is of a road on which we must brake.
    """

    def __init__(self, first: int, short: int, long_every: int, pressing: bool = True) -> None:
        self._first, self._short, self._long_every = first, short, long_every
        self._pressing = pressing

    def __getitem__(self, number: int) -> Batch:
        size = self._short + 1
        *short, long = range(self._first + number * size, self._first + (number + 1) * size)
        clips = [[glimpse(seed, GLIMPSE_STEPS) for seed in short],
                 [self._long_clip(number, long)] if number % self._long_every == 0 else []]
        groups = [default_collate([(clip.pictures, clip.desire, clip.traffic) for clip in alike])
                  for alike in clips if alike]
        truth = {name: torch.cat([torch.from_numpy(clip.truth[name])
                                  for alike in clips for clip in alike]) for name in TRUTHS}
        return [tuple(group) for group in groups], truth

    def _long_clip(self, number: int, seed: int) -> Clip:
        pressing = self._pressing and number // self._long_every % 2 == 1
        return make_clip(seed, STEPS, pressing=pressing)


def loader(clips: Clips, numbers: range, workers: int) -> DataLoader[Batch]:
    """The batches of those numbers, in order."""
    return DataLoader(clips, None, sampler=numbers, num_workers=workers)


def on_device(batch: Batch, device: str) -> Batch:
    """The batch in the memory of a device."""
    groups, truth = batch
    moved = [(pictures.to(device), desire.to(device), traffic.to(device))
             for pictures, desire, traffic in groups]
    return moved, {name: values.to(device) for name, values in truth.items()}


def in_mirror(batch: Batch) -> Batch:
    """The batch with left and right exchanged."""
    groups, truth = batch
    return [mirrored(*group) for group in groups], mirrored_truth(truth)


def step(network: DrivingNetwork, optimizer: torch.optim.Optimizer,
         batch: Batch) -> dict[str, float]:
    """One step on a batch that is on the device; gives the losses."""
    groups, truth = batch
    losses = losses_of(network, run_clips(network, groups), truth)
    optimizer.zero_grad()
    losses["total"].backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def rate_at(settings: Settings, batch: int) -> float:
    """Learning rate after so many batches: a linear rise, level, at the end a linear fall to zero.

    A run can be made longer or shorter until its fall begins: nothing before depends on its end.
    """
    rise = (batch + 1) / settings.warmup
    fall = (settings.batches - batch) / (DECAY * settings.batches)
    return settings.rate * max(min(rise, 1.0, fall), 0.0)


class Training:
    """A run in a folder: its network, optimiser, and how many batches it has seen."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Continues from the folder's checkpoint if there is one, else begins."""
        torch.manual_seed(settings.seed)
        self.folder, self.settings = folder, settings
        self.network = DrivingNetwork().to(settings.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.rate,
                                           weight_decay=0.01)
        self.batch = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.clips = Clips(10_000_000 * settings.seed, settings.short, settings.long_every)
        if (folder / CHECKPOINT).exists():
            self.restore()
        else:
            self._standardise()

    def _standardise(self) -> None:
        rows = [on_device(batch, self.settings.device)[1] for batch in
                loader(self.clips, range(STATISTICS_BATCHES), self.settings.workers)]
        rows += [mirrored_truth(row) for row in rows]
        truth = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        standardise(self.network, truth)

    def run(self, say: Callable[[str], None] = print) -> None:
        """Train to the end of the batches or of the time; saves at the end, and now and then."""
        settings = self.settings
        began = saved = time.monotonic()
        self.network.train()
        numbers = range(self.batch, settings.batches)
        pool: deque[Batch] = deque(maxlen=settings.pool)
        for fresh in loader(self.clips, numbers, settings.workers):
            pool.append(on_device(fresh, settings.device))
            self._set_rate()
            chance = torch.Generator().manual_seed(settings.seed + self.batch)
            again = torch.randint(len(pool), (settings.repeat - 1,), generator=chance).tolist()
            steps = []
            for number in (len(pool) - 1, *again):
                turned = torch.rand((), generator=chance) < 0.5
                shown = in_mirror(pool[number]) if turned else pool[number]
                steps.append(step(self.network, self.optimizer, shown))
            losses = steps[0]  # of pictures never seen before
            self.batch += 1
            self._note(losses)
            now = time.monotonic()
            if self.batch % 10 == 0:
                say(f"{self.batch} of {settings.batches} batches, loss {losses['total']:.3f}, "
                    f"{(now - began) / 3600:.2f} h")
            if now - saved > settings.save_every_s:
                self.save()
                saved = now
            if now - began > settings.hours * 3600:
                break
        self.save()

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.settings, self.batch)

    def _note(self, losses: dict[str, float]) -> None:
        """Append a line to the curves: batches seen, then the losses in order of their names."""
        file = self.folder / CURVES
        names = sorted(losses)
        head = "" if file.exists() else "\t".join(["batches", *names]) + "\n"
        row = "\t".join([str(self.batch), *(f"{losses[name]:.4f}" for name in names)])
        with file.open("a", encoding="utf-8") as curves:
            curves.write(f"{head}{row}\n")

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save({"network": self.network.state_dict(), "batch": self.batch,
                    "optimizer": self.optimizer.state_dict()}, part)
        part.replace(self.folder / CHECKPOINT)

    def restore(self) -> None:
        """Read the checkpoint; only tensors and plain data are read from it."""
        kept = torch.load(self.folder / CHECKPOINT, self.settings.device, weights_only=True)
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.batch = kept["batch"]


def load_network(folder: Path) -> DrivingNetwork:
    """The network of a run's checkpoint, on the CPU, for inference.

    Raises FileNotFoundError if the folder has none.
    """
    network = DrivingNetwork()
    kept = torch.load(folder / CHECKPOINT, "cpu", weights_only=True)
    network.load_state_dict(kept["network"])
    return network.eval()
