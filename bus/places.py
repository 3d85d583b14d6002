"""Where an answer can be made: the four places of the three tiers."""

from __future__ import annotations

from typing import Literal

Place = Literal["vehicle", "edge", "edge+cloud", "cloud"]

PLACES: tuple[Place, ...] = ("vehicle", "edge", "edge+cloud", "cloud")
