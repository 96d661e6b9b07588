"""Drives, logs, references and artifacts from wherever fsspec reaches: s3://, gs://, https://, ...

What is remote is copied beside the results before it is read; references that were written are
copied back. Names stay as they are: they tell route and segment.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from selfdrive_tests.drives import DriveError

FOLDER = "fetched"


def is_remote(place: str) -> bool:
    """Whether a place is an address (s3://...) and not a path of this machine."""
    return "://" in place


def fetch(place: str, folder: Path, missing_ok: bool = False) -> Path:
    """A local copy of a remote file or folder, in `folder`; a local path is given back as it is.

    A route may be given without the numbers of its segments, as PLACE/ROUTE. missing_ok: gives an
    empty folder for what is not there. Raises DriveError if it cannot be had.
    """
    if not is_remote(place):
        return Path(place)
    copy = folder / PurePosixPath(place).name
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        system, path = fsspec.core.url_to_fs(place)
        if system.isfile(path):
            system.get_file(path, str(copy))
        elif system.isdir(path):
            _fetch_folder(system, path, copy)
        elif segments := system.glob(f"{path}--*"):
            for segment in segments:
                _fetch_folder(system, segment, folder / PurePosixPath(segment).name)
        elif missing_ok:
            copy.mkdir(exist_ok=True)
        else:
            raise DriveError(f"{place}: there is no such file or folder.")
    except (ImportError, OSError, ValueError) as error:
        raise DriveError(f"{place} cannot be read: {error}") from error
    return copy


def _fetch_folder(system: Any, path: str, copy: Path) -> None:
    for file in system.find(path):
        target = copy / PurePosixPath(file).relative_to(PurePosixPath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(file, str(target))


def put_back(folder: Path, place: str) -> None:
    """Copy the files of a local folder to a remote one. Raises DriveError if that fails."""
    try:
        system, path = fsspec.core.url_to_fs(place)
        system.makedirs(path, exist_ok=True)
        for file in sorted(folder.iterdir()):
            system.put_file(str(file), f"{path}/{file.name}")
    except (ImportError, OSError, ValueError) as error:
        raise DriveError(f"{place} cannot be written: {error}") from error
