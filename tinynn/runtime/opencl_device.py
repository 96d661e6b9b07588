"""OpenCL devices, and programs for them: built once, then kept as binaries.

An entry of the cache is named by source, options and device, and says which driver made it. One
that is damaged, of another driver, or refused by the driver is built again, with a line in the log.
Binaries run on the GPU with the rights of the process, so a folder that others may write to is
not used.
"""
from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tinynn.runtime.host import cache_folder, usable
from tinynn.runtime.layout import ArtifactError

# pyopencl keeps a cache of its own, which unpickles what it finds.
os.environ.setdefault("PYOPENCL_NO_CACHE", "1")

DEVICE_VARIABLE = "TINYNN_OPENCL"  # part of the name of the platform or device to use
BUILD_OPTIONS = "-cl-std=CL1.2"
_MAGIC = b"TNNCL1\n"

log = logging.getLogger(__name__)


def runnable_targets() -> list[str]:
    """OpenCL targets for the GPU of this machine, best first; all of them for a device that
    $TINYNN_OPENCL names, which may stand in for another."""
    if importlib.util.find_spec("pyopencl") is None:
        return []
    try:
        device = find_device()
    except ArtifactError:
        return []
    import pyopencl as cl

    named = bool(os.environ.get(DEVICE_VARIABLE))
    if not named and not device.type & cl.device_type.GPU:
        return []
    adreno = "adreno" in f"{device.name} {device.version}".lower()
    return ["opencl:adreno630", "opencl"] if named or adreno else ["opencl"]


def find_device() -> Any:
    """The device to run on: the one that $TINYNN_OPENCL names, else a GPU, else any.

    Raises ArtifactError if there is none, or no pyopencl.
    """
    try:
        import pyopencl as cl
    except ImportError:
        raise ArtifactError("OpenCL targets need pyopencl. Install it with: pip install "
                            "'tinydrive[opencl]'") from None
    try:
        devices = [d for platform in cl.get_platforms() for d in platform.get_devices()]
    except cl.Error as error:
        raise ArtifactError(f"There is no OpenCL driver on this machine ({error}). Install the one "
                            "of your GPU, or use a CPU target.") from None
    wanted = os.environ.get(DEVICE_VARIABLE, "")
    if wanted:
        devices = [d for d in devices if wanted.lower() in f"{d.platform.name} {d.name}".lower()]
    else:
        devices = [d for d in devices if "oclgrind" not in d.platform.name.lower()]
    if not devices:
        raise ArtifactError(f"There is no OpenCL device {wanted!r} on this machine. Set "
                            f"{DEVICE_VARIABLE} to a part of the name of one, or unset it.")
    return next((d for d in devices if d.type & cl.device_type.GPU), devices[0])


def build_program(context: Any, device: Any, source: str) -> Any:
    """The program, from the cache if it is there. Raises ArtifactError with the driver's words."""
    import pyopencl as cl

    home = cache_folder()
    folder = usable(home / "opencl") if home is not None else None
    driver = f"{device.platform.version} / {device.driver_version}"
    key = hashlib.sha256("\0".join([source, BUILD_OPTIONS, device.platform.name, device.name])
                         .encode()).hexdigest()
    path = folder / f"{key[:40]}.bin" if folder else None
    if path is not None and path.exists():
        try:
            binary = _unpack(path.read_bytes(), driver)
            return cl.Program(context, [device], [binary]).build(BUILD_OPTIONS)
        except (OSError, ValueError, cl.Error) as error:
            log.warning("%s: built again, because the stored binary does not fit (%s)", path.name,
                        str(error).splitlines()[0] if str(error) else type(error).__name__)
    try:
        program = cl.Program(context, source).build(BUILD_OPTIONS)
    except cl.Error as error:
        raise ArtifactError(f"The OpenCL driver of {device.name} does not build the kernels "
                            f"({' '.join(str(error).split())[:600]}). Use a CPU target.") from None
    if path is not None:
        _store(path, _pack(program.get_info(cl.program_info.BINARIES)[0], driver))
    return program


def make_image(context: Any, layout: tuple[int, int, int, str], part: Any = None) -> Any:
    """An RGBA image; with `part`, a view of that (part of a) buffer. layout: see Buffer.image."""
    import pyopencl as cl

    width, height, pitch, channel = layout
    kind = cl.channel_type.HALF_FLOAT if channel == "half" else cl.channel_type.FLOAT
    descriptor = cl.ImageDescriptor()
    descriptor.image_type = cl.mem_object_type.IMAGE2D
    descriptor.shape = width, height, 1
    if part is not None:
        descriptor.pitches = pitch * (8 if channel == "half" else 16), 0
        descriptor.buffer = part
    return cl.Image(context, cl.mem_flags.READ_WRITE, cl.ImageFormat(cl.channel_order.RGBA, kind),
                    desc=descriptor)


_PROBE = "__kernel void probe(__write_only image2d_t x) { write_imagef(x, (int2)(1, 0), 3.0f); }"


def images_can_be_views(context: Any, device: Any, queue: Any) -> bool:
    """Whether an image can be a view of a part of a buffer. Tried out, because there are drivers
    that offer it and take the buffer's start for the part's."""
    import pyopencl as cl

    if "cl_khr_image2d_from_buffer" not in device.extensions.split():
        return False
    buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, 8192)
    try:
        image = make_image(context, (64, 1, 64, "float"), buffer.get_sub_region(4096, 1024))
        kernel = cl.Kernel(build_program(context, device, _PROBE), "probe")
        kernel.set_args(image)
        cl.enqueue_nd_range_kernel(queue, kernel, (1, 1, 1), (1, 1, 1))
        seen = np.zeros(2048, np.float32)
        cl.enqueue_copy(queue, seen, buffer)
    except cl.Error as error:
        log.warning("%s: images cannot be views of buffers (%s); they are copied", device.name,
                    error)
        return False
    return bool(seen[1024 + 4] == 3.0)


_COPY = "__kernel void copy(__global uchar *to, __global const uchar *from) { *to = *from; }"


def host_memory_is_shared(context: Any, device: Any, queue: Any) -> bool:
    """Whether kernels can read memory of this process where it lies. Tried out, because a driver
    may keep a copy of it."""
    import pyopencl as cl

    if not device.host_unified_memory:
        return False
    memory = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    seen = np.zeros(1, np.uint8)
    try:
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
        source = cl.Buffer(context, flags, hostbuf=memory)
        target = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4)
        kernel = cl.Kernel(build_program(context, device, _COPY), "copy")
        kernel.set_args(target, source)
        for value in (1, 2):
            memory[0] = value
            tell_of_writes(queue, source)
            cl.enqueue_nd_range_kernel(queue, kernel, (1, 1, 1), (1, 1, 1))
            cl.enqueue_copy(queue, seen, target)
            if seen[0] != value:
                return False
    except cl.Error as error:
        log.warning("%s: inputs cannot be read in place (%s); they are copied", device.name, error)
        return False
    return True


def tell_of_writes(queue: Any, buffer: Any) -> None:
    """Tell the driver that this side has written to memory that a buffer shares with it."""
    import pyopencl as cl

    mapped, _ = cl.enqueue_map_buffer(queue, buffer, cl.map_flags.WRITE, 0, (buffer.size,),
                                      np.uint8, is_blocking=True)
    mapped.base.release(queue)


def _pack(binary: bytes, driver: str) -> bytes:
    head = {"driver": driver, "sha256": hashlib.sha256(binary).hexdigest()}
    return _MAGIC + json.dumps(head).encode() + b"\n" + binary


def _unpack(data: bytes, driver: str) -> bytes:
    """The binary of an entry; raises ValueError with the reason why it cannot be used."""
    if not data.startswith(_MAGIC):
        raise ValueError("it is damaged")
    text, _, binary = data[len(_MAGIC):].partition(b"\n")
    try:
        head = json.loads(text)
        made_by, sha256 = head["driver"], head["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("it is damaged") from None
    if hashlib.sha256(binary).hexdigest() != sha256:
        raise ValueError("it is damaged")
    if made_by != driver:
        raise ValueError(f"it was made by driver {made_by}, this is {driver}")
    return binary


def _store(path: Path, data: bytes) -> None:
    """Write an entry, all of it or nothing; without one the next start only takes longer."""
    try:
        fd, temporary = tempfile.mkstemp(prefix=".opencl.", dir=path.parent)
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        log.warning("%s: not kept (%s)", path, error.strerror)
