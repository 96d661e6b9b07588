"""Segments and routes as comma's devices write them, made here: files, frames, gaps, what lacks."""

import shutil
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from messaging import LogWriter, new_message
from selfdrive_tests import __main__ as command
from selfdrive_tests import job
from selfdrive_tests.drives import DriveError, Overrides
from selfdrive_tests.processes import find_process
from selfdrive_tests.replay import replay
from selfdrive_tests.results import read_records
from selfdrive_tests.segments import Encoded, Source, find_sources, schedule, spans

DAEMON = Path(__file__).parent / "fake_daemon.py"
ROUTE = "0000002a--0123456789"
FRAME_NS = 50_000_000
FIRST_ID = 7000  # the camera has run for a while when the route begins


def brightness(picture: int) -> int:
    return 40 + 5 * picture


def encode(path: Path, pictures: int, size: tuple[int, int] = (128, 96)) -> None:
    """HEVC as a raw stream, or H.264 in MPEG-TS with sound; each picture has its brightness."""
    raw = path.suffix == ".hevc"
    with av.open(str(path), "w", format="hevc" if raw else "mpegts") as container:
        stream = container.add_stream("libx265" if raw else "libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "4", "preset": "ultrafast", "g": "10"}
        if raw:
            stream.options |= {"x265-params": "bframes=0:log-level=error:pools=1"}
        sound = None if raw else container.add_stream("aac", rate=16000, layout="mono")
        for picture in range(pictures):
            planes = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
            planes[: size[1]] = brightness(picture)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = np.zeros((1, 1024), np.float32)
            for block in range(pictures * 800 // 1024):
                frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, block * 1024
                frame.time_base = Fraction(1, 16000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))


def write_log(
    path: Path,
    frame_ids: Sequence[int],
    wide_ids: Sequence[int] = (),
    cabin_ids: Sequence[int] = (),
) -> None:
    """A device's log: its kind, encoder indices, speed (frame id - FIRST_ID) / 10, calibration."""
    cameras = {"narrowRoadEncodeIdx": frame_ids, "qNarrowRoadEncodeIdx": frame_ids}
    cameras |= {"wideRoadEncodeIdx": wide_ids} if wide_ids else {}
    cameras |= {"cabinEncodeIdx": cabin_ids} if cabin_ids else {}
    with LogWriter(path) as writer:
        first = new_message("initData", valid=True)
        first.initData.deviceType = "neo" if not wide_ids else "tici"
        writer.write(first)
        extrinsics = new_message("extrinsicsCalibration", valid=True)
        extrinsics.logMonoTime = FIRST_ID * FRAME_NS
        extrinsics.extrinsicsCalibration.rpyCalib = [0.0, 0.01, 0.0]
        writer.write(extrinsics)
        for service, ids in cameras.items():
            for picture, frame_id in enumerate(ids):
                index = new_message(service, valid=True)
                index.logMonoTime = frame_id * FRAME_NS + 60_000_000
                entry = getattr(index, service)
                entry.frameId, entry.segmentId = frame_id, picture
                entry.timestampSof = frame_id * FRAME_NS
                writer.write(index)
        for frame_id in frame_ids:
            car = new_message("carState", valid=True)
            car.logMonoTime = frame_id * FRAME_NS - 1_000_000
            car.carState.vEgo = (frame_id - FIRST_ID) / 10
            writer.write(car)


def ids(first: int, count: int, lost: Sequence[int] = ()) -> list[int]:
    return [FIRST_ID + i for i in range(first, first + count) if i not in lost]


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 pictures of 14 frames: the camera lost frames 4 and 5."""
    folder = tmp_path_factory.mktemp("realdata") / f"{ROUTE}--0"
    folder.mkdir()
    encode(folder / "fcamera.hevc", 12)
    write_log(folder / "rlog.zst", ids(0, 14, lost=(4, 5)))
    return folder


def source(folder: Path) -> Source:
    (found,) = find_sources(folder).sources
    return found


def test_segment_is_opened_by_its_log(segment: Path) -> None:
    drive = source(segment).open(Overrides())
    assert drive.name == f"{ROUTE}--0" and drive.log == segment / "rlog.zst"
    # A neo's camera, 1164 x 874 with 910 px and centre (582, 437), at 128 x 96.
    assert drive.camera.focal_px == pytest.approx(910 * 128 / 1164)
    assert drive.camera.center_px == pytest.approx((64, 48))
    assert drive.ticks == 14
    assert drive.notes == ["The camera lost 2 frames: 4 to 5."]
    frames = list(drive.frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 3, *range(6, 14)]
    seen = [float(frame.narrow.luma.mean()) for frame in frames]
    assert seen == pytest.approx([brightness(i) for i in range(12)], abs=1.0)
    assert drive.problem is None
    assert [frame.index for frame in drive.frames(start=5, count=3)] == [6, 7, 8]


def test_daemon_sees_the_gap_and_the_speed_of_every_frame(segment: Path, tmp_path: Path) -> None:
    drive = source(segment).open(Overrides())
    result = replay(
        drive,
        lambda namespace: [sys.executable, str(DAEMON), namespace],
        tmp_path / "segment",
        tmp_path / "log",
    )
    assert (result.frames, result.lost) == (12, [])
    for picture, record in enumerate(read_records(result.log)):
        assert record.plan is not None and record.plan.valid
        assert record.plan.lane_probabilities[0] == pytest.approx(record.frame_id / 1000)
        seen = record.plan.lane_probabilities[1] * 255
        assert seen == pytest.approx(brightness(picture), abs=1.0)


def test_preview_with_sound_and_decimated_log_do(segment: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"{ROUTE}--3"
    folder.mkdir()
    encode(folder / "qcamera.ts", 12, size=(128, 80))
    write_log(folder / "qlog.bz2", ids(0, 12))
    drive = source(folder).open(Overrides())
    assert len(list(drive.frames())) == 12
    # Scaled to the width, cropped above and below: the centre stays in the middle.
    assert drive.camera.center_px == pytest.approx((64, 40))
    assert drive.notes == [
        "fcamera.hevc is not there: the small qcamera.ts is replayed instead.",
        "rlog is not there: qlog.bz2 holds only a part of the messages.",
    ]


def test_wide_pictures_are_paired_by_their_time(tmp_path: Path) -> None:
    folder = tmp_path / f"{ROUTE}--1"
    folder.mkdir()
    encode(folder / "fcamera.hevc", 8)
    encode(folder / "ecamera.hevc", 6)
    # The wide camera began one frame later and lost frame 4.
    write_log(folder / "rlog.zst", ids(0, 8), ids(1, 7, lost=(4,)))
    drive = source(folder).open(Overrides())
    assert drive.notes == ["2 frames have no picture of the wide camera and are left out."]
    frames = list(drive.frames())
    assert [frame.index for frame in frames] == [1, 2, 3, 5, 6, 7]
    wide = [float(frame.wide.luma.mean()) for frame in frames if frame.wide is not None]
    assert wide == pytest.approx([brightness(i) for i in range(6)], abs=1.0)
    assert drive.wide_camera is not None
    assert drive.wide_camera.focal_px == pytest.approx(567 * 128 / 1928)


def test_driver_monitoring_sees_the_cabin_camera(tmp_path: Path) -> None:
    folder = tmp_path / f"{ROUTE}--2"
    folder.mkdir()
    encode(folder / "dcamera.hevc", 5, size=(816, 612))
    write_log(folder / "rlog.zst", ids(0, 8), cabin_ids=ids(1, 6, lost=(3,)))
    config = find_process("dmonitoringmodeld")
    drive = source(folder).open(Overrides(), config)
    assert [frame.index for frame in drive.frames()] == [0, 1, 3, 4, 5]
    assert drive.camera.focal_px == 650.0
    assert drive.notes == ["The camera lost 1 frame: 2."]
    # The same segment has nothing for modeld.
    with pytest.raises(DriveError, match=r"has a log but no video: fcamera\.hevc"):
        source(folder).open(Overrides())


def test_video_that_is_shorter_than_its_log_is_noted(segment: Path, tmp_path: Path) -> None:
    folder = tmp_path / segment.name
    shutil.copytree(segment, folder)
    write_log(folder / "rlog.zst", ids(0, 20))
    drive = source(folder).open(Overrides())
    assert len(list(drive.frames())) == 12
    assert drive.problem == "A video ends early: the log speaks of 20 frames, 12 are there."


def test_what_lacks_is_named(segment: Path, tmp_path: Path) -> None:
    folder = tmp_path / segment.name
    shutil.copytree(segment, folder)
    (folder / "rlog.zst").unlink()
    with pytest.raises(DriveError, match=r"the camera is not known .* 128 x 96.* --focal-length"):
        source(folder).open(Overrides())
    drive = source(folder).open(Overrides(focal_length_px=100.0))
    assert "The segment has no log: frames are taken as 20 a second." in drive.notes
    assert len(list(drive.frames())) == 12
    shutil.copy(segment / "rlog.zst", folder)
    (folder / "fcamera.hevc").unlink()
    with pytest.raises(DriveError, match=r"has a log but no video: .*qcamera\.ts is needed"):
        source(folder).open(Overrides())


def test_route_is_found_by_folder_and_by_name(segment: Path, tmp_path: Path) -> None:
    for number in (1, 3, 4, 10):
        (tmp_path / f"{ROUTE}--{number}").mkdir()
    for path in (tmp_path, tmp_path / ROUTE):
        found = find_sources(path)
        assert [one.name for one in found.sources] == [f"{ROUTE}--{n}" for n in (1, 3, 4, 10)]
        assert found.notes == ["Segments that are not there: 0, 2, 5 to 9."]
    numbered = tmp_path / "explorer" / ROUTE
    (numbered / "2").mkdir(parents=True)
    assert [one.name for one in find_sources(numbered).sources] == [f"{ROUTE}--2"]
    (tmp_path / "0000002b--0123456789--0").mkdir()
    with pytest.raises(DriveError, match=r"segments of 2 routes. Name one of them"):
        find_sources(tmp_path)


def test_schedule_starts_at_the_first_picture() -> None:
    """A log whose beginning is lost: its first entry is the video's picture 3."""
    shown, notes = schedule([Encoded(503, 3, 0), Encoded(504, 4, FRAME_NS)], None)
    assert [(one.index, one.narrow) for one in shown] == [(3, 3), (4, 4)]
    assert notes == []
    assert spans([0, 2, 3, 4, 9]) == "0, 2 to 4, 9"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    model = job.Model("toy", "ab" * 32, "cpu f32", "")
    monkeypatch.setattr(job, "describe_model", lambda path: model)
    monkeypatch.setattr(
        job, "modeld_command", lambda a, b, namespace, c: [sys.executable, str(DAEMON), namespace]
    )


def test_a_route_gives_a_page_above_those_of_its_segments(
    segment: Path, tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "realdata"
    shutil.copytree(segment, place / f"{ROUTE}--1")
    shutil.copytree(segment, place / f"{ROUTE}--2")
    (place / f"{ROUTE}--2" / "fcamera.hevc").unlink()
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    arguments = [str(place), "--model", "toy.tnn", "-o", str(out), "--no-video"]
    assert command.main([*arguments, "--junit", str(junit)]) == 2
    printed = capsys.readouterr().out
    assert "Not all of 2 segments are good: 1 not replayed." in printed
    assert "Segments that are not there: 0." in printed
    text = (out / "report.html").read_text(encoding="utf-8")
    assert f'<a href="{ROUTE}--1/report.html">' in text
    assert "has a log but no video" in text
    assert (out / f"{ROUTE}--1" / "report.html").exists()
    assert len(ElementTree.parse(junit).findall(".//error")) == 1
