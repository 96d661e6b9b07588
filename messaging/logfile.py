"""Log files: Events one after the other, compressed (rlog.zst, rlog.bz2) or plain.

There is no header and no index. Reading keeps everything up to a damage and says where it was.
"""

import bz2
import contextlib
import logging
import math
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import zstandard

from messaging.closing import Closing
from messaging.decompress import BZIP2, PLAIN, ZSTD, Decompressed, detect
from messaging.errors import LogFileError, MessageError
from messaging.message import Peek, decode, event_member, framed_size, peek, to_bytes
from messaging.routes import log_files

log = logging.getLogger(__name__)

_ZSTD_LEVEL = 10

# What a killed writer loses at most. Counted in messages and bytes, not in time: the same messages
# give the same file.
_FLUSH_MESSAGES = 100
_FLUSH_BYTES = 256 * 1024
_BZIP2_STREAM_BYTES = 900_000  # the block size of bzip2: shorter streams would compress worse


class LogWriter(Closing):
    """Writes a log file. The extension of the path decides: .zst, .bz2, anything else is plain.

    messages: how many were written. failed: the file could not be written any further.

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
        self.failed = False

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
            self._flush_file()
            self._unflushed_messages = self._unflushed_bytes = 0

    def close(self) -> None:
        """End the file. After an error it stays as it is: readable up to its last flush."""
        if self._file.closed:
            return
        try:
            if not self.failed:
                self._append(self._encoder.finish())
                self._flush_file()
        finally:
            with contextlib.suppress(OSError):  # what could not be written has been said
                self._file.close()

    def _append(self, data: bytes) -> None:
        with self._errors():
            self._file.write(data)

    def _flush_file(self) -> None:
        with self._errors():
            self._file.flush()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
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


# What a LogReader reads: the content of a log, a path (see routes.log_files), or several of them.
LocalPath = str | os.PathLike[str]
Source = LocalPath | bytes | Sequence[LocalPath]


class LogReader:
    """Iterates over the Events of a log in file order.

    source: a path, or several, read one after the other: of a file, of a folder with a log in it,
        of the segments of a route (see routes.log_files). Or the content of a file. The extension
        says how a file is compressed, else its first bytes do.
    only_known: leave out messages of members newer than our schema; otherwise they come too, and
        only their logMonoTime and valid can be read.
    services: give only these services (or other members of Event; old names too). The others are
        not decoded.
    kind: "rlog" or "qlog": which log of a folder or route.
    parallel: number of processes that decompress and select, one file each. They are started
        afresh: a program that uses this needs the usual `if __name__ == "__main__"`.

    After (or during) the iteration:
        problem     None, or a sentence: where the log is damaged and how much of it is lost
        messages    Events given out
        unknown     messages newer than our schema
        malformed   whole messages that could not be decoded; they are left out

    Raises LogFileError if a file cannot be read at all, UnknownServiceError for an unknown service.
    Damage is no error: everything before it is given out.
    """

    def __init__(
        self,
        source: Source,
        *,
        only_known: bool = True,
        services: Iterable[str] | None = None,
        kind: str = "rlog",
        parallel: int = 1,
    ) -> None:
        self._content = source if isinstance(source, bytes) else None
        self.paths = [] if isinstance(source, bytes) else _paths(source, kind)
        for path in self.paths:
            _check_readable(path)
        self._members = None if services is None else frozenset(map(event_member, services))
        self._only_known = only_known
        self._parallel = parallel
        self._reset()

    def _reset(self) -> None:
        self._problems: list[str] = []
        self.messages = 0
        self.unknown = 0
        self.malformed = 0

    @property
    def problem(self) -> str | None:
        return "; ".join(self._problems) or None

    def __iter__(self) -> Iterator[Any]:
        for _, data in self.raw():
            try:
                event = decode(data)
            except MessageError as error:
                self.messages -= 1
                self._count_malformed(1, str(error))
                continue
            yield event

    def raw(self) -> Iterator[tuple[Peek, bytes]]:
        """The same messages as bytes, each with what its first words say; nothing is decoded."""
        self._reset()
        for selection in self._selections():
            for seen, data in selection:
                if seen.member is None:
                    self.unknown += 1
                    if self._only_known:
                        continue
                self.messages += 1
                yield seen, data
            self._count_malformed(selection.malformed, selection.reason)
            if selection.problem is not None:
                self._problems.append(selection.problem)
                log.warning("%s", selection.problem)

    def _selections(self) -> Iterator["_Selection"]:
        if self._content is not None:
            yield _Selection("log", self._content, detect(self._content), self._members)
        elif self._parallel > 1 and len(self.paths) > 1:
            yield from self._selections_of_processes()
        else:
            for path in self.paths:
                yield _select(path, self._members)

    def _selections_of_processes(self) -> Iterator["_Selection"]:
        # a fresh interpreter each: forking would copy locks that other threads hold
        context = multiprocessing.get_context("spawn")
        processes = min(self._parallel, len(self.paths))
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            ahead: deque[Future[_Selection]] = deque()
            try:
                for path in self.paths:
                    ahead.append(pool.submit(_select_all, path, self._members))
                    if len(ahead) > processes:  # no further: whole files wait in memory
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _count_malformed(self, count: int, reason: str) -> None:
        if count and self.malformed == 0:
            name = self.paths[0] if len(self.paths) == 1 else "log"
            log.warning("%s: a message is left out: %s", name, reason)
        self.malformed += count


class _Selection:
    """The messages of `members` (None: all) in one file. It can be sent to another process once
    `take_all` has read it.

    After the iteration: `malformed` messages whose first words make no sense, `reason` the first
    one's; `problem` as of LogReader.
    """

    def __init__(
        self, name: str, content: bytes, compression: str, members: frozenset[str] | None
    ) -> None:
        self.name = name
        self.malformed = 0
        self.reason = ""
        self.problem: str | None = None
        self._content = content
        self._compression = compression
        self._members = members
        self._taken: list[tuple[Peek, bytes]] | None = None

    def take_all(self) -> None:
        self._taken = list(self)
        self._content = b""

    def __iter__(self) -> Iterator[tuple[Peek, bytes]]:
        if self._taken is not None:
            yield from self._taken
            return
        for data in self._whole_messages():
            try:
                seen = peek(data)
            except MessageError as error:
                self.reason = self.reason or str(error)
                self.malformed += 1
                continue
            if self._members is None or seen.member in self._members:
                yield seen, data

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


def _select(path: Path, members: frozenset[str] | None) -> _Selection:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LogFileError(f"cannot read log {path}: {error.strerror}") from None
    compression = path.suffix if path.suffix in (ZSTD, BZIP2) else detect(content)
    return _Selection(str(path), content, compression, members)


def _select_all(path: Path, members: frozenset[str] | None) -> _Selection:
    selection = _select(path, members)
    selection.take_all()
    return selection


def _paths(source: LocalPath | Sequence[LocalPath], kind: str) -> list[Path]:
    sources = [source] if isinstance(source, str | os.PathLike) else source
    return [path for one in sources for path in log_files(one, kind)]


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise LogFileError(f"cannot read log {path}: {error.strerror}") from None


def _whole_message(buffer: bytearray, offset: int) -> int | None:
    """Size of the message at `offset` if all of it is there."""
    size = framed_size(buffer, offset)
    return size if size is not None and offset + size <= len(buffer) else None
