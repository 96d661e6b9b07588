"""How fast worlds are drawn: `python -m drivesim.speed`, one thread, about ten seconds."""
from __future__ import annotations

import time

from drivesim.episode import Episode

DEVICE = ((1928, 1208, 2648, 964, 604), (1928, 1208, 567, 964, 604))


def main() -> None:
    """Print frame pairs a second in the model's views and at the size of a device's cameras."""
    list(Episode(0, seconds=0.1).frames())  # builds the painter
    begun, count = time.perf_counter(), 0
    for seed in range(24):
        count += sum(1 for _ in Episode(seed, seconds=0.8).frames())
    print(f"{count / (time.perf_counter() - begun):.1f} pairs a second in the model's views")
    episode = Episode(1, views=DEVICE)
    ego, begun = episode.start(), time.perf_counter()
    for _ in range(4):
        episode.observe(ego)
    print(f"{4 / (time.perf_counter() - begun):.1f} pairs a second of 1928 x 1208")


if __name__ == "__main__":
    main()
