"""How vehicles move along a road: pieces of constant acceleration, and the road's shape under them.

A position is a station (metres along the road's centre line) and a lateral offset (metres, positive to the RIGHT).
Headings and curvatures are positive to the right too, as a compass runs.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_BRAKING_MPS2 = 5.0
MAX_ACCELERATION_MPS2 = 3.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Constant acceleration from start_s on, until the next piece starts."""

    start_s: float
    station_m: float
    speed_mps: float
    acceleration_mps2: float


class Motion:
    """A vehicle's way along the road. Before its first piece and after its last one the speed stays as it is."""

    def __init__(self, start_s: float, station_m: float, speed_mps: float) -> None:
        self._pieces = [Piece(start_s, station_m, speed_mps, 0.0)]
        self._end_s = start_s

    @property
    def end_s(self) -> float:
        """Where the planned part ends and the next piece would start."""
        return self._end_s

    def change_speed(self, to_mps: float, duration_s: float) -> None:
        """Reach a speed at the end of a piece of this duration (seconds)."""
        if to_mps < 0 or duration_s <= 0:
            raise ValueError(f"cannot reach {to_mps} m/s in {duration_s} s")
        speed = self.speed_mps(self._end_s)
        piece = Piece(self._end_s, self.station_m(self._end_s), speed, (to_mps - speed) / duration_s)
        self._pieces.append(piece)
        self._end_s += duration_s

    def station_m(self, at_s: float) -> float:
        piece, elapsed_s = self._piece_at(at_s)
        return (
            piece.station_m
            + elapsed_s * (piece.speed_mps + 0.5 * piece.acceleration_mps2 * elapsed_s)
            + (self._beyond_s(at_s) * self._speed_in(piece, elapsed_s))
        )

    def speed_mps(self, at_s: float) -> float:
        return self._speed_in(*self._piece_at(at_s))

    def acceleration_mps2(self, at_s: float) -> float:
        return 0.0 if self._beyond_s(at_s) > 0 else self._piece_at(at_s)[0].acceleration_mps2

    def _piece_at(self, at_s: float) -> tuple[Piece, float]:
        """The piece in force and the time in it; the time ends where the plan ends."""
        index = max(0, bisect.bisect_right(self._pieces, at_s, key=lambda piece: piece.start_s) - 1)
        piece = self._pieces[index]
        return piece, min(at_s, self._end_s) - piece.start_s

    def _beyond_s(self, at_s: float) -> float:
        return max(0.0, at_s - self._end_s)

    @staticmethod
    def _speed_in(piece: Piece, elapsed_s: float) -> float:
        return max(0.0, piece.speed_mps + piece.acceleration_mps2 * elapsed_s)


@dataclass(frozen=True, slots=True)
class Bend:
    """A stretch of constant curvature (1/m, positive to the right)."""

    start_m: float
    end_m: float
    curvature_per_m: float


class CentreLine:
    """The road's centre line in the plane, integrated from its bends on a grid of one metre."""

    MARGIN_M = 200

    def __init__(self, length_m: float, bends: tuple[Bend, ...], heading_deg: float) -> None:
        stations = np.arange(-self.MARGIN_M, math.ceil(length_m) + self.MARGIN_M + 1, dtype=np.float64)
        curvature = np.zeros_like(stations)
        for bend in bends:
            curvature[(stations >= bend.start_m) & (stations < bend.end_m)] += bend.curvature_per_m
        # Curvature comes and goes over a few metres, as a steering wheel does.
        curvature = np.convolve(curvature, np.full(9, 1 / 9), mode="same")
        self._stations = stations
        self._heading = math.radians(heading_deg) + np.cumsum(curvature)
        self._east = np.concatenate([[0.0], np.cumsum(np.sin(self._heading[:-1]))])
        self._north = np.concatenate([[0.0], np.cumsum(np.cos(self._heading[:-1]))])

    def heading_rad(self, station_m: float) -> float:
        """Compass heading of the road, not wrapped."""
        return float(np.interp(station_m, self._stations, self._heading))

    def place(
        self, stations_m: npt.NDArray[np.float64], laterals_m: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(east, north) in metres of points given by station and lateral offset, arrays that broadcast."""
        heading = np.interp(stations_m, self._stations, self._heading)
        east = np.interp(stations_m, self._stations, self._east) + np.cos(heading) * laterals_m
        north = np.interp(stations_m, self._stations, self._north) - np.sin(heading) * laterals_m
        return east, north

    def corner(self, start_m: float, end_m: float) -> tuple[float, float]:
        """(east, north) of where the straight lines before and after a bend would cross."""
        (east0, east1), (north0, north1) = self.place(np.array([start_m, end_m]), np.zeros(2))
        before, after = self.heading_rad(start_m), self.heading_rad(end_m)
        # Along the first line by as much as brings it onto the second one.
        along_m = ((east1 - east0) * math.cos(after) - (north1 - north0) * math.sin(after)) / math.sin(before - after)
        return float(east0 + along_m * math.sin(before)), float(north0 + along_m * math.cos(before))
