"""The constants of PerLLM's set-up, read from the one committed file."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

_FILE = Path(__file__).with_name("constants.toml")


class PerllmConstants(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Five edges and a cloud, each behind a link of its own; constants.toml says what each figure is.

    Pairs are the ends of an even distribution. *_w: of a whole server; tokens_per_s: of one slot.
    """

    edges: int
    requests: int
    deadline_s: tuple[float, float]
    edge_link_bps: float
    cloud_link_bps: float
    link_fluctuation: float
    users: int
    first_request_s: float
    payload_bytes: tuple[float, float]
    tokens: tuple[float, float]
    edge_tokens_per_s: float
    edge_slots: int
    cloud_tokens_per_s: float
    cloud_slots: int
    edge_round_trip_ms: float
    cloud_round_trip_ms: float
    service_sigma: float
    edge_idle_w: float
    edge_busy_w: float
    cloud_idle_w: float
    cloud_busy_w: float
    transmit_w: float
    cloud_only_batch_s: float

    @property
    def idle_w(self) -> float:
        """Of all servers together: what flows whether or not anybody asks."""
        return self.edges * self.edge_idle_w + self.cloud_idle_w


class PerllmFile(Struct, frozen=True, forbid_unknown_fields=True):
    """constants.toml. edge_models: tokens per second by model; table_1: method, model -> percent in time."""

    headline: PerllmConstants
    edge_models: dict[str, float]
    table_1: dict[str, dict[str, float]]

    @property
    def sha256(self) -> str:
        """Of the values, whatever the file says beside them; the first 16 digits."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


@cache
def perllm_file() -> PerllmFile:
    return msgspec.toml.decode(_FILE.read_bytes(), type=PerllmFile)
