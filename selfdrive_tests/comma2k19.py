"""A segment of comma2k19 (poses and CAN as numpy arrays) as a drive: its log, and a rendered road.

    python -m selfdrive_tests.comma2k19 FOLDER -o DRIVE

The data set's own video need not be there: drivesim renders a road that runs where the car drove,
as fast as it drove, seen by its camera (EON: 1164 x 874, focal length 910 px, centre (582, 437)).
The log has what the car said (speed and steering from CAN) and the camera's true motion (poses).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.camera import Camera
from drivesim.drive import (
    FRAME_NS,
    LOG_START_NS,
    camera_odometry,
    encode_index,
    extrinsics_calibration,
    message_at,
    rendered_frames,
    with_progress,
    write_video,
)
from drivesim.motion import Motion
from drivesim.recorded import Recorded, as_text
from drivesim.road import STEP, Centreline, Profile, running_integral
from drivesim.truth import drive_truth
from drivesim.world import HORIZON_TIME, VIEW, World, make_roadside
from messaging import LogWriter

ARRAYS = (
    "frame_times", "frame_positions", "frame_velocities", "can_speed_t", "can_speed_value",
    "can_steering_angle_t", "can_steering_angle_value",
)  # fmt: skip
MOUNT_HEIGHT_M = 1.22
LEAD_M = 45.0
PROFILE_STEP_M = 10.0
SEED = 0
# Half the camera's size: twice as fast to render, and more than the model's view needs.
SCALE = 0.5
EARTH_AXES_M = (6_378_137.0, 6_378_137.0, 6_356_752.3)  # WGS 84


@dataclass(frozen=True)
class Recording:
    """What the arrays say. times (N,) s from the first frame; speed (N,) m/s; heading (N,) rad.

    can: service of CAN -> (times, values). Headings are clockwise from north.
    """

    times: np.ndarray
    speed: np.ndarray
    heading: np.ndarray
    can_speed: tuple[np.ndarray, np.ndarray]
    can_steering: tuple[np.ndarray, np.ndarray]


def read_recording(folder: Path) -> Recording:
    """Raises OSError or ValueError if an array is missing or is none."""
    arrays = {name: np.load(folder / name, allow_pickle=False) for name in ARRAYS}
    start = arrays["frame_times"][0]
    north, east = level(arrays["frame_positions"], arrays["frame_velocities"])
    can = {
        name: (arrays[f"can_{name}_t"] - start, arrays[f"can_{name}_value"].reshape(-1))
        for name in ("speed", "steering_angle")
    }
    return Recording(
        arrays["frame_times"] - start,
        np.hypot(north, east),
        np.unwrap(np.arctan2(east, north)),
        can["speed"],
        can["steering_angle"],
    )


def level(positions: np.ndarray, velocities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Velocities (N, 3) of an earth-centred frame as their parts to north and to east, m/s.

    Up is the normal of the ellipsoid at the position.
    """
    up = positions / np.square(EARTH_AXES_M)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(up, east)
    return (velocities * north).sum(axis=1), (velocities * east).sum(axis=1)


@dataclass(frozen=True)
class RecordedMotion(Motion):
    """A car that drove as recorded. times: s; stations: (N,) arc length then, m."""

    times: np.ndarray
    stations: np.ndarray

    def along(self, t: np.ndarray) -> np.ndarray:
        return np.interp(t, self.times, self.stations)

    def along_rate(self, t: np.ndarray) -> np.ndarray:
        return np.interp(t, self.times, np.gradient(self.stations, self.times))


def recorded_world(recording: Recording) -> World:
    """A road along the recorded way, the car on it, and a car that drives ahead of it."""
    more = np.arange(1, 20 * (HORIZON_TIME + 1)) / 20  # it goes straight on behind the end
    times = np.append(recording.times, recording.times[-1] + more)
    speed = np.append(recording.speed, np.full(len(more), recording.speed[-1]))
    steps = 0.5 * (speed[1:] + speed[:-1]) * np.diff(times)
    stations = np.concatenate([[0.0], np.cumsum(steps)])
    heading = np.append(recording.heading, np.full(len(more), recording.heading[-1]))
    grid = np.arange(-60.0, stations[-1] + LEAD_M + VIEW, STEP)
    along = smooth(np.interp(grid, stations, heading - heading[0]), round(10.0 / STEP))
    curvature = np.gradient(along, STEP)
    x, y = running_integral(np.cos(along)), running_integral(np.sin(along))
    road, profile = Centreline(grid[0], x, y, along, curvature), Profile(lanes=3)
    offset = profile.lane_centre(1)
    ego = RecordedMotion(road, 0.0, 0.0, offset, (), (), times, stations)
    lead = RecordedMotion(road, LEAD_M, 0.0, offset, (), (), times, stations + LEAD_M)
    things = make_roadside(np.random.RandomState(SEED), profile, grid[-1])
    return World(SEED, recording.times[-1], road, profile, 1, ego, lead, tuple(things))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over `width` neighbours; the ends are kept as they are."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")[: len(values)]


def write_log(path: Path, recording: Recording, truth: dict[str, np.ndarray]) -> None:
    """carState of every CAN speed, and per frame the encoder's index, pose and calibration."""
    messages: list[Any] = []
    for i, time in enumerate(truth["time"]):
        start = LOG_START_NS + round(time * 1e9)
        messages.append(encode_index("narrowRoadEncodeIdx", i, start))
        messages.append(camera_odometry(i, start, truth))
        if i % 5 == 0:
            messages.append(calibrated(start))
    last = truth["time"][-1]
    for time, speed in zip(*recording.can_speed, strict=True):
        if time <= last:
            messages.append(car_state(time, float(speed), recording.can_steering))
    with LogWriter(path) as log:
        for message in sorted(messages, key=lambda one: one.logMonoTime):
            log.write(message)


def calibrated(time_ns: int) -> Any:
    """A camera that looks straight ahead, as the rendered one does."""
    message = extrinsics_calibration(time_ns)
    message.extrinsicsCalibration.rpyCalib = [0.0, 0.0, 0.0]
    return message


def car_state(time: float, speed: float, steering: tuple[np.ndarray, np.ndarray]) -> Any:
    """What CAN said. time: s from the first frame."""
    message = message_at("carState", LOG_START_NS + round(time * 1e9))
    state = message.carState
    state.vEgo = state.vEgoRaw = speed
    state.steeringAngleDeg = float(np.interp(time, *steering))
    state.standstill = speed < 0.1
    state.canValid = True
    return message


def convert(folder: Path, out: Path, frames: int | None = None) -> None:
    """Write the drive. frames: at most so many. Equal arguments give equal files."""
    recording = read_recording(folder)
    world = recorded_world(recording)
    count = len(recording.times) if frames is None else min(frames, len(recording.times))
    times = np.arange(count) * (FRAME_NS / 1e9)
    camera = Camera(
        round(1164 * SCALE), round(874 * SCALE) & ~1, 910.0 * SCALE, (582 * SCALE, 437 * SCALE),
        mount_height=MOUNT_HEIGHT_M,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "drive.toml").unlink(missing_ok=True)
    pictures = rendered_frames(world, camera, times)
    write_video(out / "video.mp4", with_progress(pictures, count, "video.mp4", True), camera)
    truth = drive_truth(world, times, MOUNT_HEIGHT_M)
    np.savez_compressed(out / "truth.npz", **truth)  # type: ignore[arg-type]
    write_log(out / "rlog.zst", recording, truth)
    cx, cy = camera.center
    (out / "drive.toml").write_text(
        f'video = "video.mp4"\nlog = "rlog.zst"\nview = "camera"\n\n[camera]\n'
        f"focal_length_px = {camera.focal}\ncenter_px = [{cx}, {cy}]\n\n"
        f"[calibration]\nrpy_rad = [0.0, 0.0, 0.0]\nheight_m = {MOUNT_HEIGHT_M}\n",
        encoding="utf-8",
    )


def profile(recording: Recording) -> Recorded:
    """Way and speed of the recording every PROFILE_STEP_M."""
    world, count = recorded_world(recording), len(recording.times)
    assert isinstance(world.ego, RecordedMotion)
    driven = world.ego.stations[:count]
    stations = np.arange(0.0, driven[-1], PROFILE_STEP_M)
    speed = np.interp(stations, driven, recording.speed)
    return Recorded(stations, world.road.curvature_at(stations), speed)


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0, or 2 for an error told in one line."""
    top = argparse.ArgumentParser(
        prog="python -m selfdrive_tests.comma2k19",
        description="Make a drive of a comma2k19 segment: its log, and a road rendered along it.",
    )
    top.add_argument("folder", type=Path, help="with the arrays frame_times, can_speed_t, ...")
    what = top.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--out", type=Path, help="folder of the drive")
    what.add_argument("--profile", type=Path, metavar="FILE",
                      help="write way and speed alone, as drivesim.recorded reads them")
    top.add_argument("--frames", type=int, metavar="N", help="at most so many frames")
    options = top.parse_args(argv)
    try:
        if options.profile is not None:
            recorded = profile(read_recording(options.folder))
            options.profile.write_text(as_text(recorded), encoding="utf-8")
        else:
            convert(options.folder, options.out, options.frames)
    except (OSError, ValueError) as error:
        print(f"comma2k19: {error}", file=sys.stderr)
        return 2
    print(options.profile or options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
