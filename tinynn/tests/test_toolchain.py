"""The C compiler: reproducible bytes, and clear errors."""
from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinynn import derived, ir
from tinynn.compiler import generate
from tinynn.ir import DType, Graph
from tinynn.machine import MACHINES
from tinynn.render import toolchain
from tinynn.render.toolchain import ToolchainError, build
from tinynn.tests.direct import Direct

SOURCE = '__attribute__((visibility("default"))) int answer(void) { return 42; }\n'
MACHINE = MACHINES["x86-64-v3"]


def _graph() -> Graph:
    x = ir.input_("x", DType.F32, (1, 8, 12, 12))
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    y = derived.conv(x, ir.const(weight), [1, 1], [1, 1], [(1, 1), (1, 1)], 1)
    return Graph("conv", {"x": x}, {"y": ir.exp2(y)})


def test_same_source_gives_same_bytes_wherever_it_is_built(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = []
    for name in ("here", "a rather longer directory name"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.chdir(folder)
        objects.append(generate(_graph(), "cpu").code)
        assert os.listdir(folder) == []
    assert objects[0] == objects[1]
    assert str(tmp_path).encode() not in objects[0]


def test_an_unwritable_home_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    assert build(SOURCE, MACHINE)[0].startswith(b"\x7fELF")
    assert os.listdir(home) == []


@pytest.mark.parametrize("name", list(MACHINES))
def test_every_target_compiles_without_its_machine(name: str) -> None:
    code = generate(_graph(), f"cpu:{name}").code
    machine = int.from_bytes(code[18:20], "little")  # e_machine of the ELF header
    assert machine == (183 if name == "aarch64" else 62)


def test_the_version_of_the_compiler_is_told() -> None:
    assert build(SOURCE, MACHINE)[1].startswith("zig 0.")


def test_an_error_keeps_the_source_and_names_it(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"the C compiler failed: .*error.*kept in") as caught:
        build("int broken(void) { return nothing; }\n", MACHINE)
    kept = Path(str(caught.value).split("kept in ")[1].rstrip("."))
    assert "return nothing" in kept.read_text()


def test_a_missing_zig_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYNN_CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=r"pip install 'tinydrive\[compile\]'"):
        build(SOURCE, MACHINE)


def test_a_missing_system_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYNN_CC", "no-such-compiler")
    with pytest.raises(ToolchainError, match="'no-such-compiler' cannot be run"):
        build(SOURCE, MACHINE)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_a_system_compiler_gives_the_same_results() -> None:
    values = np.random.default_rng(0).standard_normal((1, 8, 12, 12)).astype(np.float32)
    results: list[Any] = []
    for compiler in (None, "gcc"):
        program = Direct(generate(_graph(), "cpu", compiler=compiler))
        results.append(program({"x": values})["y"])
        program.close()
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_ziglang_is_installed_for_these_tests() -> None:
    assert importlib.util.find_spec("ziglang") is not None
