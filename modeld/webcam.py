"""Webcams and video files as the cameras of a bus: `python -m modeld.webcam /dev/video0 ...`.

Each device is read by a thread of its own at whatever rate it has; twenty times a second its newest
picture is published. A tick for which there is no new picture has no frame, and its id is missing:
the daemon counts it as lost. A device that goes away is opened again until it is back.
"""
from __future__ import annotations

import argparse
import itertools
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Thread

import av

from messaging import Bus, MessagingError, PubMaster, Stream, new_message
from messaging.options import add_bus_option
from modeld import process
from modeld.source import CameraSource, Picture, SourceFrame, paced

log = logging.getLogger("webcam")

CALIBRATION_TICKS = 5  # extrinsicsCalibration at 4 Hz
REOPEN_S = 1.0
RATE_HZ = 20.0


class Webcam:
    """A V4L2 device (`/dev/video0`) or a video file, shown at its own pace.

    size: (width, height) to ask a device for; it may give another, which `size` then is.
    Raises OSError, with a sentence, if there are no pictures to be had.
    """

    def __init__(self, path: str, size: tuple[int, int] | None, stop: Event) -> None:
        self.path = path
        self.ended = False
        self._live = Path(path).is_char_device()
        self._wanted = size
        self._stop = stop
        self._lock = Lock()
        self._newest: tuple[Picture, int] | None = None
        try:
            self._container = self._open()
        except (av.FFmpegError, OSError) as error:
            raise OSError(f"cannot open {path}: {error.strerror}; give a video file, or one of "
                          "/dev/video*") from None
        if not self._container.streams.video:
            raise OSError(f"there are no pictures in {path}")
        context = self._container.streams.video[0].codec_context
        self.size = (context.width // 2 * 2, context.height // 2 * 2)  # NV12 is even
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def take(self) -> tuple[Picture, int] | None:
        """The newest picture and when it came (ns, monotonic clock), if it was not taken before."""
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def _open(self) -> av.container.InputContainer:
        if not self._live:
            return av.open(self.path)
        options = {"framerate": "30"}
        if self._wanted:
            options["video_size"] = "{}x{}".format(*self._wanted)
        return av.open(self.path, format="v4l2", options=options)

    def _read(self) -> None:
        while not self._stop.is_set():
            reason = "its stream ended"
            try:
                self._read_to_the_end()
            except (av.FFmpegError, OSError) as error:
                reason = str(error)
            if not self._live:
                self.ended = True
                return
            if not self._stop.is_set():
                log.warning("The camera %s has gone (%s); looking for it again.", self.path, reason)
                self._reopen()

    def _read_to_the_end(self) -> None:
        start = time.monotonic()
        for number, frame in enumerate(self._container.decode(video=0)):
            if self._stop.is_set():
                return
            if not self._live:  # a file gives its pictures as fast as they are asked for
                # What comma devices record (.hevc) has no times: it is 20 Hz.
                shown = number / RATE_HZ if frame.time is None else frame.time
                self._stop.wait(max(0.0, start + shown - time.monotonic()))
            picture = as_picture(frame, self.size)
            with self._lock:
                self._newest = picture, time.monotonic_ns()

    def _reopen(self) -> None:
        self._container.close()
        while not self._stop.wait(REOPEN_S):
            try:
                self._container = self._open()
                return
            except (av.FFmpegError, OSError):
                continue


def as_picture(frame: av.VideoFrame, size: tuple[int, int]) -> Picture:
    """A decoded frame of any pixel format, scaled to an even size (width, height)."""
    width, height = size
    planes = frame.reformat(width, height, format="nv12").to_ndarray()
    return Picture(planes[:height], planes[height:].reshape(height // 2, width // 2, 2))


def frames(webcams: Mapping[Stream, Webcam], ticks: Iterator[int]) -> Iterator[SourceFrame]:
    """For every tick what the cameras have, until all have ended; ticks without are left out."""
    for tick in ticks:
        taken = {stream: webcam.take() for stream, webcam in webcams.items()}
        there = {stream: one for stream, one in taken.items() if one is not None}
        if there:
            came = max(at for _, at in there.values())
            yield SourceFrame(tick, came, came, {stream: one for stream, (one, _) in there.items()})
        elif all(webcam.ended for webcam in webcams.values()):
            return


def publish(
    bus: Bus, webcams: Mapping[Stream, Webcam], focal: Mapping[Stream, float],
    rpy: Sequence[float] | None, stop: Event,
) -> int:
    """Publish until `stop` is set or all have ended; gives the number of frames.

    focal: lengths in pixels; the centre is taken to be that of the picture. rpy: roll, pitch, yaw
    of the cameras (rad), published as their calibration; None leaves that to somebody else.
    """
    sizes = {stream: webcam.size for stream, webcam in webcams.items()}
    intrinsics = {stream: (length, sizes[stream][0] / 2, sizes[stream][1] / 2)
                  for stream, length in focal.items()}
    source = CameraSource(bus, sizes, intrinsics)
    master = PubMaster(["extrinsicsCalibration"] if rpy else [], bus)
    count = 0
    try:
        for tick, frame in enumerate(frames(webcams, paced(itertools.count()))):
            if stop.is_set():
                break
            if rpy and tick % CALIBRATION_TICKS == 0:
                message = new_message("extrinsicsCalibration", valid=True)
                message.extrinsicsCalibration.rpyCalib = list(rpy)
                master.send("extrinsicsCalibration", message)
            source.publish(frame)
            count += 1
    finally:
        source.close()
        master.close()
    return count


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write for instance 1280x720")
    return int(match[1]), int(match[2])


def _angles(text: str) -> tuple[float, float, float]:
    try:
        roll, pitch, yaw = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not ROLL,PITCH,YAW; write for instance 0,0.02,0") from None
    return roll, pitch, yaw


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m modeld.webcam", description="Publish webcams (/dev/video0) or video files "
        "as the cameras of a bus, at 20 Hz.")
    parser.add_argument("narrow", nargs="?", metavar="DEVICE", help="looks straight ahead")
    parser.add_argument("--wide", metavar="DEVICE", help="with a wider view; may be alone")
    parser.add_argument("--cabin", metavar="DEVICE", help="looks at the driver")
    for name in ("focal", "wide-focal", "cabin-focal"):
        parser.add_argument(f"--{name}", type=float, metavar="PIXELS", help=(
            "focal length; without it plans do not count as valid"))
    parser.add_argument("--rpy", type=_angles, metavar="R,P,Y", help="how the cameras are mounted: "
                        "roll, pitch, yaw in radians, 0,0,0 for straight ahead; without it "
                        "somebody else has to publish extrinsicsCalibration")
    parser.add_argument("--size", type=_size, metavar="WxH", help="picture to ask the devices for")
    add_bus_option(parser)
    args = parser.parse_args(argv)
    if not (args.narrow or args.wide or args.cabin):
        parser.error("name a DEVICE, for instance /dev/video0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0 after a signal or at the end of all files, 2 if a camera or the bus is not there."""
    args = _arguments(argv)
    logging.basicConfig(format="webcam: %(message)s", level=logging.INFO, stream=sys.stderr)
    stop = Event()
    process.stop_on_signals(stop)
    named = {Stream.NARROW_ROAD: (args.narrow, args.focal),
             Stream.WIDE_ROAD: (args.wide, args.wide_focal),
             Stream.CABIN: (args.cabin, args.cabin_focal)}
    webcams = {}
    try:
        for stream, (path, _) in named.items():
            if path:
                webcams[stream] = Webcam(path, args.size, stop)
        focal = {stream: length for stream, (path, length) in named.items() if path and length}
        count = publish(Bus.at(args.bus), webcams, focal, args.rpy, stop)
    except (MessagingError, OSError) as error:
        print(f"webcam: {error}", file=sys.stderr)
        return 2
    finally:
        stop.set()
    log.info("%d frames", count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
