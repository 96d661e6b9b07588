"""Pictures in NV12: where the planes lie in a buffer, and one frame of a camera.

NV12 is a plane of luma and, behind it, a plane of half the rows with the two chroma values of
each 2 x 2 pixels side by side, U first.
"""

import enum
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from messaging.errors import FrameError

U8 = NDArray[np.uint8]


class Stream(enum.IntEnum):
    """The cameras, by the numbers comma's programs give them."""

    NARROW_ROAD = 0
    CABIN = 1
    WIDE_ROAD = 2


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class FrameGeometry:
    """Where the two planes of a picture lie in its buffer.

    width, height: pixels, even. stride: bytes from one row to the next, of both planes.
    uv_offset: byte at which chroma starts. nbytes: size of the buffer.
    Raises FrameError for sizes that do not fit together.
    """

    width: int
    height: int
    stride: int
    uv_offset: int
    nbytes: int

    def __post_init__(self) -> None:
        if min(self.width, self.height) <= 0 or self.width % 2 or self.height % 2:
            raise FrameError(
                f"a picture of {self.width} x {self.height} pixels cannot be NV12: "
                "width and height must be even and positive"
            )
        chroma_end = self.uv_offset + self.stride * (self.height // 2)
        if (
            self.stride < self.width
            or self.uv_offset < self.stride * self.height
            or self.nbytes < chroma_end
        ):
            raise FrameError(f"the planes of {self} overlap or leave the buffer")

    @classmethod
    def tight(cls, width: int, height: int) -> Self:
        """No gaps: as video decoders put it out and tests want it."""
        return cls(width, height, width, width * height, width * height * 3 // 2)

    @classmethod
    def padded(cls, width: int, height: int) -> Self:
        """Buffers as the cameras of comma devices fill them (VENUS layout of the encoder)."""
        stride = _round_up(width, 128)
        uv_offset = stride * _round_up(height, 32)
        chroma = stride * _round_up(height // 2, 16) + 4096
        size = _round_up(uv_offset + chroma + max(16 * 1024, 8 * stride), 4096)
        size = _round_up(size + _round_up(width, 512) * 512, 4096)
        return cls(width, height, stride, uv_offset, size)

    def luma(self, data: U8) -> U8:
        """View of the luma plane of a buffer: (height, width)."""
        rows = data[: self.stride * self.height].reshape(self.height, self.stride)
        return rows[:, : self.width]

    def chroma(self, data: U8) -> U8:
        """View of the chroma plane of a buffer: (height / 2, width / 2, 2), U first."""
        rows = data[self.uv_offset : self.uv_offset + self.stride * (self.height // 2)]
        rows = rows.reshape(self.height // 2, self.stride)[:, : self.width]
        return rows.reshape(self.height // 2, self.width // 2, 2)


@dataclass
class Frame:
    """One picture of one camera.

    data: the whole buffer, uint8, (geometry.nbytes,).
    timestamp_sof, timestamp_eof: ns, monotonic clock, start and end of the frame.
    valid: the camera vouches for it.
    barrier: service -> logMonoTime (ns) of the newest message sent before this frame, in
        lock-step; else None.
    lost: frames that this reader missed since the one it received before.
    """

    data: U8
    geometry: FrameGeometry
    stream: Stream
    frame_id: int
    timestamp_sof: int
    timestamp_eof: int
    valid: bool = True
    barrier: dict[str, int] | None = None
    lost: int = 0

    @property
    def luma(self) -> U8:
        """View (height, width)."""
        return self.geometry.luma(self.data)

    @property
    def chroma(self) -> U8:
        """View (height / 2, width / 2, 2), U first."""
        return self.geometry.chroma(self.data)
