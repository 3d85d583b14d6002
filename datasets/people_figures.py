"""How people on foot and on bicycles are drawn. Sizes are metres, boxes are oversampled pixels."""

from __future__ import annotations

import math

from .camera import FOCAL_LENGTH_PX
from .figures import TYRE, Box, Brush, darken
from .scene import Cyclist, Person


def draw_person(brush: Brush, person: Person, at_s: float, x: float, z: float) -> Box:
    """Somebody on foot; who walks shows it by stride, arms, a face on the side walked to and a bag on the other."""
    shade = brush.lighting.shade
    # Upright cloth in the beam is seen long before the flat road around it is.
    lit_x, lit_z = x * 0.3, z * 0.3
    coat, trousers = shade(person.coat, lit_x, lit_z), shade(person.trousers, lit_x, lit_z)
    skin, hair = shade((214, 170, 140), lit_x, lit_z), shade((58, 42, 34), lit_x, lit_z)
    facing = math.copysign(1.0, person.walk_mps) if person.walk_mps else 0.0
    stride = 0.36 * math.sin(2 * math.pi * at_s * 0.9 + person.station_m) if person.walks(at_s) else 0.1
    leg_px = max(2, round(FOCAL_LENGTH_PX * 0.15 / z))
    arm_px = max(2, round(FOCAL_LENGTH_PX * 0.11 / z))
    pixel, draw = brush.view.pixel, brush.draw
    for swing in (-1, 1):
        draw.line([pixel(x, 0.88, z), pixel(x + swing * stride, 0.04, z)], fill=trousers, width=leg_px)
        foot_x = x + swing * stride + 0.06 * facing
        brush.rectangle(foot_x - 0.1, foot_x + 0.1, 0.0, 0.09, z, shade(TYRE, x, z))
    if facing:
        bag = shade((64, 78, 60), lit_x, lit_z)
        brush.rectangle(x - facing * 0.3 - 0.12, x - facing * 0.3 + 0.12, 0.95, 1.38, z, bag)
    torso = brush.rectangle(x - 0.23, x + 0.23, 0.82, 1.46, z, coat)
    for swing in (-1, 1):
        hand_x = x + swing * (-0.8 * stride if facing else 0.3)
        draw.line([pixel(x + 0.12 * swing, 1.4, z), pixel(hand_x, 0.9, z)], fill=darken(coat, 0.8), width=arm_px)
    head = brush.disc(x, 1.62, z, 0.145, hair)
    brush.disc(x + 0.06 * facing, 1.6, z, 0.115, skin)
    left, _ = pixel(x - 0.42, 0.0, z)
    right, bottom = pixel(x + 0.42, 0.0, z)
    return left, min(head[1], torso[1]), right, bottom


def draw_cyclist(brush: Brush, cyclist: Cyclist, at_s: float, x: float, z: float) -> Box:
    """From behind where it rides along the road; from its side where it crosses it."""
    shade, pixel, draw = brush.lighting.shade, brush.view.pixel, brush.draw
    lit_x, lit_z = x * 0.3, z * 0.3
    coat, trousers = shade(cyclist.coat, lit_x, lit_z), shade(cyclist.trousers, lit_x, lit_z)
    helmet, frame = shade((240, 240, 236), lit_x, lit_z), shade((150, 40, 44), lit_x, lit_z)
    tyre = shade(TYRE, x, z)
    thin_px, leg_px = max(1, round(FOCAL_LENGTH_PX * 0.06 / z)), max(2, round(FOCAL_LENGTH_PX * 0.14 / z))
    pedal = math.sin(2 * math.pi * at_s * 0.8)
    if cyclist.cross_mps == 0.0:
        brush.rectangle(x - 0.04, x + 0.04, 0.0, 0.7, z, tyre)
        for side in (-1, 1):
            knee_m = 0.55 + 0.12 * side * pedal
            draw.line([pixel(x + 0.1 * side, 0.95, z), pixel(x + 0.13 * side, knee_m, z)], fill=trousers, width=leg_px)
        brush.rectangle(x - 0.23, x + 0.23, 0.9, 1.5, z, coat)
        draw.line([pixel(x - 0.36, 1.05, z), pixel(x + 0.36, 1.05, z)], fill=tyre, width=thin_px)
        brush.disc(x, 1.68, z, 0.15, helmet)
        brush.disc(x, 0.78, z, 0.07, (255, 40, 30))
        half_m = 0.38
    else:
        ahead = math.copysign(1.0, cyclist.cross_mps)
        for wheel in (-0.52, 0.52):
            u, v = pixel(x + wheel, 0.34, z)
            radius = FOCAL_LENGTH_PX * 0.34 / z
            draw.ellipse((u - radius, v - radius, u + radius, v + radius), outline=tyre, width=max(2, thin_px))
        bars = [pixel(x + a * ahead, y, z) for a, y in ((-0.52, 0.34), (-0.15, 0.85), (0.38, 0.85), (0.52, 0.34))]
        draw.line(bars, fill=frame, width=max(2, thin_px))
        foot = pixel(x + (0.05 + 0.15 * pedal) * ahead, 0.3, z)
        draw.line([pixel(x - 0.15 * ahead, 0.95, z), pixel(x + 0.2 * ahead, 0.7, z), foot], fill=trousers, width=leg_px)
        back = [(-0.28, 0.9), (0.05, 0.95), (0.32, 1.42), (0.02, 1.52)]
        draw.polygon([pixel(x + a * ahead, y, z) for a, y in back], fill=coat)
        draw.line(
            [pixel(x + 0.2 * ahead, 1.36, z), pixel(x + 0.45 * ahead, 0.98, z)], fill=darken(coat, 0.8), width=leg_px
        )
        brush.disc(x + 0.26 * ahead, 1.65, z, 0.15, helmet)
        half_m = 0.86
    left, top = pixel(x - half_m, 1.8, z)
    right, bottom = pixel(x + half_m, 0.0, z)
    return left, top, right, bottom
