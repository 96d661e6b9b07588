"""Decompresses what can be decompressed: up to the last sound block of a damaged or cut file."""

import bz2
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard

# Kinds of compression, named by their file extensions.
ZSTD, BZIP2, PLAIN = ".zst", ".bz2", ""

_MAGIC = {ZSTD: b"\x28\xb5\x2f\xfd", BZIP2: b"BZh"}
_CHUNK = 4096  # compressed bytes at a time: few, as they may become a thousandfold
_LARGEST_WINDOW = 64 * 1024 * 1024  # bytes of memory a zstd frame may ask for


def detect(content: bytes) -> str:
    """Kind of compression, from the first bytes."""
    return next((kind for kind, magic in _MAGIC.items() if content.startswith(magic)), PLAIN)


class Decompressed:
    """Iterates over the decompressed content in pieces; then `problem` says what ended it early."""

    def __init__(self, content: bytes, kind: str) -> None:
        self.problem: str | None = None
        self._content = memoryview(content)
        self._kind = kind

    def __iter__(self) -> Iterator[bytes]:
        self.problem = None
        if self._kind == PLAIN:
            yield from map(bytes, _pieces(self._content))
            return
        rest = self._content
        while rest:  # files may be put together from several streams
            decoder = _DECODERS[self._kind]()
            done = 0
            for piece in _pieces(rest):
                try:
                    output = decoder.decompress(piece)
                except _DECODER_ERRORS as error:
                    yield self._last_sound_part(rest[:done], piece)
                    end = len(self._content) - len(rest) + done + len(piece)
                    self.problem = f"the compressed file is damaged before byte {end} ({error})"
                    return
                yield output
                done += len(piece)
                if decoder.eof:
                    break
            if not decoder.eof:
                self.problem = f"the compressed file is cut off after {len(self._content)} bytes"
                return
            rest = rest[done - len(decoder.unused_data) :]

    def _last_sound_part(self, before: memoryview, damaged: memoryview) -> bytes:
        """What `damaged` still yields. Decoders give nothing for a piece with an error in it, so
        it is taken byte by byte, by a new decoder that has seen the sound pieces before it."""
        decoder = _DECODERS[self._kind]()
        for piece in _pieces(before):
            decoder.decompress(piece)
        output = bytearray()
        try:
            for index in range(len(damaged)):
                output += decoder.decompress(damaged[index : index + 1])
        except _DECODER_ERRORS:
            pass
        return bytes(output)


def _pieces(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


class _Decoder(Protocol):
    def decompress(self, data: memoryview) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def _zstd() -> _Decoder:
    decoder: _Decoder = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
    return decoder


_DECODERS: dict[str, Callable[[], _Decoder]] = {ZSTD: _zstd, BZIP2: bz2.BZ2Decompressor}
_DECODER_ERRORS = (zstandard.ZstdError, OSError, EOFError, ValueError)
