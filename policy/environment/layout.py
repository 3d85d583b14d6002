"""The rows of the simulated fleet: which place at which node each is, and what its node announces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...bus.places import PLACES, Place
from .constants import EnvironmentConstants


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """n rows: the asking vehicle, each edge with its places, the cloud; arrays are [n].

    node: number of the row's node: 0 the vehicle, 1 to `edges` the edges, then the cloud.
    place: index into PLACES. tokens_per_second: of a slot, as announced.
    """

    edges: int
    nodes: tuple[str, ...]
    places: tuple[Place, ...]
    node: NDArray[np.intp]
    place: NDArray[np.intp]
    tokens_per_second: NDArray[np.float64]
    slots: NDArray[np.float64]
    power_w: NDArray[np.float64]
    round_trip_ms: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nodes)


def lay_out(constants: EnvironmentConstants, edges: int) -> Layout:
    """The rows of a fleet with so many edges."""
    edge_places: tuple[Place, ...] = ("edge", "edge+cloud") if constants.collaborative else ("edge",)
    faster = 1 + constants.edge.spread * np.linspace(1, -1, edges)
    rows: list[tuple[str, int, Place]] = [
        ("vehicle", 0, "vehicle"),
        *((f"edge-{edge}", edge, place) for edge in range(1, edges + 1) for place in edge_places),
        ("cloud", edges + 1, "cloud"),
    ]
    node = np.array([row[1] for row in rows])
    tiers = [constants.vehicle, *[constants.edge] * edges, constants.cloud]
    speed = np.concatenate(([1.0], faster, [1.0]))
    return Layout(
        edges=edges,
        nodes=tuple(row[0] for row in rows),
        places=tuple(row[2] for row in rows),
        node=node,
        place=np.array([PLACES.index(row[2]) for row in rows]),
        tokens_per_second=(np.array([tier.tokens_per_second for tier in tiers]) * speed)[node],
        slots=np.array([float(tier.slots) for tier in tiers])[node],
        power_w=np.array([tier.power_w for tier in tiers])[node],
        round_trip_ms=np.array([tier.round_trip_ms for tier in tiers])[node],
    )
