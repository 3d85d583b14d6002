"""Decoding modes, one file each; see models/decoding.py for what they have in common."""

from __future__ import annotations

from typing import Literal, get_args

# How an edge may decode a task; all of them need a cloud at hand but "standalone".
EdgeMode = Literal["ce", "standalone"]
EDGE_MODES: tuple[EdgeMode, ...] = get_args(EdgeMode)
