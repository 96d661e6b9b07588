"""A procedural road world that renders drives with known ground truth.

`render_drive(folder)` writes a drive: video, log of the car, calibration, and the truth about
lanes, edges, path and lead. `drivesim.episode.Episode` is the richer world that models are trained
and driven in; see docs/drivesim.md. For the former read in this order: `camera` (frames of
reference), `road` (centreline and lanes), `motion` (how cars drive), `world` (all of it from a
seed), `truth`, `render`, `drive`.
"""
from drivesim.drive import render_drive

__all__ = ["render_drive"]
