"""msgq as a transport: openpilot's own bus, one ring in shared memory per endpoint.

The file /dev/shm/msgq_<name> (with a prefix /dev/shm/msgq_<prefix>/<name>) holds

    num_readers, write_pointer, write_uid               3 words of 64 bits
    read_pointers[15], read_valids[15], read_uids[15]   a column per reader
    data                                                the ring

A pointer is cycle << 32 | offset. A message is its length (a signed word) and its bytes, padded to
whole words; the length -1 says that the writer went back to the start. The writer never waits: of a
reader that it is about to overrun it clears `read_valids`, and the reader, which looks at that
after it has copied a message, throws the copy away and goes on at the write pointer.

Memory ordering. x86 keeps stores in order; ARM keeps nothing in order that is not told to. Three
orders matter, and each has a full fence on either side (fence.py):

  message before pointer    The writer stores length and bytes, fence, then write_pointer. The
                            reader loads write_pointer, fence, then length and bytes. So a reader
                            that sees the pointer sees the message.
  warning before damage     The writer clears read_valids, fence, then overwrites. The reader
                            copies, fence, then loads its read_valids. So a reader that copied
                            one byte of the new message sees that it was warned.
  pointer before validity   A reader that starts or was overrun stores its pointer, fence, then sets
                            its read_valids. So the writer never takes a stale pointer for a new
                            one: the other way round it could clear the flag for the old pointer,
                            and that would be lost.

Every word is aligned, and CPython reads and writes one of a cast memoryview with a copy of constant
size, which compilers make one instruction: words are never torn. What Python lacks is an atomic
compare-and-swap for taking a reader's column. Our own processes exclude each other with a file
lock; a race with somebody else's ends with one uid in the column, and the loser, who checks
that before every message, registers again.

What is known of msgq leaves some things open. Chosen here: the data begin right behind the header;
a new writer empties the table of readers (those that live register again); a reader that leaves
sets its uid to 0, and such a column is used again; the ring has the size of its file, which grows
to what the service needs and never shrinks; a message has at least one byte.

Wake-up. The low half of a uid is a thread, to which the writer sends SIGUSR2. That signal would end
a process that does not expect it. So a process with readers ignores it, unless it has a handler,
and the thread that makes a reader blocks it and fetches it with sigtimedwait (children inherit
both). Writers here send it only to threads that block, catch or ignore it. A reader that gets no
signal looks every 5 ms.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import secrets
import signal
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

from messaging.aliases import EVENT_ALIASES
from messaging.bus import Bus
from messaging.errors import BusError
from messaging.fence import fence
from messaging.services import SERVICES

MAX_READERS = 15
HEADER_BYTES = 8 * (3 + 3 * MAX_READERS)
DEFAULT_RING_BYTES = 1024 * 1024  # of endpoints that are no services

# Words of the header.
_NUM_READERS, _WRITE_POINTER, _WRITE_UID = 0, 1, 2
_READ_POINTERS = 3
_READ_VALIDS = _READ_POINTERS + MAX_READERS
_READ_UIDS = _READ_VALIDS + MAX_READERS

_WORD = 8
_WRAP = -1  # in place of a length
_OFFSET_MASK = 0xFFFF_FFFF
_THREAD_MASK = 0xFFFF_FFFF
_LOOK_S = 0.005  # between two looks at rings whose writer sends no signal
_SIGNAL_CHECK_S = 1.0  # how long a thread that may be signalled is not checked again

_TKILL = {"x86_64": 200, "aarch64": 130}.get(platform.machine())  # number of the system call


def ring_bytes(name: str) -> int:
    """Size of the data of the ring `name`."""
    service = SERVICES.get(EVENT_ALIASES.get(name, name))
    return DEFAULT_RING_BYTES if service is None else int(service.queue)


def padded(length: int) -> int:
    """Bytes that a message of `length` bytes takes in the ring."""
    return (_WORD + length + _WORD - 1) // _WORD * _WORD


class MsgqRing:
    """The mapped file of one endpoint.

    words: the header. lengths: the data as signed words. data: the same as bytes. size: in bytes.
    reserve: have the system set the memory aside, so that a full one is an error here and not the
        end of the process later.
    Raises BusError if the file cannot be had.
    """

    def __init__(self, name: str, bus: Bus, *, reserve: bool) -> None:
        path = bus.msgq_ring(name)
        wanted = HEADER_BYTES + ring_bytes(name)
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
            self._close_file = weakref.finalize(self, os.close, self.descriptor)
            with self.locked():
                if os.fstat(self.descriptor).st_size < wanted:
                    os.ftruncate(self.descriptor, wanted)
            total = os.fstat(self.descriptor).st_size // _WORD * _WORD
            if reserve:
                os.posix_fallocate(self.descriptor, 0, total)
            self._memory = mmap.mmap(self.descriptor, total)
        except OSError as error:
            raise BusError(f"cannot use the msgq ring {path}: {error.strerror}") from None
        self.size = total - HEADER_BYTES
        everything = memoryview(self._memory)
        self.words = everything[:HEADER_BYTES].cast("Q")
        self.data = everything[HEADER_BYTES:]
        self.lengths = self.data.cast("q")
        everything.release()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps our other processes from the table of readers."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def readers(self) -> range:
        """Columns in use."""
        return range(min(self.words[_NUM_READERS], MAX_READERS))

    def forget_readers(self) -> list[int]:
        """Empty the table; gives the uids that stood there."""
        words = self.words
        words[_NUM_READERS] = 0
        uids = []
        for reader in range(MAX_READERS):
            uids.append(words[_READ_UIDS + reader])
            words[_READ_VALIDS + reader] = 0
            words[_READ_UIDS + reader] = 0
        fence()
        return uids

    def close(self) -> None:
        if self._memory.closed:
            return
        for view in (self.words, self.lengths, self.data):
            view.release()
        self._memory.close()
        self._close_file()


class MsgqPublisher:
    """The sending end of one endpoint. It takes over from a publisher that is already there.

    subscribers: readers whose threads live, as of the last take_notice().
    Raises BusError if the ring cannot be had.
    """

    def __init__(self, name: str, bus: Bus) -> None:
        self.name = name
        self.subscribers = 0
        self._known: set[int] = set()
        self._gained = False
        self._signals = _Signals()
        self._uid = _new_uid()
        self._ring = MsgqRing(name, bus, reserve=True)
        with self._ring.locked():
            self._ring.words[_WRITE_UID] = self._uid
            forgotten = self._ring.forget_readers()
        self._pointer = self._ring.words[_WRITE_POINTER]
        offset = self._pointer & _OFFSET_MASK
        if offset % _WORD or offset + _WORD > self._ring.size:  # no writer leaves it like this
            self._pointer = self._ring.words[_WRITE_POINTER] = 0
        self._signals.wake(forgotten)  # they register again

    def send(self, data: bytes) -> None:
        """Put a message into the ring. It waits for nobody.

        Raises BusError if another publisher has taken over, or for a message that is empty or
        larger than a third of the ring.
        """
        ring, words = self._ring, self._ring.words
        if words[_WRITE_UID] != self._uid:
            raise BusError(
                f"another publisher of {self.name} has taken over: Address already in use; "
                "stop one of the two"
            )
        total = padded(len(data))
        if not data or 3 * total > ring.size:
            raise BusError(
                f"a message of {len(data)} bytes on {self.name} cannot travel: 1 to "
                f"{ring.size // 3 // _WORD * _WORD - _WORD} are possible"
            )
        cycle, offset = _split(self._pointer)
        if offset + total + _WORD > ring.size:  # there is always room for the mark that says -1
            self._warn(cycle, offset, ring.size)
            ring.lengths[offset // _WORD] = _WRAP
            fence()
            cycle, offset = cycle + 1, 0
            words[_WRITE_POINTER] = cycle << 32
        self._warn(cycle, offset, offset + total)
        ring.lengths[offset // _WORD] = len(data)
        ring.data[offset + _WORD : offset + _WORD + len(data)] = data
        fence()
        self._pointer = words[_WRITE_POINTER] = cycle << 32 | offset + total
        self._signals.wake(words[_READ_UIDS + reader] for reader in ring.readers())

    def _warn(self, cycle: int, start: int, end: int) -> None:
        """Tell the readers that are a lap behind, between `start` and `end`, that they are lost."""
        words = self._ring.words
        for reader in self._ring.readers():
            reader_cycle, offset = _split(words[_READ_POINTERS + reader])
            if reader_cycle != cycle and start <= offset < end:
                words[_READ_VALIDS + reader] = 0
        fence()

    def take_notice(self) -> None:
        """Count the readers, and notice who is new."""
        words = self._ring.words
        uids = {words[_READ_UIDS + reader] for reader in self._ring.readers()}
        live = {uid for uid in uids if uid and os.path.exists(f"/proc/{uid & _THREAD_MASK}")}
        self._gained = self._gained or not live <= self._known
        self._known = live
        self.subscribers = len(live)

    def wait_for_notice(self, timeout_s: float) -> None:
        time.sleep(min(timeout_s, _LOOK_S))  # nothing tells a writer that a reader came

    def gained_subscriber(self) -> bool:
        """Whether a reader arrived since this was last asked."""
        self.take_notice()
        gained, self._gained = self._gained, False
        return gained

    def close(self) -> None:
        """Messages stay in the ring: nothing waits to be delivered."""
        self._ring.close()


class MsgqSubscriber:
    """A reader of one endpoint.

    conflate: keep only the newest message.
    overruns: how often the writer was a lap ahead, so that messages were lost.
    malformed: how often the ring made no sense.
    """

    def __init__(self, name: str, bus: Bus, *, conflate: bool) -> None:
        self.name = name
        self.overruns = 0
        self.malformed = 0
        self._conflate = conflate
        _expect_signal()  # from here on somebody may send it
        self._ring = MsgqRing(name, bus, reserve=False)
        self._register()

    def _register(self) -> None:
        """Take a column of the table: a free one, or the next, or after all are taken the first."""
        ring, words = self._ring, self._ring.words
        self._uid = _new_uid()
        with ring.locked():
            evicted: list[int] = []
            readers = ring.readers()
            free = [reader for reader in readers if not words[_READ_UIDS + reader]]
            if not free and len(readers) == MAX_READERS:
                evicted = ring.forget_readers()
                readers = ring.readers()
            self._column = free[0] if free else len(readers)
            words[_READ_VALIDS + self._column] = 0
            words[_READ_UIDS + self._column] = self._uid
            fence()
            words[_NUM_READERS] = max(len(readers), self._column + 1)
            self._go_to_newest()
        _Signals().wake(evicted)

    def _go_to_newest(self) -> None:
        words = self._ring.words
        fence()
        self._pointer = words[_WRITE_POINTER]
        words[_READ_POINTERS + self._column] = self._pointer
        fence()
        words[_READ_VALIDS + self._column] = 1

    def waiting(self) -> bool:
        """Whether `receive` has something to do."""
        words, column = self._ring.words, self._column
        return (
            words[_WRITE_POINTER] != self._pointer
            or words[_READ_UIDS + column] != self._uid
            or not words[_READ_VALIDS + column]
        )

    def receive(self) -> bytes | None:
        """The next message; None if there is none now."""
        words = self._ring.words
        while True:
            if words[_READ_UIDS + self._column] != self._uid:
                self._register()
            elif not words[_READ_VALIDS + self._column]:
                self.overruns += 1
                self._go_to_newest()
            newest = words[_WRITE_POINTER]
            if newest == self._pointer:
                return None
            fence()
            length = self._length_at(self._pointer)
            fence()
            if not words[_READ_VALIDS + self._column]:
                continue  # what we took for a length may be part of a newer message
            following = _following(self._pointer, length)
            # a reader that was not warned is behind the writer, and by less than two laps
            if not (self._pointer < following <= newest < self._pointer + (2 << 32)):
                self.malformed += 1
                self._go_to_newest()
                return None
            if length == _WRAP or (self._conflate and following != newest):
                self._advance(following)
                continue
            start = (self._pointer & _OFFSET_MASK) + _WORD
            data = bytes(self._ring.data[start : start + length])
            fence()
            if words[_READ_VALIDS + self._column]:
                self._advance(following)
                return data

    def _length_at(self, pointer: int) -> int:
        """Length of the message at `pointer`, or -1; 0 if no message can be there."""
        offset = pointer & _OFFSET_MASK
        if offset % _WORD or offset + _WORD > self._ring.size:
            return 0
        length = self._ring.lengths[offset // _WORD]
        sound = length == _WRAP or 0 < length <= self._ring.size - offset - _WORD
        return length if sound else 0

    def _advance(self, pointer: int) -> None:
        self._pointer = pointer
        self._ring.words[_READ_POINTERS + self._column] = pointer

    def close(self) -> None:
        """Leave the column to somebody else."""
        with contextlib.suppress(ValueError):  # released: it was closed before
            if self._ring.words[_READ_UIDS + self._column] == self._uid:
                self._ring.words[_READ_VALIDS + self._column] = 0
                self._ring.words[_READ_UIDS + self._column] = 0
        self._ring.close()


class MsgqWaiter:
    """Waits until one of some subscribers has a message."""

    def __init__(self, subscribers: Sequence[MsgqSubscriber]) -> None:
        self._subscribers = subscribers

    def wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not any(subscriber.waiting() for subscriber in self._subscribers):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            # a signal sent since the look above is still pending: it ends this at once
            signal.sigtimedwait({signal.SIGUSR2}, min(remaining, _LOOK_S))


class _Signals:
    """Sends SIGUSR2 to the threads of readers, and never to one that it would end."""

    def __init__(self) -> None:
        self._checked: dict[int, tuple[float, bool]] = {}  # uid -> (when, may be signalled)

    def wake(self, uids: Iterator[int] | Sequence[int]) -> None:
        if _TKILL is None:
            return
        now = time.monotonic()
        for uid in uids:
            if not uid:
                continue
            checked, harmless = self._checked.get(uid, (-_SIGNAL_CHECK_S, False))
            if now - checked >= _SIGNAL_CHECK_S:
                harmless = _expects_signal(uid & _THREAD_MASK)
                self._checked[uid] = now, harmless
            if harmless:
                _libc.syscall(_TKILL, uid & _THREAD_MASK, int(signal.SIGUSR2))
        if len(self._checked) > 4 * MAX_READERS:
            self._checked.clear()  # readers that left


_libc = ctypes.CDLL(None)
_SIG_IGN = ctypes.c_void_p(1)  # as <signal.h> has it


def _expect_signal() -> None:
    """Keep SIGUSR2 from ending this process, and for this thread until it asks for it."""
    if signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:
        # ignored, because a thread that waits for a signal does not look as if it blocked it;
        # signal.signal does the same in the main thread only
        _libc.signal(int(signal.SIGUSR2), _SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def _expects_signal(thread: int) -> bool:
    """Whether the thread lives and blocks, catches or ignores SIGUSR2."""
    try:
        with open(f"/proc/{thread}/status") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    sets = [line.split()[1] for line in lines if line.startswith(("SigBlk", "SigCgt", "SigIgn"))]
    return any(int(mask, 16) >> (signal.SIGUSR2 - 1) & 1 for mask in sets)


def _new_uid() -> int:
    """A number that nobody else has, the low half of which is this thread."""
    return secrets.randbits(32) << 32 | threading.get_native_id() & _THREAD_MASK


def _following(pointer: int, length: int) -> int:
    """Pointer behind a message of `length` bytes at `pointer`; `pointer` itself for none."""
    if length == _WRAP:
        return ((pointer >> 32) + 1) << 32
    return pointer + padded(length) if length else pointer


def _split(pointer: int) -> tuple[int, int]:
    """Cycle and offset."""
    return pointer >> 32, pointer & _OFFSET_MASK
