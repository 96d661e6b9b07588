"""From file to checked manifest and blobs. Nothing in the file is executed or trusted here."""
from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.runtime.check import check_blobs, check_manifest
from tinynn.runtime.layout import (
    HEADER_NBYTES,
    ArtifactError,
    Fault,
    Header,
    parse_json,
    sha256_hex,
)
from tinynn.runtime.manifest import Manifest, parse


class Reader:
    """A sound artifact.

    name: for messages. json: the manifest as plain data. manifest: the same, typed.
    sha256: of the manifest; it identifies the artifact, because the manifest holds the hashes of
    all blobs.
    """

    def __init__(self, data: bytes | mmap.mmap, name: str) -> None:
        """Check everything; raises ArtifactError."""
        self.name = name
        self._data = data
        self._view = memoryview(data)
        try:
            self._read()
        except Fault as fault:
            self.close()
            raise ArtifactError(f"{name}: {fault}") from None

    def _read(self) -> None:
        header = Header.parse(self._view)
        end = HEADER_NBYTES + header.manifest_nbytes
        raw = bytes(self._view[HEADER_NBYTES:end])
        self.sha256 = sha256_hex(raw)
        if self.sha256 != header.sha256.hex():
            raise Fault(f"manifest, bytes {HEADER_NBYTES} to {end}, or its hash at byte 32",
                        "the sha256 of the manifest is not the one in the header")
        self.json: dict[str, Any] = parse_json(raw)
        self.manifest: Manifest = parse(self.json, header.version)
        check_blobs(self.manifest.blobs, header.manifest_nbytes, header.file_nbytes)
        for i, blob in enumerate(self.manifest.blobs):
            self._check_padding(end, blob.offset)
            end = blob.offset + blob.nbytes
            if sha256_hex(self._view[blob.offset:end]) != blob.sha256:
                raise Fault(f"blob {i} ({blob.kind}), bytes {blob.offset} to {end}",
                            "its sha256 is not the one in the manifest")
            self.release_pages()
        check_manifest(self.manifest)

    def _check_padding(self, start: int, end: int) -> None:
        if np.frombuffer(self._view[start:end], dtype=np.uint8).any():
            raise Fault(f"padding, bytes {start} to {end}", "it is not zero")

    def blob(self, index: int) -> memoryview:
        """Bytes of a blob; valid until close()."""
        blob = self.manifest.blobs[index]
        return self._view[blob.offset:blob.offset + blob.nbytes]

    def release_pages(self) -> None:
        """Let the system take back the memory of what was read so far; a later read maps again."""
        if isinstance(self._data, mmap.mmap):
            self._data.madvise(mmap.MADV_DONTNEED)

    def code(self, index: int) -> bytes:
        """A copy of a blob, checked again: a file can change between check and use."""
        code = bytes(self.blob(index))
        if sha256_hex(code) != self.manifest.blobs[index].sha256:
            raise ArtifactError(f"{self.name}: the file changed while it was read. Load it again.")
        return code

    def data(self) -> bytes:
        """The whole file."""
        return bytes(self._view)

    def close(self) -> None:
        """Give the file back. Arrays made from blob() must be gone."""
        self._view.release()
        if isinstance(self._data, mmap.mmap):
            # Views that are still alive keep the mapping until they go.
            with contextlib.suppress(BufferError):
                self._data.close()


def read(source: str | os.PathLike[str] | bytes) -> Reader:
    """Map a file, or take its bytes, and check it. Raises ArtifactError, also for an unreadable
    file."""
    if isinstance(source, bytes):
        return Reader(source, "<bytes>")
    path = Path(source)
    try:
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            if os.fstat(file.fileno()).st_size == 0:
                return Reader(b"", str(path))
            return Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None
