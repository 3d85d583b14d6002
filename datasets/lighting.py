"""How colours look at a distance, by day, at dusk, at night, in rain and in fog, and what the sky is like.

Every colour is lit before it is drawn, so that a near thing hides a far lamp simply by being painted later, and a
lamp that is on keeps its full colour at night.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .camera import CAMERA_HEIGHT_M, FOCAL_LENGTH_PX
from .scene import Colour


@dataclass(frozen=True, slots=True)
class Look:
    """One time of day or weather.

    ambient: share of each colour channel that is seen without head lamps; haze_m: at which distance two thirds of a
    colour are lost to the haze; rain_drops: streaks in a frame.
    """

    sky_top: Colour
    sky_low: Colour
    ambient: tuple[float, float, float]
    head_lamps: float
    haze_m: float
    lamp_halo: float
    lit_windows: float
    rain_drops: int = 0


LOOKS: dict[str, Look] = {
    "day": Look((104, 156, 216), (206, 224, 236), (1.0, 1.0, 1.0), 0.0, 420.0, 0.0, 0.0),
    "dusk": Look((70, 72, 120), (236, 158, 104), (0.66, 0.55, 0.52), 0.22, 300.0, 0.5, 0.25),
    "night": Look((8, 10, 22), (30, 32, 50), (0.16, 0.17, 0.22), 0.85, 200.0, 1.0, 0.3),
    "raining": Look((112, 120, 130), (158, 164, 170), (0.66, 0.68, 0.7), 0.1, 120.0, 0.5, 0.2, rain_drops=130),
    "foggy": Look((186, 190, 194), (196, 200, 203), (0.86, 0.87, 0.88), 0.0, 38.0, 0.4, 0.15),
}


class Lighting:
    """The light of one drive: its time of day with a little weather of its own."""

    def __init__(self, conditions: str, rng: random.Random) -> None:
        self.look = LOOKS[conditions]
        exposure = rng.uniform(0.88, 1.1)
        self._ambient = tuple(share * exposure for share in self.look.ambient)
        tint = rng.uniform(0.9, 1.08)
        self._sky_top = _scaled(self.look.sky_top, tint)
        self._sky_low = _scaled(self.look.sky_low, tint)

    def shade(self, colour: Colour, x_m: float, z_m: float) -> Colour:
        """The colour of a surface x_m to the right of and z_m ahead of the camera."""
        lit = 0.0
        if self.look.head_lamps:
            beam = math.exp(-((x_m / (2.5 + 0.22 * z_m)) ** 2))
            lit = self.look.head_lamps * beam * math.exp(-z_m / 30.0)
        haze = 1.0 - math.exp(-z_m / self.look.haze_m)
        red, green, blue = (
            int(min(255.0, (share + lit) * value * (1.0 - haze) + haze * far))
            for share, value, far in zip(self._ambient, colour, self._sky_low, strict=True)
        )
        return red, green, blue

    def let_it_rain(self, picture: Image.Image, at_s: float) -> None:
        """Draw falling drops over a finished frame, others at each moment."""
        if not self.look.rain_drops:
            return
        rng = random.Random(round(at_s * 100))
        draw = ImageDraw.Draw(picture)
        for _ in range(self.look.rain_drops):
            u, v, length = rng.uniform(0, picture.width), rng.uniform(0, picture.height), rng.uniform(4, 11)
            draw.line((u, v, u - 0.15 * length, v + length), fill=(160, 166, 172))

    def backdrop(self, width: int, height: int, horizon: int, ground: Colour) -> Image.Image:
        """Sky above the horizon and open ground below it, in pixels."""
        rows = np.empty((height, 3), dtype=np.float64)
        share = (np.arange(horizon) / horizon)[:, None] ** 1.3
        rows[:horizon] = np.array(self._sky_top) * (1 - share) + np.array(self._sky_low) * share
        for row in range(horizon, height):
            distance_m = CAMERA_HEIGHT_M * FOCAL_LENGTH_PX / max(1, row - horizon)
            rows[row] = self.shade(ground, 3.0, min(distance_m, 150.0))
        column = np.clip(rows, 0, 255).astype(np.uint8)[:, None, :]
        return Image.fromarray(np.repeat(column, width, axis=1))

    def skyline(self, width: int, height: int, rng: random.Random) -> Image.Image:
        """Distant hills and roofs as a strip with transparency that repeats sideways: what a turning car sees pass."""
        columns = np.arange(width) * 2 * math.pi / width
        hills = sum(rng.uniform(0.1, 0.3) * np.sin(columns * k + rng.uniform(0, 6)) for k in (1, 3, 5, 9))
        top = (height * (0.62 - 0.5 * np.asarray(hills))).clip(2, height)
        for _ in range(rng.randint(4, 26)):
            left, roof = rng.randrange(width), rng.uniform(0.05, 0.6) * height
            span = slice(left, left + rng.randint(8, 40))
            top[span] = np.minimum(top[span], roof)
        covered = np.arange(height)[:, None] >= top[None, :]
        strip = np.zeros((height, width, 4), dtype=np.uint8)
        strip[..., :3] = self.shade((88, 100, 96), 60.0, 160.0)
        strip[..., 3] = np.where(covered, 255, 0)
        return Image.fromarray(strip)


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, value * factor)) for value in colour)
    return red, green, blue
