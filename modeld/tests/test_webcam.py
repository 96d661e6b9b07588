"""Webcams, with video files in the place of devices."""
from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from messaging import Bus, FrameClient, Stream, SubMaster
from modeld import webcam
from modeld.webcam import Webcam, as_picture, frames, main

SOON = 60.0
WIDTH, HEIGHT = 160, 96


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus.fresh()
    yield bus
    bus.remove()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 30 Hz; picture i is grey 2 i."""
    path = tmp_path_factory.mktemp("video") / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(60):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 2 * number, np.uint8)
            planes[HEIGHT:] = 128
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_pictures_are_nv12() -> None:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, :, 2] = 255  # blue: U is high, V is low
    picture = as_picture(av.VideoFrame.from_ndarray(rgb, format="rgb24"), (WIDTH, HEIGHT))
    assert picture.luma.shape == (HEIGHT, WIDTH)
    assert picture.chroma.shape == (HEIGHT // 2, WIDTH // 2, 2)
    assert picture.chroma[8, 8, 0] > 200 > 128 > picture.chroma[8, 8, 1]


def test_the_newest_picture_of_every_tick(video: Path) -> None:
    stop = Event()
    camera = Webcam(str(video), None, stop)
    assert camera.size == (WIDTH, HEIGHT)
    ticks = (tick for tick in itertools.count() if not stop.wait(0.05))
    shown = list(frames({Stream.NARROW_ROAD: camera}, ticks))
    levels = [int(frame.pictures[Stream.NARROW_ROAD].luma[5, 5]) for frame in shown]
    assert levels == sorted(set(levels))  # each picture once, in order
    assert levels[-1] == 118
    assert all(a.frame_id < b.frame_id and a.timestamp_eof < b.timestamp_eof
               for a, b in itertools.pairwise(shown))
    stop.set()


def test_what_comma_devices_record_is_shown_at_20_hz(video: Path, tmp_path: Path) -> None:
    """A bare HEVC stream has no times of its own."""
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV cannot write HEVC")
    path = tmp_path / "fcamera.hevc"
    with av.open(str(video)) as source, av.open(str(path), "w", format="hevc") as container:
        stream: Any = container.add_stream("libx265", rate=20)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in itertools.islice(source.decode(video=0), 8):
            frame.pts = None
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    stop = Event()
    camera = Webcam(str(path), None, stop)
    times = []
    while not camera.ended:
        taken = camera.take()
        if taken:
            times.append(taken[1])
        assert not stop.wait(0.002)
    assert len(times) >= 6
    assert (times[-1] - times[0]) / 1e9 >= 0.9 * (len(times) - 1) / 20


def test_as_a_command(video: Path, bus: Bus) -> None:
    heard = SubMaster(["narrowRoadCameraState", "extrinsicsCalibration"], bus=bus, conflate=False)
    narrow, wide = FrameClient(Stream.NARROW_ROAD, bus), FrameClient(Stream.WIDE_ROAD, bus)
    command = [sys.executable, "-m", "modeld.webcam", str(video), "--wide", str(video), "--focal",
               "200", "--rpy", "0,0.02,-0.01", "--bus", bus.namespace]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        frame = narrow.receive(1000 * SOON)
        other = wide.receive(1000 * SOON)
        assert frame is not None and other is not None
        assert frame.luma.shape == other.luma.shape == (HEIGHT, WIDTH)
        assert narrow.intrinsics == (200.0, WIDTH / 2, HEIGHT / 2)
        assert wide.intrinsics is None
        _, error = process.communicate(timeout=SOON)
    assert process.returncode == 0
    assert error.startswith("webcam: ") and error.endswith(" frames\n")
    heard.update(1000)
    assert heard.seen["narrowRoadCameraState"]
    assert list(heard["extrinsicsCalibration"].rpyCalib) == pytest.approx([0, 0.02, -0.01])
    for part in (heard, narrow, wide):
        part.close()


def test_how_a_device_is_opened_and_opened_again(
    video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    """A device that breaks off: what is a file's end is a camera's death."""
    asked: list[tuple[str, dict[str, Any]]] = []
    open_file = av.open

    def open_device(path: str, **options: Any) -> Any:
        asked.append((path, options))
        return open_file(str(video))

    monkeypatch.setattr(webcam.av, "open", open_device)
    monkeypatch.setattr(webcam, "REOPEN_S", 0.01)
    monkeypatch.setattr(Path, "is_char_device", lambda path: True)
    stop = Event()
    camera = Webcam("/dev/video7", (1280, 720), stop)
    while len(asked) < 3:
        assert not stop.wait(0.01)
    assert not camera.ended
    assert "The camera /dev/video7 has gone" in caplog.text
    stop.set()
    assert set(map(str, asked)) == {str(("/dev/video7", {
        "format": "v4l2", "options": {"framerate": "30", "video_size": "1280x720"}}))}


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["/dev/video99"], 2, "cannot open /dev/video99: No such file or directory; give a video file"),
    (["/dev/null"], 2, "cannot open /dev/null: "),
    ([], 2, "name a DEVICE"),
    (["x", "--size", "big"], 2, "'big' is no size"),
    (["x", "--rpy", "1,2"], 2, "'1,2' is not ROLL,PITCH,YAW"),
])
def test_errors(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        assert main(arguments) == code
    except SystemExit as stopped:
        assert stopped.code == code
    assert message in capsys.readouterr().err
