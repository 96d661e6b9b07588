"""The weights of a target, from the file into memory."""
from __future__ import annotations

from typing import Any

import numpy as np

from tinynn.runtime.layout import DTYPES
from tinynn.runtime.manifest import Target, nbytes_of
from tinynn.runtime.reader import Source

_RELEASE_NBYTES = 1 << 20


def fill_weights(area: np.ndarray[Any, Any], source: Source, target: Target) -> None:
    """Put every weight at its buffer's offset of `area` (u8), widened to its buffer's dtype."""
    blob = source.blob(target.weights)
    for entry in target.table:
        buffer = target.buffers[entry.buffer]
        nbytes = nbytes_of(entry.storage, buffer.shape)
        stored = np.frombuffer(blob[entry.offset:entry.offset + nbytes], DTYPES[entry.storage])
        place = area[buffer.offset:buffer.offset + buffer.nbytes]
        np.copyto(place.view(DTYPES[buffer.dtype]), stored)
        # File and widened weights together would be the process's peak of memory.
        if nbytes > _RELEASE_NBYTES:
            source.release_pages()
