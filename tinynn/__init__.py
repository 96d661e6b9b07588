"""A small tensor compiler: ONNX in, one self-verifying artifact out, and the runtime for it.

    artifact = tinynn.compile("model.onnx")
    artifact.save("model.tnn")
    runner = tinynn.load("model.tnn")
    outputs = runner({"input": array})

    y = (tinynn.Tensor(a) * b + c).numpy()    # lazy: one kernel, docs/tensor.md

Importing this package loads neither the compiler nor its dependencies; `load` never needs them.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinynn.artifact import Artifact
    from tinynn.pipeline import compile  # noqa: A004  (the public name)
    from tinynn.runtime import ArtifactError, Runner, UntrustedArtifact, load
    from tinynn.tensor import Tensor, trace

__version__ = "0.1.0"  # as in pyproject.toml; artifacts record it

__all__ = ["Artifact", "ArtifactError", "Runner", "Tensor", "UntrustedArtifact", "compile", "load",
           "trace"]

_HOME = {"Artifact": "artifact", "compile": "pipeline", "ArtifactError": "runtime",
         "Runner": "runtime", "Tensor": "tensor", "UntrustedArtifact": "runtime",
         "load": "runtime", "trace": "tensor"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tinynn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tinynn.{_HOME[name]}"), name)
