"""Ways to enqueue a fixed list of kernels, the cheapest first that the driver has.

- cl_khr_command_buffer: the list is recorded once; a run enqueues one command.
- cl_qcom_recordable_queues: the same on Qualcomm's drivers. Written from the public header
  cl_ext_qcom.h; it has not been run on a device yet.
- a loop in C (launcher.c, built for the wheel), which calls the driver once per kernel.
- a loop in Python, where that is missing.

None of them looks at arguments: those are bound to the kernels before.
"""
from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

log = logging.getLogger(__name__)

# struct tinynn_launch of launcher.c
LAUNCH = np.dtype([("kernel", np.uintp), ("global_size", np.uintp, 3), ("local_size", np.uintp, 3)])

_RECORDABLE_QUEUE = 1 << 30  # CL_QUEUE_RECORDABLE_QCOM: may not be combined with other properties
_Size3 = ctypes.c_size_t * 3


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments bound, and its work-items.

    kernel: a pyopencl Kernel. arguments: what is bound, which OpenCL itself does not keep alive.
    """

    kernel: Any
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Copy:
    """Brings an image and a buffer of the same content together, one way or the other, on devices
    whose images cannot be views of buffers. layout: width, height and pitch in texels, channel."""

    source: Any
    target: Any
    layout: tuple[int, int, int, str]

    def enqueue(self, queue: Any) -> None:
        import pyopencl as cl

        width, height, pitch, channel = self.layout
        # Images are copied without gaps between their rows.
        lines = height if pitch == width else 1
        for y in range(0, height, lines):
            cl.enqueue_copy(queue, self.target, self.source, origin=(0, y), region=(width, lines),
                            offset=y * pitch * texel_nbytes(channel))


def texel_nbytes(channel: str) -> int:
    return {"half": 8, "float": 16}[channel]


class Sequencer(Protocol):
    """Enqueues all launches on the queue it was made for. name: how, for people."""

    name: str

    def enqueue(self) -> object:
        """Raises RuntimeError with the driver's status."""


def sequencer(context: Any, device: Any, queue: Any,
              items: Sequence[Launch | Copy]) -> Sequencer:
    """The cheapest way that this driver has. One that fails to set up is passed over."""
    launches = [item for item in items if isinstance(item, Launch)]
    if len(launches) < len(items):
        return PythonLoop(queue, items)
    extensions = device.extensions.split()
    for extension, kind in (("cl_khr_command_buffer", CommandBuffer),
                            ("cl_qcom_recordable_queues", Recording)):
        if extension in extensions:
            try:
                return kind(context, device, queue, launches)
            except (RuntimeError, AttributeError) as error:
                log.warning("%s is offered but does not work (%s)", extension, error)
    path = launcher_path()
    return NativeLoop(queue, launches, path) if path.exists() else PythonLoop(queue, launches)


def launcher_path() -> Path:
    """Where the launcher of this processor is, if it was built."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return Path(__file__).with_name(f"launcher-{machine}.so")


class PythonLoop:
    """One call of pyopencl per kernel or copy."""

    name = "Python loop"

    def __init__(self, queue: Any, items: Sequence[Launch | Copy]) -> None:
        self._queue = queue
        self._items = tuple(items)

    def enqueue(self) -> list[Any]:
        """The event of every kernel."""
        import pyopencl as cl

        events = []
        for item in self._items:
            if isinstance(item, Copy):
                item.enqueue(self._queue)
            else:
                events.append(cl.enqueue_nd_range_kernel(self._queue, item.kernel,
                                                         item.global_size, item.local_size))
        return events


class NativeLoop:
    """One call of launcher.c for all kernels."""

    name = "native loop"

    def __init__(self, queue: Any, launches: Sequence[Launch], path: Path) -> None:
        self._keep = tuple(launches), queue
        self._queue = queue.int_ptr
        self._table = np.zeros(len(launches), dtype=LAUNCH)
        for entry, launch in zip(self._table, launches, strict=True):
            entry["kernel"] = launch.kernel.int_ptr
            entry["global_size"] = launch.global_size
            entry["local_size"] = launch.local_size
        self._launch_all = ctypes.CDLL(str(path)).tinynn_launch_all
        self._launch_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                                     ctypes.c_int64, ctypes.c_void_p]
        self._launch_all.restype = ctypes.c_int32
        function = _library().clEnqueueNDRangeKernel
        self._enqueue = ctypes.cast(function, ctypes.c_void_p).value

    def enqueue(self) -> None:
        _require(self._launch_all(self._enqueue, self._queue, self._table.ctypes.data,
                                  len(self._table), None), "clEnqueueNDRangeKernel")


class CommandBuffer:
    """cl_khr_command_buffer: recorded once, enqueued as one command."""

    name = "command buffer"

    def __init__(self, context: Any, device: Any, queue: Any, launches: Sequence[Launch]) -> None:
        functions = _Extension(device, {
            "clCreateCommandBufferKHR": ctypes.c_void_p, "clCommandNDRangeKernelKHR": ctypes.c_int,
            "clFinalizeCommandBufferKHR": ctypes.c_int, "clEnqueueCommandBufferKHR": ctypes.c_int})
        self._keep = tuple(launches), context, queue
        self._queues = (ctypes.c_void_p * 1)(queue.int_ptr)
        status = ctypes.c_int()
        self._buffer = ctypes.c_void_p(functions.clCreateCommandBufferKHR(
            ctypes.c_uint(1), self._queues, None, ctypes.byref(status)))
        _require(status.value, "clCreateCommandBufferKHR")
        for launch in launches:
            _require(functions.clCommandNDRangeKernelKHR(
                self._buffer, None, None, ctypes.c_void_p(launch.kernel.int_ptr), ctypes.c_uint(3),
                None, _Size3(*launch.global_size), _Size3(*launch.local_size), ctypes.c_uint(0),
                None, None, None), "clCommandNDRangeKernelKHR")
        _require(functions.clFinalizeCommandBufferKHR(self._buffer), "clFinalizeCommandBufferKHR")
        self._enqueue = functions.clEnqueueCommandBufferKHR

    def enqueue(self) -> None:
        _require(self._enqueue(ctypes.c_uint(1), self._queues, self._buffer, ctypes.c_uint(0),
                               None, None), "clEnqueueCommandBufferKHR")


class Recording:
    """cl_qcom_recordable_queues: recorded on a queue of its own, replayed on ours."""

    name = "recorded queue"

    def __init__(self, context: Any, device: Any, queue: Any, launches: Sequence[Launch]) -> None:
        functions = _Extension(device, {
            "clNewRecordingQCOM": ctypes.c_void_p, "clEndRecordingQCOM": ctypes.c_int,
            "clEnqueueRecordingQCOM": ctypes.c_int})
        library = _library()
        library.clCreateCommandQueue.restype = ctypes.c_void_p
        status = ctypes.c_int()
        recorder = ctypes.c_void_p(library.clCreateCommandQueue(
            ctypes.c_void_p(context.int_ptr), ctypes.c_void_p(device.int_ptr),
            ctypes.c_uint64(_RECORDABLE_QUEUE), ctypes.byref(status)))
        _require(status.value, "clCreateCommandQueue")
        self._keep = tuple(launches), queue
        self._queue = ctypes.c_void_p(queue.int_ptr)
        self._recording = ctypes.c_void_p(
            functions.clNewRecordingQCOM(recorder, ctypes.byref(status)))
        _require(status.value, "clNewRecordingQCOM")
        for launch in launches:
            _require(library.clEnqueueNDRangeKernel(
                recorder, ctypes.c_void_p(launch.kernel.int_ptr), ctypes.c_uint(3), None,
                _Size3(*launch.global_size), _Size3(*launch.local_size), ctypes.c_uint(0), None,
                None), "clEnqueueNDRangeKernel")
        _require(functions.clEndRecordingQCOM(self._recording), "clEndRecordingQCOM")
        self._enqueue = functions.clEnqueueRecordingQCOM

    def enqueue(self) -> None:
        none = ctypes.c_size_t(0), None  # arguments, offsets and sizes stay as recorded
        _require(self._enqueue(self._queue, self._recording, *none, *none, *none, *none,
                               ctypes.c_uint(0), None, None), "clEnqueueRecordingQCOM")


class _Extension:
    """Functions that the platform hands out by name. types: what each returns."""

    def __init__(self, device: Any, types: dict[str, Any]) -> None:
        find = _library().clGetExtensionFunctionAddressForPlatform
        find.restype = ctypes.c_void_p
        for name, kind in types.items():
            address = find(ctypes.c_void_p(device.platform.int_ptr), name.encode())
            if not address:
                raise RuntimeError(f"there is no {name}")
            setattr(self, name, ctypes.CFUNCTYPE(kind)(address))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _library() -> ctypes.CDLL:
    """The OpenCL library that pyopencl has loaded: its symbols are found through pyopencl's own."""
    import pyopencl._cl

    return ctypes.CDLL(pyopencl._cl.__file__)


def _require(status: int, function: str) -> None:
    if status != 0:
        raise RuntimeError(f"{function} failed with status {status}")
