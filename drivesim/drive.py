"""Write a rendered drive as a folder: drive.toml, video, optional wide video, log, ground truth."""
from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.camera import Camera, comma_camera
from drivesim.grids import FRAMES_PER_SECOND
from drivesim.render import Renderer
from drivesim.truth import drive_truth, frame_times
from drivesim.world import World, make_world

RPY = (0.0, 0.02, -0.01)  # rad; a camera is never mounted perfectly straight
MOUNT_HEIGHT = 1.22  # m
LOG_START_NS = 10_000_000_000  # time of frame 0 in the log
FRAME_NS = 1_000_000_000 // FRAMES_PER_SECOND
READOUT_NS = 15_000_000  # from start to end of a frame
CAR_PERIOD_NS = 10_000_000  # carState and carControl come at 100 Hz
CALIBRATION_EVERY = 5  # frames; 4 Hz
WHEELBASE = 2.7  # m
STEER_RATIO = 15.0  # steering wheel angle per road wheel angle


def render_drive(out: Path, seconds: float = 12.0, seed: int = 0, *, width: int = 964,
                 height: int = 604, wide: bool = False, progress: bool = True) -> None:
    """Render a drive of that many seconds at 20 frames a second into the folder `out`.

    width, height: of the videos, pixels, even numbers. wide: also render the wide camera.
    progress: show a bar on stderr. Equal arguments give equal files. drive.toml is written last, so
    a folder that has one is complete. Raises ValueError for sizes or times that cannot be.
    """
    if not (math.isfinite(seconds) and seconds >= 1 / FRAMES_PER_SECOND):
        raise ValueError(f"a drive lasts at least one frame, 0.05 s; got {seconds} s")
    if width < 64 or height < 64 or width % 2 or height % 2:
        raise ValueError(f"the video needs even sides of at least 64; got {width}x{height}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for stale in ("drive.toml", "wide.mp4"):
        (out / stale).unlink(missing_ok=True)
    world = make_world(seed, seconds)
    times = frame_times(seconds)
    cameras = {"video.mp4": comma_camera(width, height, False, RPY, MOUNT_HEIGHT)}
    if wide:
        cameras["wide.mp4"] = comma_camera(width, height, True, RPY, MOUNT_HEIGHT)
    for name, camera in cameras.items():
        frames = rendered_frames(world, camera, times)
        write_video(out / name, with_progress(frames, len(times), name, progress), camera)
    truth = drive_truth(world, times, MOUNT_HEIGHT)
    np.savez_compressed(out / "truth.npz", **truth)  # type: ignore[arg-type]
    write_log(out / "rlog.zst", world, truth, wide)
    (out / "drive.toml").write_text(sidecar(cameras, seed), encoding="utf-8")


def rendered_frames(world: World, camera: Camera, times: np.ndarray) -> Iterator[np.ndarray]:
    """The picture of each time, (height, width, 3) uint8."""
    renderer = Renderer(world, camera)
    for t in times:
        yield renderer.frame(float(t))


def with_progress(frames: Iterator[np.ndarray], count: int, name: str,
                  show: bool) -> Iterator[np.ndarray]:
    """The same frames with a progress bar on stderr."""
    from tqdm import tqdm

    return iter(tqdm(frames, total=count, desc=f"rendering {name}", unit="frame", file=sys.stderr,
                     mininterval=0.5, disable=not show))


def write_video(path: Path, frames: Iterator[np.ndarray], camera: Camera) -> None:
    """Encode RGB frames as H.264. One thread and no dates: the same frames give the same bytes."""
    import av

    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = camera.width, camera.height
        stream.pix_fmt = "yuv420p"
        # Without the last option x264 takes shortcuts that depend on the processor, and on AVX-512
        # machines two runs differ.
        stream.options = {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"}
        stream.codec_context.thread_count = 1
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def sidecar(cameras: dict[str, Camera], seed: int) -> str:
    """Text of drive.toml."""
    lines = [f"# Rendered road, seed {seed}; truth.npz is what a perfect model would say."]
    lines.append('video = "video.mp4"')
    if "wide.mp4" in cameras:
        lines.append('wide_video = "wide.mp4"')
    lines.append('log = "rlog.zst"')
    lines.append('view = "camera"')
    for table, name in (("camera", "video.mp4"), ("wide_camera", "wide.mp4")):
        if name in cameras:
            camera = cameras[name]
            lines += ["", f"[{table}]", f"focal_length_px = {camera.focal}",
                      f"center_px = [{camera.center[0]}, {camera.center[1]}]"]
    lines += ["", "[calibration]", f"rpy_rad = {list(RPY)}", f"height_m = {MOUNT_HEIGHT}", ""]
    return "\n".join(lines)


# -- log


def write_log(path: Path, world: World, truth: dict[str, np.ndarray], wide: bool) -> None:
    """Write what the car and the calibration would have logged, and the true camera motion.

    100 Hz carState and carControl, 20 Hz encode indices and cameraOdometry, 4 Hz
    extrinsicsCalibration, in order of time. Frame i starts at LOG_START_NS + i * 50 ms.
    """
    from messaging import LogWriter

    frames = len(truth["time"])
    car_steps_per_frame = FRAME_NS // CAR_PERIOD_NS
    with LogWriter(path) as log:
        log.write(sentinel("startOfRoute", LOG_START_NS))
        for i in range(frames):
            start = LOG_START_NS + i * FRAME_NS
            messages = [encode_index("narrowRoadEncodeIdx", i, start)]
            if wide:
                messages.append(encode_index("wideRoadEncodeIdx", i, start))
            if i % CALIBRATION_EVERY == 0:
                messages.append(extrinsics_calibration(start))
            for step in range(car_steps_per_frame):
                messages += car_messages(world, start + step * CAR_PERIOD_NS)
            messages.append(camera_odometry(i, start, truth))
            for message in sorted(messages, key=lambda item: item.logMonoTime):
                log.write(message)
        log.write(sentinel("endOfRoute", LOG_START_NS + frames * FRAME_NS))


def message_at(service: str, time: int) -> Any:
    """A new valid message of a service with logMonoTime `time` (ns)."""
    from messaging import new_message

    message = new_message(service, valid=True)
    message.logMonoTime = time
    return message


def sentinel(kind: str, time: int) -> Any:
    """The first or last message of a route."""
    message = message_at("sentinel", time)
    message.sentinel.type = kind
    return message


def extrinsics_calibration(time: int) -> Any:
    """The calibration as finished."""
    message = message_at("extrinsicsCalibration", time)
    calibration = message.extrinsicsCalibration
    calibration.calStatus = "calibrated"
    calibration.calPerc = 100
    calibration.validBlocks = 50
    calibration.rpyCalib = list(RPY)
    calibration.rpyCalibSpread = [0.0, 0.0, 0.0]
    calibration.wideFromDeviceEuler = [0.0, 0.0, 0.0]
    calibration.height = [MOUNT_HEIGHT]
    return message


def encode_index(service: str, frame: int, start: int) -> Any:
    """Which frame of the video belongs to which time."""
    message = message_at(service, start + READOUT_NS)
    index = getattr(message, service)
    index.frameId = index.encodeId = index.segmentId = index.segmentIdEncode = frame
    index.timestampSof, index.timestampEof = start, start + READOUT_NS
    return message


def car_messages(world: World, time: int) -> list[Any]:
    """carState and carControl at a time of the log (ns).

    As in comma's logs steering angle and yawRate are positive to the left, curvature to the right.
    """
    t = np.array([(time - LOG_START_NS) / 1e9])
    speed = float(world.ego.speed(t)[0])
    acceleration = float(world.ego.acceleration(t)[0])
    yaw_rate = float(world.ego.yaw_rate(t)[0])
    curvature = yaw_rate / speed
    steering = -math.degrees(math.atan(curvature * WHEELBASE)) * STEER_RATIO

    state_message = message_at("carState", time)
    state = state_message.carState
    state.vEgo = state.vEgoRaw = state.vEgoCluster = speed
    state.aEgo = acceleration
    state.yawRate = -yaw_rate
    state.steeringAngleDeg = steering
    state.canValid = True
    state.gearShifter = "drive"
    for wheel in ("fl", "fr", "rl", "rr"):
        setattr(state.wheelSpeeds, wheel, speed)

    control_message = message_at("carControl", time)
    control = control_message.carControl
    control.enabled = control.latActive = control.longActive = True
    control.currentCurvature = curvature
    control.actuators.curvature = curvature
    control.actuators.steeringAngleDeg = steering
    control.actuators.accel = acceleration
    control.orientationNED = [0.0, 0.0, float(world.ego.heading(t)[0])]
    control.angularVelocity = [0.0, 0.0, yaw_rate]
    return [state_message, control_message]


def camera_odometry(frame: int, start: int, truth: dict[str, np.ndarray]) -> Any:
    """The true motion of the camera in its calibrated frame, as a perfect model would say it."""
    message = message_at("cameraOdometry", start + READOUT_NS)
    odometry = message.cameraOdometry
    odometry.frameId = frame
    odometry.timestampEof = start + READOUT_NS
    odometry.trans = [float(truth["speed"][frame]), 0.0, 0.0]
    odometry.rot = [0.0, 0.0, float(truth["yaw_rate"][frame])]
    odometry.transStd = odometry.rotStd = [0.0, 0.0, 0.0]
    odometry.wideFromDeviceEuler = odometry.wideFromDeviceEulerStd = [0.0, 0.0, 0.0]
    odometry.roadTransformTrans = [0.0, 0.0, MOUNT_HEIGHT]
    odometry.roadTransformTransStd = [0.0, 0.0, 0.0]
    return message
