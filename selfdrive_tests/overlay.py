"""Draws a plan on a camera picture: path, lane lines, road edges, leads and a panel of numbers.

Points come in the calibrated frame (x forward, y right, z down), are turned into the device frame
by roll, pitch and yaw, into the view frame (x right, y down, z forward), and into pixels by the
pinhole camera. Everything is clipped against a plane before the camera first and against the
picture then, so that points behind the camera or far outside never wrap around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from selfdrive_tests.drives import Calibration, Camera
from selfdrive_tests.plans import Lead, Plan

# Nothing nearer than this is drawn, metres before the camera.
NEAR_M = 0.5

PATH_HALF_WIDTH_M = 0.9
LINE_HALF_WIDTH_M = 0.08
LEAD_HALF_WIDTH_M = 0.9
LEAD_MAX_ANGLE = 0.04  # half width over distance
LEAD_MIN_PROBABILITY = 0.5

SUPERSAMPLING = 2

RGB = tuple[int, int, int]
PATH_COLOR: RGB = (46, 204, 150)
NOT_VALID_COLOR: RGB = (150, 158, 168)
LANE_COLOR: RGB = (255, 255, 255)
EDGE_COLOR: RGB = (255, 107, 74)
LEAD_COLOR: RGB = (255, 196, 61)
# Another plan of the same frame, for comparison, is drawn in these.
OTHER_PATH_COLOR: RGB = (190, 92, 250)
OTHER_LINE_COLOR: RGB = (226, 178, 255)
OTHER_EDGE_COLOR: RGB = (255, 92, 188)
PANEL_COLOR = (16, 20, 26, 170)
TEXT_COLOR: RGB = (240, 244, 248)
CONFIDENCE_COLORS: dict[str, RGB] = {
    "green": (46, 204, 113),
    "yellow": (255, 196, 61),
    "red": (255, 90, 80),
}


@dataclass(frozen=True)
class Panel:
    """Numbers and warnings written on the picture. speed: m/s; seconds: since the drive began."""

    frame_id: int
    seconds: float
    speed: float
    model: str
    warning: str = ""


def rotation(rpy_rad: tuple[float, float, float]) -> np.ndarray:
    """Device from calibrated frame, (3, 3): Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy_rad), np.sin(rpy_rad)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True)
class Projection:
    """Calibrated frame to pixels of one camera."""

    camera: Camera
    rpy_rad: tuple[float, float, float]

    def view(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) in the calibrated frame -> (N, 3) in the view frame, metres."""
        device = points @ rotation(self.rpy_rad).T
        return np.asarray(device[:, [1, 2, 0]])

    def pixels(self, view: np.ndarray) -> np.ndarray:
        """(..., 3) in the view frame, before the camera -> (..., 2) pixels, x right, y down."""
        return view[..., :2] / view[..., 2:] * self.camera.focal_px + self.camera.center_px

    def polygons(self, polygons: np.ndarray) -> list[np.ndarray]:
        """The visible parts of polygons with K corners: (N, K, 3) in the calibrated frame.

        Gives N outlines of (M, 2) pixels; M is 0 where nothing is to be seen.
        """
        view = self.view(polygons.reshape(-1, 3)).reshape(polygons.shape)
        ahead = view[..., 2].min(axis=1) >= NEAR_M
        # Most polygons lie wholly inside or wholly beside the picture: those need no clipping.
        pixels = self.pixels(np.where(ahead[:, None, None], view, 1.0))
        size = np.array([self.camera.width, self.camera.height])
        room = np.concatenate([pixels, size - pixels], axis=2)  # to the four sides of the picture
        whole = ahead & (room.min(axis=(1, 2)) >= 0)
        beside = ahead & (room.max(axis=1) < 0).any(axis=1)
        nothing = np.empty((0, 2))
        return [
            pixels[i] if whole[i] else nothing if beside[i] else self._outline(view[i])
            for i in range(len(polygons))
        ]

    def _outline(self, view: np.ndarray) -> np.ndarray:
        seen = clip(view, view[:, 2] - NEAR_M)
        if not len(seen):
            return np.empty((0, 2))
        outline = self.pixels(seen)
        # One side of the picture after the other, each as the distance to its inside.
        for axis, size in enumerate((self.camera.width, self.camera.height)):
            if outline[:, axis].min(initial=0) < 0:
                outline = clip(outline, outline[:, axis])
            if outline[:, axis].max(initial=0) > size:
                outline = clip(outline, size - outline[:, axis])
        return outline


def clip(polygon: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cut a polygon (N, D) to where `inside` (N,), linear along its edges, is not negative.

    Sutherland and Hodgman's algorithm for one half space.
    """
    keep = inside >= 0
    if keep.all():
        return polygon
    if not keep.any():
        return polygon[:0]
    corners = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if keep[i]:
            corners.append(polygon[i])
        if keep[i] != keep[j]:
            part = inside[i] / (inside[i] - inside[j])
            corners.append(polygon[i] + part * (polygon[j] - polygon[i]))
    return np.array(corners)


def ribbon(line: np.ndarray, half_width: float) -> np.ndarray:
    """A line on the ground, (N, 3), as quads of a band along it: (N - 1, 4, 3).

    The band lies level and is `half_width` metres wide to either side of the line.
    Quads that touch a point that is not finite are left out.
    """
    if len(line) < 2:
        return np.empty((0, 4, 3))
    line = line.astype(np.float64)
    with np.errstate(all="ignore"):
        along = np.gradient(line[:, :2], axis=0)
        length = np.hypot(along[:, 0], along[:, 1])[:, None]
        # A car that stands still has no direction: its path is drawn as if straight ahead.
        along = np.where(length > 1e-6, along / np.maximum(length, 1e-6), [1.0, 0.0])
    right = np.stack([-along[:, 1], along[:, 0], np.zeros(len(line))], axis=-1) * half_width
    left_edge, right_edge = line - right, line + right
    quads = np.stack([left_edge[:-1], left_edge[1:], right_edge[1:], right_edge[:-1]], axis=1)
    return quads[np.isfinite(quads).all(axis=(1, 2))]


def draw(
    picture: np.ndarray,
    plan: Plan | None,
    camera: Camera,
    calibration: Calibration | None,
    panel: Panel | None,
    opacity: float = 1.0,
    other: Plan | None = None,
) -> np.ndarray:
    """A plan drawn on the picture, (height, width, 3) uint8 RGB, as a new array.

    camera: of this picture, with its size. calibration: None is drawn as if mounted straight.
    plan: None, for a frame without an answer, leaves just the panel. panel: None leaves that out.
    opacity: of the plan, 0 to 1.
    other: a plan to compare with, drawn below in its own colours.
    """
    image = Image.fromarray(picture)
    mounting = calibration or Calibration((0.0, 0.0, 0.0))
    if other is not None:
        _paste(image, _shapes(other, camera, mounting, OTHER), opacity)
    if plan is not None:
        _paste(image, _shapes(plan, camera, mounting), opacity)
        _write_distances(image, plan, Projection(camera, mounting.rpy_rad), mounting.height_m)
    if panel is not None:
        _draw_panel(image, plan, panel)
    return np.asarray(image)


@dataclass(frozen=True)
class Shape:
    """A filled polygon: outline (N, 2) in pixels of the supersampled picture, alpha 0 to 255."""

    outline: np.ndarray
    color: RGB
    alpha: int


def _paste(image: Image.Image, shapes: Sequence[Shape], opacity: float) -> None:
    """Blend shapes into a picture, edges smoothed. Only the part that they cover is touched."""
    shapes = [shape for shape in shapes if len(shape.outline) >= 3]
    if not shapes:
        return
    corners = np.concatenate([shape.outline for shape in shapes])
    left, top = (int(low) // SUPERSAMPLING for low in corners.min(axis=0))
    right, bottom = (int(high) // SUPERSAMPLING + 1 for high in corners.max(axis=0))
    right, bottom = min(right, image.width), min(bottom, image.height)
    if right <= left or bottom <= top:
        return
    # Colours multiplied by their opacity, as the mean over pixels needs them.
    layer = Image.new("RGBa", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    canvas = ImageDraw.Draw(layer)
    origin = np.array([left, top]) * SUPERSAMPLING
    for shape in shapes:
        points = (shape.outline - origin).ravel().tolist()
        color = (round(part * shape.alpha / 255) for part in shape.color)
        canvas.polygon(points, fill=(*color, shape.alpha))
    layer = layer.reduce(SUPERSAMPLING).convert("RGBA")
    mask = layer.getchannel("A").point(lambda alpha: alpha * opacity)
    image.paste(layer, (left, top), mask)


@dataclass(frozen=True)
class Palette:
    """Colours of a plan."""

    path: RGB
    lane: RGB
    edge: RGB
    not_valid: RGB = NOT_VALID_COLOR


OWN = Palette(PATH_COLOR, LANE_COLOR, EDGE_COLOR)
OTHER = Palette(OTHER_PATH_COLOR, OTHER_LINE_COLOR, OTHER_EDGE_COLOR, OTHER_PATH_COLOR)


def _shapes(
    plan: Plan, camera: Camera, mounting: Calibration, palette: Palette = OWN
) -> list[Shape]:
    """Everything that lies on the road, what is drawn first first."""
    size = (camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
    project = Projection(camera.scaled(*size), mounting.rpy_rad)

    # The plan is at the height of the device; the road lies below it.
    path = plan.position + np.array([0.0, 0.0, mounting.height_m])
    color = palette.path if plan.valid else palette.not_valid
    shapes = _ribbon_shapes(project, path, PATH_HALF_WIDTH_M, color, 150, 40)
    for line, probability in zip(plan.lane_lines, plan.lane_probabilities, strict=False):
        alpha = _alpha(probability)
        shapes += _ribbon_shapes(project, line, LINE_HALF_WIDTH_M, palette.lane, alpha, alpha)
    for edge in plan.road_edges:
        shapes += _ribbon_shapes(project, edge, LINE_HALF_WIDTH_M, palette.edge, 190, 190)
    for lead in visible_leads(plan):
        (chevron,) = project.polygons(_chevron(lead, mounting.height_m)[None])
        shapes.append(Shape(chevron, LEAD_COLOR, _alpha(lead.probability)))
    return shapes


def _ribbon_shapes(
    project: Projection,
    line: np.ndarray,
    half_width: float,
    color: RGB,
    near_alpha: int,
    far_alpha: int,
) -> list[Shape]:
    """A band, from opaque near the car to faint far away. Far quads come first."""
    outlines = project.polygons(ribbon(line, half_width))
    last = max(len(outlines) - 1, 1)
    return [
        Shape(outlines[i], color, near_alpha + (far_alpha - near_alpha) * i // last)
        for i in reversed(range(len(outlines)))
    ]


def _alpha(probability: float) -> int:
    """Opacity 0..255 of something seen with this probability; not a number is not seen."""
    return round(255 * min(max(probability, 0.0), 1.0)) if np.isfinite(probability) else 0


def visible_leads(plan: Plan) -> list[Lead]:
    """Leads worth drawing: probable, before the camera, with finite positions."""
    return [
        lead
        for lead in plan.leads
        if lead.probability >= LEAD_MIN_PROBABILITY
        and np.isfinite([lead.x, lead.y, lead.v]).all()
        and lead.x > NEAR_M
    ]


def _chevron(lead: Lead, height_m: float) -> np.ndarray:
    """An arrow head standing on the road at the lead's place, tip up: (4, 3), calibrated frame.

    As wide as a car, but near the camera smaller, so that it does not hide the picture.
    """
    half_width = min(LEAD_HALF_WIDTH_M, LEAD_MAX_ANGLE * lead.x)
    across = half_width * np.array([-1.0, 0.0, 1.0, 0.0])
    raised = half_width * np.array([0.0, 1.3, 0.0, 0.45])
    return np.stack([np.full(4, lead.x), lead.y + across, height_m - raised], axis=-1)


def _write_distances(image: Image.Image, plan: Plan, project: Projection, height_m: float) -> None:
    canvas = ImageDraw.Draw(image)
    for lead in visible_leads(plan):
        foot = project.view(np.array([[lead.x, lead.y, height_m]]))
        if foot[0, 2] < NEAR_M:
            continue
        x, y = project.pixels(foot)[0]
        if 0 <= x < image.width and 0 <= y < image.height:
            text, place = f"{lead.x:.0f} m", (round(x), round(y) + 3)
            canvas.text(
                place,
                text,
                LEAD_COLOR,
                font(12),
                "mt",
                stroke_width=2,
                stroke_fill=(16, 20, 26, 255),
            )


def _draw_panel(image: Image.Image, plan: Plan | None, panel: Panel) -> None:
    """The numbers, top left, and what is wrong, top right and at the bottom."""
    width, height = image.size
    canvas = ImageDraw.Draw(image, "RGBA")  # a canvas that blends
    rows = panel_rows(plan, panel)
    bottom = 38 + 18 * len(rows)
    canvas.rounded_rectangle((8, 8, 228, bottom), 6, PANEL_COLOR)
    canvas.text((20, 14), panel.model, TEXT_COLOR, font(12))
    for i, (name, value) in enumerate(rows, start=1):
        canvas.text((20, 15 + 18 * i), name, NOT_VALID_COLOR, font(12))
        canvas.text((218, 15 + 18 * i), value, TEXT_COLOR, font(12), "ra")
    if plan is not None and plan.confidence in CONFIDENCE_COLORS:
        canvas.rectangle((8, 14, 11, bottom - 6), CONFIDENCE_COLORS[plan.confidence])
    status = "NO PLAN" if plan is None else "" if plan.valid else "NOT VALID"
    if status:
        canvas.rounded_rectangle((width - 118, 8, width - 8, 36), 6, (200, 48, 40, 230))
        canvas.text((width - 63, 22), status, TEXT_COLOR, font(14), "mm")
    if panel.warning:
        middle, bottom = width // 2, height - 8
        box = canvas.textbbox((middle, bottom - 5), panel.warning, font(13), "mb")
        canvas.rounded_rectangle((box[0] - 10, box[1] - 6, box[2] + 10, bottom), 6, PANEL_COLOR)
        canvas.text((middle, bottom - 5), panel.warning, LEAD_COLOR, font(13), "mb")


def panel_rows(plan: Plan | None, panel: Panel) -> list[tuple[str, str]]:
    """Names and values of the panel's lines, below the model's name."""
    rows = [
        (f"frame {panel.frame_id}", f"{panel.seconds:.2f} s"),
        ("speed", f"{panel.speed:.1f} m/s  {panel.speed * 3.6:.0f} km/h"),
    ]
    if plan is not None:
        rows += [
            ("curvature", f"{plan.curvature:+.4f} 1/m"),
            ("acceleration", f"{plan.acceleration:+.2f} m/s/s"),
        ]
        rows += [("confidence", plan.confidence)] if plan.confidence else []
    return rows


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface that comes with Pillow, so that pictures are the same everywhere."""
    return ImageFont.load_default(size)
