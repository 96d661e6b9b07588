"""The artifact file: layout, the same bytes every time, and every kind of damage is noticed."""
from __future__ import annotations

import bz2
import json
import stat
import struct
import tomllib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynn.artifact import Artifact
from tinynn.program import Step
from tinynn.runtime import ArtifactError
from tinynn.runtime.layout import (
    HEADER_NBYTES,
    VERSION,
    Fault,
    Header,
    canonical_json,
    parse_json,
    sha256_hex,
)
from tinynn.runtime.manifest import upgrade
from tinynn.runtime.reader import read
from tinynn.tests import handmade

SOUND = handmade.artifact().to_bytes()
Change = Callable[[dict[str, Any]], None]


def with_manifest(change: Change | bytes, version: tuple[int, int] = VERSION) -> bytes:
    """The sound artifact with another manifest and a header that fits it: what a forger can do.

    Blobs keep their places (the new manifest must end before the first).
    """
    if callable(change):
        data = json.loads(SOUND[HEADER_NBYTES:manifest_end()])
        change(data)
        text = canonical_json(data)
    else:
        text = change
    first = json.loads(SOUND[HEADER_NBYTES:manifest_end()])["blobs"][0]["offset"]
    assert HEADER_NBYTES + len(text) <= first
    body = text + bytes(first - HEADER_NBYTES - len(text)) + SOUND[first:]
    header = Header(version, len(text), HEADER_NBYTES, HEADER_NBYTES + len(body),
                    bytes.fromhex(sha256_hex(text)))
    return header.pack() + body


def manifest_end() -> int:
    (nbytes,) = struct.unpack_from("<I", SOUND, 12)
    return HEADER_NBYTES + nbytes


def refusal(data: bytes) -> str:
    """The message with which these bytes are refused."""
    with pytest.raises(ArtifactError) as error:
        read(data)
    return str(error.value)


def test_layout_is_as_documented() -> None:
    assert SOUND[:8] == b"\x89TNN\r\n\x1a\n"
    manifest = json.loads(SOUND[HEADER_NBYTES:manifest_end()])
    assert manifest["io"]["carry"] == {"memory": "next"}
    assert manifest["model"]["metadata"]["output_slices"] == {"first": [0, 1, None]}
    assert {blob["kind"] for blob in manifest["blobs"]} == {"weights", "code", "source", "golden"}
    assert all(blob["offset"] % 4096 == 0 for blob in manifest["blobs"])
    source = next(blob for blob in manifest["blobs"] if blob["kind"] == "source")
    stored = SOUND[source["offset"]:source["offset"] + source["nbytes"]]
    assert source["unpacked_nbytes"] == len(handmade.SOURCE)
    assert bz2.decompress(stored).decode() == handmade.SOURCE
    expect = manifest["targets"][0]["expect"]
    assert expect == {"steps": 3, "flop": 16, "nbytes": 116}
    # arena 64, weights 64 + 16, x 16, memory 16, next 16, total 4
    assert manifest["limits"]["memory_nbytes"] == 64 + 80 + 16 + 16 + 16 + 4


def test_same_program_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        handmade.artifact().save(tmp_path / folder / "model.tnn")
    first, second = (tmp_path / folder / "model.tnn" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes() == SOUND


def test_open_gives_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    handmade.artifact().save(path)
    opened = Artifact.open(path)
    assert opened.to_bytes() == SOUND
    assert opened.manifest["model"]["metadata"]["unit"] == "m/s²"


def test_records_the_version_of_the_package() -> None:
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    version = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"]
    assert handmade.artifact().manifest["compiler"]["version"] == f"tinydrive {version}"


def test_equal_weights_of_two_targets_are_stored_once() -> None:
    code = handmade.target_code()
    both = handmade.artifact(handmade.program(
        targets=(code, replace(code, target="cpu:other", source="/* other */"))))
    kinds = [blob["kind"] for blob in both.manifest["blobs"]]
    assert sorted(kinds) == ["code", "golden", "source", "source", "weights"]


def test_a_large_manifest_moves_the_blobs() -> None:
    large = handmade.artifact(handmade.program(metadata={"notes": "n" * 20_000}))
    assert large.manifest["blobs"][0]["offset"] >= 20_000
    assert Artifact(large.to_bytes()).manifest["model"]["metadata"]["notes"] == "n" * 20_000


def test_saving_replaces_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "model.tnn"
    path.write_bytes(b"older")
    handmade.artifact().save(path)
    assert path.read_bytes() == SOUND
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.glob("*model*")] == ["model.tnn"]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.tnn").mkdir()
    with pytest.raises(OSError):
        handmade.artifact().save(tmp_path / "model.tnn")
    assert [p.name for p in tmp_path.glob("*model*")] == ["model.tnn"]


def test_metadata_that_is_not_plain_data_is_refused() -> None:
    for value in (float("nan"), object(), b"bytes"):
        with pytest.raises(ArtifactError, match="not plain data"):
            handmade.artifact(handmade.program(metadata={"bad": value}))


def test_a_program_that_cannot_be_loaded_is_not_built() -> None:
    code = handmade.target_code()
    with pytest.raises(ArtifactError, match="no step writes output 'total'"):
        handmade.artifact(handmade.program(targets=(replace(code, steps=code.steps[:2]),)))


# Truncated, foreign and unreadable files

@pytest.mark.parametrize("length", [
    0, 1, 7, 8, 9, HEADER_NBYTES - 1, HEADER_NBYTES, HEADER_NBYTES + 1, manifest_end() - 1,
    manifest_end(), manifest_end() + 1, 4095, 4096, 4097, 8191, 8192, len(SOUND) - 1])
def test_truncated(length: int) -> None:
    message = refusal(SOUND[:length])
    expected = {range(8): "not an artifact", range(8, 64): "ends inside the header"}
    for lengths, words in expected.items():
        if length in lengths:
            assert words in message
    if length >= HEADER_NBYTES:
        assert f"truncated: it has {length} bytes and should have {len(SOUND)}" in message
    assert "<bytes>: header" in message


def test_longer_than_written() -> None:
    assert "longer than written" in refusal(SOUND + b"\0")


def test_other_files() -> None:
    assert "not an artifact" in refusal(b"\x08\x07\x12\x07pytorch" * 20)
    assert "`tinynn compile`" in refusal(b"PK\x03\x04" * 100)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.tnn: cannot be read \(No such file"):
        read(tmp_path / "none.tnn")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.tnn"
    path.touch()
    with pytest.raises(ArtifactError, match="not an artifact"):
        read(path)


# One flipped byte anywhere

def flipped(offset: int, mask: int = 0xFF) -> bytes:
    data = bytearray(SOUND)
    data[offset] ^= mask
    return bytes(data)


@pytest.mark.parametrize(("offset", "words"), [
    (0, "not an artifact"), (7, "not an artifact"), (8, "artifact format"), (9, "artifact format"),
    (12, "manifest"), (14, "does not fit"), (16, "the manifest starts at"),
    (24, "should have"), (31, "should have"), (32, "sha256"), (63, "sha256")])
def test_flipped_byte_in_the_header(offset: int, words: str) -> None:
    """Offset 12: length of the manifest, 16: its place. The table of layout.Header."""
    assert words in refusal(flipped(offset))


def test_every_bit_of_the_header_counts() -> None:
    for offset in range(HEADER_NBYTES):
        for bit in range(8):
            refusal(flipped(offset, 1 << bit))


def test_minor_version_alone_cannot_be_changed() -> None:
    assert "the version of the header" in refusal(flipped(10, 1))


def test_flipped_byte_in_every_section() -> None:
    middle = (HEADER_NBYTES + manifest_end()) // 2
    assert "sha256 of the manifest" in refusal(flipped(middle))
    end = manifest_end()
    for i, blob in enumerate(json.loads(SOUND[HEADER_NBYTES:end])["blobs"]):
        if blob["offset"] > end:
            assert f"padding, bytes {end} to {blob['offset']}" in refusal(flipped(end))
            assert "padding" in refusal(flipped(blob["offset"] - 1, 1))
        end = blob["offset"] + blob["nbytes"]
        for offset in (blob["offset"], (blob["offset"] + end) // 2, end - 1):
            message = refusal(flipped(offset))
            assert f"blob {i} ({blob['kind']}), bytes {blob['offset']} to {end}" in message
            assert "copy it again" in message


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(1, 255)), min_size=1,
                max_size=4, unique_by=lambda flip: flip[0]))
def test_random_damage_is_always_refused(flips: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for offset, mask in flips:
        data[offset] ^= mask
    refusal(bytes(data))


# Versions

def test_newer_major_is_refused() -> None:
    data = with_manifest(lambda m: m.update(format=[3, 0]), version=(3, 0))
    assert "artifact format 3.0 is none of the formats 1 to 2" in refusal(data)
    assert "compile the model again" in refusal(data)


def test_unknown_fields_of_a_newer_minor_are_ignored() -> None:
    def add(m: dict[str, Any]) -> None:
        m["format"] = [2, 7]
        m["added"] = {"x": 1}
        m["targets"][0]["added"] = 1
        m["targets"][0]["steps"][0]["added"] = 1

    assert read(with_manifest(add, version=(2, 7))).manifest.name == "handmade"


def test_a_manifest_of_format_1_is_brought_to_the_present_form() -> None:
    """What that format had not is as if it had been said: the handmade program with plain blobs."""
    manifest = Artifact(SOUND).manifest
    old: dict[str, Any] = {
        "blobs": [{"kind": "code", "offset": 0}], "golden": {"runs": "damaged"},
        "targets": [{"steps": [dict(manifest["targets"][0]["steps"][0])], "buffers": [3]}]}
    assert set(manifest["golden"]["runs"][0]["outputs"][0]) == {
        "name", "dtype", "offset", "tolerance", "sha256", "stride"}
    for name in ("schedule", "reason", "predicted_ns", "bound", "global_size", "local_size"):
        del old["targets"][0]["steps"][0][name]
    upgrade(old, (1, 0))
    assert old["blobs"][0]["unpacked_nbytes"] is None
    assert old["targets"][0]["steps"][0] == manifest["targets"][0]["steps"][0]


# Compressed blobs

def with_source(stored: bytes, nbytes: int) -> bytes:
    """The sound artifact with other bytes and another length in place of its source."""
    (index, blob), = ((i, b) for i, b in enumerate(Artifact(SOUND).manifest["blobs"])
                      if b["kind"] == "source")
    changed = {**blob, "nbytes": len(stored), "sha256": sha256_hex(stored),
               "unpacked_nbytes": nbytes}
    assert len(stored) < 4096
    data = with_manifest(put(f"blobs.{index}", changed))
    return data[:blob["offset"]] + stored.ljust(4096, b"\0") + data[blob["offset"] + 4096:]


@pytest.mark.parametrize(("stored", "nbytes"), [
    (bz2.compress(bytes(50 << 20)), 1000),  # 50 MiB in a few dozen bytes
    (bz2.compress(b"short"), 6), (bz2.compress(b"long"), 3), (bz2.compress(b"cut")[:-1], 3),
    (bz2.compress(b"more") + b"!", 4), (b"no bz2", 6)])
def test_compressed_blobs_that_are_not_what_they_say(stored: bytes, nbytes: int) -> None:
    reader = read(with_source(stored, nbytes))  # reading a manifest unpacks nothing
    index = reader.manifest.targets[0].source
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"\(source\): its compressed content is damaged or"):
        reader.text(index)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_only_text_and_code_are_compressed() -> None:
    (index,) = (i for i, b in enumerate(Artifact(SOUND).manifest["blobs"])
                if b["kind"] == "weights")
    message = refusal(with_manifest(put(f"blobs.{index}.unpacked_nbytes", 128)))
    assert "a blob of weights cannot be compressed" in message


def test_unknown_fields_of_this_minor_are_refused() -> None:
    assert "top level" in refusal(with_manifest(lambda m: m.update(added=1)))


# Manifests that a hostile writer could make: hashes fit, content does not

def put(path: str, value: Any) -> Change:
    """A change that sets the value at a dotted path, where numbers index lists."""
    *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in way:
            place = place[key]
        place[last] = value

    return change


T = "targets.0"
# Buffers of the program by index: 0 x, 1 memory, 2 scale, 3 next, 4 twice, 5 total.


@pytest.mark.parametrize(("path", "value", "words"), [
    ("blobs", {}, "blobs: {} should be a list"),
    ("blobs.0.offset", -4096, "blobs[0].offset: -4096 should be an integer"),
    ("blobs.0.offset", 1 << 80, "should be an integer from 0"),
    ("blobs.0.offset", 4096.0, "should be an integer"),
    ("blobs.0.offset", True, "True should be an integer"),
    ("blobs.0.offset", 0, "blobs[0]: offset 0 overlaps"),
    ("blobs.1.offset", 4097, "not a multiple of 4096"),
    ("blobs.1.offset", 4096, "overlaps"),
    ("blobs.0.nbytes", 1 << 39, "ends at byte"),
    ("blobs.0.sha256", "A" * 64, "should be a sha256"),
    ("blobs.0.kind", "pickle", "'pickle' should be one of weights, code"),
    ("blobs.1.unpacked_nbytes", 1 << 30, "unpacked_nbytes: 1073741824 should be an integer from"),
    ("compiler.version", 3, "3 should be text"),
    ("model.metadata", [], "should be an object"),
    ("model.source_sha256", "", "should be a sha256"),
    ("io.inputs.0.dtype", "f8", "'f8' should be one of bool"),
    ("io.inputs.0.shape", [-4], "-4 should be an integer"),
    ("io.inputs.0.shape", [2, 2], "there is no such input 'x'"),
    ("io.inputs.0.shape", [1 << 40] * 16, "there is no such input 'x'"),
    ("io.inputs.0.shape", [1] * 17, "a list of at most 16"),
    ("io.inputs.0.name", "memory", "a name appears twice"),
    ("io.outputs.1.name", "next", "a name appears twice"),
    ("io.carry", {}, "does not name every state"),
    ("io.carry.memory", "total", "no output 'total' of the same type"),
    ("io.carry.memory", "none", "no output 'none' of the same type"),
    ("threads", 0, "should be an integer from 1 to 64"),
    ("threads", 1000, "should be an integer from 1 to 64"),
    ("limits.memory_nbytes", 1, "1 differs from"),
    ("targets", [], "the list is empty"),
    (f"{T}.code", 99, "99 is not a blob of code"),
    (f"{T}.code", 0, "0 is not a blob of code"),
    (f"{T}.arena_nbytes", 0, "it ends at byte 16 of an area of 0 bytes"),
    (f"{T}.buffers.0.kind", "device", "'device' should be one of input"),
    (f"{T}.buffers.0.nbytes", 12, "12 bytes do not fit f32[4]"),
    (f"{T}.buffers.0.offset", 64, "offset 64 should be 0"),
    (f"{T}.buffers.2.offset", 128, "it ends at byte 144 of an area of 80"),
    (f"{T}.buffers.4.offset", 4, "no multiple of 64"),
    (f"{T}.buffers.4.offset", 64, "it ends at byte 80 of an area of 64"),
    (f"{T}.buffers.4.nbytes", 8, "8 bytes do not fit"),
    (f"{T}.buffers.5.name", "sum", "there is no such output 'sum'"),
    (f"{T}.buffers.5.kind", "arena", "output 'total' has no buffer"),
    (f"{T}.steps.0.args.0", 6, "an argument is outside the 6 buffers"),
    (f"{T}.steps.0.args.0", -1, "-1 should be an integer"),
    (f"{T}.steps.0.args.0", 0, "it writes buffer 0, which is of kind input"),
    (f"{T}.steps.0.args.0", 1, "it writes buffer 1, which is of kind state"),
    (f"{T}.steps.0.args.0", 2, "it writes buffer 2, which is of kind weight"),
    (f"{T}.steps.0.args.1", 4, "it reads buffer 4 (twice), which holds no value"),
    (f"{T}.steps.0.args.1", 3, "holds no value"),
    (f"{T}.steps.1.args.0", 3, "overlaps another argument"),
    (f"{T}.steps.0.writes", [], "do not name arguments"),
    (f"{T}.steps.0.writes", [4], "do not name arguments"),
    (f"{T}.steps.0.writes", [0, 0], "do not name arguments"),
    (f"{T}.steps.0.kernel", "../system", "should be the name of a C function"),
    (f"{T}.steps.0.kernel", "k" * 300, "should be the name of a C function"),
    (f"{T}.steps.0.parts", 0, "0 should be an integer from 1"),
    (f"{T}.steps.0.flop", 1, "differs from the steps"),
    (f"{T}.table", [], "a weight buffer has no values"),
    (f"{T}.table.0.buffer", 0, "0 is not a weight buffer"),
    (f"{T}.table.0.storage", "u8", "u8 cannot be widened to f32"),
    (f"{T}.table.0.offset", 1, "are not inside the weights"),
    (f"{T}.table.0.offset", 1 << 30, "are not inside the weights"),
    (f"{T}.table.0.storage", "bf16", "bf16 cannot be widened to f32"),
    ("golden.blob", 0, "0 is not a blob of golden"),
    ("golden.runs", [], "the list is empty"),
    ("golden.runs.0.outputs", [], "not those of the program"),
    ("golden.runs.0.outputs.0.offset", 1 << 20, "not inside the golden values"),
    ("golden.runs.0.outputs.0.tolerance", 1e9, "a number from 0.0 to 1.0"),
    ("golden.runs.0.outputs.0.sha256", "0", "should be a sha256"),
    ("golden.runs.0.seed", -1, "should be an integer"),
])
def test_hostile_field(path: str, value: Any, words: str) -> None:
    message = refusal(with_manifest(put(path, value)))
    assert words in message
    assert message.startswith("<bytes>: manifest")


def places(value: Any, way: tuple[str, ...] = ()) -> list[str]:
    """Dotted paths of everything inside plain data."""
    children = (value.items() if isinstance(value, dict)
                else enumerate(value) if isinstance(value, list) else ())
    found = [".".join(way)] if way else []
    for key, child in children:
        found += places(child, (*way, str(key)))
    return found


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner, max_size=1),
    max_leaves=5)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(Artifact(SOUND).manifest)), PLAIN)
def test_any_value_anywhere_is_read_or_refused(path: str, value: Any) -> None:
    """No other exception than ArtifactError, and no field takes another type than its own."""
    manifest = Artifact(SOUND).manifest
    old: Any = manifest
    for key in path.split("."):
        old = old[int(key)] if isinstance(old, list) else old[key]
    try:
        read(with_manifest(put(path, value)))
    except ArtifactError:
        return
    plain_data = path.startswith(("model.metadata.", "model.options."))
    number_or_null = type(value) in (int, float, type(None)) and path.endswith(
        ("threads", "tolerance", "unpacked_nbytes"))
    assert type(value) is type(old) or plain_data or number_or_null


def test_a_target_that_appears_twice() -> None:
    code = handmade.target_code()
    with pytest.raises(ArtifactError, match="a target appears twice"):
        handmade.artifact(handmade.program(targets=(code, code)))


def test_missing_field() -> None:
    assert "an object with the fields" in refusal(with_manifest(lambda m: m.pop("io")))


@pytest.mark.parametrize(("text", "words"), [
    (b"{}", "top level"),
    (b"null", "top level"),
    (b'{"a":1,"a":2}', "a key appears twice"),
    (b'{"a": 1}', "not in canonical form"),
    (b'{"b":1,"a":2}', "not in canonical form"),
    (b'{"a":NaN}', "not the JSON it should be"),
    (b'{"a":1e999}', "not the JSON it should be"),
    (b'{"a":"\\ud800"}', "not the JSON it should be"),
    (b'"\xff"', "not the JSON it should be"),
    (b"1" * 3900, "top level"),
    (b"{", "not the JSON it should be"),
])
def test_hostile_json(text: bytes, words: str) -> None:
    assert words in refusal(with_manifest(text))


def test_json_nested_beyond_all_limits() -> None:
    with pytest.raises(Fault, match="nested too deeply"):
        parse_json(b"[" * 1_000_000)


def test_metadata_nested_deeply() -> None:
    deep: Any = 0
    for _ in range(100):
        deep = [deep]
    assert "nested deeper than 32" in refusal(with_manifest(put("model.metadata", {"a": deep})))


def steps(*rows: tuple[list[int], list[int]]) -> tuple[Step, ...]:
    return tuple(Step("k0_scale_add", tuple(args), tuple(writes), 1, 0, 0, "")
                 for args, writes in rows)


def test_a_plan_that_overwrites_a_value_still_needed_is_refused() -> None:
    code = handmade.target_code()
    vector = code.buffers[4]
    buffers = (*code.buffers, replace(vector, name="other", offset=0))  # 6: where twice is, 4
    kept = steps(([3, 0], [0]), ([4, 3], [0]), ([5, 4], [0]), ([6, 3], [0]))
    handmade.artifact(handmade.program(
        targets=(replace(code, buffers=buffers, steps=kept),)))
    clobbered = steps(([3, 0], [0]), ([4, 3], [0]), ([6, 3], [0]), ([5, 4], [0]))
    with pytest.raises(ArtifactError, match=r"steps\[3\].*reads buffer 4 \(twice\)"):
        handmade.artifact(handmade.program(
            targets=(replace(code, buffers=buffers, steps=clobbered),)))


def test_arguments_that_share_memory_are_refused() -> None:
    code = handmade.target_code()
    buffers = (*code.buffers, replace(code.buffers[4], name="other", offset=0))
    shared = steps(([3, 0], [0]), ([4, 3], [0]), ([6, 4], [0]), ([5, 6], [0]))
    with pytest.raises(ArtifactError, match=r"steps\[2\].*overlaps another argument"):
        handmade.artifact(handmade.program(
            targets=(replace(code, buffers=buffers, steps=shared),)))


def test_weights_keep_their_exact_values() -> None:
    """f16 storage of a float32 weight loses nothing."""
    reader = read(SOUND)
    target = reader.manifest.targets[0]
    stored = np.frombuffer(reader.blob(target.weights)[:8], dtype=np.float16)
    np.testing.assert_array_equal(stored.astype(np.float32), handmade.SCALE)
