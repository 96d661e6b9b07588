"""Stand-ins for the openpilot driving models: same contract, same layers, random weights.

`build("driving_supercombo")` returns a checked ONNX model. Read in this order: `net` (a graph under
construction), `layers` (convs, linears and small blocks), `backbones` (the picture encoders),
`models` (the main contracts), `variants` (the others), `catalog`.

Nothing here was trained: the outputs mean nothing and must never drive a car. Every model says so
in its metadata, under the key `training`.
"""
from compiled_models.standin.catalog import MODELS, UNTRAINED, VARIANTS, build
from compiled_models.standin.net import Options

__all__ = ["MODELS", "UNTRAINED", "VARIANTS", "Options", "build"]
