"""Do the parts of a manifest fit together? Run before anything in the file is used.

What is proved: every argument of every step lies inside memory that the loader will allocate, no
step writes constants or reads what nothing wrote, and the memory plan never overwrites a value that
is still needed. What machine code does with its arguments cannot be proved; see trust.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinynn.program import Buffer, Step, TensorSpec
from tinynn.runtime.layout import BLOB_ALIGN, DTYPES, HEADER_NBYTES, MEMORY_ALIGN, Fault
from tinynn.runtime.manifest import PACKED_KINDS, Blob, Manifest, Target, nbytes_of, stored_nbytes


def check_blobs(blobs: Sequence[Blob], manifest_nbytes: int, file_nbytes: int) -> None:
    """Blobs are listed in file order, aligned, disjoint, and end with the file."""
    end = HEADER_NBYTES + manifest_nbytes
    for i, blob in enumerate(blobs):
        where = f"manifest, blobs[{i}]"
        if blob.offset % BLOB_ALIGN:
            raise Fault(where, f"offset {blob.offset} is not a multiple of {BLOB_ALIGN}")
        if blob.offset < end:
            raise Fault(where, f"offset {blob.offset} overlaps what ends at byte {end}")
        if blob.offset - end >= BLOB_ALIGN:
            raise Fault(where, f"there is a hole of {blob.offset - end} bytes before it")
        end = blob.offset + blob.nbytes
        if end > file_nbytes:
            raise Fault(where, f"it ends at byte {end} and the file at byte {file_nbytes}")
    if end != file_nbytes:
        raise Fault("manifest, blobs", f"they end at byte {end} and the file at {file_nbytes}")


def check_manifest(manifest: Manifest) -> None:
    """Everything but the blobs' place in the file. Raises Fault."""
    _check_borders(manifest)
    if not manifest.targets:
        raise Fault("manifest, targets", "the list is empty")
    if len({target.target for target in manifest.targets}) != len(manifest.targets):
        raise Fault("manifest, targets", "a target appears twice")
    for i, target in enumerate(manifest.targets):
        where = f"manifest, targets[{i}]"
        _blob(manifest, target.source, "source", f"{where}.source")
        _blob(manifest, target.code, "code", f"{where}.code")
        _check_buffers(manifest, target, where)
        _check_weights(target, _blob(manifest, target.weights, "weights", f"{where}.weights"),
                       where)
        _check_steps(target, where)
        counts = {"steps": len(target.steps), "flop": sum(s.flop for s in target.steps),
                  "nbytes": sum(s.nbytes for s in target.steps)}
        if counts != target.expect:
            raise Fault(f"{where}.expect", f"{target.expect} differs from the steps: {counts}")
    needed = max(memory_needed(manifest, target) for target in manifest.targets)
    if needed != manifest.memory_nbytes:
        raise Fault("manifest, limits.memory_nbytes",
                    f"{manifest.memory_nbytes} differs from the {needed} that buffers need")
    _check_golden(manifest)


def memory_needed(manifest: Manifest, target: Target) -> int:
    """Bytes that a runner of this target allocates."""
    borders = (*manifest.inputs, *manifest.state, *manifest.outputs)
    return (target.arena_nbytes + target.weights_nbytes
            + sum(nbytes_of(spec.dtype, spec.shape) for spec in borders))


def _blob(manifest: Manifest, index: int, kind: str, where: str) -> Blob:
    if index >= len(manifest.blobs) or manifest.blobs[index].kind != kind:
        raise Fault(where, f"{index} is not a blob of {kind}")
    blob = manifest.blobs[index]
    if blob.unpacked_nbytes is not None and kind not in PACKED_KINDS:
        raise Fault(where, f"a blob of {kind} cannot be compressed")
    return blob


def _by_name(specs: Sequence[TensorSpec], where: str) -> dict[str, TensorSpec]:
    found = {spec.name: spec for spec in specs}
    if len(found) != len(specs):
        raise Fault(where, "a name appears twice")
    return found


def _check_borders(manifest: Manifest) -> None:
    _by_name((*manifest.inputs, *manifest.state), "manifest, io.inputs and io.state")
    outputs = _by_name(manifest.outputs, "manifest, io.outputs")
    state = _by_name(manifest.state, "manifest, io.state")
    if set(manifest.carry) != set(state):
        raise Fault("manifest, io.carry", "it does not name every state once")
    for name, source in manifest.carry.items():
        output = outputs.get(source)
        if output is None or (output.dtype, output.shape) != (
                state[name].dtype, state[name].shape):
            raise Fault(f"manifest, io.carry.{name}", f"no output {source!r} of the same type")
    if len(set(manifest.carry.values())) != len(state):
        raise Fault("manifest, io.carry", "an output is the next value of two states")


def _check_buffers(manifest: Manifest, target: Target, where: str) -> None:
    specs = {"input": _by_name(manifest.inputs, "manifest, io.inputs"),
             "state": _by_name(manifest.state, "manifest, io.state"),
             "output": _by_name(manifest.outputs, "manifest, io.outputs")}
    sizes = {"arena": target.arena_nbytes, "weight": target.weights_nbytes}
    seen: set[tuple[str, str]] = set()
    for i, buffer in enumerate(target.buffers):
        place = f"{where}.buffers[{i}]"
        if buffer.kind in specs:
            spec = specs[buffer.kind].get(buffer.name)
            if spec is None or (spec.dtype, spec.shape) != (buffer.dtype, buffer.shape):
                raise Fault(place, f"there is no such {buffer.kind} {buffer.name!r}")
            if (buffer.kind, buffer.name) in seen:
                raise Fault(place, f"{buffer.kind} {buffer.name!r} appears twice")
            seen.add((buffer.kind, buffer.name))
            if buffer.offset != 0:
                raise Fault(place, f"offset {buffer.offset} should be 0")
        else:
            if buffer.offset % MEMORY_ALIGN:
                raise Fault(place, f"offset {buffer.offset} is no multiple of {MEMORY_ALIGN}")
            if buffer.offset + buffer.nbytes > sizes[buffer.kind]:
                raise Fault(place, f"it ends at byte {buffer.offset + buffer.nbytes} of an area "
                            f"of {sizes[buffer.kind]} bytes")
        dense = nbytes_of(buffer.dtype, buffer.shape)
        # Scratch may be padded; everything whose content the runtime touches is dense.
        if buffer.nbytes != dense and (buffer.kind != "arena" or buffer.nbytes < dense):
            raise Fault(place, f"{buffer.nbytes} bytes do not fit {buffer.dtype}"
                        f"{list(buffer.shape)}")
        if buffer.image is not None:
            _check_image(buffer, place)
    for name in specs["output"]:
        if ("output", name) not in seen:
            raise Fault(f"{where}.buffers", f"output {name!r} has no buffer")


def _check_image(buffer: Buffer, place: str) -> None:
    """An image is rows of four numbers per texel, with a pitch that its width fits in."""
    assert buffer.image is not None
    width, height, pitch, channel = buffer.image
    expected = {"half": "f16", "float": "f32"}[channel], (height, pitch, 4)
    if buffer.kind not in ("arena", "weight") or width > pitch or (
            buffer.dtype, buffer.shape) != expected:
        raise Fault(place, f"{buffer.kind} {buffer.dtype}{list(buffer.shape)} is not an image of "
                    f"{width} x {height} texels of {channel} with a pitch of {pitch}")


def _check_weights(target: Target, blob: Blob, where: str) -> None:
    stored: set[int] = set()
    for i, entry in enumerate(target.table):
        place = f"{where}.table[{i}]"
        if entry.buffer >= len(target.buffers) or target.buffers[entry.buffer].kind != "weight":
            raise Fault(place, f"{entry.buffer} is not a weight buffer")
        buffer = target.buffers[entry.buffer]
        if entry.storage not in (buffer.dtype, "f16") or (
                entry.storage != buffer.dtype and buffer.dtype not in ("f32", "f64")):
            raise Fault(place, f"{entry.storage} cannot be widened to {buffer.dtype}")
        nbytes = nbytes_of(entry.storage, buffer.shape)
        if entry.offset % DTYPES[entry.storage].itemsize or entry.offset + nbytes > blob.nbytes:
            raise Fault(place, f"{nbytes} bytes at {entry.offset} are not inside the weights")
        if entry.buffer in stored:
            raise Fault(place, f"buffer {entry.buffer} is filled twice")
        stored.add(entry.buffer)
    weights = [i for i, buffer in enumerate(target.buffers) if buffer.kind == "weight"]
    if len(stored) != len(weights):
        raise Fault(f"{where}.table", "a weight buffer has no values")
    overlap = _overlaps([target.buffers[i] for i in weights])
    if any(len(overlap(i)) > 1 for i in range(len(weights))):
        raise Fault(f"{where}.buffers", "two weights overlap")


def _overlaps(buffers: Sequence[Buffer]) -> Callable[[int], np.ndarray]:
    """A function: index of a buffer -> indices of all buffers that share a byte with it."""
    kinds = np.array([b.kind if b.kind in ("arena", "weight") else f"{b.kind} {b.name}"
                      for b in buffers], dtype=object)
    spaces = np.unique(kinds.astype(str), return_inverse=True)[1].reshape(-1)
    starts = np.array([b.offset for b in buffers], dtype=np.int64)
    ends = starts + np.array([b.nbytes for b in buffers], dtype=np.int64)

    def overlap(i: int) -> np.ndarray:
        return np.flatnonzero((spaces == spaces[i]) & (starts < ends[i]) & (ends > starts[i]))

    return overlap


def _check_steps(target: Target, where: str) -> None:
    """Walk through the steps, knowing after each which buffers hold a value.

    Buffers of one name and range are views of one memory: what is written to one is in all.
    """
    overlap = _overlaps(target.buffers)
    views: dict[tuple[str, str, int, int], list[int]] = {}
    for i, buffer in enumerate(target.buffers):
        views.setdefault(_range(buffer), []).append(i)
    holds = np.array([b.kind in ("input", "state", "weight") or b.nbytes == 0
                      for b in target.buffers], dtype=bool)
    for i, step in enumerate(target.steps):
        place = f"{where}.steps[{i}] ({step.kernel})"
        if any(arg >= len(target.buffers) for arg in step.args):
            raise Fault(place, f"an argument is outside the {len(target.buffers)} buffers")
        if not step.writes or len(set(step.writes)) != len(step.writes) or any(
                position >= len(step.args) for position in step.writes):
            raise Fault(place, f"writes {list(step.writes)} do not name arguments, each once")
        _check_size(step, target.target.startswith("opencl"), place)
        written = {step.args[position] for position in step.writes}
        read = [arg for position, arg in enumerate(step.args) if position not in step.writes]
        for arg in read:
            if not holds[arg]:
                raise Fault(place, f"it reads buffer {arg} ({target.buffers[arg].name}), which "
                            "holds no value at that time")
        for arg in written:
            kind = target.buffers[arg].kind
            if kind not in ("arena", "output"):
                raise Fault(place, f"it writes buffer {arg}, which is of kind {kind}")
            shared = set(overlap(arg).tolist())
            if len(shared & set(step.args)) > 1 or arg in read:
                raise Fault(place, f"buffer {arg}, which it writes, overlaps another argument")
            holds[list(shared)] = False
        for arg in written:
            holds[views[_range(target.buffers[arg])]] = True
    for i, buffer in enumerate(target.buffers):
        if buffer.kind == "output" and not holds[i]:
            raise Fault(f"{where}.steps", f"no step writes output {buffer.name!r}")


def _range(buffer: Buffer) -> tuple[str, str, int, int]:
    """Name and place of a memory: equal for the views of one."""
    return buffer.kind, buffer.name, buffer.offset, buffer.nbytes


def _check_size(step: Step, opencl: bool, place: str) -> None:
    """OpenCL launches say how many work-items there are, in whole work-groups; others do not."""
    sizes = step.global_size, step.local_size
    fits = len(sizes[0]) == len(sizes[1]) == 3 and all(
        whole % part == 0 for whole, part in zip(*sizes, strict=True))
    if fits != opencl or (not opencl and sizes != ((), ())):
        raise Fault(place, f"{list(sizes[0])} work-items in groups of {list(sizes[1])} do not fit "
                    "the target")


def _check_golden(manifest: Manifest) -> None:
    blob = _blob(manifest, manifest.golden_blob, "golden", "manifest, golden.blob")
    if not manifest.golden:
        raise Fault("manifest, golden.runs", "the list is empty")
    outputs = {spec.name: spec for spec in manifest.outputs}
    for i, run in enumerate(manifest.golden):
        where = f"manifest, golden.runs[{i}]"
        if [output.name for output in run.outputs] != list(outputs):
            raise Fault(where, "its outputs are not those of the program")
        for output in run.outputs:
            nbytes = stored_nbytes(output, outputs[output.name])
            if output.sha256 is None and output.offset + nbytes > blob.nbytes:
                raise Fault(where, f"output {output.name!r} is not inside the golden values")
            if output.sha256 is not None and output.dtype != outputs[output.name].dtype:
                raise Fault(where, f"output {output.name!r} is hashed as another type")
