"""Which artifacts may run their machine code.

Hashes in an artifact detect damage; whoever makes a file can make its hashes fit. Machine code
does as it likes with the rights of the process, so it is run only if the artifact was built by
this user, or if its identity (the sha256 of its manifest, which covers all of it) is listed by the
user or by the installed package. Whoever can write one of these lists, or this program, is trusted.

A list is text: one sha256 per line, anything after it is a comment, as are lines starting with #.
"""
from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from tinynn.runtime.layout import ArtifactError, UntrustedArtifact

_PACKAGE_LIST = Path(__file__).resolve().parents[2] / "compiled_models" / "trusted.txt"


def user_list(env: Mapping[str, str] = os.environ) -> Path | None:
    """The user's list (it may not exist), or None where there is no home to hold one.

    $TINYDRIVE_HOME, else $XDG_CONFIG_HOME/tinydrive, else ~/.config/tinydrive.
    """
    name = "trusted-artifacts.txt"
    if env.get("TINYDRIVE_HOME"):
        return Path(env["TINYDRIVE_HOME"]) / name
    if env.get("XDG_CONFIG_HOME"):
        return Path(env["XDG_CONFIG_HOME"]) / "tinydrive" / name
    home = env.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".config" / "tinydrive" / name if os.path.isabs(home) else None


def is_trusted(sha256: str) -> bool:
    """Is this identity in one of the lists? A list that cannot be read counts as empty."""
    lists = (user_list(), _PACKAGE_LIST)
    return any(sha256 in _listed(path) for path in lists if path is not None)


def require_trust(sha256: str, name: str) -> None:
    """Raise UntrustedArtifact, with the command that would trust it, unless it is listed."""
    if not is_trusted(sha256):
        raise UntrustedArtifact(
            f"{name}: its machine code was not built here and is not on the list of trusted "
            f"artifacts ({user_list() or 'there is no home directory for one'}). If you trust who "
            f"made it: tinynn trust {shlex.quote(name)}")


def trust(sha256: str, comment: str) -> Path:
    """Add an identity to the user's list and return the list's path.

    Raises ArtifactError if there is nowhere to write it.
    """
    path = user_list()
    if path is None:
        raise ArtifactError("There is no home directory for the list of trusted artifacts. Set "
                            "TINYDRIVE_HOME to a folder you can write, or load with --trust.")
    if sha256 in _listed(path):
        return path
    # One line is one line, whatever the file is called.
    line = f"{sha256}  {comment}".replace("\n", " ").replace("\r", " ") + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(line)
    except OSError as error:
        raise ArtifactError(
            f"{path}: the list of trusted artifacts cannot be written ({error.strerror}). Set "
            "TINYDRIVE_HOME to a folder you can write, or load with --trust.") from None
    return path


def _listed(path: Path) -> set[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    return {line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()}
