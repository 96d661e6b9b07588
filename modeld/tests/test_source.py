"""Camera source: videos decode to the planes that went in, damage is named, pacing keeps time."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from messaging import Bus, FrameClient, Stream, SubMaster
from modeld.source import CameraSource, Picture, SourceFrame, VideoError, open_video, paced

av = pytest.importorskip("av")


def write_video(path: Path, count: int, width: int = 64, height: int = 48, codec: str = "ffv1",
                **options: str) -> list[np.ndarray]:
    """A video of noise; its frames as planar YUV 4:2:0 (height * 3 / 2, width)."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(16, 236, (height * 3 // 2, width), np.uint8) for _ in range(count)]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for planes in frames:
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return frames


def test_planes_are_untouched(tmp_path: Path) -> None:
    frames = write_video(tmp_path / "a.mkv", 3)
    video = open_video(tmp_path / "a.mkv")
    assert (video.width, video.height, video.rate) == (64, 48, 20)
    pictures = list(video)
    assert len(pictures) == 3
    for picture, planes in zip(pictures, frames, strict=True):
        np.testing.assert_array_equal(picture.luma, planes[:48])
        np.testing.assert_array_equal(picture.chroma[..., 0], planes[48:60].reshape(24, 32))
        np.testing.assert_array_equal(picture.chroma[..., 1], planes[60:].reshape(24, 32))


def test_other_formats_are_converted(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "rgb.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        planes = np.zeros((3, 48, 64), np.uint8)
        planes[0], planes[1], planes[2] = 50, 100, 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        container.mux(stream.encode())
    (picture,) = open_video(tmp_path / "rgb.mkv")
    assert (picture.luma == 50).all()
    assert (picture.chroma == [100, 200]).all()


def test_cut_file_names_the_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mkv", 10)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[:len(data) * 55 // 100])
    read = 0
    with pytest.raises(VideoError, match=r"cut\.mkv ends at frame 5"):
        for _ in open_video(tmp_path / "cut.mkv"):
            read += 1
    assert read == 5


@pytest.mark.parametrize("layout", ["faststart", "frag_keyframe+empty_moov"])
def test_cut_mp4_with_its_index_in_front(tmp_path: Path, layout: str) -> None:
    write_video(tmp_path / "whole.mp4", 20, codec="mpeg4", movflags=layout)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) * 6 // 10])
    read = 0
    with pytest.raises(VideoError, match=r"cut\.mp4 ends at frame (\d+)") as caught:
        for _ in open_video(tmp_path / "cut.mp4"):
            read += 1
    assert 0 < read < 20
    assert f"frame {read}:" in str(caught.value)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(VideoError, match=r"text\.mp4 cannot be opened as a video"):
        open_video(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="absent"):
        open_video(tmp_path / "absent.mp4")


def test_pace() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    taken = []
    for item in paced("abcd", 20, lambda: now[0], sleep):
        taken.append((item, round(now[0] - 100, 6)))
        now[0] += 0.12 if item == "b" else 0.01  # b takes too long, c is late, d on time again
    assert taken == [("a", 0.0), ("b", 0.05), ("c", 0.17), ("d", 0.18)]
    assert len(slept) == 1


def test_frames_and_states_on_the_bus() -> None:
    bus = Bus.fresh()
    source = CameraSource(bus, {Stream.NARROW_ROAD: (64, 48)},
                          {Stream.NARROW_ROAD: (100.0, 32.0, 24.0)}, sensor="ox03c10")
    client = FrameClient(Stream.NARROW_ROAD, bus=bus)
    states = SubMaster(["narrowRoadCameraState"], bus=bus)
    try:
        assert client.connect(30)
        assert client.intrinsics == (100.0, 32.0, 24.0)
        assert source.wait_for_readers(30)
        rng = np.random.default_rng(0)
        picture = Picture(rng.integers(0, 256, (48, 64), np.uint8),
                          rng.integers(0, 256, (24, 32, 2), np.uint8))
        source.publish(SourceFrame(7, 1000, 2000, {Stream.NARROW_ROAD: picture}), {"carState": 5})
        frame = client.receive(30_000)
        assert frame is not None
        assert (frame.frame_id, frame.timestamp_sof, frame.timestamp_eof) == (7, 1000, 2000)
        np.testing.assert_array_equal(frame.luma, picture.luma)
        np.testing.assert_array_equal(frame.chroma, picture.chroma)
        assert frame.barrier is not None
        assert frame.barrier["carState"] == 5
        assert states.wait_for(frame.barrier, 30)  # the camera state is part of the barrier
        state = states["narrowRoadCameraState"]
        assert (state.frameId, state.timestampEof, str(state.sensor)) == (7, 2000, "ox03c10")
    finally:
        client.close()
        states.close()
        source.close()
        bus.remove()
