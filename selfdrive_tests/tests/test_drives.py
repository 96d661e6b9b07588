"""Drives: sidecars, command line overrides, sampling at 20 Hz, videos that break off."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from selfdrive_tests.drives import (
    Calibration,
    Camera,
    DriveError,
    Overrides,
    open_drive,
    read_sidecar,
    resample,
)
from selfdrive_tests.video import Picture, open_video

GOOD = """
video = "video.mp4"
view = "camera"
[camera]
focal_length_px = 910.0
center_px = [64, 48]
[calibration]
rpy_rad = [0.0, 0.02, -0.01]
height_m = 1.3
"""


def encode(
    path: Path,
    frames: int = 30,
    rate: int = 20,
    size: tuple[int, int] = (128, 96),
    options: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """A video of noise whose frame i has brightness 10 + 4 i at its left edge."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"g": "10", "crf": "10"}
        for i in range(frames):
            rgb = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            rgb[:, :32] = 10 + 4 * i
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, part: float) -> None:
    """Keep the first `part` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def folder(tmp_path: Path, text: str = GOOD, frames: int = 30) -> Path:
    encode(tmp_path / "video.mp4", frames)
    (tmp_path / "drive.toml").write_text(text)
    return tmp_path


def test_folder_gives_camera_and_calibration(tmp_path: Path) -> None:
    drive = open_drive(folder(tmp_path))
    assert drive.camera == Camera(128, 96, 910.0, (64.0, 48.0))
    assert drive.calibration == Calibration((0.0, 0.02, -0.01), 1.3)
    assert not drive.calibration_given
    frames = list(drive.frames())
    assert [frame.index for frame in frames] == list(range(30))
    assert frames[0].narrow.luma.shape == (96, 128)
    assert frames[0].narrow.chroma.shape == (48, 64, 2)
    assert drive.problem is None
    assert drive.ticks == 30


def test_frames_from_a_start_keep_their_numbers(tmp_path: Path) -> None:
    drive = open_drive(folder(tmp_path))
    assert [frame.index for frame in drive.frames(start=7, count=3)] == [7, 8, 9]


def test_picture_agrees_with_the_decoders_own_nv12(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", frames=3)
    picture = next(open_video(path).pictures())
    with av.open(str(path)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="nv12")
    np.testing.assert_array_equal(picture.luma, expected[:96])
    np.testing.assert_array_equal(picture.chroma, expected[96:].reshape(48, 64, 2))


def test_command_line_wins_over_the_sidecar(tmp_path: Path) -> None:
    overrides = Overrides(focal_length_px=500.0, rpy_rad=(0.0, 0.0, 0.1), height_m=2.0)
    drive = open_drive(folder(tmp_path), overrides)
    assert drive.camera == Camera(128, 96, 500.0, (64.0, 48.0))
    assert drive.calibration == Calibration((0.0, 0.0, 0.1), 2.0)
    assert drive.calibration_given


def test_drive_without_calibration_has_none(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("[calibration]")]
    assert open_drive(folder(tmp_path, text)).calibration is None


def test_model_view_has_the_models_intrinsics_scaled(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", frames=2, size=(256, 128))
    drive = open_drive(path, Overrides(view="model"))
    assert drive.camera == Camera(256, 128, 455.0, (128.0, 23.8))
    assert drive.calibration == Calibration((0.0, 0.0, 0.0), 1.22)
    wide = open_drive(path, Overrides(view="wide-model"))
    assert wide.camera == Camera(256, 128, 227.5, (128.0, 75.9))


def test_model_view_of_another_shape_is_noted(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", frames=2)
    (note,) = open_drive(path, Overrides(view="model")).notes
    assert "twice as wide as high" in note and "128 x 96" in note


def test_video_without_description_says_what_to_add(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", frames=2)
    with pytest.raises(DriveError, match=r"--view model .* --focal-length PIXELS"):
        open_drive(path)


def test_model_view_refuses_camera_options(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", frames=2)
    with pytest.raises(DriveError, match="Leave out --focal-length"):
        open_drive(path, Overrides(view="model", focal_length_px=900.0))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (('video = "video.mp4"', ""), "key video is missing"),
        (('video = "video.mp4"', "video = 3"), "video must be a text"),
        (('video = "video.mp4"', 'video = "video.mp4"\nfps = 20'), "unknown key fps"),
        (('"camera"', '"sideways"'), 'view = "sideways" is unknown'),
        (("focal_length_px = 910.0", "focal_px = 1"), r"table \[camera\] has unknown key focal_px"),
        (("focal_length_px = 910.0", ""), r"focal_length_px in \[camera\] must be a number"),
        (("focal_length_px = 910.0", "focal_length_px = -1"), "above 0"),
        (("[64, 48]", "[64]"), r"center_px in \[camera\] must be a list of 2 numbers"),
        (("[0.0, 0.02, -0.01]", "[0.0, nan, 0.0]"), r"rpy_rad in \[calibration\]"),
        (("height_m = 1.3", "height_m = 0"), "height_m .* above 0"),
        (('view = "camera"', 'view = "camera"\nwide_video = "w.mp4"'), "belong together"),
        (('view = "camera"', 'view = "camera"\nlog = "rlog.zst"'), "log rlog.zst is not in"),
        (('view = "camera"', 'view = "model"'), r"Remove \[camera\] and \[calibration\]"),
        (('view = "camera"', "view = camera"), "not valid TOML"),
        (('"video.mp4"', '"missing.mp4"'), "missing.mp4: no such video file"),
    ],
)
def test_every_fault_of_a_sidecar_is_named(
    tmp_path: Path, change: tuple[str, str], text: str
) -> None:
    folder(tmp_path, GOOD.replace(*change), frames=2)
    with pytest.raises(DriveError, match=text) as caught:
        open_drive(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_folder_without_sidecar(tmp_path: Path) -> None:
    with pytest.raises(DriveError, match=r"no drive\.toml"):
        read_sidecar(tmp_path / "drive.toml")


def test_file_that_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(DriveError, match="cannot be read as a video"):
        open_drive(path, Overrides(view="model"))


def pictures(times: Iterable[float]) -> Iterator[Picture]:
    flat = np.zeros((2, 2), np.uint8)
    for index, seconds in enumerate(times):
        yield Picture(index, seconds, flat, flat.reshape(1, 2, 2)[:, :1])


@pytest.mark.parametrize("rate", [10, 15, 20, 24, 25, 30, 60])
def test_sampling_at_20_hz_never_shows_the_future(rate: int) -> None:
    times = [i / rate for i in range(3 * rate)]
    shown = [picture.index for picture in resample(pictures(times))]
    # The newest picture at n * 50 ms, in whole numbers: floor(n * rate / 20).
    expected = [n * rate // 20 for n in range(len(shown))]
    assert shown == expected
    assert abs(len(shown) - 60) <= 1


def test_sampling_takes_rounded_times_as_meant() -> None:
    times = [round(i / 20, 2) + (0.001 if i % 2 else 0.0) for i in range(40)]
    assert [picture.index for picture in resample(pictures(times))] == list(range(40))


def test_25_hz_video_loses_every_fifth_picture(tmp_path: Path) -> None:
    drive = open_drive(encode(tmp_path / "v.mp4", frames=50, rate=25), Overrides(view="model"))
    indices = [frame.narrow.index for frame in drive.frames()]
    assert set(range(50)) - set(indices) == set(range(4, 50, 5))


@pytest.mark.parametrize("form", ["fragmented.mp4", "faststart.mp4", "video.mkv"])
def test_video_that_breaks_off_keeps_the_frames_before(tmp_path: Path, form: str) -> None:
    flags = {"fragmented.mp4": "frag_keyframe+empty_moov", "faststart.mp4": "faststart"}
    options = {"movflags": flags[form]} if form in flags else {}
    path = encode(tmp_path / form, frames=60, options=options)
    whole = [picture.luma for picture in open_video(path).pictures()]
    cut(path, 0.613)
    drive = open_drive(path, Overrides(view="model"))
    frames = list(drive.frames())
    # 61.3 % of the bytes hold about 61.3 % of frames that are all noise.
    assert 30 <= len(frames) <= 38
    for frame, luma in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(frame.narrow.luma, luma)
    assert drive.problem is not None and form in drive.problem
    assert "breaks off" in drive.problem
    assert str(len(frames)) in drive.problem or str(len(frames) - 1) in drive.problem


def test_transport_stream_cut_in_a_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.ts", frames=60, form="mpegts")
    cut(path, 0.613)
    drive = open_drive(path, Overrides(view="model"))
    frames = list(drive.frames())
    assert 30 <= len(frames) <= 37
    assert f"in the middle of frame {len(frames)}" in (drive.problem or "")


def test_plain_mp4_cut_short_has_no_index(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4")
    cut(path, 0.6)
    with pytest.raises(DriveError, match="its index is missing: copy or record it again"):
        open_drive(path, Overrides(view="model"))


def test_odd_size_is_cut_to_even_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 65, 49, "yuv420p"
        rgb = np.full((49, 65, 3), 90, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    drive = open_drive(path, Overrides(focal_length_px=50.0, center_px=(32.0, 24.0)))
    (frame,) = drive.frames()
    assert frame.narrow.luma.shape == (48, 64)
    assert frame.narrow.chroma.shape == (24, 32, 2)
    assert "65 x 49" in drive.notes[0]


def test_wide_video_is_paired_and_the_shorter_ends_the_drive(tmp_path: Path) -> None:
    text = GOOD.replace('view = "camera"', 'view = "camera"\nwide_video = "wide.mp4"')
    text += "[wide_camera]\nfocal_length_px = 300.0\ncenter_px = [32, 24]\n"
    encode(tmp_path / "wide.mp4", frames=12, size=(64, 48))
    drive = open_drive(folder(tmp_path, text))
    frames = list(drive.frames())
    assert len(frames) == 12 and drive.ticks == 12
    assert drive.wide_camera == Camera(64, 48, 300.0, (32.0, 24.0))
    wide = [frame.wide for frame in frames if frame.wide is not None]
    assert [picture.index for picture in wide] == [frame.narrow.index for frame in frames]
    brightness = [picture.luma[:, :24].mean() for picture in wide]
    assert all(later > earlier for earlier, later in pairwise(brightness))


def test_scaled_camera_keeps_directions() -> None:
    # Corner to corner: the left edge of a picture, at -0.5, stays the left edge.
    camera = Camera(256, 128, 455.0, (128.0, 23.8)).scaled(768, 384)
    assert camera.focal_px == 3 * 455
    assert camera.center_px == pytest.approx((3 * 128.5 - 0.5, 3 * 24.3 - 0.5))


def test_pictures_in_a_numpy_file_are_a_drive(tmp_path: Path) -> None:
    nv12 = np.arange(4 * 12 * 16, dtype=np.uint8).reshape(4, 12, 16)
    np.save(tmp_path / "drive.npy", nv12)
    drive = open_drive(tmp_path / "drive.npy", Overrides(view="model"))
    frames = list(drive.frames())
    assert drive.ticks == 4 and len(frames) == 4
    assert (frames[2].narrow.luma == nv12[2, :8]).all()
    assert (frames[2].narrow.chroma == nv12[2, 8:].reshape(4, 8, 2)).all()
    np.save(tmp_path / "grey.npy", np.full((2, 8, 16, 3), 128, np.uint8))
    (first, _) = open_drive(tmp_path / "grey.npy", Overrides(view="model")).frames()
    assert first.narrow.luma == pytest.approx(126, abs=1) and (first.narrow.chroma == 128).all()
    np.save(tmp_path / "wrong.npy", np.zeros((2, 8, 16, 3), np.float32))
    with pytest.raises(DriveError, match=r"holds float32 \(2, 8, 16, 3\); pictures are uint8"):
        open_drive(tmp_path / "wrong.npy", Overrides(view="model"))
