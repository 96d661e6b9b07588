"""Where the log files of a drive are: a drive is a route, kept in segments of a minute.

On a device and in copies of its storage a segment is a folder `<log id>--<N>` with its log in it;
other tools keep `<route>/<N>/` or flat files `<route>--<N>--rlog.zst`. All of them are understood.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from messaging.errors import LogFileError

log = logging.getLogger(__name__)

KINDS = ("rlog", "qlog")
_EXTENSIONS = (".zst", ".bz2", "")  # the newest first

_SEGMENT = re.compile(r"(?:(?P<route>.+)--)?(?P<number>\d{1,6})")


def log_files(source: str | os.PathLike[str], kind: str = "rlog") -> list[Path]:
    """The log files that `source` means, in the order of their segments.

    source: a file; a folder with a log in it; a folder with the segments of one route; or the
        beginning of their names, `FOLDER/ROUTE` or `FOLDER/ROUTE--N`, without the rest.
    kind: "rlog" (everything) or "qlog" (the decimated copy).
    Raises LogFileError if there is no log, or if a folder has segments of several routes.
    """
    if kind not in KINDS:
        raise LogFileError(f"{kind!r} is no kind of log: use {' or '.join(KINDS)}")
    path = Path(source)
    if path.is_dir():
        own = _log_in(path, kind)
        return [own] if own is not None else _segments_in(path, kind)
    if path.exists():
        return [path]
    return _named_segments(path, kind)


def segment_name(name: str) -> tuple[str, int] | None:
    """Route ("" if the name does not say) and number of a segment; None if `name` is not one."""
    match = _SEGMENT.fullmatch(name)
    return (match["route"] or "", int(match["number"])) if match else None


def _log_in(folder: Path, kind: str) -> Path | None:
    candidates = (folder / f"{kind}{extension}" for extension in _EXTENSIONS)
    return next((path for path in candidates if path.is_file()), None)


def _logs_of_segments(folder: Path, kind: str) -> Iterator[tuple[str, int, Path]]:
    """Route, number and log file of every segment in `folder`."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            segment, file = segment_name(entry.name), _log_in(entry, kind)
        else:
            name, _, last = entry.name.rpartition("--")
            segment = segment_name(name)
            file = entry if last in {f"{kind}{extension}" for extension in _EXTENSIONS} else None
        if segment is not None and file is not None:
            yield (*segment, file)


def _segments_in(folder: Path, kind: str) -> list[Path]:
    found = list(_logs_of_segments(folder, kind))
    routes = sorted({route for route, _, _ in found})
    if not found:
        raise LogFileError(f"there is no {kind} in {folder} and none in segments there")
    if len(routes) > 1:
        raise LogFileError(
            f"{folder} has segments of {len(routes)} routes: name one of them, say "
            f"{folder / routes[0]}"
        )
    return _in_order(folder, [(number, path) for _, number, path in found])


def _named_segments(path: Path, kind: str) -> list[Path]:
    """Logs of the segments whose names begin with that of `path`."""
    found = []
    if path.parent.is_dir():
        for route, number, file in _logs_of_segments(path.parent, kind):
            if path.name in (route, f"{route}--{number}"):
                found.append((number, file))
    if not found:
        raise LogFileError(f"cannot read log {path}: No such file, folder or route")
    return _in_order(path, found)


def _in_order(source: Path, numbered: list[tuple[int, Path]]) -> list[Path]:
    files = dict(sorted(numbered, reverse=True))  # of two with one number the first name stays
    numbers = sorted(files)
    gaps = [number for number in range(numbers[0], numbers[-1]) if number not in files]
    if gaps:
        log.warning("%s: %d segments are missing, the first is %d", source, len(gaps), gaps[0])
    return [files[number] for number in numbers]
