"""The artifact file: sizes, header, canonical JSON, element types. Writer and reader share this.

    0     header, 64 bytes, little endian
    64    manifest, canonical JSON: UTF-8, keys sorted, no spaces, no NaN or infinity
    ...   blobs, each aligned to 4096 bytes and listed with its sha256 in the manifest

A blob lies there as it is, or compressed with bz2 where the manifest says how long its content is.
(Every bz2 writes the same bytes; of deflate there are several writers.)

Every byte of a file is covered: the header by comparison with file and manifest, the manifest by
the hash in the header, blobs by the hashes in the manifest, and what lies between must be zero.
"""
from __future__ import annotations

import bz2
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = b"\x89TNN\r\n\x1a\n"  # not text: a transfer that changes line ends is noticed
VERSION = (2, 0)  # major: older readers must refuse; minor: older readers may ignore new fields
OLDEST_MAJOR = 1  # that this program still reads
_HEADER = struct.Struct("<8sHHIQQ32s")
HEADER_NBYTES = _HEADER.size
MANIFEST_LIMIT = 16 << 20
BLOB_ALIGN = 4096  # a page, so that a blob can be mapped
MEMORY_ALIGN = 64  # a cache line and an AVX-512 register

# Element types by their manifest name. numpy has no bfloat16: its bit patterns travel as uint16.
DTYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "u8": np.dtype(np.uint8), "i8": np.dtype(np.int8),
    "u16": np.dtype(np.uint16), "i16": np.dtype(np.int16),
    "u32": np.dtype(np.uint32), "i32": np.dtype(np.int32),
    "u64": np.dtype(np.uint64), "i64": np.dtype(np.int64),
    "f16": np.dtype(np.float16), "bf16": np.dtype(np.uint16),
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64),
}
FLOATS = frozenset({"f16", "bf16", "f32", "f64"})


class ArtifactError(ValueError):
    """A file that is not a sound artifact. The message says what is wrong, where, what to do."""


class UntrustedArtifact(ArtifactError):  # noqa: N818  (the public name of the contract)
    """A sound artifact whose machine code nobody on this machine has vouched for."""


class DeviceLost(RuntimeError):  # noqa: N818  (named like the error of graphics drivers)
    """A device that worked does not any more; another target can take over."""


class Fault(Exception):  # noqa: N818  (becomes an ArtifactError once the file name is known)
    """Something wrong at a place in the file; `remedy` is what the user can do about it."""

    def __init__(self, where: str, problem: str,
                 remedy: str = "The file is damaged: copy it again or compile the model again"
                 ) -> None:
        super().__init__(f"{where}: {problem}. {remedy}.")


@dataclass(frozen=True)
class Header:
    """The first 64 bytes. Offsets and lengths in bytes; sha256 is that of the manifest."""

    version: tuple[int, int]
    manifest_nbytes: int
    manifest_offset: int
    file_nbytes: int
    sha256: bytes

    def pack(self) -> bytes:
        return _HEADER.pack(MAGIC, *self.version, self.manifest_nbytes, self.manifest_offset,
                            self.file_nbytes, self.sha256)

    @staticmethod
    def parse(data: memoryview) -> Header:
        """Read and check everything that the header alone and the file's length can tell."""
        if bytes(data[:len(MAGIC)]) != MAGIC:
            raise Fault("header, byte 0", "this is not an artifact (it has another signature)",
                        "Give a file written by `tinynn compile`")
        if len(data) < HEADER_NBYTES:
            raise Fault(f"header, byte {len(data)}", "the file ends inside the header")
        _, major, minor, manifest_nbytes, offset, file_nbytes, sha256 = _HEADER.unpack(
            data[:HEADER_NBYTES])
        if not OLDEST_MAJOR <= major <= VERSION[0]:
            raise Fault("header, byte 8", f"artifact format {major}.{minor} is none of the formats "
                        f"{OLDEST_MAJOR} to {VERSION[0]} that this program reads",
                        "Install the tinydrive that wrote it, or compile the model again")
        if file_nbytes != len(data):
            kind = "truncated" if len(data) < file_nbytes else "longer than written"
            raise Fault(f"header, byte 24, and end of file at byte {len(data)}",
                        f"the file is {kind}: it has {len(data)} bytes and should have "
                        f"{file_nbytes}")
        if offset != HEADER_NBYTES:
            raise Fault("header, byte 16", f"the manifest starts at byte {offset} and should at "
                        f"{HEADER_NBYTES}")
        if not 0 < manifest_nbytes <= min(MANIFEST_LIMIT, len(data) - offset):
            raise Fault("header, byte 12", f"a manifest of {manifest_nbytes} bytes does not fit")
        return Header((major, minor), manifest_nbytes, offset, file_nbytes, sha256)


def align(nbytes: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-nbytes // alignment) * alignment


def canonical_json(value: Any) -> bytes:
    """The one way to write plain data; raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False,
                      allow_nan=False).encode()


def parse_json(data: bytes) -> Any:
    """Plain data from canonical JSON; a Fault for anything else, however hostile."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_duplicates)
        if canonical_json(value) == data:
            return value
        problem = "it is JSON but not in canonical form"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:
        problem = f"it is not the JSON it should be ({error})"
    raise Fault("manifest", problem)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def sha256_hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def unpack(data: bytes | memoryview, nbytes: int) -> bytes:
    """The content of a compressed blob, which must have this length; never makes more of it."""
    unpacker = bz2.BZ2Decompressor()
    try:
        content = unpacker.decompress(data, nbytes + 1)
    except OSError:
        content = b""
    if len(content) != nbytes or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"its compressed content is damaged or not {nbytes} bytes long")
    return content
