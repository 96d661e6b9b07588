"""Pictures in NV12: where the planes lie in a buffer, and one frame of a camera.

NV12 is a plane of luma and, behind it, a plane of half the rows with the two chroma values of
each 2 x 2 pixels side by side, U first.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
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
        if (
            self.stride < self.width
            or self.uv_offset < self.stride * self.height
            or self.nbytes < self.used_nbytes
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

    @property
    def used_nbytes(self) -> int:
        """Up to the end of chroma; what is behind it holds nothing."""
        return self.uv_offset + self.stride * (self.height // 2)

    def luma(self, data: U8) -> U8:
        """View of the luma plane of a buffer: (height, width)."""
        rows = data[: self.stride * self.height].reshape(self.height, self.stride)
        return rows[:, : self.width]

    def chroma(self, data: U8) -> U8:
        """View of the chroma plane of a buffer: (height / 2, width / 2, 2), U first."""
        rows = data[self.uv_offset : self.uv_offset + self.stride * (self.height // 2)]
        rows = rows.reshape(self.height // 2, self.stride)[:, : self.width]
        return rows.reshape(self.height // 2, self.width // 2, 2)

    def planes(self, picture: U8, chroma: U8 | None) -> tuple[U8, U8]:
        """Luma and chroma of a picture of this size; arguments as FrameServer.publish has them.

        Raises FrameError if it does not have this size.
        """
        width, height = self.width, self.height
        if chroma is None:
            tight = FrameGeometry.tight(width, height)
            for layout in (self, tight):
                if picture.shape == (layout.nbytes,) and picture.dtype == np.uint8:
                    return layout.luma(picture), layout.chroma(picture)
            expected = f"({self.nbytes},) or ({tight.nbytes},)"
            raise FrameError(
                f"picture has shape {picture.shape} and type {picture.dtype}; "
                f"a whole NV12 buffer of this stream is uint8 {expected}"
            )
        shapes = (height, width), (height // 2, width // 2, 2)
        is_bytes = picture.dtype == chroma.dtype == np.uint8
        if (picture.shape, chroma.shape) != shapes or not is_bytes:
            raise FrameError(
                f"luma {picture.shape} and chroma {chroma.shape} do not fit this stream: "
                f"uint8 {shapes[0]} and {shapes[1]} are needed"
            )
        return picture, chroma

    def fill(self, buffer: U8, luma: U8, chroma: U8) -> None:
        """Write both planes into a buffer, (nbytes,); what lies between them stays."""
        self.luma(buffer)[:] = luma
        self.chroma(buffer)[:] = chroma


@dataclass
class Frame:
    """One picture of one camera.

    data: the buffer up to the end of chroma, uint8, (geometry.used_nbytes,).
    timestamp_sof, timestamp_eof: ns, monotonic clock, start and end of the frame.
    valid: the camera vouches for it.
    barrier: service -> logMonoTime (ns) of the newest message sent before this frame, in
        lock-step; else None.
    lost: frames that this reader missed since the one it received before.
    still_there: for a picture that was taken where it lies, whether it still lies there.
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
    still_there: Callable[[], bool] | None = None

    def intact(self) -> bool:
        """Whether what was read of `data` so far was this picture: nothing has overwritten it."""
        return self.still_there is None or self.still_there()

    def taken(self, in_place: bool) -> Self | None:
        """The frame as it lies, or with `data` of its own; None if it was overwritten before."""
        frame = self if in_place else replace(self, data=self.data.copy(), still_there=None)
        return frame if self.intact() else None

    @property
    def luma(self) -> U8:
        """View (height, width)."""
        return self.geometry.luma(self.data)

    @property
    def chroma(self) -> U8:
        """View (height / 2, width / 2, 2), U first."""
        return self.geometry.chroma(self.data)
