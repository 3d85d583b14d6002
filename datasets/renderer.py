"""Dash-camera frames of a drive, with the boxes of what is seen in them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .boxes import Found, ObjectBox, seen
from .camera import FRAME_HEIGHT, FRAME_WIDTH, HORIZON_PX, NEAREST_M, OVERSAMPLING, View
from .figures import (
    Box,
    Brush,
    draw_barrier,
    draw_building,
    draw_cone,
    draw_stop_sign,
    draw_traffic_light,
    draw_tree,
    draw_warning_sign,
)
from .ground import FARTHEST_M, Ground
from .lighting import Lighting
from .people_figures import draw_cyclist, draw_person
from .scene import (
    Barrier,
    Building,
    Cone,
    Cyclist,
    Drive,
    Person,
    Standing,
    StopSign,
    TrafficLight,
    Tree,
    Turn,
    Vehicle,
    WarningSign,
)
from .vehicle_figures import draw_vehicle

# The own bonnet at the bottom of the picture, oversampled pixels.
_BONNET: Box = (30.0, 366.0, 610.0, 470.0)
# Vehicles whose middle is less than this beside the own one's are in the own lane.
_OWN_LANE_M = 1.7


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture (RGB, 320 x 192) and what can be seen in it, far things first."""

    image: Image.Image
    boxes: tuple[ObjectBox, ...]


class Renderer:
    """Renders one drive. Frames may be asked for in any order, and each depends on its moment alone."""

    def __init__(self, drive: Drive) -> None:
        rng = random.Random(f"appearance {drive.seed}")
        self._drive = drive
        self._lighting = Lighting(drive.conditions, rng)
        ground = rng.choice(((96, 124, 70), (122, 122, 88), (108, 110, 104), (84, 112, 62)))
        width, height = FRAME_WIDTH * OVERSAMPLING, FRAME_HEIGHT * OVERSAMPLING
        self._backdrop = self._lighting.backdrop(width, height, HORIZON_PX, ground)
        self._skyline = self._lighting.skyline(4 * width, 44, rng)
        grey = rng.randint(78, 104)
        paving = rng.randint(142, 168)
        self._ground = Ground(
            drive, self._lighting, asphalt=(grey, grey, grey + 4), paving=(paving, paving - 3, paving - 10)
        )
        # Whatever the light, the own bonnet stays dark and dull: it must not be taken for a road user.
        self._bonnet = self._lighting.shade(rng.choice(((34, 36, 40), (58, 60, 64), (44, 36, 34))), 0.0, 2.0)
        self._camera_lateral_m = rng.uniform(-0.2, 0.2)

    def frame(self, at_s: float) -> Frame:
        drive = self._drive
        lateral_m = drive.lateral_at(at_s) + self._camera_lateral_m
        view = View(drive.centre_line, drive.motion.station_m(at_s), lateral_m, drive.heading_rad(at_s))
        image = self._backdrop.copy()
        self._paste_skyline(image, view)
        brush = Brush(ImageDraw.Draw(image), view, self._lighting)
        found = self._ground.draw(brush)
        found += self._draw_things(brush, at_s)
        brush.draw.ellipse(_BONNET, fill=self._bonnet)
        picture = image.reduce(OVERSAMPLING)
        self._lighting.let_it_rain(picture, at_s)
        return Frame(picture, seen(found))

    def _paste_skyline(self, image: Image.Image, view: View) -> None:
        strip = self._skyline
        offset = int(view.heading_rad / (2 * math.pi) * strip.width * 2) % strip.width
        for left in (-offset, strip.width - offset):
            image.paste(strip, (left, HORIZON_PX - strip.height), strip)

    def _draw_things(self, brush: Brush, at_s: float) -> list[Found]:
        """Everything that stands or moves, the farthest first, so that near things hide far ones."""
        drive, view = self._drive, brush.view
        # (thing, station, lateral, the last station at which something of it is in sight)
        placed: list[tuple[object, float, float, float]] = []
        for standing in drive.standing:
            reach_m = standing.station_m + (standing.length_m if isinstance(standing, Building) else 0.0)
            placed.append((standing, standing.station_m, self._lateral_of(standing), reach_m))
        for vehicle in drive.vehicles:
            if at_s < vehicle.from_s:
                continue
            station_m = vehicle.station_m(at_s)
            # A flank beside the camera is in sight although its rear is not.
            shown_m = max(station_m, min(view.station_m + NEAREST_M, station_m + 11.0))
            placed.append((vehicle, station_m, vehicle.lateral_at(at_s), shown_m))
        for person in drive.people:
            placed.append((person, person.station_m, person.lateral_at(at_s), person.station_m))
        for cyclist in drive.cyclists:
            station_m = cyclist.station_m(at_s)
            placed.append((cyclist, station_m, cyclist.lateral_at(at_s), station_m))
        for turn in drive.turns:
            if turn.closed:
                placed.append((turn, turn.end_m, 0.0, turn.end_m))
        near, far = view.station_m + NEAREST_M, view.station_m + FARTHEST_M
        placed = [item for item in placed if near <= item[3] and item[1] <= far]
        if not placed:
            return []
        xs, zs = view.locate([item[1] for item in placed], [item[2] for item in placed])
        found: list[Found] = []
        for index in sorted(range(len(placed)), key=lambda index: -(placed[index][3])):
            x, z = float(xs[index]), float(zs[index])
            found += self._draw_thing(brush, placed[index][0], x, z, at_s)
        return found

    def _lateral_of(self, standing: Standing) -> float:
        """Where something stands across the road; signs stand beside it, a light's mast at its right edge."""
        road = self._drive.road
        if isinstance(standing, WarningSign):
            return road.edge_m(standing.side) + (1.0 if standing.side == "right" else -1.0)
        if isinstance(standing, StopSign):
            return road.right_edge_m + 0.9
        return standing.lateral_m

    def _draw_thing(self, brush: Brush, thing: object, x: float, z: float, at_s: float) -> list[Found]:
        if isinstance(thing, Vehicle):
            return self._draw_vehicle(brush, thing, at_s)
        if isinstance(thing, Building):
            box = draw_building(brush, thing)
            return [Found((), box)] if box else []
        if isinstance(thing, Turn):
            return self._draw_closure(brush, thing)
        if z < NEAREST_M:
            return []
        if isinstance(thing, Tree):
            draw_tree(brush, thing, x, z)
            return []
        if isinstance(thing, Person):
            name = "pedestrian" if thing.walks(at_s) else "bystander"
            return [Found((name,), draw_person(brush, thing, at_s, x, z))]
        if isinstance(thing, Cyclist):
            name = "crossing-cyclist" if thing.cross_mps else "riding-cyclist"
            return [Found((name,), draw_cyclist(brush, thing, at_s, x, z))]
        if isinstance(thing, StopSign):
            return [Found(("stop-sign",), draw_stop_sign(brush, x, z))]
        if isinstance(thing, WarningSign):
            return [Found(("warning-sign",), draw_warning_sign(brush, thing, x, z))]
        if isinstance(thing, Cone):
            return [Found(("cone",), draw_cone(brush, x, z), covers=False)]
        if isinstance(thing, Barrier):
            return [Found(("barrier",), draw_barrier(brush, x, z, thing.width_m))]
        if isinstance(thing, TrafficLight):
            lit = thing.lit(at_s)
            pole_x = x + self._drive.road.right_edge_m + 0.9 - thing.lateral_m
            lamps = draw_traffic_light(brush, lit, x, pole_x, z)
            return [Found((f"{lit}-light",), lamp, covers=False) for lamp in lamps]
        raise TypeError(f"no way to draw {thing!r}")

    def _draw_vehicle(self, brush: Brush, vehicle: Vehicle, at_s: float) -> list[Found]:
        box, lamps = draw_vehicle(brush, vehicle, at_s)
        if box is None:
            return []
        name: str = vehicle.role
        if vehicle.role == "traffic":
            beside_m = abs(vehicle.lateral_at(at_s) - self._drive.lateral_at(at_s))
            name = "lead" if beside_m < _OWN_LANE_M else "beside"
        return [Found((name, vehicle.kind), box), *lamps]

    def _draw_closure(self, brush: Brush, turn: Turn) -> list[Found]:
        """A barrier across the arm of a junction that would lead straight on."""
        line, road = self._drive.centre_line, self._drive.road
        heading = line.heading_rad(turn.start_m)
        east, north = line.corner(turn.start_m, turn.end_m)
        beyond_m, across_m = road.right_edge_m + 3.0, (road.left_edge_m + road.right_edge_m) / 2
        east += math.sin(heading) * beyond_m + math.cos(heading) * across_m
        north += math.cos(heading) * beyond_m - math.sin(heading) * across_m
        (x,), (z,) = brush.view.locate_in_plane(np.array([east]), np.array([north]))
        if z < NEAREST_M:
            return []
        width_m = road.right_edge_m - road.left_edge_m
        return [Found(("barrier",), draw_barrier(brush, float(x), float(z), width_m))]
