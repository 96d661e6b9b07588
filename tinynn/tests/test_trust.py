"""Whose machine code may run."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

import tinynn
from tinynn.artifact import Artifact
from tinynn.runtime import ArtifactError, UntrustedArtifact
from tinynn.runtime import trust as trust_list
from tinynn.tests import handmade

HASH = "ab" * 32


def test_place_of_the_list() -> None:
    name = "trusted-artifacts.txt"
    everything = {"TINYDRIVE_HOME": "/t", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}
    assert trust_list.user_list(everything) == Path("/t") / name
    del everything["TINYDRIVE_HOME"]
    assert trust_list.user_list(everything) == Path("/x/tinydrive") / name
    del everything["XDG_CONFIG_HOME"]
    assert trust_list.user_list(everything) == Path("/h/.config/tinydrive") / name


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home directory, as in containers with an arbitrary user id."""
    for name in ("TINYDRIVE_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert trust_list.user_list(os.environ) is None
    assert not trust_list.is_trusted(HASH)
    with pytest.raises(ArtifactError, match=r"no home directory.*TINYDRIVE_HOME.*--trust"):
        trust_list.trust(HASH, "model")


def test_trusting_adds_one_line(own_trust_list: Path) -> None:
    assert not trust_list.is_trusted(HASH)
    assert trust_list.trust(HASH, "a\nb.tnn") == own_trust_list
    trust_list.trust(HASH, "again")
    assert own_trust_list.read_text() == f"{HASH}  a b.tnn\n"
    assert trust_list.is_trusted(HASH)
    assert not trust_list.is_trusted("cd" * 32)


def test_comments_and_blank_lines_are_not_entries(own_trust_list: Path) -> None:
    own_trust_list.parent.mkdir(parents=True)
    own_trust_list.write_text(f"# {'cd' * 32}\n\n{HASH}\n")
    assert trust_list.is_trusted(HASH)
    assert not trust_list.is_trusted("cd" * 32)


def test_the_list_of_the_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "trusted.txt"
    listed.write_text(f"{HASH}  bundled\n")
    monkeypatch.setattr(trust_list, "_PACKAGE_LIST", listed)
    assert trust_list.is_trusted(HASH)


def test_compiled_here_is_trusted_and_copies_too(tmp_path: Path) -> None:
    handmade.artifact().save(tmp_path / "model.tnn")
    (tmp_path / "copy.tnn").write_bytes((tmp_path / "model.tnn").read_bytes())
    tinynn.load(tmp_path / "copy.tnn").close()


def test_from_elsewhere_is_refused_with_the_command_that_trusts(tmp_path: Path) -> None:
    path = tmp_path / "foreign.tnn"
    path.write_bytes(handmade.artifact().to_bytes())
    with pytest.raises(UntrustedArtifact, match=f"tinynn trust {path}$"):
        tinynn.load(path)
    tinynn.load(path, trust=True).close()
    with pytest.raises(UntrustedArtifact):
        tinynn.load(path)  # trust=True leaves nothing behind


def test_saving_an_opened_artifact_does_not_trust_it(tmp_path: Path) -> None:
    path = tmp_path / "foreign.tnn"
    path.write_bytes(handmade.artifact().to_bytes())
    Artifact.open(path).save(tmp_path / "laundered.tnn")
    with pytest.raises(UntrustedArtifact):
        tinynn.load(tmp_path / "laundered.tnn")


def test_any_change_loses_trust(tmp_path: Path) -> None:
    handmade.artifact().save(tmp_path / "model.tnn")
    other = handmade.artifact(handmade.program(name="other"))
    (tmp_path / "other.tnn").write_bytes(other.to_bytes())
    with pytest.raises(UntrustedArtifact):
        tinynn.load(tmp_path / "other.tnn")


def test_a_list_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYDRIVE_HOME", str(tmp_path / "file"))  # a file is in the way
    with pytest.raises(ArtifactError, match=r"cannot be written.*TINYDRIVE_HOME"):
        trust_list.trust(HASH, "model")
    with pytest.warns(UserWarning, match="is written but not recorded as trusted"):
        handmade.artifact().save(tmp_path / "model.tnn")
    with pytest.raises(UntrustedArtifact):
        tinynn.load(tmp_path / "model.tnn")
