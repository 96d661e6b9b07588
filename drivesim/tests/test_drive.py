"""A rendered drive as a folder: complete, readable, the same bytes every time."""
import tomllib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from drivesim import render_drive
from drivesim.__main__ import main
from messaging import LogReader

SMALL: dict[str, Any] = {"width": 160, "height": 96, "progress": False}
SECONDS = 0.3
FRAMES = 6


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    render_drive(folder, SECONDS, 7, wide=True, **SMALL)
    return folder


@pytest.fixture(scope="module")
def events(drive: Path) -> list[Any]:
    reader = LogReader(drive / "rlog.zst")
    events = list(reader)
    assert reader.problem is None
    return events


def of_kind(events: list[Any], service: str) -> list[Any]:
    return [event for event in events if event.which() == service]


def test_folder_has_everything_the_sidecar_names(drive: Path) -> None:
    table = tomllib.loads((drive / "drive.toml").read_text())
    assert table == {
        "video": "video.mp4",
        "wide_video": "wide.mp4",
        "log": "rlog.zst",
        "view": "camera",
        "camera": {"focal_length_px": 2648 * 160 / 1928, "center_px": [80.0, 48.0]},
        "wide_camera": {"focal_length_px": 567 * 160 / 1928, "center_px": [80.0, 48.0]},
        "calibration": {"rpy_rad": [0.0, 0.02, -0.01], "height_m": 1.22},
    }
    assert sorted(path.name for path in drive.iterdir()) == [
        "drive.toml", "rlog.zst", "truth.npz", "video.mp4", "wide.mp4"]


@pytest.mark.parametrize("name", ["video.mp4", "wide.mp4"])
def test_video_has_all_frames_at_20_hz(drive: Path, name: str) -> None:
    with av.open(str(drive / name)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 20
        assert (stream.width, stream.height) == (160, 96)
        assert sum(1 for _ in container.decode(stream)) == FRAMES


def test_decoded_frame_looks_like_the_rendered_one(drive: Path) -> None:
    from drivesim.camera import comma_camera
    from drivesim.render import Renderer
    from drivesim.world import make_world

    camera = comma_camera(160, 96, False, (0.0, 0.02, -0.01))
    rendered = Renderer(make_world(7, SECONDS), camera).frame(0.05 * 3).astype(float)
    with av.open(str(drive / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    differences = [np.abs(frame - rendered).mean() for frame in frames]
    assert int(np.argmin(differences)) == 3
    assert differences[3] < 6


def test_same_arguments_give_the_same_bytes(drive: Path, tmp_path: Path) -> None:
    render_drive(tmp_path, SECONDS, 7, wide=True, **SMALL)
    for path in drive.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_truth_is_stored_for_every_frame(drive: Path) -> None:
    with np.load(drive / "truth.npz", allow_pickle=False) as truth:
        assert {key: truth[key].shape for key in truth.files} == {
            "time": (FRAMES,),
            "position": (FRAMES, 2),
            "heading": (FRAMES,),
            "speed": (FRAMES,),
            "acceleration": (FRAMES,),
            "yaw_rate": (FRAMES,),
            "curvature": (FRAMES,),
            "path_position": (FRAMES, 33, 3),
            "path_velocity": (FRAMES, 33, 3),
            "path_orientation": (FRAMES, 33, 3),
            "path_orientation_rate": (FRAMES, 33, 3),
            "lane_lines": (FRAMES, 4, 33, 2),
            "lane_line_probs": (FRAMES, 4),
            "road_edges": (FRAMES, 2, 33, 2),
            "lead": (FRAMES, 6, 4),
            "lead_prob": (FRAMES,),
        }


def test_log_has_the_rates_of_the_services(events: list[Any]) -> None:
    counts = {"carState": 5, "carControl": 5, "narrowRoadEncodeIdx": 1, "wideRoadEncodeIdx": 1,
              "cameraOdometry": 1}
    for service, per_frame in counts.items():
        assert len(of_kind(events, service)) == per_frame * FRAMES, service
    assert len(of_kind(events, "extrinsicsCalibration")) == 2
    times = [event.logMonoTime for event in events]
    assert times == sorted(times)
    assert all(event.valid for event in events)
    kinds = [str(event.sentinel.type) for event in of_kind(events, "sentinel")]
    assert kinds == ["startOfRoute", "endOfRoute"]
    assert [events[0].which(), events[-1].which()] == ["sentinel", "sentinel"]


def test_log_agrees_with_the_truth(drive: Path, events: list[Any]) -> None:
    truth = np.load(drive / "truth.npz", allow_pickle=False)
    indices = [event.narrowRoadEncodeIdx for event in of_kind(events, "narrowRoadEncodeIdx")]
    assert [index.segmentId for index in indices] == list(range(FRAMES))
    assert np.diff([index.timestampSof for index in indices]).tolist() == [50_000_000] * 5
    states = {event.logMonoTime: event.carState for event in of_kind(events, "carState")}
    odometry = [event.cameraOdometry for event in of_kind(events, "cameraOdometry")]
    for i, index in enumerate(indices):
        state = states[index.timestampSof]
        assert state.vEgo == pytest.approx(truth["speed"][i], rel=1e-6)
        assert state.aEgo == pytest.approx(truth["acceleration"][i], rel=1e-4, abs=1e-6)
        assert state.yawRate == pytest.approx(-truth["yaw_rate"][i], rel=1e-4, abs=1e-7)
        assert odometry[i].frameId == i
        assert odometry[i].trans[0] == pytest.approx(truth["speed"][i], rel=1e-6)
        assert odometry[i].rot[2] == pytest.approx(truth["yaw_rate"][i], rel=1e-4, abs=1e-7)
    calibration = of_kind(events, "extrinsicsCalibration")[0].extrinsicsCalibration
    assert list(calibration.rpyCalib) == pytest.approx([0.0, 0.02, -0.01])
    assert list(calibration.height) == pytest.approx([1.22])
    assert str(calibration.calStatus) == "calibrated"


def test_steering_is_positive_to_the_left_as_in_comma_logs() -> None:
    from drivesim.drive import LOG_START_NS, car_messages
    from drivesim.world import make_world

    world = make_world(0, 12.0)
    times = LOG_START_NS + np.arange(0, 12, 0.5) * 1e9
    seen = set()
    for time in times:
        state, control = car_messages(world, int(time))
        curvature = control.carControl.currentCurvature
        if abs(curvature) > 1e-4:
            assert state.carState.steeringAngleDeg * curvature < 0
            # 15 turns of the wheel per turn of the road wheels, 2.7 m between the axles.
            angle = -np.degrees(np.arctan(2.7 * curvature)) * 15
            assert state.carState.steeringAngleDeg == pytest.approx(angle, rel=1e-4)
            seen.add(curvature > 0)
    assert seen


@pytest.mark.parametrize(("options", "message"), [
    ({"seconds": 0.0}, "at least one frame"),
    ({"seconds": float("nan")}, "at least one frame"),
    ({"width": 161}, "even sides"),
    ({"height": 32}, "even sides of at least 64"),
])
def test_impossible_arguments_are_refused(tmp_path: Path, options: dict[str, Any],
                                          message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_drive(tmp_path, **({"seconds": 0.1} | SMALL | options))
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path / "d"), "--seconds", "0.05", "--width", "64",
                 "--height", "64"]) == 0
    assert (tmp_path / "d" / "drive.toml").exists()
    assert main(["-o", str(tmp_path / "e"), "--seconds", "-1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("drivesim: a drive lasts")
