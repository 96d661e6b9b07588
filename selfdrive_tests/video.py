"""Video files in and out, by PyAV: NV12 pictures with their times, H.264 files, still pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from messaging.closing import Closing

# Raw byte streams carry no times. Comma's cameras, which write such files, run at 20 Hz.
RAW_FORMATS = ("hevc", "h264")
RAW_RATE = Fraction(20)


class VideoError(Exception):
    """A video cannot be read at all; the text says which and what to do."""


@dataclass(frozen=True)
class Picture:
    """One NV12 picture.

    luma: (height, width) uint8. chroma: (height / 2, width / 2, 2) uint8, U first.
    seconds: presentation time, counted from the first picture of the file.
    """

    index: int
    seconds: float
    luma: np.ndarray
    chroma: np.ndarray

    def rgb(self, width: int, height: int) -> np.ndarray:
        """The picture as (height, width, 3) uint8 RGB, scaled bicubically."""
        rows, columns = self.luma.shape
        nv12 = np.concatenate([self.luma, self.chroma.reshape(rows // 2, columns)])
        frame = av.VideoFrame.from_ndarray(nv12, format="nv12")
        scaled = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC")
        return np.asarray(scaled.to_ndarray())


@dataclass
class VideoReader:
    """A video file; every call of pictures() reads it from the start.

    width, height: even; an odd last row or column is cut off and said in `notes`.
    seconds: length as the file's header has it, 0 if it does not say.
    problem: filled by pictures() if the file breaks off.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    seconds: float
    raw: bool
    notes: list[str] = field(default_factory=list)
    problem: str | None = None

    def pictures(self) -> Iterator[Picture]:
        """Whole pictures in order. A file that breaks off ends here, and `problem` says where."""
        self.problem = None
        count, first, last = 0, 0.0, 0.0
        try:
            for frame, seconds in _whole_frames(self.path):
                if self.raw or seconds is None:
                    seconds = count / self.rate
                last = float(seconds)
                first = last if count == 0 else first
                luma, chroma = nv12_planes(frame, self.width, self.height)
                yield Picture(count, last - first, luma, chroma)
                count += 1
        except (av.FFmpegError, EOFError) as error:
            self.problem = (
                f"{self.path.name} breaks off in the middle of frame {count}: {_reason(error)}."
            )
            return
        # One picture and a half: lengths in headers are rounded.
        if last - first + 1.5 / float(self.rate) < self.seconds - 1.0 / float(self.rate):
            self.problem = (
                f"{self.path.name} breaks off after frame {count - 1}: its header promises "
                f"{self.seconds:.2f} s, its frames last {last - first:.2f} s."
            )


def _whole_frames(path: Path) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
    """Decoded frames with their times in seconds, None where the file has none.

    At damage, the frames that are still in the decoder come first, then the error.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        damage: Exception | None = None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                damage = EOFError("its data are incomplete")
            try:
                frames = packet.decode() if damage is None else stream.decode(None)
            except av.FFmpegError as error:
                damage = error
                frames = stream.decode(None)
            for frame in frames:
                if frame.is_corrupt:
                    raise EOFError("its data are damaged")
                # Frames from the decoder's end come without time base, but with its ticks.
                yield frame, None if frame.pts is None else frame.pts * stream.time_base
            if damage is not None:
                raise damage


class ArrayReader(VideoReader):
    """Pictures in a numpy file, 20 a second: NV12 (N, h * 3 / 2, w) or RGB (N, h, w, 3)."""

    def pictures(self) -> Iterator[Picture]:
        """Pictures in order; only the one that is asked for is read."""
        for index, array in enumerate(np.load(self.path, mmap_mode="r", allow_pickle=False)):
            nv12 = array if array.ndim == 2 else _nv12_of_rgb(np.ascontiguousarray(array))
            luma = np.array(nv12[: self.height])
            chroma = np.array(nv12[self.height :]).reshape(self.height // 2, self.width // 2, 2)
            yield Picture(index, index / float(self.rate), luma, chroma)


def _nv12_of_rgb(rgb: np.ndarray) -> np.ndarray:
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="nv12")
    return np.asarray(frame.to_ndarray())


def open_array(path: Path) -> ArrayReader:
    """Read the header of a numpy file. Raises VideoError if it holds no pictures."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VideoError(f"{path} cannot be read as a numpy file ({error}).") from error
    shape = array.shape
    rows = shape[1] * 2 // 3 if len(shape) == 3 else shape[1] if len(shape) == 4 else 0
    whole = (len(shape) == 3 and shape[1] % 3 == 0) or (len(shape) == 4 and shape[3] == 3)
    even = rows >= 2 and rows % 2 == 0 and shape[2] >= 2 and shape[2] % 2 == 0
    if array.dtype != np.uint8 or not (whole and even):
        raise VideoError(
            f"{path} holds {array.dtype} {shape}; pictures are uint8, NV12 as (frames, height * "
            "3 / 2, width) or RGB as (frames, height, width, 3), with even sides."
        )
    return ArrayReader(path, shape[2], rows, RAW_RATE, shape[0] / float(RAW_RATE), raw=True)


def open_video(path: Path) -> VideoReader:
    """Read the header of a video file, or of a numpy file of pictures.

    Raises VideoError if the file does not exist or holds no video.
    """
    if not path.is_file():
        raise VideoError(f"{path}: no such video file.")
    if path.suffix == ".npy":
        return open_array(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path} holds no video.")
            stream = container.streams.video[0]
            width, height = stream.width, stream.height
            raw = container.format.name in RAW_FORMATS
            rate = RAW_RATE if raw or not stream.average_rate else stream.average_rate
            seconds = 0.0 if raw else _seconds_promised(container)
    except av.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be read as a video ({_reason(error)}). If its recording or copying "
            "was cut short, its index is missing: copy or record it again."
        ) from error
    if width < 2 or height < 2:
        raise VideoError(f"{path} holds no picture: its size is {width} x {height}.")
    reader = VideoReader(path, width & ~1, height & ~1, Fraction(rate), seconds, raw)
    if (reader.width, reader.height) != (width, height):
        reader.notes.append(
            f"{path.name} is {width} x {height}; its frames are cut to "
            f"{reader.width} x {reader.height}, as the camera format needs even sizes."
        )
    return reader


def _seconds_promised(container: Any) -> float:
    stream = container.streams.video[0]
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # A container's length may be that of another stream, sound for example.
    if container.duration and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return 0.0


def nv12_planes(frame: av.VideoFrame, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma (height, width) and chroma (height / 2, width / 2, 2) of a decoded frame, uint8.

    Planar 4:2:0 is only reordered: values stay as recorded, whatever the range they are in.
    """
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    luma, u, v = (_plane(plane) for plane in frame.planes)
    chroma = np.stack([u, v], axis=-1)[: height // 2, : width // 2]
    return np.ascontiguousarray(luma[:height, :width]), np.ascontiguousarray(chroma)


def _plane(plane: Any) -> np.ndarray:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _reason(error: Exception) -> str:
    """The library's words without error number and file name."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


class VideoWriter(Closing):
    """Writes RGB frames as H.264 in an MP4 file that browsers play; a context manager.

    One encoder thread: the same frames give the same bytes.
    """

    def __init__(self, path: Path, width: int, height: int, rate: int = 20) -> None:
        self.note = ""
        codec = "libx264"
        if codec not in av.codecs_available:
            codec = "mpeg4"
            self.note = "H.264 is not built into PyAV here: the video is MPEG-4 part 2."
        options = {"movflags": "faststart", "fflags": "bitexact"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1
        self._stream.options = {"crf": "23", "preset": "superfast"} if not self.note else {}

    def write(self, rgb: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def save_still(path: Path, rgb: np.ndarray) -> None:
    """Write one picture, (height, width, 3) uint8, as PNG."""
    Image.fromarray(rgb).save(path, "PNG")
