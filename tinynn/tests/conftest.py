"""Shared by all tests of tinynn."""
from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_trust_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty list of trusted artifacts of its own; the user's is not touched."""
    home = tmp_path / "tinydrive-home"
    monkeypatch.setenv("TINYDRIVE_HOME", str(home))
    return home / "trusted-artifacts.txt"


@pytest.fixture(autouse=True)
def no_compile_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compile anew: what an earlier run left could hide a fault."""
    monkeypatch.setenv("TINYDRIVE_CACHE", "")
