"""The log schema, loaded once: `Event` is the root struct of every message.

`log`, `car`, `deprecated` and `custom` give every type of the files of the same names, for instance
`log.ModelDataV2` or `car.CarState.GearShifter`.
"""

from pathlib import Path
from typing import Any

import capnp

capnp.remove_import_hook()  # only the files below are ever loaded

DIRECTORY = Path(__file__).resolve().parent


def _load(name: str) -> Any:
    return capnp.load(str(DIRECTORY / name), imports=[str(DIRECTORY)])


log = _load("log.capnp")
car = _load("car.capnp")
deprecated = _load("deprecated.capnp")
custom = _load("custom.capnp")

Event = log.Event

# Tag of the union of Event (as it stands on the wire) -> name of the member.
MEMBER_BY_TAG: dict[int, str] = {
    field.proto.discriminantValue: name
    for name, field in Event.schema.fields.items()
    if name in Event.schema.union_fields
}
TAG_BY_MEMBER: dict[str, int] = {name: tag for tag, name in MEMBER_BY_TAG.items()}
