"""From file to checked manifest and blobs. Nothing in the file is executed or trusted here."""
from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinynn.runtime.check import check_blobs, check_manifest
from tinynn.runtime.layout import (
    HEADER_NBYTES,
    ArtifactError,
    Fault,
    Header,
    parse_json,
    sha256_hex,
    unpack,
)
from tinynn.runtime.manifest import Blob, Manifest, parse, upgrade

_CHUNK_NBYTES = 1 << 20


class Source(Protocol):
    """What a runner reads a program from: a Reader, or a program that was just compiled."""

    name: str
    json: dict[str, Any]
    manifest: Manifest

    def blob(self, index: int) -> memoryview: ...
    def code(self, index: int) -> bytes: ...
    def text(self, index: int) -> str: ...
    def release_pages(self) -> None: ...


class Reader:
    """A sound artifact.

    name: for messages. json: the manifest as plain data in today's form. manifest: the same, typed.
    sha256: of the manifest; it identifies the artifact, because the manifest holds the hashes of
    all blobs.

    Hashing the blobs is most of the work of reading. A thread does it, so that the weights can be
    copied meanwhile; nothing of a blob may be trusted before `wait`, but `code` checks for itself.
    """

    def __init__(self, data: bytes | mmap.mmap, name: str, fd: int | None = None) -> None:
        """Check everything but the blobs' hashes; raises ArtifactError.

        fd: of the mapped file; closed when its blobs are hashed.
        """
        self.name = name
        self._data = data
        self._fd = fd
        self._view = memoryview(data)
        self._fault: Exception | None = None
        self._hashing: threading.Thread | None = None
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
        upgrade(self.json, header.version)
        self.manifest: Manifest = parse(self.json, header.version)
        check_blobs(self.manifest.blobs, header.manifest_nbytes, header.file_nbytes)
        for blob in self.manifest.blobs:
            self._check_padding(end, blob.offset)
            end = blob.offset + blob.nbytes
        self._hashing = threading.Thread(target=self._check_hashes, name="tinynn-hash", daemon=True)
        self._hashing.start()
        check_manifest(self.manifest)

    def wait(self) -> None:
        """Return when every blob's hash is checked; raises ArtifactError if one is wrong."""
        if self._hashing is not None:
            self._hashing.join()
        if self._fault is not None:
            raise ArtifactError(f"{self.name}: {self._fault}")

    def _check_hashes(self) -> None:
        try:
            for i, blob in enumerate(self.manifest.blobs):
                digest = hashlib.sha256()
                for chunk in self._chunks(blob):
                    digest.update(chunk)
                if digest.hexdigest() != blob.sha256:
                    raise Fault(f"blob {i} ({blob.kind}), bytes {blob.offset} to "
                                f"{blob.offset + blob.nbytes}",
                                "its sha256 is not the one in the manifest")
        except (Fault, OSError) as error:
            self._fault = error
        finally:
            self._close_file()

    def _chunks(self, blob: Blob) -> Iterator[memoryview]:
        """The bytes of a blob; those of a file are read, because mapped ones would count twice
        in the memory of the process while weights are copied."""
        if self._fd is None:
            yield self._view[blob.offset:blob.offset + blob.nbytes]
            return
        buffer = memoryview(bytearray(min(blob.nbytes, _CHUNK_NBYTES)))
        offset, end = blob.offset, blob.offset + blob.nbytes
        while offset < end:
            got = os.preadv(self._fd, [buffer[:end - offset]], offset)
            if got == 0:
                raise Fault(f"end of file at byte {offset}", "the file became shorter while read")
            yield buffer[:got]
            offset += got

    def _check_padding(self, start: int, end: int) -> None:
        if np.frombuffer(self._view[start:end], dtype=np.uint8).any():
            raise Fault(f"padding, bytes {start} to {end}", "it is not zero")

    def blob(self, index: int) -> memoryview:
        """Bytes of a blob as they lie in the file; valid until close()."""
        blob = self.manifest.blobs[index]
        return self._view[blob.offset:blob.offset + blob.nbytes]

    def text(self, index: int) -> str:
        """A blob of source text."""
        return self.code(index).decode(errors="replace")

    def release_pages(self) -> None:
        """Let the system take back the memory of what was read so far; a later read maps again."""
        if isinstance(self._data, mmap.mmap):
            self._data.madvise(mmap.MADV_DONTNEED)

    def code(self, index: int) -> bytes:
        """The content of a blob, checked again: a file can change between check and use."""
        blob, stored = self.manifest.blobs[index], bytes(self.blob(index))
        if sha256_hex(stored) != blob.sha256:
            # Either the file changed, or nobody has waited for the hashes and it is damaged.
            raise ArtifactError(f"{self.name}: the file changed while it was read. Load it again.")
        try:
            return stored if blob.unpacked_nbytes is None else unpack(stored, blob.unpacked_nbytes)
        except ValueError as error:
            raise ArtifactError(f"{self.name}: blob {index} ({blob.kind}): {error}. Compile the "
                                "model again.") from None

    def data(self) -> bytes:
        """The whole file."""
        return bytes(self._view)

    def close(self) -> None:
        """Give the file back. Arrays made from blob() must be gone."""
        if self._hashing is not None:
            self._hashing.join()
        self._close_file()
        self._view.release()
        if isinstance(self._data, mmap.mmap):
            # Views that are still alive keep the mapping until they go.
            with contextlib.suppress(BufferError):
                self._data.close()

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read(source: str | os.PathLike[str] | bytes, wait: bool = True) -> Reader:
    """Map a file, or take its bytes, and check it. Raises ArtifactError, also for an unreadable
    file. wait: False leaves it to the caller to call `Reader.wait` before results count."""
    reader = Reader(source, "<bytes>") if isinstance(source, bytes) else _open(Path(source))
    if wait:
        try:
            reader.wait()
        except ArtifactError:
            reader.close()
            raise
    return reader


def _open(path: Path) -> Reader:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        # An empty file cannot be mapped.
        empty = os.fstat(fd).st_size == 0
        data = b"" if empty else mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        os.close(fd)
        raise _unreadable(path, error) from None
    return Reader(data, str(path), fd)


def _unreadable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be read ({error.strerror}). Check the path.")
