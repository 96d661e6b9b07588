"""Artifacts of every format version that was ever published load, and give what they gave then.

They lie in tinynn/tests/data as format-MAJOR.MINOR-TARGET.tnn and are never changed. When the
format gets a new version, add files of it:

    python -m tinynn.tests.make_fixtures

This changes files of the present version only; if `git status` shows an old one as changed, its
version number was not raised.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tinynn
from tinynn.runtime import host
from tinynn.runtime.layout import HEADER_NBYTES, VERSION, Header
from tinynn.runtime.reader import read
from tinynn.tests import make_fixtures

FILES = sorted(make_fixtures.DATA.glob("*.tnn"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_the_present_version_has_a_fixture_for_every_target() -> None:
    wanted = {f"format-{VERSION[0]}.{VERSION[1]}-{target}.tnn" for target in make_fixtures.TARGETS}
    assert wanted <= {path.name for path in FILES}


@each_file
def test_is_read_and_every_check_passes(path: Path) -> None:
    assert path.stat().st_size < 40_000
    reader = read(path)
    version, _, target = path.stem.removeprefix("format-").partition("-")
    assert reader.json["format"] == [int(number) for number in version.split(".")]
    assert [t.target for t in reader.manifest.targets] == [f"cpu:{target}"]
    assert reader.manifest.carry == {"memory": "next"}
    storage = {entry.storage for entry in reader.manifest.targets[0].table}
    assert storage == {"f16", "f32"}
    assert reader.json["model"]["metadata"]["model_checkpoint"] == "fixture/1"


@each_file
def test_the_bytes_are_what_the_version_says(path: Path) -> None:
    """Read here by hand: the reader may change, these files may not."""
    data = path.read_bytes()
    header = Header.parse(memoryview(data))
    major = int(path.stem.removeprefix("format-").partition(".")[0])
    assert data[:8] == b"\x89TNN\r\n\x1a\n" and int.from_bytes(data[8:10], "little") == major
    assert int.from_bytes(data[24:32], "little") == len(data)
    manifest = json.loads(data[HEADER_NBYTES:HEADER_NBYTES + header.manifest_nbytes])
    assert [blob["kind"] for blob in manifest["blobs"]] == ["weights", "code", "source", "golden"]


@each_file
def test_runs_as_it_did(path: Path) -> None:
    """Against numpy in float64, which knows nothing of the file, and against its golden vectors."""
    target = read(path).manifest.targets[0].target
    if target not in host.host_targets():
        pytest.skip(f"this machine does not run {target}")
    with tinynn.load(path, trust=True) as runner:
        memory = np.zeros((1, 8))
        for seed in range(3):
            x = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
            memory = make_fixtures.reference(x, memory)
            np.testing.assert_allclose(runner({"x": x})["next"], memory, rtol=1e-4, atol=1e-6)
        assert all(result.passed for result in runner.verify())
