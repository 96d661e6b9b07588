"""An Event as plain data, for people and for programs that do not know the schema."""

import contextlib
import json
import math
from typing import Any

import capnp

from messaging.errors import MessageError


def to_plain(event: Any) -> dict[str, Any]:
    """logMonoTime (ns), valid, service, and under `data` the content of the message.

    event: a reader, as `decode` gives it.
    Data is written in hexadecimal, and numbers that JSON does not know as "nan", "inf", "-inf".
    Raises MessageError for a message that is newer than our schema or damaged.
    """
    try:
        member = str(event.which())
        content = _plain(getattr(event, member))
    except (capnp.KjException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise MessageError(f"damaged, or newer than our schema: {reason}") from None
    return {
        "logMonoTime": event.logMonoTime,
        "valid": event.valid,
        "service": member,
        "data": content,
    }


def to_json(event: Any) -> str:
    """One line of JSON."""
    return json.dumps(to_plain(event), allow_nan=False, separators=(",", ":"))


def to_text(event: Any) -> str:
    """Several lines for a person: a heading, then the content with one field a line."""
    plain = to_plain(event)
    seconds = plain["logMonoTime"] / 1e9
    mark = "" if plain["valid"] else "  NOT VALID"
    content = json.dumps(plain["data"], indent=2, allow_nan=False, ensure_ascii=False)
    return f"{plain['service']}  {seconds:.6f} s{mark}\n{content}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "schema"):
        return _struct(value)
    if hasattr(value, "__len__"):  # a list of Cap'n Proto
        return [_plain(item) for item in value]
    return enumerant(value)


def _struct(value: Any) -> dict[str, Any]:
    """Fields that are set; of a union the member that is."""
    names = list(value.schema.non_union_fields)
    if value.schema.union_fields:
        # newer than our schema if it has no name: then the rest of the struct is still printed
        with contextlib.suppress(capnp.KjException):
            names.append(str(value.which()))
    names.sort(key=lambda name: name == "deprecated")  # last: nobody looks for these
    return {name: _plain(getattr(value, name)) for name in names if value._has(name)}


def enumerant(value: Any) -> str | int:
    """Name of a value of an enum; its number if it is newer than our schema."""
    try:
        return str(value)
    except RuntimeError:
        number: int = value.raw
        return number
