"""What differs between two artifacts: model, border, kernels, steps, weights, expected results.

Kernels are compared by their C functions without their numbers, so that one kernel more does not
make all later ones new. Nothing is run, so no trust is needed.
"""
from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinynn.explain import split_functions, type_text
from tinynn.runtime.golden import Array, as_numbers, relative_error, stored_outputs
from tinynn.runtime.layout import DTYPES, sha256_hex
from tinynn.runtime.manifest import GoldenOutput, GoldenRun, Target, WeightEntry, nbytes_of
from tinynn.runtime.reader import Reader

MOST_LINES = 60  # of the text of one changed kernel
INDENT = "    "  # before the lines of a changed text


def differences(a: Reader, b: Reader, most_lines: int = MOST_LINES) -> list[str]:
    """Lines for people; none if both are the same artifact."""
    if a.sha256 == b.sha256:
        return []
    lines = [*_facts(a, b), *_targets(a, b, most_lines), *_golden(a, b)]
    return lines or ["the files are laid out in another way and mean the same"]


def _facts(a: Reader, b: Reader) -> Iterator[str]:
    """Everything of the manifest that is neither code nor data."""
    for part in ("format", "compiler", "model", "io", "threads", "limits"):
        yield from changed_values(part, a.json.get(part), b.json.get(part))


def changed_values(path: str, a: Any, b: Any) -> Iterator[str]:
    """`path: old -> new` for every leaf of plain data that differs; "absent" where it is new."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from changed_values(f"{path}.{key}", a.get(key, _ABSENT), b.get(key, _ABSENT))
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield f"{path}: {_shown(a)} -> {_shown(b)}"


_ABSENT = object()


def _shown(value: Any) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "..."


def _targets(a: Reader, b: Reader, most_lines: int) -> Iterator[str]:
    old = {target.target: target for target in a.manifest.targets}
    new = {target.target: target for target in b.manifest.targets}
    yield from (f"target {name}: only in the first" for name in old if name not in new)
    yield from (f"target {name}: only in the second" for name in new if name not in old)
    for name in old:
        if name in new:
            for line in _target(a, b, old[name], new[name], most_lines):
                yield line if line.startswith(INDENT) else f"{name}: {line}"


def _target(a: Reader, b: Reader, old: Target, new: Target, most_lines: int) -> Iterator[str]:
    for field in ("precision", "toolchain", "arena_nbytes", "weights_nbytes"):
        yield from changed_values(field, getattr(old, field), getattr(new, field))
    for field in ("steps", "flop", "nbytes"):
        yield from changed_values(f"all steps, {field}", old.expect[field], new.expect[field])
    sources = [r.text(t.source) for r, t in ((a, old), (b, new))]
    functions = [split_functions(source, [step.kernel for step in t.steps])
                 for source, t in zip(sources, (old, new), strict=True)]
    pairs = pair_kernels(functions[0], functions[1])
    yield from kernel_changes(functions[0], functions[1], pairs, most_lines)
    common = [_without(source, known) for source, known in zip(sources, functions, strict=True)]
    yield from _text_change("source that kernels share", common[0], common[1], most_lines)
    yield from step_changes(old, new, functions[0], functions[1], pairs)
    yield from weight_changes(_weights(a, old), _weights(b, new))
    if sources[0] == sources[1] and a.code(old.code) != b.code(new.code):
        yield "machine code differs though the source is the same"


# Kernels

def anonymous(text: str, symbol: str) -> str:
    """A C function without its number in the program: equal for equal kernels."""
    return text.replace(symbol, label(symbol))


def label(symbol: str) -> str:
    """k012_contract_64x64 -> contract_64x64."""
    return re.sub(r"^k\d+_", "", symbol)


def pair_kernels(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Functions (symbol -> text) that changed: symbol of the new one -> symbol of the old one.

    A kernel that came and one that went with the same label, or failing that of the same family,
    are taken for one that changed.
    """
    texts_old = {anonymous(text, symbol) for symbol, text in old.items()}
    texts_new = {anonymous(text, symbol) for symbol, text in new.items()}
    gone = [symbol for symbol, text in old.items() if anonymous(text, symbol) not in texts_new]
    come = [symbol for symbol, text in new.items() if anonymous(text, symbol) not in texts_old]
    pairs: dict[str, str] = {}
    for key in (label, _family):
        for symbol in come:
            match = next((s for s in gone if key(s) == key(symbol)), None)
            if symbol not in pairs and match is not None:
                gone.remove(match)
                pairs[symbol] = match
    return pairs


def kernel_changes(old: Mapping[str, str], new: Mapping[str, str], pairs: Mapping[str, str],
                   most_lines: int = MOST_LINES) -> Iterator[str]:
    """Kernels that changed, with a diff, and those that only one of the programs has."""
    for symbol, before in pairs.items():
        yield from _text_change(f"kernel {before} -> {symbol}", anonymous(old[before], before),
                                anonymous(new[symbol], symbol), most_lines)
    texts_old = {anonymous(text, symbol) for symbol, text in old.items()}
    texts_new = {anonymous(text, symbol) for symbol, text in new.items()}
    for symbol, text in old.items():
        if symbol not in pairs.values() and anonymous(text, symbol) not in texts_new:
            yield f"kernel {symbol}: only in the first"
    for symbol, text in new.items():
        if symbol not in pairs and anonymous(text, symbol) not in texts_old:
            yield f"kernel {symbol}: only in the second"


def _family(symbol: str) -> str:
    return label(symbol).partition("_")[0]


def _text_change(title: str, old: str, new: str, most_lines: int) -> Iterator[str]:
    if old == new:
        return
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "first", "second",
                                      lineterm="", n=2))
    yield f"{title}: changed"
    yield from (INDENT + line for line in lines[:most_lines])
    if len(lines) > most_lines:
        yield f"{INDENT}... {len(lines) - most_lines} more lines"


def _without(source: str, functions: Mapping[str, str]) -> str:
    for text in functions.values():
        source = source.replace(text, "")
    return re.sub(r"\n{3,}", "\n\n", source)


# Steps

def step_changes(old: Target, new: Target, old_functions: Mapping[str, str],
                 new_functions: Mapping[str, str], pairs: Mapping[str, str]) -> Iterator[str]:
    """Launches that were removed, added or replaced, where both sequences are aligned.

    A launch of a changed kernel counts as the same: the kernel was told once.
    """
    before = _launches(old, {s: anonymous(text, s) for s, text in old_functions.items()})
    after = _launches(new, {
        s: anonymous(old_functions[pairs[s]], pairs[s]) if s in pairs else anonymous(text, s)
        for s, text in new_functions.items()})
    matcher = difflib.SequenceMatcher(None, [key for key, _ in before], [key for key, _ in after],
                                      autojunk=False)
    for tag, i0, i1, j0, j1 in matcher.get_opcodes():
        if tag == "equal":
            continue
        yield from (f"step {i} of the first: {before[i][1]}" for i in range(i0, i1))
        yield from (f"step {j} of the second: {after[j][1]}" for j in range(j0, j1))


def _launches(target: Target, kernels: Mapping[str, str]) -> list[tuple[str, str]]:
    """(what identifies a launch, how it is shown) per step. kernels: symbol -> what identifies it.
    Names of scratch and weights do not count."""
    launches = []
    for step in target.steps:
        args = []
        for arg in step.args:
            buffer = target.buffers[arg]
            name = f" {buffer.name}" if buffer.kind in ("input", "output", "state") else ""
            args.append(f"{buffer.kind}{name} {type_text(buffer)}")
        kernel = kernels.get(step.kernel, step.kernel)
        key = json.dumps([kernel, args, step.writes, step.parts, step.flop, step.nbytes])
        launches.append((key, f"{step.kernel}({', '.join(args)}), {step.parts} shares"))
    return launches


# Weights

Weights = Sequence[tuple[str, str, np.ndarray[Any, Any]]]
"""Per weight: its name, its type and storage as text, its stored values."""


def _weights(reader: Reader, target: Target) -> Weights:
    return [_weight(reader, target, entry) for entry in target.table]


def _weight(reader: Reader, target: Target, entry: WeightEntry
            ) -> tuple[str, str, np.ndarray[Any, Any]]:
    buffer = target.buffers[entry.buffer]
    nbytes = nbytes_of(entry.storage, buffer.shape)
    data = reader.blob(target.weights)[entry.offset:entry.offset + nbytes]
    values = np.frombuffer(data, DTYPES[entry.storage])
    kind = f"{type_text(buffer)} stored as {entry.storage}"
    return buffer.name, kind, values


def weight_changes(old: Weights, new: Weights) -> Iterator[str]:
    """Weights that changed, in the order in which they are used; equal ones are set aside first."""
    old_digests = [_digest(kind, values) for _, kind, values in old]
    new_digests = [_digest(kind, values) for _, kind, values in new]
    both = Counter(old_digests) & Counter(new_digests)
    gone = _left_over(old, old_digests, both)
    come = _left_over(new, new_digests, both)
    for name, kind, values in gone:
        match = next((i for i, other in enumerate(come) if other[1] == kind), None)
        if match is None:
            yield f"weight {name}, {kind}: only in the first"
            continue
        other_name, _, other = come.pop(match)
        storage = kind.rpartition(" ")[2]
        a, b = as_numbers(values, storage), as_numbers(other, storage)
        changed = int((values != other).sum())
        yield (f"weight {name} -> {other_name}, {kind}: {changed} of {values.size} values changed, "
               f"relative difference {relative_error(b, a):.2e}")
    yield from (f"weight {name}, {kind}: only in the second" for name, kind, _ in come)


def _digest(kind: str, values: np.ndarray[Any, Any]) -> str:
    return sha256_hex(kind.encode() + values.tobytes())


def _left_over(weights: Weights, digests: Sequence[str], both: Counter[str]
               ) -> list[tuple[str, str, np.ndarray[Any, Any]]]:
    """Weights beyond those that both artifacts hold."""
    left, remaining = [], Counter(both)
    for weight, digest in zip(weights, digests, strict=True):
        if remaining[digest]:
            remaining[digest] -= 1
        else:
            left.append(weight)
    return left


# Golden vectors

def _golden(a: Reader, b: Reader) -> Iterator[str]:
    """Expected outputs of the same seed that differ. New inputs or outputs were told before."""
    if a.json["io"] != b.json["io"]:
        return
    old = {run.seed: run for run in a.manifest.golden}
    new = {run.seed: run for run in b.manifest.golden}
    for seed in sorted(old.keys() | new.keys()):
        if seed not in old or seed not in new:
            where = "first" if seed in old else "second"
            yield f"golden run with seed {seed}: only in the {where}"
            continue
        yield from _golden_run(a, b, old[seed], new[seed])


def _golden_run(a: Reader, b: Reader, old: GoldenRun, new: GoldenRun) -> Iterator[str]:
    stored = stored_outputs(a, old), stored_outputs(b, new)
    for before, after in zip(old.outputs, new.outputs, strict=True):
        title = f"golden run {old.seed}, output {before.name}"
        if before.tolerance != after.tolerance:
            yield f"{title}: tolerance {before.tolerance:.2e} -> {after.tolerance:.2e}"
        first, second = stored[0].get(before.name), stored[1].get(after.name)
        if first is not None and second is not None and before.stride == after.stride:
            numbers = as_numbers(first, before.dtype), as_numbers(second, after.dtype)
            if numbers[0].tobytes() != numbers[1].tobytes():
                yield f"{title}: relative difference {relative_error(numbers[1], numbers[0]):.2e}"
        elif _hash(before, first) != _hash(after, second):
            yield f"{title}: other values"


def _hash(output: GoldenOutput, values: Array | None) -> str | None:
    return output.sha256 if values is None else sha256_hex(values.tobytes())
