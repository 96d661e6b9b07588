"""A ring of picture buffers in a shared memory file, written by one process, read by many.

Layout: a header that says everything a reader needs, one sequence counter per slot, the slots.
Frame number n (counted from 0) lies in slot n % slots. The slot's counter is odd while the frame
is written (2n + 1) and even when it is whole (2n + 2): a reader that was told of frame n and finds
2n + 2 after it has read the slot has read frame n and nothing else.

The file gets its name only when it is complete, by renaming: a reader sees a whole ring or none.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from messaging.errors import FrameError
from messaging.fence import fence
from messaging.nv12 import U8, FrameGeometry

Intrinsics = tuple[float, float, float]  # focal length, centre x, centre y; pixels

_MAGIC = b"tdframes"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ5QQ3d")
_COUNTERS_AT = 4096
_COUNTER_WORDS = 8  # each counter has a cache line (64 bytes) of its own
_MAX_SLOTS = 64
_SLOTS_AT = _COUNTERS_AT + _MAX_SLOTS * _COUNTER_WORDS * 8
_PAGE = 4096
_FAR = 1e6  # pixels, more than any camera has between two of its points


@dataclass(frozen=True)
class RingDescription:
    """What the header says.

    server: random number of the server that made the ring. process: its process id.
    """

    server: int
    process: int
    slots: int
    geometry: FrameGeometry
    intrinsics: Intrinsics | None

    def __post_init__(self) -> None:
        if not 2 <= self.slots <= _MAX_SLOTS:
            raise FrameError(f"a stream has 2 to {_MAX_SLOTS} buffers, not {self.slots}")
        focal, *center = self.intrinsics or (1.0, 0.0, 0.0)
        if not 0 < focal < _FAR or not all(-_FAR < value < _FAR for value in center):
            raise FrameError(f"a camera cannot have focal length {focal} and center {center}")

    @property
    def slot_bytes(self) -> int:
        """Distance of the slots, whole pages."""
        return -(-self.geometry.nbytes // _PAGE) * _PAGE

    @property
    def file_bytes(self) -> int:
        return _SLOTS_AT + self.slots * self.slot_bytes

    def to_bytes(self) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.slots,
            self.server,
            self.process,
            *astuple(self.geometry),
            self.intrinsics is not None,
            *(self.intrinsics or (0.0, 0.0, 0.0)),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises FrameError if `data` does not describe a ring this version can read."""
        if len(data) < _HEADER.size:
            raise FrameError(f"its header has only {len(data)} bytes")
        magic, version, slots, server, process, *rest = _HEADER.unpack(data[: _HEADER.size])
        if magic != _MAGIC:
            raise FrameError("it does not begin like shared memory of camera frames")
        if version != _VERSION:
            raise FrameError(f"it has version {version}, this program reads version {_VERSION}")
        *geometry, has_intrinsics, focal, center_x, center_y = rest
        intrinsics = (focal, center_x, center_y) if has_intrinsics else None
        return cls(server, process, slots, FrameGeometry(*geometry), intrinsics)


class FrameRing:
    """The mapped file. Made by `create` (the writer) or `open` (readers)."""

    def __init__(
        self, path: Path, descriptor: int, description: RingDescription, write: bool
    ) -> None:
        self.path = path
        self.description = description
        self._identity = _identity(os.fstat(descriptor))
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        # the arrays keep the mapping alive; it ends with the last of them
        memory = mmap.mmap(descriptor, description.file_bytes, access=access)
        counters = np.frombuffer(
            memory, np.uint64, count=description.slots * _COUNTER_WORDS, offset=_COUNTERS_AT
        )
        self.counters = counters[::_COUNTER_WORDS]  # (slots,), one aligned word each
        slots = np.frombuffer(
            memory, np.uint8, count=description.slots * description.slot_bytes, offset=_SLOTS_AT
        )
        slots = slots.reshape(description.slots, description.slot_bytes)
        self._slots = slots[:, : description.geometry.nbytes]

    @classmethod
    def create(cls, places: list[Path], description: RingDescription) -> Self:
        """A new ring at the first of `places` that has room; it replaces an older one.

        Raises FrameError if none has room.
        """
        reasons = []
        for path in places:
            try:
                ring = cls._create_at(path, description)
            except OSError as error:
                reasons.append(f"{path.parent}: {error.strerror}")
                continue
            for other in places:
                if other != path:
                    other.unlink(missing_ok=True)  # left by a server that was killed
            return ring
        raise FrameError(
            f"no room for {description.file_bytes / 1e6:.1f} MB of camera frames "
            f"({'; '.join(reasons)}); use fewer buffers or make room"
        )

    @classmethod
    def _create_at(cls, path: Path, description: RingDescription) -> Self:
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # without its memory reserved, a full file system would kill us when we write
            os.posix_fallocate(descriptor, 0, description.file_bytes)
            os.pwrite(descriptor, description.to_bytes(), 0)
            ring = cls(path, descriptor, description, write=True)
            draft.rename(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return ring

    @classmethod
    def open(cls, places: list[Path], server: int | None = None) -> Self | None:
        """The ring of `server`, or of any server that still runs, for reading.

        None if it is at none of `places`.

        Raises FrameError for a file that is there and is no ring.
        """
        for path in places:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                status = os.fstat(descriptor)
                if status.st_uid != os.getuid():  # anybody may put files into /dev/shm
                    continue
                size = status.st_size
                if size < _SLOTS_AT:
                    raise FrameError(f"it is only {size} bytes long")
                description = RingDescription.from_bytes(os.pread(descriptor, _HEADER.size, 0))
                if size < description.file_bytes:
                    raise FrameError(f"it announces {description.file_bytes} bytes and has {size}")
                wanted = description.server == server
                if server is None:
                    wanted = process_runs(description.process)
                if wanted:
                    return cls(path, descriptor, description, write=False)
            except FrameError as error:
                raise FrameError(f"cannot read camera frames from {path}: {error}") from None
            finally:
                os.close(descriptor)
        return None

    @contextlib.contextmanager
    def writing(self, count: int) -> Iterator[U8]:
        """The buffer, (nbytes,), in which frame `count` is to be written."""
        slot = count % self.description.slots
        self.counters[slot] = 2 * count + 1
        fence()
        yield self._slots[slot]
        fence()
        self.counters[slot] = 2 * count + 2

    def holds(self, count: int) -> bool:
        """Whether frame `count` is whole in its slot now."""
        fence()  # what was read before this question was read before the answer
        whole = bool(self.counters[count % self.description.slots] == 2 * count + 2)
        fence()
        return whole

    def view(self, count: int) -> U8:
        """Where frame `count` lies, (used_nbytes,), if the ring holds it.

        What was read there was that frame, or part of it, if the ring `holds` it afterwards.
        """
        used = self.description.geometry.used_nbytes
        return self._slots[count % self.description.slots, :used]

    def unlink(self) -> None:
        """Remove the file, unless another server has put its own there."""
        with contextlib.suppress(OSError):
            if _identity(self.path.stat()) == self._identity:
                self.path.unlink()


def process_runs(process: int) -> bool:
    """Whether there is a process of this number."""
    if not 0 < process < 2**31:
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs and is somebody else's
        return True
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
