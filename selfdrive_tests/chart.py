"""A line chart as a picture, for documents: what the report draws in the browser is in `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from selfdrive_tests.overlay import RGB, font

WIDTH, HEIGHT = 1100, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 26, 34  # margins
INK: RGB = (28, 36, 48)
GRID: RGB = (222, 226, 232)
TICKS = 6  # about so many per axis


@dataclass(frozen=True)
class Curve:
    """A line: x (N,), y (N,), NaN leaves a gap. label: "" for none."""

    x: np.ndarray
    y: np.ndarray
    color: RGB
    label: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes. limits: of y, None for what the curves need."""

    title: str
    x_label: str
    curves: Sequence[Curve]
    limits: tuple[float, float] | None = None


def charts(drawn: Sequence[Chart]) -> np.ndarray:
    """The charts below each other, (height, width, 3) uint8."""
    return np.concatenate([chart_picture(chart) for chart in drawn])


def chart_picture(chart: Chart) -> np.ndarray:
    """One chart, (HEIGHT, WIDTH, 3) uint8."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    canvas = ImageDraw.Draw(image)
    x_range = reach([curve.x for curve in chart.curves])
    y_range = chart.limits or reach([curve.y for curve in chart.curves])

    def place(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        across = LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT)
        up = (y - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - TOP - BOTTOM)
        return list(zip(across.tolist(), (HEIGHT - BOTTOM - up).tolist(), strict=True))

    for value in ticks(*x_range):
        ((x, y),) = place(np.array([value]), np.array([y_range[0]]))
        canvas.line((x, TOP, x, y), GRID)
        canvas.text((x, y + 4), f"{value:g}", INK, font(11), "mt")
    for value in ticks(*y_range):
        ((x, y),) = place(np.array([x_range[0]]), np.array([value]))
        canvas.line((x, y, WIDTH - RIGHT, y), GRID)
        canvas.text((x - 6, y), f"{value:g}", INK, font(11), "rm")
    for curve in chart.curves:
        known = np.isfinite(curve.y)
        pieces = np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1)
        for piece in pieces:
            if known[piece].all() and len(piece) > 1:
                inside = np.clip(curve.y[piece], *y_range)
                canvas.line(place(curve.x[piece], inside), curve.color, 2)
    canvas.text((LEFT, 6), chart.title, INK, font(13))
    canvas.text((WIDTH - RIGHT, HEIGHT - 4), chart.x_label, INK, font(11), "rb")
    right = WIDTH - RIGHT
    for curve in reversed([curve for curve in chart.curves if curve.label]):
        canvas.text((right, 6), curve.label, curve.color, font(13), "ra")
        right -= round(canvas.textlength(curve.label, font(13))) + 16
    return np.asarray(image)


def reach(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The least and the greatest known value; a little apart if they are one, or none is known."""
    known = np.concatenate([[], *values])
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float) -> np.ndarray:
    """Round numbers within the range, about TICKS of them: steps of 1, 2 or 5 times a power of 10.
    """
    rough = (high - low) / TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    return step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
