"""The dash camera: from stations and laterals along the road to pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .kinematics import CentreLine

FRAME_WIDTH = 320
FRAME_HEIGHT = 192
# Frames are drawn twice as large and halved, which smooths every edge.
OVERSAMPLING = 2
FOCAL_LENGTH_PX = 250.0 * OVERSAMPLING
HORIZON_PX = 86 * OVERSAMPLING
CAMERA_HEIGHT_M = 1.35
NEAREST_M = 2.4

Floats = npt.NDArray[np.float64]
Pixel = tuple[float, float]


class View:
    """The camera at one moment: x to the right, y up from the ground, z ahead, in metres; pixels are oversampled."""

    def __init__(self, centre_line: CentreLine, station_m: float, lateral_m: float, heading_rad: float) -> None:
        self.station_m = station_m
        self._centre_line = centre_line
        east, north = centre_line.place(np.array([station_m]), np.array([lateral_m]))
        self._east, self._north = float(east[0]), float(north[0])
        self.heading_rad = heading_rad
        self._sin, self._cos = math.sin(self.heading_rad), math.cos(self.heading_rad)

    def locate(self, stations_m: npt.ArrayLike, laterals_m: npt.ArrayLike) -> tuple[Floats, Floats]:
        """(x, z) in metres of road points, arrays that broadcast."""
        return self.locate_in_plane(
            *self._centre_line.place(np.asarray(stations_m, np.float64), np.asarray(laterals_m, np.float64))
        )

    def locate_in_plane(self, east: Floats, north: Floats) -> tuple[Floats, Floats]:
        """(x, z) in metres of points of the centre line's plane."""
        east, north = east - self._east, north - self._north
        return east * self._cos - north * self._sin, east * self._sin + north * self._cos

    @staticmethod
    def pixel(x_m: float, y_m: float, z_m: float) -> Pixel:
        scale = FOCAL_LENGTH_PX / z_m
        return FRAME_WIDTH * OVERSAMPLING / 2 + scale * x_m, HORIZON_PX + scale * (CAMERA_HEIGHT_M - y_m)

    @staticmethod
    def ground_pixels(x_m: Floats, z_m: Floats) -> list[Pixel]:
        """Pixels of points on the ground."""
        scale = FOCAL_LENGTH_PX / z_m
        across = FRAME_WIDTH * OVERSAMPLING / 2 + scale * x_m
        return list(zip(across.tolist(), (HORIZON_PX + scale * CAMERA_HEIGHT_M).tolist(), strict=True))

    def ground_polygon(self, stations_m: npt.ArrayLike, laterals_m: npt.ArrayLike) -> list[Pixel]:
        """A polygon on the ground, cut off in front of the camera; empty where nothing of it lies ahead."""
        return self.polygon_pixels(*self.locate(stations_m, laterals_m))

    def polygon_pixels(self, x: Floats, z: Floats) -> list[Pixel]:
        """The pixels of a polygon on the ground, cut off in front of the camera; empty where nothing lies ahead."""
        if z.min() < NEAREST_M:
            x, z = _cut_near(x, z)
        return self.ground_pixels(x, z) if len(x) > 2 else []


def _cut_near(x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """The part of a polygon that lies beyond the near plane (Sutherland and Hodgman's clipping at one plane)."""
    kept: list[tuple[float, float]] = []
    for index in range(len(x)):
        (x0, z0), (x1, z1) = (x[index - 1], z[index - 1]), (x[index], z[index])
        if (z0 < NEAREST_M) != (z1 < NEAREST_M):
            share = (NEAREST_M - z0) / (z1 - z0)
            kept.append((x0 + share * (x1 - x0), NEAREST_M))
        if z1 >= NEAREST_M:
            kept.append((x1, z1))
    return np.array([point[0] for point in kept]), np.array([point[1] for point in kept])
