"""Ground truth of a drive: what a perfect model would answer for each frame."""
from __future__ import annotations

import numpy as np

from drivesim.grids import FRAMES_PER_SECOND, LEAD_T_IDXS, T_IDXS, X_IDXS
from drivesim.motion import Motion
from drivesim.world import World


def frame_times(seconds: float) -> np.ndarray:
    """(F,) times of the frames, s."""
    return np.arange(round(seconds * FRAMES_PER_SECOND)) / FRAMES_PER_SECOND


def drive_truth(world: World, times: np.ndarray, mount_height: float) -> dict[str, np.ndarray]:
    """Truth for F frames. Everything geometric is in the calibrated frame of its own frame.

    time (F,) s; position (F, 2) m and heading (F,) rad in the world; speed (F,) m/s,
    acceleration (F,) m/s^2, yaw_rate (F,) rad/s, curvature (F,) 1/m, positive to the right.
    path_position, path_velocity, path_orientation (roll, pitch, yaw), path_orientation_rate
    (F, 33, 3): the camera's own future at T_IDXS.
    lane_lines (F, 4, 33, 2): y and z at X_IDXS of the lines left of the left lane, left, right,
    right of the right lane; lane_line_probs (F, 4) is 0 where the road has none (then NaN).
    road_edges (F, 2, 33, 2): y and z of the edges of the asphalt.
    lead (F, 6, 4): x, y, speed, acceleration of the car ahead at LEAD_T_IDXS; lead_prob (F,).
    """
    ego = world.ego
    lines, probabilities = chosen_lines(world)
    frames = [frame_truth(world, float(t), lines, mount_height) for t in times]
    truth = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
    speed, yaw_rate = ego.speed(times), ego.yaw_rate(times)
    return {
        "time": times,
        "position": ego.position(times),
        "heading": ego.heading(times),
        "speed": speed,
        "acceleration": ego.acceleration(times),
        "yaw_rate": yaw_rate,
        "curvature": yaw_rate / speed,
        "lane_line_probs": np.tile(probabilities, (len(times), 1)),
        "lead_prob": np.ones(len(times)),
        **truth,
    }


def chosen_lines(world: World) -> tuple[list[float], np.ndarray]:
    """Offsets of the four lane lines around the ego lane (NaN: none), and 1 or 0 for each."""
    boundaries = world.profile.boundaries
    wanted = range(world.lane - 1, world.lane + 3)
    offsets = [boundaries[i] if 0 <= i < len(boundaries) else np.nan for i in wanted]
    return offsets, np.isfinite(offsets).astype(float)


def frame_truth(world: World, t: float, lines: list[float],
                mount_height: float) -> dict[str, np.ndarray]:
    """The part of `drive_truth` that is relative to the frame at time t."""
    ego = world.ego
    now = np.array([t])
    origin, heading = ego.position(now)[0], float(ego.heading(now)[0])
    future = t + T_IDXS
    yaw = ego.heading(future) - heading
    speed = ego.speed(future)
    flat = np.zeros_like(yaw)
    path = to_frame(ego.position(future), origin, heading)
    edges = [line_at_x(world, t, offset, origin, heading) for offset in world.profile.edges]
    lanes = [line_at_x(world, t, offset, origin, heading) for offset in lines]
    return {
        "path_position": np.stack([path[:, 0], path[:, 1], flat], axis=1),
        "path_velocity": np.stack([speed * np.cos(yaw), speed * np.sin(yaw), flat], axis=1),
        "path_orientation": np.stack([flat, flat, yaw], axis=1),
        "path_orientation_rate": np.stack([flat, flat, ego.yaw_rate(future)], axis=1),
        "lane_lines": on_road(lanes, mount_height),
        "road_edges": on_road(edges, mount_height),
        "lead": lead_truth(world.lead, t, origin, heading),
    }


def to_frame(points: np.ndarray, origin: np.ndarray, heading: float) -> np.ndarray:
    """World points (N, 2) -> forward and right of the car (N, 2), m."""
    north, east = (points - origin).T
    forward = north * np.cos(heading) + east * np.sin(heading)
    right = east * np.cos(heading) - north * np.sin(heading)
    return np.stack([forward, right], axis=1)


def line_at_x(world: World, t: float, offset: float, origin: np.ndarray,
              heading: float) -> np.ndarray:
    """(33,) y at X_IDXS of the line at a constant offset from the centreline; NaN if that is."""
    if np.isnan(offset):
        return np.full(len(X_IDXS), np.nan)
    here = float(world.ego.along(np.array([t]))[0])
    stations = np.arange(here - 20.0, here + 2 * X_IDXS[-1], 0.5)
    line = to_frame(world.road.point(stations, offset), origin, heading)
    return np.interp(X_IDXS, line[:, 0], line[:, 1])


def on_road(lines: list[np.ndarray], mount_height: float) -> np.ndarray:
    """y of n lines -> (n, 33, 2) with z of the road, which lies below the camera."""
    y = np.stack(lines)
    return np.stack([y, np.full_like(y, mount_height)], axis=-1)


def lead_truth(lead: Motion, t: float, origin: np.ndarray, heading: float) -> np.ndarray:
    """(6, 4): x, y, speed, acceleration of the rear of the car ahead at LEAD_T_IDXS."""
    times = t + LEAD_T_IDXS
    place = to_frame(lead.position(times), origin, heading)
    return np.column_stack([place, lead.speed(times), lead.acceleration(times)])
