"""`tinynn inspect FILE --kernels DIR`: the kernels of an OpenCL target as files for other tools.

    DIR/NAME.cl         one kernel, with the functions it uses
    DIR/launches.json   every launch in order: {"source": "NAME.cl", "kernel", "global", "local",
                        "bytes", "note", "trips"}; bytes are those of the step's arguments,
                        trips those of loops whose end the compiler is not told (adreno/values.py)
"""
from __future__ import annotations

import json
import re
from pathlib import Path

from tinynn.runtime.layout import ArtifactError
from tinynn.runtime.manifest import Target

# A kernel's text begins with its comment, at the start of a line.
_KERNEL = re.compile(r"^(?=/\*)", re.MULTILINE)
_NAME = re.compile(r"__kernel[^{]*?void\s+(\w+)\(")


def kernel_sources(source: str) -> dict[str, str]:
    """Kernel name -> its text together with what all kernels share."""
    shared, *kernels = _KERNEL.split(source)
    found = {}
    for text in kernels:
        name = _NAME.search(text)
        if name is None:
            shared += text
        else:
            found[name[1]] = text
    return {name: shared + text for name, text in found.items()}


def trips_of(schedule: str) -> dict[str, list[int]]:
    """How often the loops of a kernel run, if its schedule says so: "..., loops 24 8 8"."""
    found = re.search(r"loops ([0-9 ]*[0-9])", schedule)
    return {"trips": [int(n) for n in found[1].split()]} if found else {}


def write_kernels(target: Target, source: str, folder: Path) -> int:
    """Write the files; the number of kernels. Raises ArtifactError for a target of another kind."""
    if not target.target.startswith("opencl"):
        raise ArtifactError(f"--kernels needs an OpenCL target, and {target.target} is none. Name "
                            "one with --target, or compile the model for one.")
    folder.mkdir(parents=True, exist_ok=True)
    kernels = kernel_sources(source)
    for name, text in kernels.items():
        (folder / f"{name}.cl").write_text(text)
    launches = [{"source": f"{step.kernel}.cl", "kernel": step.kernel,
                 "global": list(step.global_size), "local": list(step.local_size),
                 "bytes": step.nbytes, "note": step.note, **trips_of(step.schedule)}
                for step in target.steps]
    (folder / "launches.json").write_text(json.dumps(launches, indent=1) + "\n")
    return len(kernels)
