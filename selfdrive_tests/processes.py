"""Which processes can be replayed: a small TOML file says what each hears, says and waits for.

    command     words of the command line; {python}, {model} and {namespace} are filled in
    subscribes  services that it hears; those of a log are sent to it, others made up where we can
    optional    of these: services that it may not listen to
    publishes   services that it says once per trigger
    trigger     the service that makes it work; a camera state comes with its picture
    ignore      fields of its messages that are not compared, SERVICE.FIELD
    plots       fields that the report plots

modeld and dmonitoringmodeld come with the program (folder processes/).
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messaging import Stream, UnknownServiceError, canonical
from selfdrive_tests.drives import DriveError

FOLDER = Path(__file__).parent / "processes"
# Triggers that come with a picture.
STREAMS = {"narrowRoadCameraState": Stream.NARROW_ROAD, "cabinCameraState": Stream.CABIN}
_LISTS = ("command", "subscribes", "optional", "publishes", "ignore", "plots")


@dataclass(frozen=True)
class ProcessConfig:
    """A process that can be replayed; the module's docstring says what the fields mean."""

    name: str
    command: tuple[str, ...]
    subscribes: tuple[str, ...]
    publishes: tuple[str, ...]
    trigger: str
    optional: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()

    @property
    def stream(self) -> Stream | None:
        """The camera that triggers it; None if a message does."""
        return STREAMS.get(self.trigger)

    @property
    def required(self) -> frozenset[str]:
        """Services that it must listen to before the first trigger."""
        return frozenset(self.subscribes) - set(self.optional)

    def command_line(self, model: Path | None, namespace: str) -> list[str]:
        """The words of its command line."""
        values = {"python": sys.executable, "model": str(model), "namespace": namespace}
        return [word.format(**values) for word in self.command]


def find_process(name: str) -> ProcessConfig:
    """A process by its name, if it comes with the program, else by the path of its TOML file.

    Raises DriveError if there is none, or its file says what cannot be.
    """
    known = FOLDER / f"{name}.toml"
    path = known if known.is_file() else Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise DriveError(
            f"There is no process {name}: it is neither one of {names} nor a TOML file."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DriveError(f"{path} cannot be read as a process description: {error}.") from error
    return _checked(path, table)


def _checked(path: Path, table: dict[str, Any]) -> ProcessConfig:
    unknown = sorted(table.keys() - {*_LISTS, "trigger"})
    if unknown:
        raise DriveError(f"{path} has unknown keys: {', '.join(unknown)}.")
    for key in _LISTS:
        value = table.setdefault(key, [])
        if not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise DriveError(f"{path}: {key} must be a list of texts.")
    lists = {key: tuple(table[key]) for key in _LISTS}
    for key in ("subscribes", "optional", "publishes"):
        lists[key] = tuple(_service(path, key, name) for name in lists[key])
    trigger = _service(path, "trigger", table.get("trigger"))
    if not lists["command"] or not lists["publishes"]:
        raise DriveError(f"{path}: command and publishes are needed.")
    if trigger not in lists["subscribes"]:
        raise DriveError(f"{path}: the trigger {trigger} must be among subscribes.")
    return ProcessConfig(path.stem, trigger=trigger, **lists)


def _service(path: Path, key: str, name: object) -> str:
    try:
        return canonical(str(name))
    except UnknownServiceError as error:
        raise DriveError(f"{path}: {key} names {name!r}, which is no service: {error}.") from error


MODELD = find_process("modeld")
