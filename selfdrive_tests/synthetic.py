"""Rendered drives to try large jobs and large pictures with.

    python -m selfdrive_tests.synthetic -o DIR --segments 1000     many short drives
    python -m selfdrive_tests.synthetic -o DIR --device            one, as a device records it

With --device a drive is a segment with two HEVC streams of 1928 x 1208 and a log.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import av
from tqdm import tqdm

from drivesim import render_drive
from selfdrive_tests.video import open_video

ROUTE = "00000000--0000000000"
SMALL, FULL = (160, 96), (1928, 1208)
VIDEOS = {"video.mp4": "fcamera.hevc", "wide.mp4": "ecamera.hevc"}


def render_segment(folder: Path, seconds: float, seed: int) -> None:
    """Render a drive as a device would have recorded it: HEVC without a container, and the log."""
    drive = folder.with_name(f"{folder.name}.drive")
    width, height = FULL
    render_drive(drive, seconds, seed, width=width, height=height, wide=True)
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in VIDEOS.items():
        encode_hevc(drive / source, folder / target)
    shutil.move(drive / "rlog.zst", folder / "rlog.zst")
    shutil.rmtree(drive)


def encode_hevc(source: Path, target: Path) -> None:
    """A video again, as a raw HEVC stream; at about the rate of a device's, 10 Mbit/s."""
    reader = open_video(source)
    with av.open(str(target), "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=20)
        stream.width, stream.height, stream.pix_fmt = reader.width, reader.height, "yuv420p"
        stream.bit_rate = 10_000_000
        stream.options = {"preset": "ultrafast", "x265-params": "bframes=0:log-level=error"}
        for picture in reader.pictures():
            rgb = picture.rgb(reader.width, reader.height)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def main(argv: Sequence[str] | None = None) -> int:
    """Render the drives that are not there yet; each has a seed of its own."""
    top = argparse.ArgumentParser(
        prog="python -m selfdrive_tests.synthetic",
        description="Render drives to try large jobs and large pictures with.",
    )
    top.add_argument("-o", "--out", type=Path, required=True, help="folder of the drives")
    top.add_argument("--segments", type=int, default=1, help="how many (default: %(default)s)")
    top.add_argument("--seconds", type=float, default=2.0, help="of each (default: %(default)s)")
    top.add_argument("--device", action="store_true", help="full size, two cameras, HEVC")
    options = top.parse_args(argv)
    for seed in tqdm(range(options.segments), unit="drive"):
        if options.device:
            render_segment(options.out / f"{ROUTE}--{seed}", options.seconds, seed)
            continue
        folder = options.out / f"synthetic--{seed}"
        if not (folder / "drive.toml").exists():
            width, height = SMALL
            render_drive(
                folder, options.seconds, seed, width=width, height=height, progress=False
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
