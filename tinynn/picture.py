"""The compiled program as one HTML file: kernels and the buffers between them, to click through.

Kernels are laid out in layers from top to bottom (Sugiyama's way): the layer of a node is its
longest distance from an input, an edge across several layers passes through a bend in each, and
nodes are moved towards their neighbours until the edges are short. No network, no library.
"""
from __future__ import annotations

import html
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinynn.explain import Explanation
from tinynn.picture_page import PAGE

NODE_WIDTH, NODE_HEIGHT = 216.0, 46.0
BEND_WIDTH = 18.0
GAP_X, GAP_Y = 26.0, 34.0
SWEEPS = 12  # rounds of ordering, and of moving; more change nothing visible


@dataclass
class Spot:
    """A node of the drawing. kind: "kernel", "input", "output", "state" or "bend".

    number: of the step or buffer. x, y: of its middle.
    """

    kind: str
    number: int
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    above: list[Spot] = field(default_factory=list)
    below: list[Spot] = field(default_factory=list)

    @property
    def width(self) -> float:
        return BEND_WIDTH if self.kind == "bend" else NODE_WIDTH


@dataclass(frozen=True)
class Edge:
    """A buffer on its way from the spot that writes it to one that reads it, through `path`."""

    buffer: int
    path: tuple[Spot, ...]


def write_picture(path: Path, explanation: Explanation) -> None:
    """Write the page. Raises OSError if the file cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(explanation), encoding="utf-8")


def page(explanation: Explanation) -> str:
    """The whole HTML text; the same explanation gives the same text."""
    spots, edges = lay_out(explanation)
    data = json.dumps(_data(explanation, spots, edges), separators=(",", ":"), allow_nan=False)
    # The data stands in a script element: no text in it may end that element.
    return (PAGE.replace("@TITLE@", html.escape(explanation.name))
            .replace("@DATA@", data.replace("<", "\\u003c")))


def lay_out(explanation: Explanation) -> tuple[list[Spot], list[Edge]]:
    """Spots with their places, and the edges between them."""
    spots, links = _connect(explanation)
    _set_layers(spots)
    edges = [_with_bends(buffer, source, reader, spots) for buffer, source, reader in links]
    for edge in edges:
        for upper, lower in itertools.pairwise(edge.path):
            upper.below.append(lower)
            lower.above.append(upper)
    layers: list[list[Spot]] = [[] for _ in range(1 + max((s.layer for s in spots), default=0))]
    for spot in spots:
        layers[spot.layer].append(spot)
    for number, layer in enumerate(layers):
        for spot in layer:
            spot.y = number * (NODE_HEIGHT + GAP_Y)
        _pack(layer, [0.0] * len(layer))
    _order(layers)
    _straighten(layers)
    return spots, edges


def _connect(explanation: Explanation) -> tuple[list[Spot], list[tuple[int, Spot, Spot]]]:
    """Spots of kernels and of the program's border, and (buffer, writer, reader).

    Several kernels may write one buffer, each a part of it: its reader waits for all of them.
    """
    buffers = explanation.buffers
    inputs = {i: Spot(b.kind, i) for i, b in enumerate(buffers) if b.kind in ("input", "state")}
    writers: dict[int, list[Spot]] = {i: [spot] for i, spot in inputs.items()}
    spots, links = list(inputs.values()), []
    for number, row in enumerate(explanation.rows):
        spot = Spot("kernel", number)
        spots.append(spot)
        written = {row.step.args[position] for position in row.step.writes}
        for arg in dict.fromkeys(row.step.args):
            if arg not in written:
                links += [(arg, writer, spot) for writer in writers.get(arg, [])]
        for arg in written:
            writers.setdefault(arg, []).append(spot)
    for i, buffer in enumerate(buffers):
        if buffer.kind == "output":
            spots.append(Spot("output", i))
            links += [(i, writer, spots[-1]) for writer in writers.get(i, [])]
    for _, source, reader in links:
        reader.above.append(source)
    return spots, links


def _set_layers(spots: Sequence[Spot]) -> None:
    """Longest path from the top; then inputs come down to just above their first reader.

    spots: sources before readers. Their `above` holds the sources and is emptied.
    """
    readers: dict[int, list[int]] = {}
    for spot in spots:
        spot.layer = 1 + max((s.layer for s in spot.above), default=-1)
    for spot in spots:
        for source in spot.above:
            readers.setdefault(id(source), []).append(spot.layer)
    for spot in spots:
        if spot.kind in ("input", "state"):
            spot.layer = min(readers.get(id(spot), [1])) - 1
        spot.above = []


def _with_bends(buffer: int, source: Spot, reader: Spot, spots: list[Spot]) -> Edge:
    """The edge with a bend, added to the spots, in every layer between its ends."""
    bends = [Spot("bend", buffer, layer) for layer in range(source.layer + 1, reader.layer)]
    spots += bends
    return Edge(buffer, (source, *bends, reader))


def _pack(layer: Sequence[Spot], wanted: Sequence[float]) -> None:
    """Put spots as near to the wanted places as their order and widths allow.

    From left and from right each spot takes the first free place at or behind the wanted one; the
    middle of both keeps the distances, because both do.
    """
    left, right = list(wanted), list(wanted)
    for i in range(1, len(layer)):
        left[i] = max(left[i], left[i - 1] + _distance(layer[i - 1], layer[i]))
    for i in range(len(layer) - 2, -1, -1):
        right[i] = min(right[i], right[i + 1] - _distance(layer[i], layer[i + 1]))
    for spot, a, b in zip(layer, left, right, strict=True):
        spot.x = (a + b) / 2


def _distance(a: Spot, b: Spot) -> float:
    return (a.width + b.width) / 2 + GAP_X


def _median(values: Sequence[float]) -> float:
    ranked = sorted(values)
    middle = len(ranked) // 2
    return (ranked[middle] + ranked[~middle]) / 2


def _order(layers: Sequence[list[Spot]]) -> None:
    """Sort every layer by the middle of its neighbours, downwards and upwards in turn."""
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for layer in layers if downwards else reversed(layers):
            def wish(spot: Spot, downwards: bool = downwards) -> float:
                near = spot.above if downwards else spot.below
                return _median([s.x for s in near]) if near else spot.x
            layer.sort(key=wish)
            _pack(layer, [wish(spot) for spot in layer])


def _straighten(layers: Sequence[Sequence[Spot]]) -> None:
    """Move spots under what is above them, then over what is below, in turn; the order stays.

    Looking one way at a time makes a chain straight in one sweep.
    """
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 1
        for layer in layers if downwards else reversed(layers):
            near = [spot.above if downwards else spot.below for spot in layer]
            _pack(layer, [_median([s.x for s in found]) if found else spot.x
                          for spot, found in zip(layer, near, strict=True)])


def _data(explanation: Explanation, spots: Sequence[Spot], edges: Sequence[Edge]
          ) -> dict[str, Any]:
    """What the page draws, as plain data."""
    shown = [s for s in spots if s.kind != "bend"]
    places = {id(spot): i for i, spot in enumerate(shown)}
    return {
        "name": explanation.name, "target": explanation.target, "threads": explanation.threads,
        "measured": explanation.measured, "width": NODE_WIDTH, "height": NODE_HEIGHT,
        "spots": [{"kind": s.kind, "number": s.number, "x": round(s.x, 1), "y": round(s.y, 1)}
                  for s in shown],
        "edges": [{"buffer": e.buffer, "from": places[id(e.path[0])],
                   "to": places[id(e.path[-1])],
                   "bends": [[round(s.x, 1), round(s.y, 1)] for s in e.path[1:-1]]}
                  for e in edges],
        "buffers": [{"kind": b.kind, "name": b.name, "dtype": b.dtype, "shape": list(b.shape),
                     "nbytes": b.nbytes} for b in explanation.buffers],
        "kernels": [{"name": row.step.kernel, "note": row.step.note, "schedule": row.step.schedule,
                     "family": row.family, "parts": row.step.parts, "flop": row.step.flop,
                     "nbytes": row.step.nbytes, "args": list(row.step.args),
                     "writes": list(row.step.writes), "reason": row.step.reason,
                     "readers": list(row.readers), "predicted": round(row.predicted_ns, 1),
                     "bound": row.bound,
                     "measured": row.measured_ns}
                    for row in explanation.rows],
        # Several launches may share a kernel.
        "sources": {row.step.kernel: row.source for row in explanation.rows}}
