"""comma2k19's poses and CAN as a drive: the same speed, the same way, a log that can be read."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from drivesim.recorded import comma2k19
from messaging import LogReader
from selfdrive_tests.comma2k19 import (
    Recording,
    convert,
    level,
    main,
    read_recording,
    recorded_world,
)
from selfdrive_tests.drives import Overrides, open_drive

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "drives" / "comma2k19"


def test_north_and_east_are_those_of_the_place() -> None:
    """On the equator at longitude 0 x is up, y east and z north."""
    north, east = level(np.array([[6.4e6, 0.0, 0.0]]), np.array([[0.0, 3.0, 4.0]]))
    assert (north[0], east[0]) == pytest.approx((4.0, 3.0))
    # At the North Pole's doorstep, x is south: going on in x is going south.
    north, _ = level(np.array([[1.0, 0.0, 6.357e6]]), np.array([[5.0, 0.0, 0.0]]))
    assert north[0] == pytest.approx(-5.0)


def test_the_road_turns_as_the_car_did() -> None:
    """A circle to the right of 200 m at 10 m/s."""
    times = np.arange(200) / 20
    nothing = (np.empty(0), np.empty(0))
    heading = 1.2 + times * 10 / 200
    world = recorded_world(Recording(times, np.full(200, 10.0), heading, nothing, nothing))
    middle = np.array([3.0, 5.0])
    assert world.ego.speed(middle) == pytest.approx(10.0, rel=0.01)
    assert world.ego.yaw_rate(middle) == pytest.approx(10 / 200, rel=0.02)


def test_a_segment_becomes_a_drive(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the comma2k19 segment is not here")
    convert(SHARED, tmp_path / "drive", frames=3)
    drive = open_drive(tmp_path / "drive", Overrides())
    assert (drive.camera.focal_px, drive.camera.center_px) == (455.0, (291.0, 218.5))
    assert len(list(drive.frames())) == 3
    assert drive.log is not None
    events = list(LogReader(drive.log))
    speeds = [event.carState.vEgo for event in events if event.which() == "carState"]
    recording = read_recording(SHARED)
    within = recording.can_speed[0] <= 0.1
    assert speeds == pytest.approx(recording.can_speed[1][within].tolist(), abs=1e-5)
    motion = [e.cameraOdometry.trans[0] for e in events if e.which() == "cameraOdometry"]
    assert motion == pytest.approx(recording.speed[:3].tolist(), abs=0.1)


def test_the_profile_in_the_package_is_that_of_the_segment(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the comma2k19 segment is not here")
    assert main([str(SHARED), "--profile", str(tmp_path / "profile.tsv")]) == 0
    kept = files("drivesim") / "comma2k19.tsv"
    assert (tmp_path / "profile.tsv").read_text() == kept.read_text(encoding="utf-8")
    recorded = comma2k19()
    seconds = np.sum(np.diff(recorded.stations) / recorded.speed[1:])
    assert seconds == pytest.approx(60, abs=1.5)
