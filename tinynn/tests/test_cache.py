"""The cache of compiler results: when it is used, and that nothing in it is taken on trust."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinynn import cache, interp, ir
from tinynn.golden import make_golden
from tinynn.ir import DType, Graph
from tinynn.machine import MACHINES, Machine
from tinynn.render import toolchain

V2, V3 = MACHINES["x86-64-v2"], MACHINES["x86-64-v3"]
CODE = b"\x7fELF\n\n and more"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that does not exist yet."""
    monkeypatch.setenv("TINYDRIVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the compiler; collects what it is asked for."""
    calls: list[Any] = []

    def compile_object(source: str, machine: Machine, compiler: str | None = None) -> bytes:
        calls.append((source, machine.name, compiler))
        return CODE + str(len(calls)).encode()

    monkeypatch.setattr(toolchain, "compile_object", compile_object)
    monkeypatch.setattr(toolchain, "link", lambda objects, *_: b"+".join(objects))
    monkeypatch.setattr(toolchain, "version", lambda compiler: "compiler 1.0")
    monkeypatch.delenv("TINYNN_CC", raising=False)
    return calls


def entries(home: Path, kind: str = "objects") -> list[Path]:
    return sorted((home / kind).iterdir())


def drop_programs(home: Path) -> None:
    """So that what is kept of single sources is looked at."""
    for path in entries(home, "programs"):
        path.unlink()


def test_the_second_time_comes_from_the_cache(home: Path, built: list[Any]) -> None:
    first = cache.build("source", V3)
    assert first == (CODE + b"1", "compiler 1.0")
    assert cache.build("source", V3) == first
    assert len(built) == len(entries(home)) == 1


def test_whatever_decides_the_result_is_in_the_key(
        home: Path, built: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho cc 1\n")
    compiler.chmod(0o755)
    cache.build("source", V3)
    cache.build("source 2", V3)
    cache.build("source", V2)
    cache.build("source", V3, str(compiler))
    compiler.write_text("#!/bin/sh\necho cc 2\n")
    cache.build("source", V3, str(compiler))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    cache.build("source", V3)
    flags = tmp_path / "toolchain.py"
    flags.write_text("other flags")
    monkeypatch.setattr(toolchain, "__file__", str(flags))
    cache.build("source", V3)
    assert len(built) == len(entries(home)) == 7


def test_the_compiler_of_the_environment_is_in_the_key(
        home: Path, built: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("source", V3)
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho cc 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("TINYNN_CC", str(compiler))
    cache.build("source", V3)
    assert len(built) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b"",
                                    lambda data: data[:-1] + b"x", lambda data: b"x" + data[1:]])
def test_a_damaged_entry_is_made_again(home: Path, built: list[Any], damage: Any) -> None:
    cache.build("source", V3)
    for kind in ("objects", "programs"):
        (entry,) = entries(home, kind)
        entry.write_bytes(damage(entry.read_bytes()))
    assert cache.build("source", V3) == (CODE + b"2", "compiler 1.0")
    assert cache.build("source", V3) == (CODE + b"2", "compiler 1.0")
    assert len(built) == 2


def test_a_damaged_program_is_linked_again_from_whole_objects(home: Path, built: list[Any]) -> None:
    first = cache.build_units(["a", "b"], V3)
    (entry,) = entries(home, "programs")
    entry.write_bytes(entry.read_bytes()[:-1])
    assert cache.build_units(["a", "b"], V3) == first
    assert len(built) == 2


def test_only_the_source_that_changed_is_compiled(home: Path, built: list[Any]) -> None:
    cache.build_units(["a", "b", "c"], V3)
    cache.build_units(["a", "changed", "c"], V3)
    assert sorted(source for source, *_ in built[:3]) == ["a", "b", "c"]
    assert [source for source, *_ in built[3:]] == ["changed"]


def test_objects_are_linked_in_the_order_of_their_sources(home: Path, built: list[Any]) -> None:
    cache.build("b", V3)
    cache.build("a", V3)
    assert cache.build_units(["a", "b"], V3)[0] == CODE + b"2+" + CODE + b"1"


def test_a_folder_that_others_may_write_to_is_not_used(home: Path, built: list[Any]) -> None:
    cache.build("source", V3)
    for kind in ("objects", "programs"):
        (home / kind).chmod(0o777)
    assert cache.build("source", V3)[0] == CODE + b"2"


def test_a_place_where_no_folder_can_be_is_no_obstacle(home: Path, built: list[Any]) -> None:
    home.write_text("a file")
    assert cache.build("source", V3)[0] == CODE + b"1"
    assert cache.build("source", V3)[0] == CODE + b"2"


def test_an_empty_name_means_no_cache(home: Path, built: list[Any],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDRIVE_CACHE", "")
    for _ in range(2):
        cache.build("source", V3)
    assert len(built) == 2 and not home.exists()


def test_unknown_compilers_are_asked_every_time(home: Path, built: list[Any]) -> None:
    for _ in range(2):
        cache.build("source", V3, "no-such-compiler")
    assert len(built) == 2


def test_entries_not_used_for_longest_go_first(home: Path, built: list[Any],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("a", V3)
    (first,) = entries(home)
    nbytes = first.stat().st_size
    cache.build("b", V3)
    (second,) = set(entries(home)) - {first}
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    drop_programs(home)
    cache.build("a", V3)  # used, so that b is the oldest
    monkeypatch.setattr(cache, "MAX_NBYTES", 2 * nbytes)
    cache.build("c", V3)
    left = entries(home)
    assert len(left) == 2 and first in left and second not in left


def test_golden_outputs_are_kept_as_long_as_their_graph_means_the_same(
        home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    run = interp.run

    def counted(graph: Graph, inputs: Any) -> Any:
        runs.append(graph.name)
        return run(graph, inputs)

    monkeypatch.setattr(interp, "run", counted)
    x = ir.input_("x", DType.BF16, (3,))

    def graph(factor: int) -> Graph:
        y = ir.mul(x, ir.full((3,), factor, DType.BF16))
        return Graph("g", {"x": x}, {"y": y, "z": ir.cast(y, DType.F64)})

    first, again = make_golden(graph(2)), make_golden(graph(2))
    assert len(runs) == len(first) == 2
    for one, other in zip(first, again, strict=True):
        assert one.tolerance == other.tolerance and list(one.outputs) == list(other.outputs)
        for name, array in one.outputs.items():
            assert array.dtype == other.outputs[name].dtype
            np.testing.assert_array_equal(array, other.outputs[name])
    changed = make_golden(graph(3))
    assert len(runs) == 4
    assert (changed[0].outputs["z"] != first[0].outputs["z"]).any()


def test_the_place_of_the_cache() -> None:
    assert cache.cache_folder({"TINYDRIVE_CACHE": "/a", "HOME": "/h"}) == Path("/a")
    assert cache.cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/tinydrive")
    assert cache.cache_folder({"XDG_CACHE_HOME": "rel", "HOME": "/h"}) == Path(
        "/h/.cache/tinydrive")
    assert cache.cache_folder({"HOME": "/h"}) == Path("/h/.cache/tinydrive")


def test_the_real_compiler_gives_the_same_program_either_way(
        home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '__attribute__((visibility("default"))) int answer_{0}(void) {{ return {0}; }}\n'
    sources = [text.format(number) for number in (41, 42, 43)]
    cache.build(sources[1], V2)
    some_kept = cache.build_units(sources, V2)
    all_kept = cache.build_units(sources, V2)
    monkeypatch.setenv("TINYDRIVE_CACHE", "")
    assert cache.build_units(sources, V2) == some_kept == all_kept
    assert cache.build(sources[0], V2) == toolchain.build(sources[0], V2)
    assert len(entries(home)) == 3
