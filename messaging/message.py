"""One message: make it, take its bytes, look at them without the schema, decode them.

A message on the bus or in a log is in Cap'n Proto's unpacked stream form: a table of segment sizes
and the segments. The functions that read it check the table against the bytes that are there before
anything else, so that a damaged or hostile one costs neither memory nor a crash.
"""

import struct
import time
from typing import Any, NamedTuple

import capnp

from messaging.aliases import EVENT_ALIASES
from messaging.errors import MessageError
from messaging.schema import MEMBER_BY_TAG, TAG_BY_MEMBER, Event
from messaging.services import canonical

WORD = 8  # bytes
MAX_SEGMENTS = 512  # Cap'n Proto's own limit for streams
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # far above the largest queue of services.py

_NO_LIMIT = 2**64 - 1
_TAG_OFFSET = 8  # of the union's 16-bit tag in the data section of Event
_VALID_BYTE, _VALID_BIT = 10, 1  # Event.valid is bit 80; its default is true: a 1 means false


class Peek(NamedTuple):
    """What the first words of a message say."""

    tag: int
    logMonoTime: int  # noqa: N815  # ns; the name the schema gives it
    valid: bool

    @property
    def member(self) -> str | None:
        """Name of the union member; None if it is newer than our schema."""
        return MEMBER_BY_TAG.get(self.tag)


def event_member(name: str) -> str:
    """The newest name of a member of the union of Event (services and log entries).

    Raises UnknownServiceError for a name that was never one.
    """
    newest = EVENT_ALIASES.get(name, name)
    return newest if newest in TAG_BY_MEMBER else canonical(name)


def new_message(service: str, size: int | None = None, *, valid: bool = False) -> Any:
    """Builder of an Event whose union is set to `service`, stamped with the monotonic clock.

    size: number of elements, for the services that are lists (can, pandaStates, ...).
    valid: False unless the sender says otherwise, so that forgetting it is the safe mistake.
    Raises UnknownServiceError for an unknown name, MessageError for a size that makes no sense.
    """
    member = event_member(service)
    event = Event.new_message(logMonoTime=time.monotonic_ns(), valid=valid)
    kind = Event.schema.fields[member].proto.slot.type.which()
    if size is not None and kind != "list":
        raise MessageError(f"{member} is not a list: it has no size")
    if kind == "list":
        event.init(member, size or 0)
    elif kind == "struct":
        event.init(member)
    else:
        setattr(event, member, "" if kind == "text" else b"")
    return event


def to_bytes(message: Any) -> bytes:
    """Bytes of a builder; bytes are given back as they are."""
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    message.clear_write_flag()  # sending the same builder twice, say to bus and log, is fine
    data: bytes = message.to_bytes()
    return data


def framed_size(data: bytes | bytearray | memoryview, offset: int = 0) -> int | None:
    """Bytes of the message that starts at `offset`; None if more bytes are needed to tell.

    The message itself may reach beyond the end of `data`. Raises MessageError if what stands at
    `offset` cannot be a segment table.
    """
    if len(data) - offset < 4:
        return None
    (last,) = struct.unpack_from("<I", data, offset)
    segments = last + 1
    if segments > MAX_SEGMENTS:
        raise MessageError(f"segment table claims {segments} segments, at most {MAX_SEGMENTS} are")
    table = (4 + 4 * segments + WORD - 1) // WORD * WORD
    if len(data) - offset < table:
        return None
    sizes = struct.unpack_from(f"<{segments}I", data, offset + 4)
    total = table + sum(sizes) * WORD
    if total > MAX_MESSAGE_BYTES:
        raise MessageError(
            f"segment table claims {total} bytes, a message has at most {MAX_MESSAGE_BYTES}"
        )
    return total


def peek(data: bytes | memoryview) -> Peek:
    """Tag, time and validity of a message, read without the schema.

    Only a root struct in the first segment is understood; that is where every encoder puts it.
    Raises MessageError if `data` is not one whole message.
    """
    total = framed_size(data)
    if total is None or total != len(data):
        claim = "its segment table is cut off" if total is None else f"{total} are announced"
        raise MessageError(f"not one whole message: {len(data)} bytes, {claim}")
    (last,) = struct.unpack_from("<I", data, 0)
    start = (4 + 4 * (last + 1) + WORD - 1) // WORD * WORD
    first_end = start + WORD * struct.unpack_from("<I", data, 4)[0]
    if first_end < start + WORD:
        raise MessageError("the first segment is empty")
    offset, data_words = struct.unpack_from("<iH", data, start)
    if offset & 3 != 0:
        raise MessageError("the root pointer is not one to a struct in the first segment")
    root = start + WORD + WORD * (offset >> 2)
    end = root + WORD * data_words
    if root < start + WORD or end > first_end:
        raise MessageError("the root pointer leaves the first segment")
    section = bytes(data[root : min(end, root + 2 * WORD)]).ljust(2 * WORD, b"\0")
    (mono_time,) = struct.unpack_from("<Q", section, 0)
    (tag,) = struct.unpack_from("<H", section, _TAG_OFFSET)
    return Peek(tag, mono_time, not section[_VALID_BYTE] & _VALID_BIT)


def decode(data: bytes) -> Any:
    """Reader of the Event in `data`, safe to keep and to read as often as wanted.

    Every pointer of a known member is followed once, so that damage raises MessageError here and
    not later in the reader's hands. (A pointer of the wrong kind still raises capnp.KjException
    when its field is read.) Members newer than our schema are given back unchecked.
    """
    member = peek(data).member
    try:
        if member is not None:
            _check_pointers(data, member)
        # bytes stay alive as long as a reader uses them, so leaving the `with` ends nothing
        with Event.from_bytes(data, traversal_limit_in_words=_NO_LIMIT) as event:
            return event
    except (capnp.KjException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0].rpartition("; ")[2]
        raise MessageError(f"damaged message: {reason}") from None


def _check_pointers(data: bytes, member: str) -> None:
    """Copy the member: the copy follows and checks every pointer.

    Reader.total_size and Reader.as_builder would do the same but end the process on damage.
    The limit catches messages whose pointers share data to look far larger than they are.
    """
    with Event.from_bytes(data, traversal_limit_in_words=4 * len(data) // WORD + 64) as event:
        setattr(Event.new_message(), member, getattr(event, member))
