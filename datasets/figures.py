"""How trees, houses, lights, signs and cones are drawn, and the brush that draws them, vehicles and people.

All draw into an oversampled frame, far things first. Sizes are metres, boxes are oversampled pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import ImageDraw

from .camera import FOCAL_LENGTH_PX, NEAREST_M, Pixel, View
from .lighting import Lighting
from .scene import Building, Colour, Lamp, Tree, WarningSign

Box = tuple[float, float, float, float]

LAMP_COLOURS: dict[Lamp, Colour] = {"red": (255, 44, 32), "yellow": (255, 196, 30), "green": (40, 255, 120)}
TYRE: Colour = (22, 22, 24)


@dataclass
class Brush:
    """What every figure needs: where to draw, the view and the light."""

    draw: ImageDraw.ImageDraw
    view: View
    lighting: Lighting

    def rectangle(self, x0: float, x1: float, y0: float, y1: float, z: float, colour: Colour) -> Box:
        """An upright rectangle that faces the camera, already lit."""
        left, top = self.view.pixel(x0, y1, z)
        right, bottom = self.view.pixel(x1, y0, z)
        box = (left, top, max(left, right), max(top, bottom))
        self.draw.rectangle(box, fill=colour)
        return box

    def disc(self, x: float, y: float, z: float, radius_m: float, colour: Colour) -> Box:
        u, v = self.view.pixel(x, y, z)
        radius = max(1.0, FOCAL_LENGTH_PX * radius_m / z)
        box = (u - radius, v - radius, u + radius, v + radius)
        self.draw.ellipse(box, fill=colour)
        return box

    def lamp(self, x: float, y: float, z: float, radius_m: float, colour: Colour, *, halo: bool = True) -> Box:
        """A lamp that is on: its full colour, at dusk and night with a halo."""
        glow = self.lighting.look.lamp_halo
        if glow and halo:
            self.disc(x, y, z, radius_m * (1.3 + 0.5 * glow), darken(colour, 0.42))
        box = self.disc(x, y, z, radius_m, colour)
        self.disc(x, y, z, radius_m * 0.45, toward_white(colour))
        return box


def draw_tree(brush: Brush, tree: Tree, x: float, z: float) -> None:
    trunk = brush.lighting.shade((84, 66, 50), x, z)
    brush.rectangle(x - 0.17, x + 0.17, 0.0, tree.height_m * 0.5, z, trunk)
    crown = tree.height_m * 0.3
    dark = brush.lighting.shade(darken(tree.colour, 0.8), x, z)
    brush.disc(x, tree.height_m - crown, z, crown, dark)
    brush.disc(x - crown * 0.3, tree.height_m - crown * 0.8, z, crown * 0.62, brush.lighting.shade(tree.colour, x, z))


def draw_building(brush: Brush, building: Building) -> Box | None:
    """The wall along the road and the gable towards the camera, with windows."""
    near = max(building.station_m, brush.view.station_m + NEAREST_M + 1.0)
    far = building.station_m + building.length_m
    if far - near < 0.5:
        return None
    outward = math.copysign(9.0, building.lateral_m)
    xs, zs = brush.view.locate([near, far, near], [building.lateral_m] * 2 + [building.lateral_m + outward])
    if zs.min() < NEAREST_M:
        return None
    (x0, x1, x2), (z0, z1, z2) = xs.tolist(), zs.tolist()
    pixel, shade, height = brush.view.pixel, brush.lighting.shade, building.height_m
    wall = [pixel(x0, 0, z0), pixel(x0, height, z0), pixel(x1, height, z1), pixel(x1, 0, z1)]
    if near == building.station_m:
        gable = [pixel(x0, 0, z0), pixel(x0, height, z0), pixel(x2, height, z2), pixel(x2, 0, z2)]
        brush.draw.polygon(gable, fill=shade(darken(building.colour, 0.8), x0, z0))
    brush.draw.polygon(wall, fill=shade(building.colour, (x0 + x1) / 2, (z0 + z1) / 2))
    _windows(brush, building, near)
    return around(wall)


def _windows(brush: Brush, building: Building, near_m: float) -> None:
    columns = range(int(building.length_m // 3.2))
    starts = [building.station_m + 1.0 + 3.2 * column for column in columns]
    starts = [start for start in starts if start > near_m]
    if not starts:
        return
    stations = [station for start in starts for station in (start, start + 1.4)]
    xs, zs = brush.view.locate(stations, [building.lateral_m] * len(stations))
    glass, pixel = brush.lighting.shade((70, 84, 98), xs[0], zs[0]), brush.view.pixel
    for column in range(len(starts)):
        x0, x1 = float(xs[2 * column]), float(xs[2 * column + 1])
        z0, z1 = float(zs[2 * column]), float(zs[2 * column + 1])
        if z0 < NEAREST_M or z0 > 60.0:
            continue
        for floor in range(int((building.height_m - 1.0) // 3.0)):
            low, top = 1.2 + 3.0 * floor, 2.6 + 3.0 * floor
            # Which windows are lit must not change from frame to frame.
            draw_of_lots = math.sin(12.9 * starts[column] + 78.2 * floor) * 43758.5 % 1.0
            colour = (232, 190, 110) if draw_of_lots < brush.lighting.look.lit_windows else glass
            corners = [pixel(x0, low, z0), pixel(x0, top, z0), pixel(x1, top, z1), pixel(x1, low, z1)]
            brush.draw.polygon(corners, fill=colour)


def draw_traffic_light(brush: Brush, lit: Lamp, x: float, pole_x: float, z: float) -> list[Box]:
    """A head over the lane on a mast arm and one at the pole; returns the boxes of the lamps that are on."""
    metal = brush.lighting.shade((70, 72, 74), x, z)
    arm_m = 5.6
    brush.rectangle(pole_x - 0.1, pole_x + 0.1, 0.0, arm_m + 0.1, z, metal)
    brush.rectangle(min(x, pole_x), max(x, pole_x), arm_m - 0.08, arm_m + 0.08, z, metal)
    return [_signal_head(brush, lit, x, 4.85, z), _signal_head(brush, lit, pole_x, 3.1, z)]


def _signal_head(brush: Brush, lit: Lamp, x: float, centre_m: float, z: float) -> Box:
    brush.rectangle(x - 0.5, x + 0.5, centre_m - 1.27, centre_m + 1.27, z, brush.lighting.shade((168, 150, 60), x, z))
    brush.rectangle(x - 0.44, x + 0.44, centre_m - 1.21, centre_m + 1.21, z, (14, 15, 16))
    box: Box | None = None
    for lamp, above_m in (("red", 0.78), ("yellow", 0.0), ("green", -0.78)):
        if lamp == lit:
            box = brush.lamp(x, centre_m + above_m, z, 0.36, LAMP_COLOURS[lit], halo=False)
        else:
            brush.disc(x, centre_m + above_m, z, 0.3, (40, 42, 44))
    if box is None:
        raise ValueError(f"a signal has no {lit!r} lamp")
    return box


# Strokes of the letters S, T, O, P in a unit box, as polylines.
_STOP_STROKES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.2, 0.95), (0.02, 0.95), (0.02, 0.5), (0.2, 0.5), (0.2, 0.05), (0.02, 0.05)),
    ((0.27, 0.95), (0.47, 0.95)),
    ((0.37, 0.95), (0.37, 0.05)),
    ((0.54, 0.05), (0.54, 0.95), (0.73, 0.95), (0.73, 0.05), (0.54, 0.05)),
    ((0.81, 0.05), (0.81, 0.95), (0.99, 0.95), (0.99, 0.5), (0.81, 0.5)),
)


def draw_stop_sign(brush: Brush, x: float, z: float) -> Box:
    shade, pixel = brush.lighting.shade, brush.view.pixel
    centre_m, radius_m = 2.25, 0.6
    brush.rectangle(x - 0.05, x + 0.05, 0.0, centre_m, z, shade((130, 132, 134), x, z))
    # Signs reflect the head lamps back, so that they look nearer than what stands around them.
    white, red = shade((250, 250, 250), x * 0.2, z * 0.15), shade((224, 22, 30), x * 0.2, z * 0.15)
    angles = [math.pi / 8 + k * math.pi / 4 for k in range(8)]
    rim = [pixel(x + radius_m * math.cos(a), centre_m + radius_m * math.sin(a), z) for a in angles]
    brush.draw.polygon(rim, fill=white)
    inner = radius_m * 0.88
    plate = [pixel(x + inner * math.cos(a), centre_m + inner * math.sin(a), z) for a in angles]
    brush.draw.polygon(plate, fill=red)
    radius_px = FOCAL_LENGTH_PX * radius_m / z
    if radius_px < 10:
        brush.rectangle(x - 0.38, x + 0.38, centre_m - 0.11, centre_m + 0.11, z, white)
    else:
        for stroke in _STOP_STROKES:
            points = [pixel(x - 0.42 + 0.84 * a, centre_m - 0.18 + 0.36 * b, z) for a, b in stroke]
            brush.draw.line(points, fill=white, width=max(1, round(radius_px * 0.09)))
    return around(rim)


def draw_warning_sign(brush: Brush, sign: WarningSign, x: float, z: float) -> Box:
    """A diamond: yellow with a narrowing lane, or orange with a digging figure's triangle."""
    shade, pixel = brush.lighting.shade, brush.view.pixel
    centre_m, radius_m = 2.1, 0.72
    brush.rectangle(x - 0.05, x + 0.05, 0.0, centre_m, z, shade((130, 132, 134), x, z))
    plate = (250, 206, 40) if sign.warns_of == "lane-end" else (255, 128, 24)
    rim = [
        pixel(x + radius_m * across, centre_m + radius_m * up, z) for across, up in ((-1, 0), (0, 1), (1, 0), (0, -1))
    ]
    brush.draw.polygon(rim, fill=shade(plate, x * 0.2, z * 0.15))
    black = shade((20, 20, 20), x, z)
    if sign.warns_of == "construction":
        figure = [pixel(x + a, centre_m + b, z) for a, b in ((-0.32, -0.25), (0.05, 0.34), (0.34, -0.25))]
        brush.draw.polygon(figure, fill=black)
    else:
        brush.rectangle(x - 0.26, x - 0.16, centre_m - 0.28, centre_m + 0.28, z, black)
        bend_x = 0.28 if sign.side == "right" else -0.28
        brush.draw.line(
            [pixel(x + bend_x, centre_m - 0.28, z), pixel(x, centre_m + 0.3, z)],
            fill=black,
            width=max(1, round(FOCAL_LENGTH_PX * 0.1 / z)),
        )
    return around(rim)


def draw_cone(brush: Brush, x: float, z: float) -> Box:
    """An orange cone with a white band; both reflect the head lamps."""
    shade, pixel = brush.lighting.shade, brush.view.pixel
    orange, white = shade((255, 96, 16), x * 0.3, z * 0.3), shade((246, 246, 240), x * 0.3, z * 0.3)
    brush.rectangle(x - 0.25, x + 0.25, 0.0, 0.07, z, darken(orange, 0.7))
    body = [pixel(x + a, y, z) for a, y in ((-0.2, 0.05), (-0.04, 0.82), (0.04, 0.82), (0.2, 0.05))]
    brush.draw.polygon(body, fill=orange)
    band = [pixel(x + a, y, z) for a, y in ((-0.14, 0.34), (-0.09, 0.58), (0.09, 0.58), (0.14, 0.34))]
    brush.draw.polygon(band, fill=white)
    return around(body)


def draw_barrier(brush: Brush, x: float, z: float, width_m: float) -> Box:
    """Two striped boards on feet with a warning lamp at either end."""
    shade = brush.lighting.shade
    red, white = shade((226, 40, 30), x * 0.3, z * 0.3), shade((246, 246, 240), x * 0.3, z * 0.3)
    left, right = x - width_m / 2, x + width_m / 2
    for foot in (left + 0.15, right - 0.15):
        brush.rectangle(foot - 0.06, foot + 0.06, 0.0, 1.3, z, shade((90, 90, 92), x, z))
    stripes = max(4, 2 * round(width_m / 0.8))
    for low_m in (0.45, 0.95):
        for stripe in range(stripes):
            from_x = left + stripe * width_m / stripes
            colour = red if stripe % 2 else white
            brush.rectangle(from_x, from_x + width_m / stripes, low_m, low_m + 0.34, z, colour)
    for lamp_x in (left + 0.15, right - 0.15):
        brush.disc(lamp_x, 1.42, z, 0.11, (255, 170, 30))
    return (*brush.view.pixel(left, 1.35, z), *brush.view.pixel(right, 0.0, z))


def around(pixels: list[Pixel]) -> Box:
    """The box of a polygon."""
    across, down = [u for u, _ in pixels], [v for _, v in pixels]
    return min(across), min(down), max(across), max(down)


def merge(box: Box | None, other: Box) -> Box:
    """The box of both."""
    if box is None:
        return other
    return min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])


def darken(colour: Colour, factor: float) -> Colour:
    """A darker shade: factor 1 changes nothing, 0 is black."""
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)


def toward_white(colour: Colour) -> Colour:
    """Half way to white."""
    red, green, blue = ((value + 255) // 2 for value in colour)
    return red, green, blue
