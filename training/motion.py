"""How far the road moved under the car between two pictures: what tells the speed best.

Small networks that halve the pictures at once hardly learn to compare them, so this is built, not
learned: both pictures are sampled where a flat road would be, every STEP metres ahead, and the
present one is correlated with the one before, moved by up to SHIFTS steps. What is learned is to
read these curves: where they peak, and which strip of the road to believe.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modeld.constants import PICTURE_SHAPE

HEIGHT = 1.27  # m of the camera above the road, the middle of what training worlds have
NEAREST, STEP = 5.6, 0.2  # m ahead: the first row of samples, and from row to row
SHIFTS = 43  # rows that the road may have moved in 0.2 s: 8.4 m, 42 m/s
BANDS, BAND_ROWS = 3, 44  # of the present picture, 8.8 m each
ROWS = BANDS * BAND_ROWS
# View: focal length, principal point (px of 512 x 256), half the width that is sampled (m), metres
# between columns, columns of a strip.
VIEWS = ((910.0, 256.0, 47.6, 4.0, 0.1, 16), (455.0, 256.0, 151.8, 12.0, 0.25, 12))
STRIPS = sum(round(2 * half / step) // columns for *_, half, step, columns in VIEWS)
LUMA_PHASES = 4
BLUR = 17  # rows, 3.4 m: what is slower than that along the road says nothing
CONTRAST = 64.0  # grey levels that count as 1
FLOOR = 0.007  # of the energy of a strip: noise on a plain road is not a likeness
CURVES, HIDDEN, MOTION = 32, 16, 48  # widths of the layers that read the curves


def road_points(view: tuple[float, float, float, float, float, int]) -> tuple[Tensor, Tensor]:
    """Where the samples of a view lie in its four luma phases, flattened, and whether they do.

    Both (ROWS + SHIFTS, columns), int32 and float32. Those outside are put on the edge.
    """
    focal, centre_x, centre_y, half, step, _ = view
    ahead = (NEAREST + STEP * np.arange(ROWS + SHIFTS))[:, None]
    across = np.arange(-half + step / 2, half, step)[None]
    column = np.rint(centre_x + focal * across / ahead).astype(int)
    row = np.rint(centre_y + focal * HEIGHT / ahead + 0 * across).astype(int)
    height, width = PICTURE_SHAPE[1:]
    inside = (column >= 0) & (column < 2 * width) & (row >= 0) & (row < 2 * height)
    column, row = column.clip(0, 2 * width - 1), row.clip(0, 2 * height - 1)
    phase = row % 2 + 2 * (column % 2)  # as modeld.warp packs them
    place = (phase * height + row // 2) * width + column // 2
    return torch.from_numpy(place.astype(np.int32)), torch.from_numpy(inside.astype(np.float32))


def _along(into: int, out: int) -> list[nn.Module]:
    """Convolution along the shifts. Likenesses are small: unscaled, what reads them soon dies."""
    layer = nn.Conv1d(into, out, 3, padding=1, bias=False)
    return [layer, nn.BatchNorm1d(out), nn.ReLU()]


class RoadMotion(nn.Module):
    """Pictures (B, 24, 128, 256) as the tower sees them -> (B, MOTION)."""

    def __init__(self) -> None:
        super().__init__()
        for number, view in enumerate(VIEWS):
            place, inside = road_points(view)
            self.register_buffer(f"place{number}", place, persistent=False)
            self.register_buffer(f"inside{number}", inside, persistent=False)
        row, moved = torch.arange(BAND_ROWS)[None], torch.arange(SHIFTS)[:, None]
        diagonals = row * (BAND_ROWS + SHIFTS) + row + moved
        self.register_buffer("diagonals", diagonals.flatten(), persistent=False)
        self.read = nn.Sequential(
            *_along(BANDS * STRIPS, CURVES), *_along(CURVES, HIDDEN), nn.Flatten(),
            nn.Linear(HIDDEN * SHIFTS, MOTION), nn.ReLU())

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():  # there is nothing to be learned in it
            likeness = torch.cat([self.likeness(pictures, view) for view in range(2)], 1)
        motion: Tensor = self.read(likeness)
        return motion

    def likeness(self, pictures: Tensor, view: int) -> Tensor:
        """(B, 24, 128, 256) -> (B, BANDS * strips, SHIFTS): correlations, -1 to 1."""
        both = pictures.unflatten(1, (4, -1))[:, 2 * view : 2 * view + 2, :LUMA_PHASES]
        before, now = self.strips(both, view).unbind(1)
        now = now[:, :, :ROWS].unflatten(2, (BANDS, BAND_ROWS))
        before = torch.stack([before[:, :, first : first + BAND_ROWS + SHIFTS]
                              for first in range(0, ROWS, BAND_ROWS)], 2)
        # every present row with every earlier one; those that are equally far apart belong together
        alike = self.summed(now @ before.transpose(3, 4))
        rows = before.square().sum(4).flatten(0, 1)
        moved = functional.avg_pool1d(rows, BAND_ROWS, 1)[..., :SHIFTS] * BAND_ROWS
        energy = now.square().sum(4).sum(3)[..., None] * moved.unflatten(0, alike.shape[:2])
        return (alike / (energy.sqrt() + FLOOR)).flatten(1, 2)

    def summed(self, table: Tensor) -> Tensor:
        """(..., BAND_ROWS, BAND_ROWS + SHIFTS) -> (..., SHIFTS): sums over its diagonals."""
        return table.flatten(-2)[..., self.diagonals].unflatten(-1, (SHIFTS, BAND_ROWS)).sum(-1)

    def strips(self, luma: Tensor, view: int) -> Tensor:
        """(B, 2, 4, 128, 256) -> (B, 2, strips, ROWS + SHIFTS, columns): what changes fast."""
        place, inside = getattr(self, f"place{view}"), getattr(self, f"inside{view}")
        seen = luma.flatten(2).index_select(2, place.flatten()).unflatten(2, place.shape).float()
        mean = functional.avg_pool2d(seen, (BLUR, 1), 1, (BLUR // 2, 0), count_include_pad=False)
        changes = (seen - mean) * (inside / CONTRAST)
        return changes.unflatten(3, (-1, VIEWS[view][-1])).transpose(2, 3)
