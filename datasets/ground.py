"""The road's surface: asphalt and pavements, junctions, and everything that is painted on them."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .boxes import Found
from .camera import FRAME_HEIGHT, FRAME_WIDTH, NEAREST_M, OVERSAMPLING, Floats, Pixel, View
from .figures import Box, Brush, around
from .lighting import Lighting
from .scene import Colour, Crosswalk, Drive, Junction, LaneArrow, LaneEnd, Side, Turn

FARTHEST_M = 110.0
# Distances ahead at which the road is sampled: dense near the camera, where a bend's edge is long in the picture.
_ROAD_AHEAD_M = np.concatenate([[NEAREST_M + 0.2], 3.2 * 1.2 ** np.arange(20)])
_STRIPS = ((0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 13), (13, 16), (16, 20))
_ARM_M = 60.0
_WHITE: Colour = (222, 222, 216)
_YELLOW: Colour = (218, 178, 62)
# An arrow that bends to the right, (along, across) in metres; its mirror image bends to the left.
_ARROW = (
    ((0.0, -0.15), (1.9, -0.15), (1.9, 0.15), (0.0, 0.15)),
    ((1.6, 0.1), (1.6, 0.55), (2.05, 0.55), (2.05, -0.15), (1.6, -0.15)),
    ((1.1, 0.5), (2.5, 0.5), (1.8, 1.25)),
)

Arm = tuple[Floats, Floats]


class Ground:
    """Draws the surface of one drive's road."""

    def __init__(self, drive: Drive, lighting: Lighting, asphalt: Colour, paving: Colour) -> None:
        self._drive = drive
        self._lighting = lighting
        self._asphalt = asphalt
        self._paving = paving

    def draw(self, brush: Brush) -> list[Found]:
        drive, view = self._drive, brush.view
        junctions = [junction for junction in drive.junctions if _in_reach(junction.start_m, junction.end_m, view)]
        turns = [turn for turn in drive.turns if _in_reach(turn.start_m - 5.0, turn.end_m + 30.0, view)]
        self._draw_surface(brush, turns)
        for junction in junctions:
            self._draw_junction(brush, junction)
        unmarked = [(junction.start_m, junction.end_m) for junction in junctions]
        unmarked += [(turn.start_m, turn.end_m) for turn in turns]
        for turn in turns:
            if not turn.closed:
                self._draw_guide_lines(brush, turn)
        lane_ends = [end for end in drive.lane_ends if _in_reach(end.start_m, end.end_m, view)]
        self._draw_markings(brush, unmarked)
        found: list[Found] = []
        for lane_end in lane_ends:
            found += self._draw_lane_end(brush, lane_end)
        for crosswalk in drive.crosswalks:
            found += self._draw_crosswalk(brush, crosswalk)
        for arrow in drive.lane_arrows:
            found += self._draw_arrow(brush, arrow)
        for line in drive.stop_lines:
            if _in_reach(line.station_m, line.station_m + 0.5, view):
                lanes = drive.road.centre_m + 0.2, drive.road.lanes_end_m
                self._patch(brush, line.station_m, line.station_m + 0.5, *lanes, _WHITE)
        return found

    def _draw_surface(self, brush: Brush, turns: list[Turn]) -> None:
        """Pavements below the asphalt, of the road and of the other arms at a turn."""
        road, view, shade = self._drive.road, brush.view, self._lighting.shade
        ahead = view.station_m + _ROAD_AHEAD_M
        pavement_m = road.pavement_width_m
        for colour, extra_m in ((self._paving, pavement_m), (self._asphalt, 0.0)):
            laterals = np.array([[road.left_edge_m - extra_m], [road.right_edge_m + extra_m]])
            x, z = view.locate(np.broadcast_to(ahead, (2, len(ahead))), laterals)
            for first, last in reversed(_STRIPS):
                # A strip reaches into the farther one behind it, so that no seam shows between them.
                part = slice(first, last + 2)
                outline = view.polygon_pixels(
                    np.concatenate([x[0, part], x[1, part][::-1]]), np.concatenate([z[0, part], z[1, part][::-1]])
                )
                if outline:
                    middle_m = max(NEAREST_M, float(z[:, (first + last) // 2].mean()))
                    brush.draw.polygon(outline, fill=shade(colour, 0.0, middle_m))
            for turn in turns:
                for arm in self._arms(turn, extra_m):
                    x_arm, z_arm = view.locate_in_plane(*arm)
                    outline = view.polygon_pixels(x_arm, z_arm)
                    if outline:
                        near_m = max(NEAREST_M, float(np.clip(z_arm, 0.0, 40.0).mean()))
                        brush.draw.polygon(outline, fill=shade(colour, 0.0, near_m))

    def _arms(self, turn: Turn, extra_m: float) -> list[Arm]:
        """The two arms of a crossing that the own way does not take: straight on, and opposite to the exit."""
        line, road = self._drive.centre_line, self._drive.road
        left_m, right_m = road.left_edge_m - extra_m, road.right_edge_m + extra_m
        corner = line.corner(turn.start_m, turn.end_m)
        arms: list[Arm] = []
        for heading, away in ((line.heading_rad(turn.start_m), 1.0), (line.heading_rad(turn.end_m), -1.0)):
            along_m = np.array([-12.0, -12.0, _ARM_M, _ARM_M]) * away
            across_m = np.array([left_m, right_m, right_m, left_m])
            east = corner[0] + math.sin(heading) * along_m + math.cos(heading) * across_m
            north = corner[1] + math.cos(heading) * along_m - math.sin(heading) * across_m
            arms.append((east, north))
        return arms

    def _patch(
        self, brush: Brush, start_m: float, end_m: float, left_m: float, right_m: float, colour: Colour
    ) -> list[Pixel]:
        """A rectangle of the road's surface, in one colour."""
        return self._area(brush, [(start_m, left_m), (start_m, right_m), (end_m, right_m), (end_m, left_m)], colour)

    def _area(self, brush: Brush, corners: list[tuple[float, float]], colour: Colour) -> list[Pixel]:
        """A polygon of the road's surface, corners as (station, lateral), in one colour."""
        stations = np.array([station_m for station_m, _ in corners])
        laterals = np.array([lateral_m for _, lateral_m in corners])
        outline = brush.view.ground_polygon(stations, laterals)
        if outline:
            distance_m = max(NEAREST_M, float(stations.mean()) - brush.view.station_m)
            brush.draw.polygon(outline, fill=self._lighting.shade(colour, float(laterals.mean()), distance_m))
        return outline

    def _draw_junction(self, brush: Brush, junction: Junction) -> None:
        road = self._drive.road
        start_m, end_m = junction.start_m, junction.end_m
        pavement_m = road.pavement_width_m
        self._patch(brush, start_m - pavement_m, end_m + pavement_m, -50.0, road.left_edge_m, self._paving)
        self._patch(brush, start_m - pavement_m, end_m + pavement_m, road.right_edge_m, 50.0, self._paving)
        self._patch(brush, start_m, end_m, -50.0, 50.0, self._asphalt)

    def _draw_markings(self, brush: Brush, unmarked: list[tuple[float, float]]) -> None:
        """Edge lines, the yellow line between the directions and dashes between lanes; none inside a junction."""
        road, view = self._drive.road, brush.view
        near = view.station_m + NEAREST_M
        solid = [(road.left_edge_m + 0.2, _WHITE), (road.lanes_end_m - 0.12, _WHITE)]
        solid += [(road.centre_m - 0.11, _YELLOW), (road.centre_m + 0.11, _YELLOW)]
        dashed = [road.centre_m - lane * road.lane_width_m for lane in range(1, road.oncoming_lanes)]
        dashed += [-0.5 * road.lane_width_m] * (road.lanes_left > 0) + [0.5 * road.lane_width_m] * (
            road.lanes_right > 0
        )
        pieces: list[tuple[float, float, float, Colour]] = []
        bounds = [near, near + 2.0, near + 5.0, near + 10.0, near + 18.0, near + 32.0, near + 60.0]
        for start_m, end_m in itertools.pairwise(bounds):
            for from_m, to_m in _outside_of(start_m, end_m, unmarked):
                pieces += [(from_m, to_m, lateral, colour) for lateral, colour in solid]
        first = 9.0 * math.floor(near / 9.0)
        for start_m in np.arange(first, near + 54.0, 9.0).tolist():
            crosses = any(start_m < end + 0.5 and start_m + 3.0 > start - 0.5 for start, end in unmarked)
            if not crosses and start_m + 3.0 > near:
                pieces += [(max(start_m, near), start_m + 3.0, lateral, _WHITE) for lateral in dashed]
        for start_m, end_m, lateral, colour in pieces:
            self._patch(brush, start_m, end_m, lateral - 0.07, lateral + 0.07, colour)

    def _draw_guide_lines(self, brush: Brush, turn: Turn) -> None:
        """The dashes that lead through a junction, on both sides of the own lane."""
        half_m = self._drive.road.lane_width_m / 2
        for start_m in np.arange(turn.start_m, turn.end_m, 1.8).tolist():
            for lateral_m in (-half_m, half_m):
                self._patch(brush, start_m, start_m + 1.0, lateral_m - 0.09, lateral_m + 0.09, _WHITE)

    def _draw_crosswalk(self, brush: Brush, crosswalk: Crosswalk) -> list[Found]:
        road, start_m = self._drive.road, crosswalk.station_m
        if not _in_reach(start_m, start_m + 2.6, brush.view):
            return []
        pixels: list[Pixel] = []
        for left_m in np.arange(road.left_edge_m + 0.4, road.right_edge_m - 0.5, 1.1).tolist():
            pixels += self._patch(brush, start_m, start_m + 2.6, left_m, left_m + 0.55, _WHITE)
        return [Found(("crosswalk",), _inside_frame(around(pixels)), covers=False)] if pixels else []

    def _draw_lane_end(self, brush: Brush, end: LaneEnd) -> list[Found]:
        """A thick line that narrows the lane to nothing, and hatching behind it."""
        half_m = self._drive.road.lane_width_m / 2
        toward = 1.0 if end.side == "right" else -1.0
        outer_m, inner_m = end.lane_m - toward * (half_m - 0.2), end.lane_m + toward * half_m
        full_m = end.start_m + end.taper_m

        def edge_m(station_m: float) -> float:
            share = min(max((station_m - end.start_m) / end.taper_m, 0.0), 1.0)
            return outer_m + share * (inner_m - outer_m)

        pixels: list[Pixel] = []
        bounds = [*np.linspace(end.start_m, full_m, 5).tolist(), end.end_m]
        for start_m, end_m in itertools.pairwise(bounds):
            inner = [(start_m, edge_m(start_m)), (end_m, edge_m(end_m))]
            outer = [(end_m, edge_m(end_m) - toward * 0.25), (start_m, edge_m(start_m) - toward * 0.25)]
            pixels += self._area(brush, [*inner, *outer], _WHITE)
        for start_m in np.arange(end.start_m + 5.0, end.end_m, 4.0).tolist():
            reach_m = edge_m(start_m) - outer_m
            corners = [(start_m, outer_m), (start_m + 1.1, outer_m)]
            corners += [(start_m + 1.1 - abs(reach_m), outer_m + reach_m), (start_m - abs(reach_m), outer_m + reach_m)]
            self._area(brush, corners, _WHITE)
        return [Found(("lane-end",), _inside_frame(around(pixels)), covers=False)] if pixels else []

    def _draw_arrow(self, brush: Brush, arrow: LaneArrow) -> list[Found]:
        if not _in_reach(arrow.station_m, arrow.station_m + 3.5, brush.view):
            return []
        toward = 1.0 if arrow.side == "right" else -1.0
        pixels: list[Pixel] = []
        for part in _ARROW:
            # Arrows are painted long, because they are seen from a low eye.
            corners = [(arrow.station_m + 1.6 * a, arrow.lateral_m + toward * (b - 0.4)) for a, b in part]
            pixels += self._area(brush, corners, _WHITE)
        return [Found((_arrow_name(arrow.side),), around(pixels), covers=False)] if pixels else []


def _inside_frame(box: Box) -> Box:
    """What of a long marking is in sight; most of it lies behind the picture's edges although it is well seen."""
    width, height = FRAME_WIDTH * OVERSAMPLING, FRAME_HEIGHT * OVERSAMPLING
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    return left, top, max(left, min(box[2], width)), max(top, min(box[3], height))


def _arrow_name(side: Side) -> str:
    return f"{side}-arrow"


def _in_reach(start_m: float, end_m: float, view: View) -> bool:
    return end_m > view.station_m + NEAREST_M and start_m < view.station_m + FARTHEST_M


def _outside_of(start_m: float, end_m: float, stretches: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The parts of a stretch that lie in none of the others."""
    parts = [(start_m, end_m)]
    for start, end in stretches:
        cut: list[tuple[float, float]] = []
        for a, b in parts:
            cut += [(a, min(b, start)), (max(a, end), b)]
        parts = [(a, b) for a, b in cut if b - a > 0.05]
    return parts
