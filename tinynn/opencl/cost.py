"""What a launch costs on a plain OpenCL device: a roofline for `tinynn explain` and for budgets.

Nothing is chosen by it: which device will run a program is not known when it is compiled. Compare
with `tinynn explain --measure` on yours.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU that shares the memory of its host.

    operations: of f32 a second with `items` work-items or more, in proportion with fewer. nbytes:
    of memory a second. launch_ns: from one kernel to the next. The numbers are those of a laptop of
    2019 (24 units of 8 lanes at 1.05 GHz, a multiply-add being two; 7 threads of 8 each; two
    channels of DDR4-2400).
    """

    operations: float = 403e9
    items: int = 1344
    nbytes: float = 38.4e9
    launch_ns: float = 5000.0


LAPTOP = Device()


def predict(flop: int, nbytes: int, global_size: Sequence[int],
            device: Device = LAPTOP) -> tuple[int, str]:
    """Nanoseconds of a launch, and what binds it: "alu", "dram" or "launch"."""
    busy = min(1.0, math.prod(global_size) / device.items)
    times = {"alu": 1e9 * flop / (device.operations * busy), "dram": 1e9 * nbytes / device.nbytes}
    bound = max(times, key=lambda name: times[name])
    total = times[bound] + device.launch_ns
    return round(total), bound if times[bound] > device.launch_ns else "launch"
