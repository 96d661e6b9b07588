"""Runs the warp of a camera program on an OpenCL platform and compares it with the daemon's.

    python -m compiled_models.tests.camera_kernels PLATFORM TARGET SAMPLING
"""
from __future__ import annotations

import sys

import numpy as np

from compiled_models.compose import compose
from compiled_models.tests.test_compose import (
    FRAME_BYTES,
    MODELS,
    camera_inputs,
    frame,
    packed,
    some_warps,
)
from modeld.warp import NO_WARP
from tinynn.adreno.tests.adreno_tools import run_images
from tinynn.compiler import lower
from tinynn.ir import Graph
from tinynn.tests.opencl_tools import find_device


def warp_graph(sampling: str) -> Graph:
    """The part of a camera program that makes the next queue of pictures from a frame."""
    program = compose(MODELS["GRU state and curvature"], sampling, FRAME_BYTES)
    queue = {"next_queue_main": program.outputs["next_queue_main"]}
    names = ("queue_main", "main_frame", "main_geometry", "main_warp")
    return Graph("warp", {name: program.inputs[name] for name in names}, queue)


def main(platform: str, target: str, sampling: str) -> None:
    device = find_device(platform)
    graph = warp_graph(sampling)
    code = lower(graph, target, "f16" if "adreno" in target else "f32")
    rng = np.random.default_rng(4)
    queue = rng.integers(0, 256, graph.inputs["queue_main"].shape, dtype=np.uint8)
    for warp in [*some_warps(rng), NO_WARP]:
        data = frame(rng)
        inputs = camera_inputs([data, data], [warp, warp], sampling) | {"queue_main": queue}
        given = {name: inputs[name] for name in graph.inputs}
        moved = run_images(code, given, device)["next_queue_main"]
        np.testing.assert_array_equal(moved[:-1], queue[1:])
        np.testing.assert_array_equal(moved[-1], packed(data, warp, sampling))


if __name__ == "__main__":
    main(*sys.argv[1:])
