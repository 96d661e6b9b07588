"""Camera programs as OpenCL kernels: they pick the daemon's pixels and suit the Adreno compiler."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compiled_models.tests.camera_kernels import warp_graph
from tinynn.adreno.tests.adreno_tools import bundle, check
from tinynn.compiler import lower


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("target", ["opencl", "opencl:adreno630"])
def test_the_warp_is_the_daemons_to_the_last_bit(target: str, sampling: str) -> None:
    command = [str(bundle() / "with-llvmpipe"), sys.executable, "-W", "ignore", "-m",
               "compiled_models.tests.camera_kernels", "rusticl", target, sampling]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_one_kernel_makes_a_picture_from_a_frame(sampling: str) -> None:
    code = lower(warp_graph(sampling), "opencl:adreno630", "f16")
    assert len(code.steps) == 2, "the rows of the queue that move, and the new one"
    for figures in check(code.source).values():
        assert figures["scratch_bytes"] == 0 and 4 * figures["dwords"] <= 8192
