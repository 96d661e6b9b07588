"""A whole world from one seed: road, traffic, roadside."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.motion import Motion, random_waves
from drivesim.road import Centreline, Profile, make_centreline

HORIZON_TIME = 11.0  # s of driving that must exist after the last frame, for the truth
VIEW = 420.0  # m of road that must exist ahead of the camera


@dataclass(frozen=True)
class Thing:
    """Something upright by the roadside.

    kind: "tree" or "post". variant: which picture. station, offset: road coordinates of its foot,
    m. height: m.
    """

    kind: str
    variant: int
    station: float
    offset: float
    height: float


@dataclass(frozen=True)
class World:
    """The road, the camera's car (`ego`, its camera to be exact), one car ahead, the roadside.

    lane: of both cars; 0 is the leftmost. lead: motion of the rear bumper of the car ahead.
    """

    seed: int
    seconds: float
    road: Centreline
    profile: Profile
    lane: int
    ego: Motion
    lead: Motion
    things: tuple[Thing, ...]


def make_world(seed: int, seconds: float) -> World:
    """The world of a seed, with enough road for a drive of that many seconds."""
    random = np.random.RandomState(seed)
    cruise = random.uniform(22.0, 27.0)
    end = (seconds + HORIZON_TIME) * (cruise + 4.0) + VIEW
    profile = Profile(lanes=3 if random.randint(2) else 2)
    road = make_centreline(random, -60.0, end)
    lane = profile.lanes - 1 if profile.lanes == 2 else 1
    centre = profile.lane_centre(lane)
    ego = Motion(road, 0.0, cruise, centre,
                 random_waves(random, ((1.6, 17.0), (0.4, 6.0))),
                 random_waves(random, ((0.12, 9.0), (0.04, 4.0))))
    lead = Motion(road, random.uniform(40.0, 60.0), cruise, centre,
                  random_waves(random, ((1.6, 15.0), (0.5, 7.0))),
                  random_waves(random, ((0.10, 8.0),)))
    return World(seed, seconds, road, profile, lane, ego, lead,
                 tuple(make_roadside(random, profile, end)))


def make_roadside(random: np.random.RandomState, profile: Profile, end: float) -> list[Thing]:
    """Marker posts every 40 m on both sides, and trees in loose groups further out."""
    left, right = profile.edges
    things = []
    for station in np.arange(-40.0, end, 40.0):
        for offset in (left - 0.6, right + 0.6):
            things.append(Thing("post", int(offset > 0), station, offset, 1.05))
    for side, edge in ((-1.0, left), (1.0, right)):
        station = -30.0
        while station < end:
            # Groups: the density of trees swings along the road.
            station += random.exponential(9.0 + 7.0 * np.sin(station / 83.0 + side))
            distance = 7.0 + random.exponential(12.0)
            height = random.uniform(5.0, 12.0)
            things.append(Thing("tree", random.randint(6), station, edge + side * distance, height))
    return things
