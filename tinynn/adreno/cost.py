"""What a launch costs on an Adreno 630, from counts per work-item: a roofline with latency.

The same form as a count of the compiled machine code would be put through; the counts themselves
are estimates by the families, made at compile time without a compiler for the chip.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinynn.index import ceil_div


@dataclass(frozen=True)
class Chip:
    """An Adreno GPU. Rates are per clock and micro-SP.

    clock_hz: openpilot pins the maximum. micro_sps: 2 shader processors of 2, scaled from Adreno
    640. lanes: of float arithmetic; half is not counted faster, which Adreno 640 did not show.
    texels: image reads. buffer_bytes, local_bytes: 96 and 146 GB/s of Adreno 640. dram: 4 x 16 bit
    of LPDDR4X at 1866 MHz, bytes/s. fetch_clocks: latency of an image read that hits the cache, as
    Mesa has it.
    registers: vec4 a lane in all; waves: most that are resident. local_memory: bytes.
    launch_ns: 5 to 10 us by a handbook of MNN. calibration: on all but the launch, fitted to the
    times that openpilot's models are published to take with tinygrad on the device.
    """

    clock_hz: float = 710e6
    micro_sps: int = 4
    lanes: int = 128
    texels: float = 4.0
    buffer_bytes: float = 27.4
    local_bytes: float = 41.6
    dram: float = 29.9e9
    fetch_clocks: int = 64
    registers: int = 96
    waves: int = 16
    local_memory: int = 32 * 1024
    launch_ns: float = 7500.0
    calibration: float = 1.3


ADRENO_630 = Chip()
WAVE = 64  # work-items of a wave, in groups of at most so many


@dataclass(frozen=True)
class Counts:
    """Of one work-item: instruction slots, texels fetched, bytes of local memory read and written,
    times it waits for fetches, vec4 registers, bytes read from buffers; and local memory of its
    group in bytes."""

    slots: float
    texels: float
    local_bytes: float = 0.0
    waits: float = 1.0
    registers: int = 12
    group_memory: int = 0
    buffer_bytes: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """ns: with the launch. bound: "alu", "tex", "buffer", "local", "dram" or "latency"; waves:
    resident on a pair of micro-SPs."""

    ns: float
    bound: str
    waves: int


def predict(counts: Counts, global_size: Sequence[int], local_size: Sequence[int], nbytes: int,
            chip: Chip = ADRENO_630) -> Prediction:
    """Time of a launch. nbytes: memory that it reads and writes."""
    items = math.prod(local_size)
    groups = math.prod(ceil_div(g, n) for g, n in zip(global_size, local_size, strict=True))
    per_group = ceil_div(items, WAVE)
    busy = groups / ceil_div(groups, chip.micro_sps)
    waves = groups * per_group / busy  # of one micro-SP, one after another or together
    resident_pair = min(chip.waves, 2 * (chip.registers // counts.registers))
    if counts.group_memory:
        fitting = max(1, chip.local_memory // counts.group_memory)
        resident_pair = min(resident_pair, 2 * per_group * fitting)
    resident = min(max(resident_pair / 2, per_group), waves)
    lanes = waves * WAVE
    alone = counts.slots + counts.texels * WAVE / chip.texels + counts.waits * chip.fetch_clocks
    clocks = {
        "alu": counts.slots * lanes / chip.lanes,
        "tex": counts.texels * lanes / chip.texels,
        "buffer": counts.buffer_bytes * lanes / chip.buffer_bytes,
        "local": counts.local_bytes * lanes / chip.local_bytes,
        "latency": alone * waves / resident,
        "dram": nbytes / chip.dram * chip.clock_hz,
    }
    bound = max(clocks, key=lambda name: clocks[name])
    ns = clocks[bound] / chip.clock_hz * 1e9 * chip.calibration + chip.launch_ns
    return Prediction(ns, bound, int(resident_pair))
