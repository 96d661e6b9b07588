"""Light, weather, lens and mounting of one episode, drawn at random."""
from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from drivesim.camera import rotation
from drivesim.painter import Light

CONDITIONS = ("random", "clear", "bad")


@dataclass(frozen=True)
class Looks:
    """How the world looks through the camera.

    sun: azimuth and elevation, rad in the world. residual: rotation (3, 3) from the frame in which
    the car drives straight on to that of the pictures, which is what calibration left over.
    wide_euler: rotation of the wide camera against the narrow one, rad. jpeg: quality, 0 for none.
    smear: 0 to 1 strength of dirt or drops. Colours 0 to 255; height m.
    """

    haze: tuple[float, ...]
    zenith: tuple[float, ...]
    grass: tuple[float, ...]
    sun: tuple[float, float]
    sun_power: float
    cloud: float
    haze_distance: float
    ambient: float
    headlight: float
    texture: float
    gain: float
    noise: float
    vignette: float
    glare: float
    veil: float
    smear: float
    blend: float
    jpeg: int
    rain: bool
    height: float
    residual: np.ndarray = field(repr=False)
    wide_euler: tuple[float, float, float]

    @property
    def night(self) -> bool:
        """Whether the lamps of cars are on and seen."""
        return self.headlight > 0

    def light(self, heading: float, seed: int) -> Light:
        """What the painter needs, for a car with that heading (rad)."""
        azimuth, elevation = self.sun[0] - heading, self.sun[1]
        sun = (math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth),
               -math.sin(elevation))
        return Light(self.haze, self.zenith, tuple(self.residual @ sun), self.grass, self.sun_power,
                     self.cloud, self.haze_distance, self.ambient, self.headlight, self.texture,
                     self.gain, self.noise, self.vignette, self.glare, self.veil,
                     math.cos(heading), math.sin(heading), seed & 0xFFFFFFFF)


def make_looks(random: np.random.RandomState, conditions: str) -> Looks:
    """conditions: "clear" (day, sun or clouds), "bad" (night, rain, fog, glare, dirt), "random"."""
    if conditions not in CONDITIONS:
        raise ValueError(f"conditions are one of {', '.join(CONDITIONS)}; got {conditions!r}")
    bad = conditions == "bad" or (conditions == "random" and random.uniform() < 0.4)
    trouble = str(random.choice(["night", "rain", "fog", "glare", "dirt"])) if bad else ""
    night, rain = trouble == "night", trouble in ("rain", "night") and random.uniform() < 0.6
    overcast = rain or trouble == "fog" or random.uniform() < 0.4
    haze = np.array([196, 203, 212.0]) * random.uniform(0.75, 1.1) + random.uniform(-8, 8, 3)
    zenith = haze * 0.92 if overcast else np.array([80, 128, 196.0]) * random.uniform(0.8, 1.15)
    if night:
        haze, zenith = haze * 0.06, zenith * 0.03
    grass = np.array([(98, 112, 62), (132, 122, 80), (70, 92, 54), (150, 150, 152)][
        random.choice(4, p=[0.45, 0.28, 0.22, 0.05])], float)
    elevation = random.uniform(0.05, 0.18) if trouble == "glare" else random.uniform(0.25, 1.2)
    heading = random.uniform(-0.4, 0.4) if trouble == "glare" else random.uniform(0, 2 * np.pi)
    small = 0.003 if conditions == "clear" else 0.005  # rad, as calibration leaves it
    return Looks(
        haze=tuple(haze), zenith=tuple(zenith), grass=tuple(grass * random.uniform(0.75, 1.2)),
        sun=(heading, elevation), sun_power=0.0 if night or overcast else random.uniform(0.5, 1.2),
        cloud=random.uniform(0.6, 1.0) if overcast else random.uniform(0.0, 0.8),
        haze_distance=random.uniform(45, 110) if trouble == "fog" else random.uniform(180, 900),
        ambient=random.uniform(0.03, 0.12) if night else random.uniform(0.65, 1.1),
        headlight=random.uniform(0.7, 1.2) if night else 0.0,
        texture=random.uniform(0.02, 0.09), gain=random.uniform(0.75, 1.25),
        noise=random.uniform(4, 11) if night else random.uniform(0.5, 4),
        vignette=random.uniform(0, 0.8),
        glare=random.uniform(0.3, 0.7) if trouble == "glare" else 0.0,
        veil=random.uniform(0.0, 0.04) + 0.06 * rain * random.uniform(),
        smear=random.uniform(0.4, 0.9) if trouble == "dirt" or rain else 0.0,
        blend=random.uniform(0.15, 0.4) if night else random.choice([0.0, 0.15]),
        jpeg=int(random.randint(35, 80)) if random.uniform() < 0.25 else 0,
        rain=bool(rain), height=random.uniform(1.15, 1.4),
        residual=rotation(*random.normal(0, small, 3)),
        wide_euler=tuple(random.normal(0, small, 3)),
    )
