"""How other vehicles are drawn: a box on the road, seen from behind or in front, with the flank that the camera sees.

Sizes are metres; a vehicle stands along the road, so that its flank turns with a bend.
"""

from __future__ import annotations

from dataclasses import dataclass

from .boxes import Found
from .camera import NEAREST_M, Pixel
from .figures import TYRE, Box, Brush, around, darken, merge, toward_white
from .scene import Colour, Vehicle

BRAKE_LIGHT: Colour = (255, 36, 28)
AMBER: Colour = (255, 168, 24)
HEAD_LAMP: Colour = (255, 248, 220)
GLASS: Colour = (46, 56, 68)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one kind of vehicle: width, height, length; where its flanks' body ends and its rear lamps sit."""

    width_m: float
    height_m: float
    length_m: float
    body_top_m: float
    lamp_m: float


SHAPES: dict[str, Shape] = {
    "car": Shape(1.8, 1.45, 4.3, 0.95, 0.78),
    "van": Shape(2.0, 2.2, 5.0, 2.2, 1.0),
    "truck": Shape(2.5, 3.5, 7.5, 3.5, 0.72),
    "bus": Shape(2.55, 3.1, 11.0, 3.1, 0.95),
}


def draw_vehicle(brush: Brush, vehicle: Vehicle, at_s: float) -> tuple[Box | None, list[Found]]:
    """(box of the whole vehicle or None where only a flank is in sight, its lamps that are on)."""
    shape, station = SHAPES[vehicle.kind], vehicle.station_m(at_s)
    lateral, half = vehicle.lateral_at(at_s), shape.width_m / 2
    near = max(station, brush.view.station_m + NEAREST_M)
    far = station + shape.length_m
    if far <= near:
        return None, []
    xs, zs = brush.view.locate([near, near, far, far], [lateral - half, lateral + half] * 2)
    if zs.min() < NEAREST_M * 0.8:
        return None, []
    corners = list(zip(xs.tolist(), zs.tolist(), strict=True))
    x, z = (corners[0][0] + corners[1][0]) / 2, (corners[0][1] + corners[1][1]) / 2
    paint = brush.lighting.shade(vehicle.colour, x, z)
    _shadow(brush, corners)
    hidden_share = (near - station) / shape.length_m
    box = _flank(brush, vehicle, shape, corners, paint, hidden_share)
    if near > station:
        return None, []
    face = merge(box, brush.rectangle(x - half, x + half, 0.28, shape.body_top_m, z, paint))
    face = merge(face, _face(brush, vehicle, shape, x, z, paint))
    if vehicle.role == "oncoming":
        _front_lamps(brush, shape, x, z)
        return face, []
    lamps = _rear_lamps(brush, vehicle, shape, x, z, vehicle.brakes(at_s))
    return face, lamps + _blinkers(brush, vehicle, shape, x, z, at_s)


def _shadow(brush: Brush, corners: list[tuple[float, float]]) -> None:
    (x0, z0), (x1, z1), (x2, z2), (x3, z3) = corners
    road = brush.lighting.shade((40, 40, 43), (x0 + x1) / 2, z0)
    ground = [(x0 - 0.15, z0 - 0.1), (x1 + 0.15, z1 - 0.1), (x3 + 0.15, z3), (x2 - 0.15, z2)]
    brush.draw.polygon([brush.view.pixel(x, 0.0, z) for x, z in ground], fill=road)


def _flank(
    brush: Brush,
    vehicle: Vehicle,
    shape: Shape,
    corners: list[tuple[float, float]],
    paint: Colour,
    hidden_share: float,
) -> Box | None:
    """The one flank that the camera sees, with its windows and wheels; its first part may lie behind the camera."""
    for (x0, z0), (x1, z1), outward in ((corners[0], corners[2], -1), (corners[1], corners[3], 1)):
        seen = x1 / z1 - x0 / z0
        if seen * outward <= 0:
            continue

        def at(along: float, y: float, ends: tuple[float, float, float, float] = (x0, z0, x1, z1)) -> Pixel:
            near_x, near_z, far_x, far_z = ends
            along = max(0.0, (along - hidden_share) / (1.0 - hidden_share))
            return brush.view.pixel(near_x + along * (far_x - near_x), y, near_z + along * (far_z - near_z))

        body = [at(0, 0.28), at(0, shape.body_top_m), at(1, shape.body_top_m), at(1, 0.28)]
        brush.draw.polygon(body, fill=darken(paint, 0.72))
        glass = brush.lighting.shade(GLASS, x0, z0)
        if vehicle.kind == "car":
            cabin = [at(0.1, 0.95), at(0.2, 1.42), at(0.62, 1.42), at(0.8, 0.95)]
            brush.draw.polygon(cabin, fill=darken(paint, 0.66))
            brush.draw.polygon([at(0.15, 0.97), at(0.23, 1.34), at(0.6, 1.34), at(0.75, 0.97)], fill=glass)
        elif vehicle.kind == "bus":
            brush.draw.polygon([at(0.03, 1.5), at(0.03, 2.5), at(0.97, 2.5), at(0.97, 1.5)], fill=glass)
        elif vehicle.kind == "van":
            brush.draw.polygon([at(0.7, 1.3), at(0.7, 1.95), at(0.92, 1.95), at(0.97, 1.3)], fill=glass)
        tyre = brush.lighting.shade(TYRE, x0, z0)
        for along in (0.2, 0.8):
            if along <= hidden_share + 0.05:
                continue
            (u, v), (_, road_v) = at(along, 0.34), at(along, 0.0)
            radius = road_v - v
            narrow = max(1.0, abs(at(along + 0.06, 0.0)[0] - u))
            brush.draw.ellipse((u - narrow, v - radius, u + narrow, v + radius), fill=tyre)
        return around(body)
    return None


def _face(brush: Brush, vehicle: Vehicle, shape: Shape, x: float, z: float, paint: Colour) -> Box:
    """What tells the kinds apart from behind (or in front, for oncoming ones): cabin, windows, doors, tyres."""
    half = shape.width_m / 2
    glass = brush.lighting.shade(GLASS, x, z)
    tyre = brush.lighting.shade(TYRE, x, z)
    for side in (-1, 1):
        inner, outer = sorted((x + side * (half - 0.34), x + side * (half - 0.08)))
        brush.rectangle(inner, outer, 0.0, 0.32, z, tyre)
    if vehicle.kind == "car":
        roof = [(-0.92, 0.93), (-0.7, 1.45), (0.7, 1.45), (0.92, 0.93)]
        pixels = [brush.view.pixel(x + across * half, y, z + 0.35) for across, y in roof]
        brush.draw.polygon(pixels, fill=darken(paint, 0.9))
        pane = [(-0.8, 0.98), (-0.62, 1.36), (0.62, 1.36), (0.8, 0.98)]
        brush.draw.polygon([brush.view.pixel(x + across * half, y, z + 0.35) for across, y in pane], fill=glass)
        brush.rectangle(x - half, x + half, 0.3, 0.44, z, darken(paint, 0.6))
        box = around(pixels)
    elif vehicle.kind == "van":
        brush.rectangle(x - 0.84, x - 0.06, 1.35, 2.0, z, glass)
        brush.rectangle(x + 0.06, x + 0.84, 1.35, 2.0, z, glass)
        box = brush.rectangle(x - 0.02, x + 0.02, 0.45, 2.15, z, darken(paint, 0.6))
    elif vehicle.kind == "bus":
        brush.rectangle(x - 1.1, x + 1.1, 1.45, 2.5, z, glass)
        brush.rectangle(x - half, x + half, 1.12, 1.3, z, toward_white(paint))
        sign = brush.lighting.shade((250, 186, 44), x, z)
        box = brush.rectangle(x - 0.75, x + 0.75, 2.62, 2.94, z, sign)
    elif vehicle.role == "oncoming":
        brush.rectangle(x - 1.1, x + 1.1, 1.5, 2.4, z, glass)
        box = brush.rectangle(x - half, x + half, 2.55, 3.5, z, brush.lighting.shade((206, 200, 186), x, z))
    else:
        brush.rectangle(x - half, x + half, 0.28, 0.95, z, brush.lighting.shade((52, 52, 56), x, z))
        brush.rectangle(x - 1.15, x + 1.15, 1.0, 3.4, z, brush.lighting.shade((206, 200, 186), x, z))
        box = brush.rectangle(x - 0.03, x + 0.03, 1.0, 3.4, z, brush.lighting.shade((96, 94, 90), x, z))
    plate = brush.lighting.shade((226, 224, 206), x, z)
    brush.rectangle(x - 0.26, x + 0.26, 0.5, 0.63, z, plate)
    return box


def _rear_lamps(brush: Brush, vehicle: Vehicle, shape: Shape, x: float, z: float, braking: bool) -> list[Found]:
    found: list[Found] = []
    across = shape.width_m / 2 - 0.22
    dull = brush.lighting.shade((120, 18, 20), x, z)
    for side in (-1, 1):
        lamp_x = x + side * across
        brush.rectangle(lamp_x - 0.17, lamp_x + 0.17, shape.lamp_m - 0.12, shape.lamp_m + 0.12, z, dull)
        if braking:
            found.append(Found(("brake-lights",), brush.lamp(lamp_x, shape.lamp_m, z, 0.21, BRAKE_LIGHT), covers=False))
        elif brush.lighting.look.lamp_halo and vehicle.role != "parked":
            brush.disc(lamp_x, shape.lamp_m, z, 0.09, (150, 20, 22))
    if braking and vehicle.kind in ("car", "van", "bus"):
        top_m = {"car": 1.3, "van": 2.08, "bus": 2.55}[vehicle.kind]
        brush.rectangle(x - 0.24, x + 0.24, top_m, top_m + 0.1, z, BRAKE_LIGHT)
    return found


def _blinkers(brush: Brush, vehicle: Vehicle, shape: Shape, x: float, z: float, at_s: float) -> list[Found]:
    """Amber lamps: both as hazard lights, one where it changes lanes; on for two thirds of each second."""
    sides: tuple[int, ...] = ()
    change = vehicle.lane_change_at(at_s)
    if vehicle.hazard_lights:
        sides = (-1, 1)
    elif change is not None:
        sides = (1 if change.shift_m > 0 else -1,)
    if (at_s * 1.25) % 1.0 > 0.67:
        return []
    across = shape.width_m / 2 - 0.12
    return [
        Found(("amber-lights",), brush.lamp(x + side * across, shape.lamp_m + 0.24, z, 0.17, AMBER), covers=False)
        for side in sides
    ]


def _front_lamps(brush: Brush, shape: Shape, x: float, z: float) -> None:
    across = shape.width_m / 2 - 0.26
    for side in (-1, 1):
        if brush.lighting.look.lamp_halo:
            brush.lamp(x + side * across, 0.7, z, 0.17, HEAD_LAMP)
        else:
            brush.disc(x + side * across, 0.7, z, 0.13, (232, 234, 236))
