"""Dash-camera frames of a drive, with the boxes of what is seen in them."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .camera import FRAME_HEIGHT, FRAME_WIDTH, HORIZON_PX, NEAREST_M, OVERSAMPLING, Pixel, View
from .figures import (
    Box,
    Brush,
    draw_building,
    draw_person,
    draw_stop_sign,
    draw_traffic_light,
    draw_tree,
)
from .lighting import Lighting
from .scene import Building, Colour, Crosswalk, Drive, Junction, Person, StopSign, TrafficLight, Tree, Vehicle
from .vehicle_figures import draw_vehicle

# A box may have several names: the vehicle ahead is "lead" and, say, "truck".
OBJECT_NAMES = (
    "red-light",
    "yellow-light",
    "green-light",
    "stop-sign",
    "pedestrian",
    "bystander",
    "car",
    "truck",
    "bus",
    "van",
    "lead",
    "oncoming",
    "parked",
    "brake-lights",
    "crosswalk",
)

FARTHEST_M = 110.0
# Distances ahead at which the road is sampled: dense near the camera, where a bend's edge is long in the picture.
_ROAD_AHEAD_M = np.concatenate([[NEAREST_M + 0.2], 3.2 * 1.2 ** np.arange(20)])
_STRIPS = ((0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 13), (13, 16), (16, 20))
# The own bonnet at the bottom of the picture, oversampled pixels.
_BONNET: Box = (30.0, 366.0, 610.0, 470.0)
_WHITE: Colour = (222, 222, 216)
_YELLOW: Colour = (218, 178, 62)
# The share of a box that must be in the frame and uncovered for it to be reported.
_LEAST_SEEN_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class ObjectBox:
    """Something in a frame: its names out of OBJECT_NAMES and its edges in pixels of the 320 x 192 frame."""

    names: tuple[str, ...]
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height_px(self) -> float:
        return self.bottom - self.top

    @property
    def side(self) -> str:
        """The half of the frame that its middle is in."""
        return "left" if self.left + self.right < FRAME_WIDTH else "right"


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
        self._lighting = Lighting(drive.time_of_day, rng)
        ground = rng.choice(((96, 124, 70), (122, 122, 88), (108, 110, 104), (84, 112, 62)))
        width, height = FRAME_WIDTH * OVERSAMPLING, FRAME_HEIGHT * OVERSAMPLING
        self._backdrop = self._lighting.backdrop(width, height, HORIZON_PX, ground)
        self._skyline = self._lighting.skyline(4 * width, 44, rng)
        grey = rng.randint(78, 104)
        self._asphalt: Colour = (grey, grey, grey + 4)
        paving = rng.randint(142, 168)
        self._paving: Colour = (paving, paving - 3, paving - 10)
        # Whatever the light, the own bonnet stays dark and dull: it must not be taken for a road user.
        self._bonnet = self._lighting.shade(rng.choice(((34, 36, 40), (58, 60, 64), (44, 36, 34))), 0.0, 2.0)
        self._camera_lateral_m = rng.uniform(-0.35, 0.35)

    def frame(self, at_s: float) -> Frame:
        drive = self._drive
        view = View(drive.centre_line, drive.motion.station_m(at_s), self._camera_lateral_m)
        image = self._backdrop.copy()
        self._paste_skyline(image, view)
        brush = Brush(ImageDraw.Draw(image), view, self._lighting)
        boxes = self._draw_ground(brush)
        boxes += self._draw_things(brush, at_s)
        brush.draw.ellipse(_BONNET, fill=self._bonnet)
        return Frame(image.reduce(OVERSAMPLING), _seen(boxes))

    def _paste_skyline(self, image: Image.Image, view: View) -> None:
        strip = self._skyline
        offset = int(view.heading_rad / (2 * math.pi) * strip.width * 2) % strip.width
        for left in (-offset, strip.width - offset):
            image.paste(strip, (left, HORIZON_PX - strip.height), strip)

    def _draw_ground(self, brush: Brush) -> list[_Found]:
        drive, road, view, shade = self._drive, self._drive.road, brush.view, self._lighting.shade
        ahead = view.station_m + _ROAD_AHEAD_M
        pavement_m = road.pavement_width_m
        laterals = np.array([road.left_edge_m - pavement_m, road.left_edge_m, road.right_edge_m])
        laterals = np.append(laterals, road.right_edge_m + pavement_m)
        x, z = view.locate(np.broadcast_to(ahead, (4, len(ahead))), laterals[:, None])
        # A road that turns far away from the view's axis is out of the picture before it comes back.
        usable = int(np.argmax(z.min(axis=0) < NEAREST_M)) or len(ahead)
        edges = [view.ground_pixels(np.maximum(x_, -1e4), np.maximum(z_, 0.1)) for x_, z_ in zip(x, z, strict=True)]
        nearby = [junction for junction in drive.junctions if self._in_reach(junction.start_m, junction.end_m, view)]
        for left, right, colour in ((0, 3, self._paving), (1, 2, self._asphalt)):
            for first, last in reversed(_STRIPS):
                # A strip reaches into the farther one behind it, so that no seam shows between them.
                end = min(last + 1, usable - 1)
                if first < end:
                    outline = edges[left][first : end + 1] + edges[right][first : end + 1][::-1]
                    middle_m = float(z[1, (first + end) // 2])
                    brush.draw.polygon(outline, fill=shade(colour, 0.0, middle_m))
        for junction in nearby:
            self._draw_junction(brush, junction)
        self._draw_markings(brush, nearby)
        boxes: list[_Found] = []
        for crosswalk in drive.crosswalks:
            boxes += self._draw_crosswalk(brush, crosswalk)
        for line in drive.stop_lines:
            if self._in_reach(line.station_m, line.station_m + 0.5, view):
                self._patch(brush, line.station_m, line.station_m + 0.5, road.centre_m + 0.2, road.lanes_end_m, _WHITE)
        return boxes

    @staticmethod
    def _in_reach(start_m: float, end_m: float, view: View) -> bool:
        return end_m > view.station_m + NEAREST_M and start_m < view.station_m + FARTHEST_M

    def _patch(
        self, brush: Brush, start_m: float, end_m: float, left_m: float, right_m: float, colour: Colour
    ) -> list[Pixel]:
        """A rectangle of the road's surface, in one colour."""
        stations, laterals = [start_m, start_m, end_m, end_m], [left_m, right_m, right_m, left_m]
        outline = brush.view.ground_polygon(np.array(stations), np.array(laterals))
        if outline:
            distance_m = max(NEAREST_M, (start_m + end_m) / 2 - brush.view.station_m)
            brush.draw.polygon(outline, fill=self._lighting.shade(colour, (left_m + right_m) / 2, distance_m))
        return outline

    def _draw_junction(self, brush: Brush, junction: Junction) -> None:
        road = self._drive.road
        start_m, end_m = junction.start_m, junction.end_m
        pavement_m = road.pavement_width_m
        self._patch(brush, start_m - pavement_m, end_m + pavement_m, -50.0, road.left_edge_m, self._paving)
        self._patch(brush, start_m - pavement_m, end_m + pavement_m, road.right_edge_m, 50.0, self._paving)
        self._patch(brush, start_m, end_m, -50.0, 50.0, self._asphalt)

    def _draw_markings(self, brush: Brush, junctions: list[Junction]) -> None:
        """Edge lines, the yellow line between the directions and dashes between lanes; none inside a junction."""
        road, view = self._drive.road, brush.view
        near = view.station_m + NEAREST_M

        def crosses(start_m: float, end_m: float) -> bool:
            return any(start_m < junction.end_m + 0.5 and end_m > junction.start_m - 0.5 for junction in junctions)

        solid = [(road.left_edge_m + 0.2, _WHITE), (road.lanes_end_m - 0.12, _WHITE)]
        if road.oncoming_lanes:
            solid += [(road.centre_m - 0.11, _YELLOW), (road.centre_m + 0.11, _YELLOW)]
        dashed = [road.centre_m - lane * road.lane_width_m for lane in range(1, road.oncoming_lanes)]
        dashed += [-0.5 * road.lane_width_m] * (road.lanes_left > 0) + [0.5 * road.lane_width_m] * (
            road.lanes_right > 0
        )
        pieces: list[tuple[float, float, float, Colour]] = []
        bounds = [near, near + 2.0, near + 5.0, near + 10.0, near + 18.0, near + 32.0, near + 60.0]
        for start_m, end_m in itertools.pairwise(bounds):
            for from_m, to_m in _outside_of(start_m, end_m, junctions):
                pieces += [(from_m, to_m, lateral, colour) for lateral, colour in solid]
        first = 9.0 * math.floor(near / 9.0)
        for start_m in np.arange(first, near + 54.0, 9.0).tolist():
            if not crosses(start_m, start_m + 3.0) and start_m + 3.0 > near:
                pieces += [(max(start_m, near), start_m + 3.0, lateral, _WHITE) for lateral in dashed]
        for start_m, end_m, lateral, colour in pieces:
            self._patch(brush, start_m, end_m, lateral - 0.07, lateral + 0.07, colour)

    def _draw_crosswalk(self, brush: Brush, crosswalk: Crosswalk) -> list[_Found]:
        road, start_m = self._drive.road, crosswalk.station_m
        if not self._in_reach(start_m, start_m + 2.6, brush.view):
            return []
        pixels: list[Pixel] = []
        for left_m in np.arange(road.left_edge_m + 0.4, road.right_edge_m - 0.5, 1.1).tolist():
            pixels += self._patch(brush, start_m, start_m + 2.6, left_m, left_m + 0.55, _WHITE)
        if not pixels:
            return []
        across, down = [u for u, _ in pixels], [v for _, v in pixels]
        return [_Found(("crosswalk",), (min(across), min(down), max(across), max(down)), covers=False)]

    def _draw_things(self, brush: Brush, at_s: float) -> list[_Found]:
        """Everything that stands or moves, the farthest first, so that near things hide far ones."""
        drive, view = self._drive, brush.view
        placed: list[tuple[object, float, float, float]] = []
        for standing in drive.standing:
            lateral_m, reach_m = 0.0, standing.station_m
            if isinstance(standing, Tree | Building):
                lateral_m = standing.lateral_m
            elif isinstance(standing, StopSign):
                lateral_m = drive.road.right_edge_m + 0.9
            if isinstance(standing, Building):
                reach_m = standing.station_m + standing.length_m
            placed.append((standing, standing.station_m, lateral_m, reach_m))
        for vehicle in drive.vehicles:
            station_m = vehicle.station_m(at_s)
            lateral_m = vehicle.lateral_at(at_s)
            # A flank beside the camera is in sight although its rear is not.
            shown_m = max(station_m, min(view.station_m + NEAREST_M, station_m + 11.0))
            placed.append((vehicle, station_m, lateral_m, shown_m))
        for person in drive.people:
            placed.append((person, person.station_m, person.lateral_at(at_s), person.station_m))
        near, far = view.station_m + NEAREST_M, view.station_m + FARTHEST_M
        placed = [item for item in placed if near <= item[3] and item[1] <= far]
        if not placed:
            return []
        xs, zs = view.locate([item[1] for item in placed], [item[2] for item in placed])
        found: list[_Found] = []
        for index in sorted(range(len(placed)), key=lambda index: -(placed[index][3])):
            x, z = float(xs[index]), float(zs[index])
            found += self._draw_thing(brush, placed[index][0], x, z, at_s)
        return found

    def _draw_thing(self, brush: Brush, thing: object, x: float, z: float, at_s: float) -> list[_Found]:
        if isinstance(thing, Vehicle):
            return _vehicle_found(brush, thing, at_s)
        if isinstance(thing, Building):
            box = draw_building(brush, thing)
            return [_Found((), box)] if box else []
        if z < NEAREST_M:
            return []
        if isinstance(thing, Tree):
            draw_tree(brush, thing, x, z)
            return []
        if isinstance(thing, Person):
            name = "pedestrian" if thing.walks(at_s) else "bystander"
            return [_Found((name,), draw_person(brush, thing, at_s, x, z))]
        if isinstance(thing, StopSign):
            return [_Found(("stop-sign",), draw_stop_sign(brush, x, z))]
        if isinstance(thing, TrafficLight):
            lit = thing.lit(at_s)
            pole_x = x + self._drive.road.right_edge_m + 0.9
            lamps = draw_traffic_light(brush, lit, x, pole_x, z)
            return [_Found((f"{lit}-light",), lamp, covers=False) for lamp in lamps]
        raise TypeError(f"no way to draw {thing!r}")


@dataclass(frozen=True, slots=True)
class _Found:
    """Something drawn: names, box in oversampled pixels, whether it hides what is behind it."""

    names: tuple[str, ...]
    box: Box
    covers: bool = True


def _vehicle_found(brush: Brush, vehicle: Vehicle, at_s: float) -> list[_Found]:
    box, brakes = draw_vehicle(brush, vehicle, at_s)
    if box is None:
        return []
    found = [_Found((vehicle.role, vehicle.kind), box)]
    return found + [_Found(("brake-lights",), brake, covers=False) for brake in brakes]


def _outside_of(start_m: float, end_m: float, junctions: list[Junction]) -> list[tuple[float, float]]:
    """The parts of a stretch that lie in no junction."""
    parts = [(start_m, end_m)]
    for junction in junctions:
        cut: list[tuple[float, float]] = []
        for a, b in parts:
            cut += [(a, min(b, junction.start_m)), (max(a, junction.end_m), b)]
        parts = [(a, b) for a, b in cut if b - a > 0.05]
    return parts


def _seen(found: list[_Found]) -> tuple[ObjectBox, ...]:
    """Boxes in frame pixels of what is inside the frame and not hidden; `found` has far things first."""
    seen: list[ObjectBox] = []
    width, height = FRAME_WIDTH * OVERSAMPLING, FRAME_HEIGHT * OVERSAMPLING
    for index, item in enumerate(found):
        if not item.names:
            continue
        left, top, right, bottom = item.box
        whole = max(1e-6, (right - left) * (bottom - top))
        inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        hidden = [_overlap(inside, nearer.box) for nearer in found[index + 1 :] if nearer.covers]
        if _overlap(inside, item.box) - max(hidden, default=0.0) < _LEAST_SEEN_SHARE * whole:
            continue
        seen.append(ObjectBox(item.names, *(edge / OVERSAMPLING for edge in inside)))
    return tuple(seen)


def _overlap(a: Box, b: Box) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0
