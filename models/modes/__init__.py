"""Decoding modes, one file each; see models/decoding.py for what they have in common, `registry` for the list."""

from __future__ import annotations

from typing import Literal, get_args

# How an edge may decode a task; all of them need a cloud at hand but "standalone". "auto" picks one for each task.
EdgeMode = Literal["auto", "standalone", "cloud", "naive", "naive-kv", "ce", "ce-sync", "ce-optimistic", "through"]
EDGE_MODES: tuple[EdgeMode, ...] = get_args(EdgeMode)
