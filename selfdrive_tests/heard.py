"""What a process said about each frame: a plan by its fields, other messages by all values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from messaging.plain import to_plain
from selfdrive_tests.compare import Field, Moment, Tolerance, Value, moment, plain
from selfdrive_tests.link import frame_id_of
from selfdrive_tests.plans import plan_from_event
from selfdrive_tests.processes import MODELD, ProcessConfig

# Trigger -> the encoder's index, which tells which picture is which frame.
INDEX = {"narrowRoadCameraState": "narrowRoadEncodeIdx", "cabinCameraState": "cabinEncodeIdx"}
# What values of messages may differ by that nobody has said anything else about.
USUAL = Tolerance(0.01, 0.01)


def flatten(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    """Every number, text and truth value within plain data, by its path: a.b.0."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flatten(f"{name}.{key}", part)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from flatten(f"{name}.{number}", part)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, float(value)
    else:
        yield name, plain(value)


class Heard:
    """Collects the messages of a process; moments: by frame id, what it said about the frame.

    Of modeld it is the plan. A message that names no frame belongs to the newest trigger; triggers
    that name none are counted.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self.moments: dict[int, Moment] = {}
        self._config = config
        self._ignored = (*config.ignore, *(f"{name}.frameId" for name in config.publishes))
        self._triggers = -1
        self._newest = 0

    def take(self, event: Any) -> None:
        """Note a message; those that are neither triggers nor answers are left out."""
        kind = event.which()
        if kind == self._config.trigger:
            self._triggers += 1
            named = frame_id_of(getattr(event, kind))
            self._newest = self._triggers if named is None else named
        elif kind not in self._config.publishes:
            return
        elif self._config == MODELD:
            if kind == "modelV2":
                self.moments[event.modelV2.frameId] = moment(plan_from_event(event))
        else:
            named = frame_id_of(getattr(event, kind))
            self._add(self._newest if named is None else named, kind, event)

    def _add(self, frame_id: int, kind: str, event: Any) -> None:
        values = {f"{kind}.valid": event.valid, **dict(flatten(kind, to_plain(event)["data"]))}
        kept = {name: value for name, value in values.items() if not self._is_ignored(name)}
        known = self.moments.get(frame_id)
        self.moments[frame_id] = Moment({**(known.values if known else {}), **kept}, None)

    def _is_ignored(self, name: str) -> bool:
        return any(name == one or name.startswith(f"{one}.") for one in self._ignored)


def fields_of(moments: dict[int, Moment]) -> tuple[Field, ...]:
    """A field for every value that occurs, in the order in which they came."""
    names = dict.fromkeys(name for one in moments.values() for name in one.values)
    return tuple(Field(name, "", tolerance=USUAL) for name in names)
