"""Runs a program on an OpenCL device: memory, bound kernels, one list of launches per run.
Needs pyopencl.

Weights and scratch are one buffer each, cut into sub-buffers. State stays on the device: it and its
next value change places after every run, so there are two lists of launches. Small inputs go up in
one write, outputs come down in one read. Where device and host share their memory, a large input
that stays where it is (a camera's buffer) is read in place.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn.program import Buffer, Step
from tinynn.runtime.golden import Array, Arrays, is_finite
from tinynn.runtime.layout import DTYPES, FLOATS, ArtifactError, DeviceLost, align
from tinynn.runtime.manifest import Target, nbytes_of
from tinynn.runtime.opencl_device import (
    build_program,
    find_device,
    host_memory_is_shared,
    images_can_be_views,
    make_image,
    runnable_targets,
    tell_of_writes,
)
from tinynn.runtime.opencl_launch import Copy, Launch, PythonLoop, sequencer
from tinynn.runtime.reader import Source
from tinynn.runtime.weights import fill_weights

_PART_ALIGN = 512  # bytes; where the compiler places parts, and we place inputs and outputs
_SMALL_NBYTES = 1 << 16  # inputs up to this size share one buffer and one write
_PAGE = 4096  # what is read in place begins at a multiple of this
_MOST_MOVES = 8  # of an input, after which it is copied

__all__ = ["OpenCLEngine", "runnable_targets"]


@dataclass
class _LargeInput:
    """Where the caller's array was in the last run, whether kernels read it there, and how often
    such an array was another one."""

    address: int = 0
    in_place: bool = False
    moves: int = 0


class OpenCLEngine:
    """See runner.Engine. device: its name, for people."""

    def __init__(self, source: Source, target: Target) -> None:
        """Build, upload, bind. Raises ArtifactError if the device or its driver does not work."""
        self._device = find_device()
        import pyopencl as cl

        self._cl = cl
        self.device = f"{self._device.platform.name}, {self._device.name}"
        if target.precision == "f16" and "cl_khr_fp16" not in self._device.extensions.split():
            raise ArtifactError(f"{source.name}: {self.device} has no half arithmetic "
                                "(cl_khr_fp16). Compile the model with --precision f32, or use a "
                                "CPU target.")
        self._manifest = source.manifest
        self._target = target
        try:
            self._context = cl.Context([self._device])
            self._queue = cl.CommandQueue(self._context)
            # Without it images are memory of their own, and copied when seen another way.
            self._views_share = any(b.image for b in target.buffers) and images_can_be_views(
                self._context, self._device, self._queue)
            self._program = build_program(self._context, self._device,
                                          source.text(target.source))
            self._allocate()
            self._large = {s.name: _LargeInput() for s in self._manifest.inputs
                           if nbytes_of(s.dtype, s.shape) > _SMALL_NBYTES}
            if self._large and not host_memory_is_shared(self._context, self._device, self._queue):
                self._large = {}
            self._load_weights(source)
            self.write_state({})
            self._launches = [self._bind(turn) for turn in ((0, 1) if self._next else (0,))]
            del self._weights
            self._arrange()
        except cl.Error as error:
            raise ArtifactError(f"{source.name}: {self.device} cannot run it ({error}). Use a CPU "
                                "target.") from None

    @property
    def way(self) -> str:
        """How the launches of a run are enqueued."""
        return self._sequences[0].name

    # Memory

    def _allocate(self) -> None:
        """Buffers for everything; `_host` holds what goes up and comes down in one piece."""
        m = self._manifest
        self._specs = {(kind, spec.name): spec for kind, specs in (
            ("input", m.inputs), ("state", m.state), ("output", m.outputs)) for spec in specs}
        self._next = dict(m.carry)  # state -> output that is its next value
        carried = set(self._next.values())
        small = [s for s in m.inputs if nbytes_of(s.dtype, s.shape) <= _SMALL_NBYTES]
        plain = [s for s in m.outputs if s.name not in carried]
        self._areas = {"weight": self._buffer(self._target.weights_nbytes),
                       "arena": self._buffer(self._target.arena_nbytes)}
        self._host: dict[str, Array] = {}
        self._borders: dict[tuple[str, str], Any] = {}
        self._arrays: dict[tuple[str, str], Array] = {}
        for kind, specs in (("input", small), ("output", plain)):
            self._share(kind, specs)
        for key, spec in self._specs.items():
            if key not in self._borders:
                self._borders[key] = self._buffer(nbytes_of(spec.dtype, spec.shape))
                self._arrays[key] = np.empty(spec.shape, DTYPES[spec.dtype])
        self._finite = {name: np.empty(self._specs["output", name].shape, np.bool_)
                        for name in carried if self._specs["output", name].dtype in FLOATS}

    def _share(self, kind: str, specs: Sequence[Any]) -> None:
        """One buffer on the device and one array here for several tensors."""
        places, end = [], 0
        for spec in specs:
            places.append(end)
            end = align(end + max(1, nbytes_of(spec.dtype, spec.shape)), _PART_ALIGN)
        self._areas[kind] = self._buffer(end)
        self._host[kind] = np.zeros(end, np.uint8)
        for spec, start in zip(specs, places, strict=True):
            nbytes = nbytes_of(spec.dtype, spec.shape)
            key = kind, spec.name
            self._borders[key] = self._part(self._areas[kind], start, nbytes)
            view = self._host[kind][start:start + nbytes].view(DTYPES[spec.dtype])
            self._arrays[key] = view.reshape(spec.shape)

    def _buffer(self, nbytes: int) -> Any:
        flags = self._cl.mem_flags.READ_WRITE
        return self._cl.Buffer(self._context, flags, max(_PART_ALIGN, nbytes))

    def _part(self, area: Any, start: int, nbytes: int) -> Any:
        return area.get_sub_region(start, align(max(1, nbytes), 4))

    def _load_weights(self, source: Source) -> None:
        """Widen every weight to its buffer's dtype and upload all of them at once."""
        target = self._target
        area = np.zeros(max(_PART_ALIGN, target.weights_nbytes), np.uint8)
        fill_weights(area, source, target)
        self._cl.enqueue_copy(self._queue, self._areas["weight"], area)
        self._weights = area

    # Launches

    def _bind(self, turn: int) -> list[Launch | Copy]:
        """The launches of a run. turn 1: with state and next state in each other's place."""
        swapped = {}
        if turn:
            for name, output in self._next.items():
                swapped["state", name] = "output", output
                swapped["output", output] = "state", name
        memory: dict[int, Any] = {}
        newest: dict[tuple[str, str, int], int] = {}  # memory -> the view that was written last
        launches: list[Launch | Copy] = []
        for step in self._target.steps:
            for position, number in enumerate(step.args):
                buffer = self._target.buffers[number]
                if number not in memory:
                    memory[number] = self._memory(buffer, swapped)
                place = buffer.kind, buffer.name, buffer.offset
                if position in step.writes:
                    newest[place] = number
                elif not self._views_share and newest.get(place, number) != number:
                    old = newest[place]
                    image = buffer.image or self._target.buffers[old].image
                    assert image is not None
                    launches.append(Copy(memory[old], memory[number], image))
                    newest[place] = number
            launches.append(self._launch(step, [memory[number] for number in step.args]))
        return launches

    def _memory(self, buffer: Buffer, swapped: dict[tuple[str, str], tuple[str, str]]) -> Any:
        """What a kernel is given for a buffer."""
        key = buffer.kind, buffer.name
        if key in self._borders:
            return self._borders[swapped.get(key, key)]
        part = self._part(self._areas[buffer.kind], buffer.offset, buffer.nbytes)
        if buffer.image is None:
            return part
        if self._views_share:
            return make_image(self._context, buffer.image, part)
        image = make_image(self._context, buffer.image)
        if buffer.kind == "weight":
            width, height, pitch, _ = buffer.image
            rows = self._weights[buffer.offset:buffer.offset + buffer.nbytes].reshape(height, -1)
            texels = np.ascontiguousarray(rows[:, :rows.shape[1] // pitch * width])
            self._cl.enqueue_copy(self._queue, image, texels, origin=(0, 0), region=(width, height))
        return image

    def _launch(self, step: Step, arguments: Sequence[Any]) -> Launch:
        kernel = self._cl.Kernel(self._program, step.kernel)
        kernel.set_args(*arguments)
        return Launch(kernel, step.global_size, step.local_size, tuple(arguments))

    def _arrange(self) -> None:
        self._sequences = [sequencer(self._context, self._device, self._queue, launches)
                           for launches in self._launches]

    def _rebind(self, name: str, memory: Any) -> None:
        """Let kernels read an input from other memory."""
        self._borders["input", name] = memory
        for launches in self._launches:
            kernels = [item.kernel for item in launches if isinstance(item, Launch)]
            for kernel, step in zip(kernels, self._target.steps, strict=True):
                for position, number in enumerate(step.args):
                    buffer = self._target.buffers[number]
                    if (buffer.kind, buffer.name) == ("input", name):
                        kernel.set_arg(position, memory)
        self._arrange()

    # Runs

    def _is_in_place(self, name: str, array: Array) -> bool:
        """Whether kernels read this array where it lies; from its second run on, if it stays."""
        cl, place, address = self._cl, self._large.get(name), array.ctypes.data
        if place is None:
            return False
        stays, place.address = place.address == address, address
        if place.in_place and not stays:
            place.in_place = False
            self._rebind(name, self._buffer(array.nbytes))
        fits = address % _PAGE == 0 and array.flags.c_contiguous and place.moves < _MOST_MOVES
        if stays and fits and not place.in_place:
            flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
            self._rebind(name, cl.Buffer(self._context, flags, hostbuf=array))
            place.in_place, place.moves = True, place.moves + 1
        return place.in_place

    def run(self, inputs: Arrays, nanoseconds: Array | None = None) -> None:
        """Raises DeviceLost if the driver fails. nanoseconds: the device's own times."""
        cl, queue = self._cl, self._queue
        pending = []  # keeps what is being copied
        try:
            for name, array in inputs.items():
                key = "input", name
                if nbytes_of(self._specs[key].dtype, array.shape) <= _SMALL_NBYTES:
                    np.copyto(self._arrays[key], array)
                elif self._is_in_place(name, array):
                    tell_of_writes(queue, self._borders[key])
                else:
                    pending.append(cl.enqueue_copy(
                        queue, self._borders[key], np.ascontiguousarray(array), is_blocking=False))
            pending.append(cl.enqueue_copy(queue, self._areas["input"], self._host["input"],
                                           is_blocking=False))
            if nanoseconds is None:
                self._sequences[0].enqueue()
            else:
                self._enqueue_timed(nanoseconds)
            for name in self._finite:
                self._read("output", name)
            cl.enqueue_copy(queue, self._host["output"], self._areas["output"])
        except (cl.Error, RuntimeError) as error:
            raise DeviceLost(f"the driver of {self.device} failed ({error})") from error

    def _enqueue_timed(self, nanoseconds: Array) -> None:
        """Run on a queue that keeps times; slower, and only for measuring."""
        cl = self._cl
        self._queue.finish()
        profiling = cl.command_queue_properties.PROFILING_ENABLE
        queue = cl.CommandQueue(self._context, properties=profiling)
        events = PythonLoop(queue, self._launches[0]).enqueue()
        queue.finish()
        nanoseconds[:] = [event.profile.end - event.profile.start for event in events]

    def _read(self, kind: str, name: str) -> None:
        self._cl.enqueue_copy(self._queue, self._arrays[kind, name], self._borders[kind, name])

    def output(self, name: str) -> Array:
        if name in self._next.values() and name not in self._finite:
            self._read("output", name)
        return self._arrays["output", name]

    def advance(self) -> bool:
        arrays, specs = self._arrays, self._specs
        if not all(is_finite(arrays["output", name], specs["output", name].dtype, scratch)
                   for name, scratch in self._finite.items()):
            return False
        for name, output in self._next.items():
            state, following = ("state", name), ("output", output)
            borders = self._borders
            borders[state], borders[following] = borders[following], borders[state]
        self._sequences.reverse()
        self._launches.reverse()
        return True

    def read_state(self) -> Arrays:
        for name in self._next:
            self._read("state", name)
        return {name: self._arrays["state", name].copy() for name in self._next}

    def write_state(self, values: Arrays) -> None:
        for name in self._next:
            array = self._arrays["state", name]
            array[...] = values.get(name, 0)
            self._cl.enqueue_copy(self._queue, self._borders["state", name], array)

    def pin(self, cores: Sequence[int]) -> None:
        """Nothing to do: the work is not done by threads of ours."""

    def close(self) -> None:
        self._queue.finish()
        self._sequences.clear()
        self._launches.clear()
        self._borders.clear()
        self._areas.clear()
