"""Drives, logs and references that are not on this machine: fsspec's file system in memory."""

import uuid
from pathlib import Path

import fsspec
import pytest

from selfdrive_tests import __main__ as command
from selfdrive_tests.drives import DriveError
from selfdrive_tests.remote import fetch, put_back


@pytest.fixture
def bucket() -> str:
    return f"memory://{uuid.uuid4().hex}"


def fill(place: str, text: str) -> None:
    with fsspec.open(place, "w") as file:
        file.write(text)


def test_files_folders_and_routes_are_copied(bucket: str, tmp_path: Path) -> None:
    fill(f"{bucket}/drive/drive.toml", "a")
    fill(f"{bucket}/drive/parts/x", "b")
    for number in (0, 1):
        fill(f"{bucket}/2a--01--{number}/qlog", str(number))
    folder = fetch(f"{bucket}/drive", tmp_path)
    assert (folder / "drive.toml").read_text() == "a" and (folder / "parts/x").read_text() == "b"
    assert fetch(f"{bucket}/drive/drive.toml", tmp_path / "file").read_text() == "a"
    route = fetch(f"{bucket}/2a--01", tmp_path)
    assert route == tmp_path / "2a--01"
    assert [(tmp_path / f"2a--01--{n}" / "qlog").read_text() for n in (0, 1)] == ["0", "1"]
    assert fetch("/some/where", tmp_path) == Path("/some/where")


def test_references_go_there_and_back(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "written").mkdir()
    (tmp_path / "written" / "a.jsonl.gz").write_bytes(b"reference")
    put_back(tmp_path / "written", f"{bucket}/refs")
    copy = fetch(f"{bucket}/refs", tmp_path / "read")
    assert (copy / "a.jsonl.gz").read_bytes() == b"reference"
    assert list(fetch(f"{bucket}/none", tmp_path, missing_ok=True).iterdir()) == []


def test_what_cannot_be_had_is_one_line(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DriveError, match="there is no such file or folder"):
        fetch(f"{bucket}/nothing", tmp_path)
    arguments = ["nosuch://x/drive", "--model", "m.tnn", "-o", str(tmp_path)]
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "nosuch://x/drive cannot be read" in capsys.readouterr().err
