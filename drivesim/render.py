"""Pictures of the world: every pixel below the horizon is cast onto the road plane.

The camera is fixed to the car and the road is flat, so where a pixel meets the ground, relative to
the car, never changes. Per frame only the way from there to road coordinates (along, across) does:
tables over the forward distance give the nearest point of the centreline. Lines and edges are
filtered by the pixel's footprint on the road, so they stay sharp and do not flicker.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim import scenery
from drivesim.camera import Camera
from drivesim.road import Profile
from drivesim.truth import to_frame
from drivesim.world import World

FAR = 400.0  # m; ground beyond is haze
NEAR = 3.0  # m; upright things nearer than this are not drawn
TABLE_STEP = 0.05  # m of forward distance
HAZE_DISTANCE = 260.0  # m at which 63 % of the colour is haze
ASPHALT = (104.0, 105.0, 108.0)
GRAVEL = (150.0, 142.0, 128.0)
GRASS = (104.0, 122.0, 66.0)
PAINT = (232.0, 232.0, 226.0)
CAR_HEIGHT = 1.53  # m
Array = np.ndarray


@dataclass(frozen=True)
class RoadTables:
    """The centreline ahead, as float32 functions of forward distance in steps of TABLE_STEP.

    lateral: y of the centreline, m. along: arc length, m. sin, cos: of its heading relative to the
    car. curvature: 1/m.
    """

    lateral: Array
    along: Array
    sin: Array
    cos: Array
    curvature: Array


def road_tables(world: World, t: float) -> RoadTables:
    """Tables for the car's place at time t."""
    now = np.array([t])
    origin, heading = world.ego.position(now)[0], float(world.ego.heading(now)[0])
    here = float(world.ego.along(now)[0])
    stations = np.arange(here - 10.0, here + FAR + 15.0, 0.25)
    line = to_frame(world.road.point(stations), origin, heading)
    forward = np.arange(0.0, FAR + 1.0, TABLE_STEP)
    along = np.interp(forward, line[:, 0], stations)
    turn = world.road.heading_at(along) - heading
    values = (np.interp(along, stations, line[:, 1]), along, np.sin(turn), np.cos(turn),
              world.road.curvature_at(along))
    return RoadTables(*(v.astype(np.float32) for v in values))


class GroundTexture:
    """Periodic noise over (along, across), looked up at the level of detail a pixel can show."""

    def __init__(self, noise: Array, cell: tuple[float, float], footprint: tuple[Array, Array]):
        """noise: square, side a power of two. cell, footprint: m along and across."""
        levels = scenery.mip_levels(noise, 1)
        blur = np.maximum(footprint[0] / cell[0], footprint[1] / cell[1])
        level = np.ceil(np.log2(np.maximum(blur, 1.0))).astype(int)
        level = np.minimum(level, len(levels) - 1)
        starts = np.cumsum([0] + [x.size for x in levels[:-1]])
        self.values = np.concatenate([x.ravel() for x in levels])
        self.side = (len(noise) >> level).astype(np.int32)
        self.start = starts[level].astype(np.int32)
        self.per_metre_along = (1.0 / (cell[0] * 2.0**level)).astype(np.float32)
        self.per_metre_across = (1.0 / (cell[1] * 2.0**level)).astype(np.float32)

    def look_up(self, along: Array, across: Array) -> Array:
        """Noise at each pixel's road coordinates, (N,) float32."""
        mask = self.side - 1
        row = np.floor(along * self.per_metre_along).astype(np.int32) & mask
        column = np.floor(across * self.per_metre_across).astype(np.int32) & mask
        return self.values[self.start + row * self.side + column]


def band(across: Array, low: float, high: float, footprint: Array) -> Array:
    """Share of each pixel's footprint that lies between two offsets, 0 to 1."""
    half = 0.5 * footprint
    covered = np.minimum(across + half, high) - np.maximum(across - half, low)
    return np.clip(covered / footprint, 0.0, 1.0)


def dashes(along: Array, footprint: Array, profile: Profile) -> Array:
    """Share of each pixel's footprint along the road that lies on dashes, 0 to 1."""
    period, dash = np.float32(profile.dash_period), np.float32(profile.dash)

    def painted_until(s: Array) -> Array:
        whole = np.floor(s / period)
        return whole * dash + np.minimum(s - whole * period, dash)

    half = 0.5 * footprint
    return (painted_until(along + half) - painted_until(along - half)) / footprint


class Renderer:
    """Renders frames of one world through one camera."""

    def __init__(self, world: World, camera: Camera) -> None:
        self.world = world
        self.camera = camera
        random = np.random.RandomState(world.seed + 1)
        rays = camera.rays()
        self._prepare_ground(rays, random)
        self._prepare_sky(rays, random)
        sprites = {
            ("car", 0): scenery.make_car(),
            ("post", 0): scenery.make_post(right=False),
            ("post", 1): scenery.make_post(right=True),
        }
        for variant in range(6):
            sprites["tree", variant] = scenery.make_tree(random, conifer=variant % 3 == 2)
        self.sprite_levels = {
            key: scenery.mip_levels(premultiply(sprite)) for key, sprite in sprites.items()
        }
        self.finish = lens_shading(camera)
        self.dither = random.uniform(0.0, 1.0, (camera.height, camera.width, 1)).astype(np.float32)

    def _prepare_ground(self, rays: Array, random: np.random.RandomState) -> None:
        """Where each pixel meets the ground, how much of it it sees, and its textures."""
        camera = self.camera
        down = np.maximum(rays[..., 2], 1e-9)
        forward = camera.mount_height * rays[..., 0] / down
        is_ground = (rays[..., 2] > 0) & (forward > 0.5) & (forward < FAR)
        self.ground = np.flatnonzero(is_ground)
        forward = forward.ravel()[self.ground]
        right = (camera.mount_height * rays[..., 1] / down).ravel()[self.ground]
        distance = np.hypot(forward, right)
        # A pixel sees a patch of road: this wide across the line of sight, this long along it.
        wide = distance / camera.focal
        long = wide * np.hypot(distance, camera.mount_height) / camera.mount_height
        self.forward = forward.astype(np.float32)
        self.right = right.astype(np.float32)
        self.cell = np.round(forward / TABLE_STEP).astype(np.int32)
        self.patch_wide = wide.astype(np.float32)
        self.patch_long = long.astype(np.float32)
        self.sight = np.stack([forward, right] / distance).astype(np.float32)
        self.ground_haze = haze(distance)
        footprint = (long, wide)
        fine = scenery.tileable_noise(random, 1024, 1024, 0.35)
        coarse = scenery.tileable_noise(random, 512, 512, 1.1)
        self.fine = GroundTexture(fine, (0.02, 0.01), footprint)
        self.coarse = GroundTexture(coarse, (0.4, 0.15), footprint)

    def _prepare_sky(self, rays: Array, random: np.random.RandomState) -> None:
        """Where each other pixel lies in the panorama when the car heads north."""
        rays = np.delete(rays.reshape(-1, 3), self.ground, axis=0)
        self.sky = np.setdiff1d(np.arange(self.camera.width * self.camera.height), self.ground)
        elevation = np.arctan2(-rays[:, 2], np.hypot(rays[:, 0], rays[:, 1]))
        azimuth = np.arctan2(rays[:, 1], rays[:, 0])
        top = float(elevation.max())
        self.panorama = scenery.make_panorama(random, self.camera.focal, top)
        rows, columns = self.panorama.shape[:2]
        share = (top - elevation) / (top - scenery.SKY_BOTTOM)
        self.sky_row = np.clip(np.round(share * (rows - 1)), 0, rows - 1).astype(np.int32)
        self.sky_column = np.round(azimuth / (2 * np.pi) * columns).astype(np.int32)

    def frame(self, t: float) -> Array:
        """The picture at time t: (height, width, 3) uint8 RGB."""
        camera = self.camera
        image = np.empty((camera.height, camera.width, 3), np.float32)
        pixels = image.reshape(-1, 3)
        pixels[self.ground] = self._ground_colours(t)
        pixels[self.sky] = self._sky_colours(t)
        self._draw_things(image, t)
        image *= self.finish
        image += self.dither
        return np.clip(image, 0, 255).astype(np.uint8)

    def road_coordinates(self, t: float) -> tuple[Array, Array, Array, Array]:
        """Arc length and offset of each ground pixel (m), sine and cosine of the road's heading.

        The table gives the centreline point straight across from the pixel; from there the nearest
        point follows to second order: exact on a straight, within 2 cm in curves up to 120 m away.
        """
        tables = road_tables(self.world, t)
        gap = self.right - tables.lateral[self.cell]
        sin, cos = tables.sin[self.cell], tables.cos[self.cell]
        curvature = tables.curvature[self.cell]
        ahead, aside = gap * sin, gap * cos
        stretch = 1.0 - curvature * aside
        along = tables.along[self.cell] + ahead / stretch
        across = aside - 0.5 * curvature * ahead**2 / stretch
        return along, across, sin, cos

    def footprints(self, sin: Array, cos: Array) -> tuple[Array, Array]:
        """Extent of each ground pixel along and across the road (m), whose heading is given."""
        forward, right = self.sight
        parallel = cos * forward + sin * right  # of the line of sight and the road
        crossing = cos * right - sin * forward
        along = np.hypot(parallel * self.patch_long, crossing * self.patch_wide)
        across = np.hypot(crossing * self.patch_long, parallel * self.patch_wide)
        return along, across

    def _ground_colours(self, t: float) -> Array:
        """(N, 3) colours of the ground pixels."""
        profile = self.world.profile
        along, across, sin, cos = self.road_coordinates(t)
        footprint_along, footprint = self.footprints(sin, cos)
        fine = self.fine.look_up(along, across)
        coarse = self.coarse.look_up(along, across)

        left, right = profile.edges
        asphalt = band(across, left, right, footprint)
        verge = band(across, left - profile.gravel, right + profile.gravel, footprint) - asphalt
        paint = self._paint(along, across, footprint_along, footprint)
        paint *= np.clip(0.86 + 0.10 * coarse + 0.07 * fine, 0.35, 1.0)  # wear
        road_tone = 1.0 + 0.045 * fine + 0.045 * coarse - wheel_tracks(across, profile)
        grass_tone = 1.0 + 0.09 * fine + 0.13 * coarse
        weights = (
            (ASPHALT, asphalt * road_tone * (1 - paint)),
            (PAINT, asphalt * paint),
            (GRAVEL, verge * (1.0 + 0.10 * fine)),
            (GRASS, (1 - asphalt - verge) * grass_tone),
        )
        colours = np.empty((len(along), 3), np.float32)
        clear = 1 - self.ground_haze
        for channel in range(3):
            tone = sum(np.float32(colour[channel]) * weight for colour, weight in weights)
            colours[:, channel] = tone * clear + scenery.HAZE[channel] * self.ground_haze
        return colours

    def _paint(self, along: Array, across: Array, footprint_along: Array,
               footprint: Array) -> Array:
        """Share of each ground pixel that is painted: solid outer lines, dashed inner ones."""
        profile = self.world.profile
        half = profile.line_width / 2
        first, *inner, last = profile.boundaries
        solid = band(across, first - half, first + half, footprint)
        solid += band(across, last - half, last + half, footprint)
        dashed = sum(band(across, at - half, at + half, footprint) for at in inner)
        return solid + dashed * dashes(along, footprint_along, profile)

    def _sky_colours(self, t: float) -> Array:
        """(M, 3) colours of the pixels that do not meet the ground."""
        columns = self.panorama.shape[1]
        heading = float(self.world.ego.heading(np.array([t]))[0])
        shift = round(heading / (2 * np.pi) * columns)
        return self.panorama[self.sky_row, (self.sky_column + shift) % columns]

    def _draw_things(self, image: Array, t: float) -> None:
        """Draw the car ahead and the roadside onto the image, the farthest first."""
        world = self.world
        now = np.array([t])
        origin, heading = world.ego.position(now)[0], float(world.ego.heading(now)[0])
        near = [x for x in world.things if abs(x.station - world.ego.along(now)[0]) < FAR]
        stations = np.array([x.station for x in near])
        feet = world.road.point(stations, np.array([x.offset for x in near]))
        feet = to_frame(np.concatenate([feet, world.lead.position(now)]), origin, heading)
        kinds = [(x.kind, x.variant) for x in near] + [("car", 0)]
        heights = [x.height for x in near] + [CAR_HEIGHT]
        for i in np.argsort(-feet[:, 0], kind="stable"):
            if NEAR < feet[i, 0] < FAR:
                self._draw_sprite(image, kinds[i], feet[i], heights[i])

    def _draw_sprite(self, image: Array, key: tuple[str, int], foot: Array, height: float) -> None:
        """Draw an upright picture of a height in metres whose foot stands at (forward, right)."""
        ground = self.camera.mount_height
        ends = np.array([[*foot, ground], [*foot, ground - height]])
        (base, top), _ = self.camera.project(ends)
        tall = base[1] - top[1]
        levels = self.sprite_levels[key]
        wide = tall * levels[0].shape[1] / levels[0].shape[0]
        level = 0
        while level + 1 < len(levels) and levels[level + 1].shape[0] >= tall:
            level += 1
        blend_sprite(image, levels[level], (base[0] - wide / 2, top[1], wide, tall),
                     float(haze(np.hypot(*foot))))


def wheel_tracks(across: Array, profile: Profile) -> Array:
    """Darkening of the two tracks that wheels polish into each lane, 0 to 0.05."""
    place = (across - profile.boundaries[0]) * np.float32(4 * np.pi / profile.lane_width)
    return np.float32(0.025) * (1 - np.cos(place))


def haze(distance: Array) -> Array:
    """Share of haze in the colour of something that far away (m), 0 to 1, float32."""
    return (1 - np.exp(-distance / HAZE_DISTANCE)).astype(np.float32)


def lens_shading(camera: Camera) -> Array:
    """(height, width, 1) gain that darkens the corners a little."""
    x = (np.arange(camera.width) - camera.center[0]) / camera.width
    y = (np.arange(camera.height)[:, None] - camera.center[1]) / camera.width
    return (1.0 - 0.32 * (x**2 + y**2))[..., None].astype(np.float32)


def premultiply(sprite: Array) -> Array:
    """Colours times opacity, so that averaging does not bleed the colour of empty cells."""
    return np.concatenate([sprite[..., :3] * sprite[..., 3:], sprite[..., 3:]], axis=-1)


def blend_sprite(image: Array, sprite: Array, box: tuple[float, float, float, float],
                 haze_share: float) -> None:
    """Lay a premultiplied sprite over image in place; box is left, top, width, height in pixels.

    Border pixels are weighed by how much of them the box covers.
    """
    left, top, width, height = box
    rows, row_cover = covered_pixels(top, height, image.shape[0])
    columns, column_cover = covered_pixels(left, width, image.shape[1])
    if not len(rows) or not len(columns):
        return
    source_row = sample_places(rows, top, height, sprite.shape[0])
    source_column = sample_places(columns, left, width, sprite.shape[1])
    patch = sprite[source_row[:, None], source_column]
    patch = patch * (row_cover[:, None] * column_cover)[..., None]
    opacity = patch[..., 3:]
    colour = patch[..., :3] * (1 - haze_share) + scenery.HAZE * (haze_share * opacity)
    region = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    region *= 1 - opacity
    region += colour.astype(np.float32)


def covered_pixels(start: float, length: float, limit: int) -> tuple[Array, Array]:
    """Pixels that [start, start + length) touches within 0..limit, and the share of each.

    Pixel i covers i - 0.5 to i + 0.5.
    """
    first = max(int(np.floor(start + 0.5)), 0)
    last = min(int(np.floor(start + length + 0.5)), limit - 1)
    pixels = np.arange(first, last + 1)
    cover = np.minimum(pixels + 0.5, start + length) - np.maximum(pixels - 0.5, start)
    return pixels, np.clip(cover, 0, 1).astype(np.float32)


def sample_places(pixels: Array, start: float, length: float, cells: int) -> Array:
    """The sprite cell that lies under each pixel centre."""
    cell = np.floor((pixels - start) / length * cells).astype(int)
    return np.clip(cell, 0, cells - 1)
