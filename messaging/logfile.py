"""Log files: Events one after the other, compressed (rlog.zst, rlog.bz2) or plain.

There is no header and no index. Reading keeps everything up to a damage and says where it was.
"""

import bz2
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import zstandard

from messaging.decompress import BZIP2, PLAIN, ZSTD, Decompressed, detect
from messaging.errors import LogFileError, MessageError
from messaging.message import decode, framed_size, peek, to_bytes

log = logging.getLogger(__name__)

_ZSTD_LEVEL = 10

# What a killed writer loses at most. Counted in messages and bytes, not in time: the same messages
# give the same file.
_FLUSH_MESSAGES = 100
_FLUSH_BYTES = 256 * 1024
_BZIP2_STREAM_BYTES = 900_000  # the block size of bzip2: shorter streams would compress worse


class LogWriter:
    """Writes a log file. The extension of the path decides: .zst, .bz2, anything else is plain.

    Raises LogFileError if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.messages = 0
        try:
            self._file = open(self.path, "wb")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise LogFileError(f"cannot write log {self.path}: {error.strerror}") from None
        self._encoder: _Encoder = _ENCODERS.get(self.path.suffix, _Plain)()
        self._unflushed_messages = 0
        self._unflushed_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, message: Any) -> None:
        """Append a builder of an Event, or the bytes of one.

        Raises MessageError for bytes that are not one whole message (nothing is written then),
        LogFileError if the disk takes no more.
        """
        data = to_bytes(message)
        peek(data)
        self._append(self._encoder.compress(data))
        self.messages += 1
        self._unflushed_messages += 1
        self._unflushed_bytes += len(data)
        if (
            self._unflushed_messages >= self._encoder.flush_messages
            or self._unflushed_bytes >= self._encoder.flush_bytes
        ):
            self.flush()

    def flush(self) -> None:
        """Make everything written so far readable, even if this process is killed now."""
        if self._unflushed_messages:
            self._append(self._encoder.flush())
            self._file.flush()
            self._unflushed_messages = self._unflushed_bytes = 0

    def close(self) -> None:
        if not self._file.closed:
            self._append(self._encoder.finish())
            self._file.close()

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise LogFileError(f"cannot write log {self.path}: {error.strerror}") from None


class _Encoder(Protocol):
    """Compresses a log. It is flushed after that many messages or bytes."""

    @property
    def flush_messages(self) -> float: ...
    @property
    def flush_bytes(self) -> int: ...

    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def finish(self) -> bytes: ...


class _Plain:
    flush_messages = _FLUSH_MESSAGES
    flush_bytes = _FLUSH_BYTES

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


class _Zstd:
    """One frame for the whole file; a flush ends a block of it."""

    flush_messages = _FLUSH_MESSAGES
    flush_bytes = _FLUSH_BYTES

    def __init__(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self._compressor = compressor.compressobj()

    def compress(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


class _Bzip2:
    """bzip2 cannot flush: a flush ends a stream, and the next one follows it."""

    flush_messages = math.inf
    flush_bytes = _BZIP2_STREAM_BYTES

    def __init__(self) -> None:
        self._compressor = bz2.BZ2Compressor()

    def compress(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        data = self._compressor.flush()
        self._compressor = bz2.BZ2Compressor()
        return data

    def finish(self) -> bytes:
        return self._compressor.flush()


_ENCODERS: dict[str, Callable[[], _Encoder]] = {ZSTD: _Zstd, BZIP2: _Bzip2, PLAIN: _Plain}


class LogReader:
    """Iterates over the Events of a log in file order.

    source: path of a file, or its content. The extension says how it is compressed, else its first
        bytes do.
    only_known: leave out messages of members newer than our schema; otherwise they come too, and
        only their logMonoTime and valid can be read.

    After (or during) the iteration:
        problem     None, or a sentence: where the log is damaged and how much of it is lost
        messages    Events given out
        unknown     messages newer than our schema
        malformed   whole messages that could not be decoded; they are left out

    Raises LogFileError if the file cannot be read at all. Damage is no error: everything before it
    is given out.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, only_known: bool = True) -> None:
        self.name = "log"
        suffix = ""
        if isinstance(source, bytes):
            self._content = source
        else:
            path = Path(source)
            self.name, suffix = str(path), path.suffix
            try:
                self._content = path.read_bytes()
            except OSError as error:
                raise LogFileError(f"cannot read log {path}: {error.strerror}") from None
        self._compression = suffix if suffix in (ZSTD, BZIP2) else detect(self._content)
        self._only_known = only_known
        self._reset()

    def _reset(self) -> None:
        self.problem: str | None = None
        self.messages = 0
        self.unknown = 0
        self.malformed = 0

    def __iter__(self) -> Iterator[Any]:
        self._reset()
        for data in self._whole_messages():
            try:
                known = peek(data).member is not None
                event = decode(data)
            except MessageError as error:
                if self.malformed == 0:
                    log.warning("%s: a message is left out: %s", self.name, error)
                self.malformed += 1
                continue
            if not known:
                self.unknown += 1
                if self._only_known:
                    continue
            self.messages += 1
            yield event

    def _whole_messages(self) -> Iterator[bytes]:
        stream = Decompressed(self._content, self._compression)
        buffer = bytearray()
        position = 0  # of the start of the buffer in the decompressed content
        dropped = 0
        reasons: list[str] = []
        for piece in stream:
            if reasons:  # where one message ends wrongly, nothing tells where the next begins
                dropped += len(piece)
                continue
            buffer += piece
            used = 0
            try:
                while size := _whole_message(buffer, used):
                    yield bytes(buffer[used : used + size])
                    used += size
            except MessageError as error:
                reasons.append(str(error))
            del buffer[:used]
            position += used
        dropped += len(buffer)
        if stream.problem is not None:
            reasons.append(stream.problem)
        elif dropped and not reasons:
            reasons.append("the last message is cut off")
        if reasons:
            self.problem = (
                f"{self.name} is readable up to byte {position} of its content, the {dropped} "
                f"bytes after it are dropped: {'; '.join(reasons)}"
            )
            log.warning("%s", self.problem)


def _whole_message(buffer: bytearray, offset: int) -> int | None:
    """Size of the message at `offset` if all of it is there."""
    size = framed_size(buffer, offset)
    return size if size is not None and offset + size <= len(buffer) else None
