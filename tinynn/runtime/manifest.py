"""The manifest as typed values: every field is checked for type and range while it is read.

Manifests of older formats are first brought to today's form: `upgrade`.

`parse` knows what one field may be; `check.py` knows how fields must fit together.
"""
from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tinynn.program import Buffer, Step, TensorSpec
from tinynn.runtime.layout import DTYPES, VERSION, Fault

BUFFER_KINDS = ("input", "output", "state", "weight", "arena")
BLOB_KINDS = ("weights", "code", "source", "golden")
PACKED_KINDS = ("code", "source")  # that may be compressed
IMAGE_CHANNELS = ("half", "float")
MAX_THREADS = 64
_MAX_NBYTES = 1 << 40  # of any one thing: far above every real model, far below overflow
_MAX_UNPACKED = 64 << 20  # of a compressed blob
_MAX_COUNT = 20_000  # of buffers, steps, weights in a target
_MAX_RANK = 16
_MAX_IMAGE = 1 << 16  # texels along one axis; what a device takes is for its runtime to see
_MAX_DEPTH = 32  # of the model's metadata
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A range of the file, in bytes, and its hash as it lies there.

    unpacked_nbytes: length of the content if it is stored compressed, otherwise None.
    """

    kind: str
    offset: int
    nbytes: int
    sha256: str
    unpacked_nbytes: int | None = None


@dataclass(frozen=True)
class WeightEntry:
    """Where a weight buffer's values lie in the weights blob, and in which dtype."""

    buffer: int
    storage: str
    offset: int


@dataclass(frozen=True)
class Target:
    """program.TargetCode with its large parts replaced by blob indices."""

    target: str
    precision: str
    toolchain: str
    source: int
    code: int
    weights: int
    arena_nbytes: int
    weights_nbytes: int
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    table: tuple[WeightEntry, ...]
    expect: dict[str, int]
    tolerance: float = 0.0


@dataclass(frozen=True)
class GoldenOutput:
    """A stored result: `dtype` is that of storage, `offset` is in the golden blob.

    tolerance: largest norm of the difference over norm of the stored value.
    sha256: of the values, which are then not stored: they must be met exactly. Otherwise None.
    stride: of the flat tensor the elements 0, stride, 2 stride, ... are stored.
    """

    name: str
    dtype: str
    offset: int
    tolerance: float
    sha256: str | None = None
    stride: int = 1


@dataclass(frozen=True)
class GoldenRun:
    """One run of the program on the inputs that `seed` gives."""

    seed: int
    outputs: tuple[GoldenOutput, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime needs to know. memory_nbytes: largest need of any target."""

    blobs: tuple[Blob, ...]
    name: str
    metadata: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    carry: dict[str, str]
    threads: int | None
    memory_nbytes: int
    targets: tuple[Target, ...]
    golden_blob: int
    golden: tuple[GoldenRun, ...]


@dataclass(frozen=True)
class _Item:
    """A JSON value and the path to it. `lenient`: unknown fields are ignored."""

    value: Any
    where: str
    lenient: bool

    def wrong(self, expected: str) -> Fault:
        shown = repr(self.value)
        shown = shown if len(shown) <= 40 else shown[:40] + "..."
        return Fault(f"manifest, {self.where}", f"{shown} should be {expected}")

    def fields(self, names: str) -> dict[str, _Item]:
        wanted = names.split()
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        missing = [name for name in wanted if name not in self.value]
        unknown = [name for name in self.value if name not in wanted]
        if missing or (unknown and not self.lenient):
            raise self.wrong(f"an object with the fields {', '.join(wanted)}")
        return {name: _Item(self.value[name], f"{self.where}.{name}", self.lenient)
                for name in wanted}

    def items(self, limit: int = _MAX_COUNT) -> list[_Item]:
        if not isinstance(self.value, list) or len(self.value) > limit:
            raise self.wrong(f"a list of at most {limit} items")
        return [_Item(value, f"{self.where}[{i}]", self.lenient)
                for i, value in enumerate(self.value)]

    def integer(self, low: int = 0, high: int = _MAX_NBYTES) -> int:
        # bool is an int to Python, not to a manifest.
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.wrong(f"an integer from {low} to {high}")
        return self.value

    def number(self, low: float, high: float) -> float:
        if type(self.value) not in (int, float) or not low <= self.value <= high:
            raise self.wrong(f"a number from {low} to {high}")
        return float(self.value)

    def text(self, limit: int = 1000) -> str:
        if not isinstance(self.value, str) or len(self.value) > limit:
            raise self.wrong(f"text of at most {limit} characters")
        return self.value

    def matching(self, pattern: re.Pattern[str], expected: str) -> str:
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            raise self.wrong(expected)
        return self.value

    def choice(self, options: Iterable[str]) -> str:
        options = tuple(options)
        if not isinstance(self.value, str) or self.value not in options:
            raise self.wrong(f"one of {', '.join(options)}")
        return self.value

    def shape(self) -> tuple[int, ...]:
        return tuple(item.integer() for item in self.items(_MAX_RANK))

    def mapping(self) -> dict[str, _Item]:
        if not isinstance(self.value, dict) or len(self.value) > _MAX_COUNT:
            raise self.wrong(f"an object of at most {_MAX_COUNT} fields")
        return {key: _Item(value, f"{self.where}.{key[:40]}", self.lenient)
                for key, value in self.value.items()}


# Fields that format 2 added: where -> field -> what it is in format 1. "*": in every item.
_ADDED: dict[str, dict[str, Any]] = {
    "blobs.*": {"unpacked_nbytes": None},
    "golden.runs.*.outputs.*": {"sha256": None, "stride": 1},
    "targets.*": {"tolerance": 0.0},
    "targets.*.buffers.*": {"image": None},
    "targets.*.steps.*": {"schedule": "", "reason": "", "predicted_ns": 0, "bound": "",
                          "global_size": [], "local_size": []},
}


def upgrade(data: Any, version: tuple[int, int]) -> None:
    """Bring a manifest of an older format to today's form, in place; it is not checked yet."""
    if version[0] < 2:
        for path, fields in _ADDED.items():
            for place in _places(data, path.split(".")):
                for name, value in fields.items():
                    place.setdefault(name, copy.copy(value))


def _places(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """Every object at a path in plain data."""
    if not path:
        if isinstance(value, dict):
            yield value
    elif path[0] == "*":
        for item in value if isinstance(value, list) else ():
            yield from _places(item, path[1:])
    elif isinstance(value, dict):
        yield from _places(value.get(path[0]), path[1:])


def nbytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor."""
    return math.prod(shape) * DTYPES[dtype].itemsize


def stored_nbytes(output: GoldenOutput, spec: TensorSpec) -> int:
    """Bytes of the stored elements of a golden output."""
    return -(-math.prod(spec.shape) // output.stride) * DTYPES[output.dtype].itemsize


def parse(data: Any, version: tuple[int, int]) -> Manifest:
    """Plain data of today's form to a Manifest; raises Fault at the first wrong field.

    version: the header's. Fields this program does not know are ignored if it is a newer minor one.
    """
    top = _Item(data, "top level", lenient=version > VERSION).fields(
        "format blobs compiler model io limits targets golden threads")
    if top["format"].value != list(version):
        raise top["format"].wrong(f"the version of the header, {list(version)}")
    top["compiler"].fields("version")["version"].text()
    model = top["model"].fields("name source_sha256 metadata options")
    model["source_sha256"].matching(_SHA256, "a sha256")
    model["options"].mapping()
    io = top["io"].fields("inputs state outputs carry")
    golden = top["golden"].fields("blob runs")
    return Manifest(
        blobs=tuple(_blob(item) for item in top["blobs"].items(1000)),
        name=model["name"].text(),
        metadata=_metadata(model["metadata"]),
        inputs=tuple(_spec(item) for item in io["inputs"].items()),
        state=tuple(_spec(item) for item in io["state"].items()),
        outputs=tuple(_spec(item) for item in io["outputs"].items()),
        carry={key: item.text() for key, item in io["carry"].mapping().items()},
        threads=(None if top["threads"].value is None
                 else top["threads"].integer(1, MAX_THREADS)),
        memory_nbytes=top["limits"].fields("memory_nbytes")["memory_nbytes"].integer(),
        targets=tuple(_target(item) for item in top["targets"].items(16)),
        golden_blob=golden["blob"].integer(),
        golden=tuple(_golden_run(item) for item in golden["runs"].items(16)))


def _blob(item: _Item) -> Blob:
    f = item.fields("kind offset nbytes sha256 unpacked_nbytes")
    unpacked = f["unpacked_nbytes"]
    return Blob(f["kind"].choice(BLOB_KINDS), f["offset"].integer(), f["nbytes"].integer(),
                f["sha256"].matching(_SHA256, "a sha256"),
                None if unpacked.value is None else unpacked.integer(high=_MAX_UNPACKED))


def _spec(item: _Item) -> TensorSpec:
    f = item.fields("name dtype shape")
    return TensorSpec(f["name"].text(), f["dtype"].choice(DTYPES), f["shape"].shape())


def _metadata(item: _Item) -> dict[str, Any]:
    """Any plain data, but not so deep that walking it could fail."""
    item.mapping()
    level = [item.value]
    for _ in range(_MAX_DEPTH):
        level = [child for value in level if isinstance(value, (dict, list))
                 for child in (value.values() if isinstance(value, dict) else value)]
    if level:
        raise Fault(f"manifest, {item.where}", f"it is nested deeper than {_MAX_DEPTH} levels")
    return item.value


def _target(item: _Item) -> Target:
    f = item.fields("target precision toolchain source code weights arena_nbytes weights_nbytes "
                    "buffers steps table expect tolerance")
    expect = f["expect"].fields("steps flop nbytes")
    return Target(
        target=f["target"].text(100), precision=f["precision"].text(100),
        toolchain=f["toolchain"].text(), source=f["source"].integer(), code=f["code"].integer(),
        weights=f["weights"].integer(), arena_nbytes=f["arena_nbytes"].integer(),
        weights_nbytes=f["weights_nbytes"].integer(),
        buffers=tuple(_buffer(entry) for entry in f["buffers"].items()),
        steps=tuple(_step(entry) for entry in f["steps"].items()),
        table=tuple(_weight(entry) for entry in f["table"].items()),
        expect={key: entry.integer(high=1 << 62) for key, entry in expect.items()},
        tolerance=f["tolerance"].number(0.0, 1.0))


def _buffer(item: _Item) -> Buffer:
    f = item.fields("kind name dtype shape offset nbytes image")
    return Buffer(f["kind"].choice(BUFFER_KINDS), f["name"].text(), f["dtype"].choice(DTYPES),
                  f["shape"].shape(), f["offset"].integer(), f["nbytes"].integer(),
                  _image(f["image"]))


def _image(item: _Item) -> tuple[int, int, int, str] | None:
    """Width, height and pitch in texels, and what a texel is made of."""
    if item.value is None:
        return None
    parts = item.items(4)
    if len(parts) != 4:
        raise item.wrong("width, height, pitch and kind of an image")
    width, height, pitch = (part.integer(1, _MAX_IMAGE) for part in parts[:3])
    return width, height, pitch, parts[3].choice(IMAGE_CHANNELS)


def _step(item: _Item) -> Step:
    f = item.fields("kernel args writes parts flop nbytes note schedule reason predicted_ns bound "
                    "global_size local_size")
    return Step(f["kernel"].matching(_SYMBOL, "the name of a C function"),
                tuple(entry.integer() for entry in f["args"].items()),
                tuple(entry.integer() for entry in f["writes"].items()),
                f["parts"].integer(1), f["flop"].integer(high=1 << 62),
                f["nbytes"].integer(high=1 << 62), f["note"].text(4000), f["schedule"].text(),
                f["reason"].text(4000), f["predicted_ns"].integer(high=1 << 62), f["bound"].text(),
                *(tuple(entry.integer(1) for entry in f[size].items(3))
                  for size in ("global_size", "local_size")))


def _weight(item: _Item) -> WeightEntry:
    f = item.fields("buffer storage offset")
    return WeightEntry(f["buffer"].integer(), f["storage"].choice(DTYPES), f["offset"].integer())


def _golden_run(item: _Item) -> GoldenRun:
    f = item.fields("seed outputs")
    return GoldenRun(f["seed"].integer(0, (1 << 32) - 1),
                     tuple(_golden_output(entry) for entry in f["outputs"].items()))


def _golden_output(item: _Item) -> GoldenOutput:
    f = item.fields("name dtype offset tolerance sha256 stride")
    sha256 = f["sha256"]
    return GoldenOutput(f["name"].text(), f["dtype"].choice(DTYPES), f["offset"].integer(),
                        f["tolerance"].number(0.0, 1.0),
                        None if sha256.value is None else sha256.matching(_SHA256, "a sha256"),
                        f["stride"].integer(1))
