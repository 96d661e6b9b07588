"""How good a trained network is on worlds that it has never seen."""
from __future__ import annotations

import numpy as np
import torch

from training.clips import HELD_OUT
from training.loop import Clips, loader, on_device
from training.metrics import figures, parsed
from training.network import DrivingNetwork, run_clips
from training.outputs import OUTPUTS


def evaluate(network: DrivingNetwork, worlds: int = 500, workers: int = 2) -> dict[str, float]:
    """All figures of `metrics` over the first `worlds` held-out worlds."""
    network.eval()
    said, truths = [], []
    with torch.no_grad():
        for batch in loader(Clips(HELD_OUT, 0, 1, pressing=False), range(worlds), workers):
            groups, truth = on_device(batch, "cpu")
            outputs = run_clips(network, groups)
            said.append(torch.cat([outputs[name] for name in OUTPUTS], 1).numpy())
            truths.append({name: values.numpy() for name, values in truth.items()})
    joined = {name: np.concatenate([row[name] for row in truths]) for name in truths[0]}
    return figures(parsed(np.concatenate(said)), joined)
