"""The way up: from a vehicle to the node that it sends a task to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...bus.link import PACKET_BYTES, CapacityTrace
from .constants import EnvironmentConstants
from .layout import Layout
from .queues import Server
from .traces import Traces

_MEASURED_OVER_S = 1.0  # what a vehicle on a recorded link takes for its rate
# The recording starts elsewhere for each vehicle, as they are elsewhere.
_TRACE_SEED = 7919


class Uplinks(Protocol):
    """announced_upload_ms: [m, n] air time of each task's upload as its vehicle expects it; 0 for its own row.

    shared: there is one link for each node but the vehicle, of whose queue the vehicles hear by report; else there is
        one for each vehicle, and it knows that.
    """

    announced_upload_ms: NDArray[np.float64]
    shared: bool

    def fresh_links(self) -> list[Server]: ...

    def send(self, links: Sequence[Server], task: int, row: int, scale: float) -> tuple[float, float]:
        """Send a task's picture, its sides scaled; returns when it has arrived, and the seconds on air."""
        ...


class RadioUplinks:
    """One radio cell per edge, and one way to the cloud, each shared by all vehicles that send there."""

    shared = True

    def __init__(self, layout: Layout, traces: Traces) -> None:
        upload_bits = traces.upload_bytes[:, None] * 8
        self.announced_upload_ms = upload_bits / traces.announced_bps * 1000
        self._arrival_s = traces.arrival_s.tolist()
        self._upload_s = (upload_bits / traces.actual_bps).tolist()
        self._link = (layout.node - 1).tolist()
        self._links = layout.edges + 1

    def fresh_links(self) -> list[Server]:
        return [Server() for _ in range(self._links)]

    def send(self, links: Sequence[Server], task: int, row: int, scale: float) -> tuple[float, float]:
        air_s = self._upload_s[task][row] * scale * scale
        return links[self._link[row]].serve(self._arrival_s[task], air_s), air_s


class RecordedUplinks:
    """Each vehicle has a recorded link of its own, to wherever it sends; what it sends waits for what it sent before.

    Nodes then serve tasks in the order in which they were sent, not quite that in which they come.
    """

    shared = False

    def __init__(
        self, constants: EnvironmentConstants, layout: Layout, traces: Traces, recorded: CapacityTrace, seed: int
    ) -> None:
        self._recorded = recorded
        self._arrival_s = traces.arrival_s.tolist()
        self._upload_bytes = traces.upload_bytes.tolist()
        self._vehicle = traces.vehicle.tolist()
        self._vehicles = constants.arrivals.vehicles
        draw = np.random.default_rng((_TRACE_SEED, seed))
        self._offset_s = draw.uniform(0, recorded.duration_s, self._vehicles).tolist()
        rate_bps = np.array(
            [self._measured_bps(at_s, vehicle) for at_s, vehicle in zip(self._arrival_s, self._vehicle, strict=True)]
        )
        upload_ms = traces.upload_bytes * 8000 / rate_bps
        self.announced_upload_ms = upload_ms[:, None] * np.isfinite(traces.announced_bps)

    def fresh_links(self) -> list[Server]:
        return [Server() for _ in range(self._vehicles)]

    def send(self, links: Sequence[Server], task: int, row: int, scale: float) -> tuple[float, float]:
        vehicle, arrival_s = self._vehicle[task], self._arrival_s[task]
        link = links[vehicle]
        begins_s = max(arrival_s, link.free_s)
        air_s = self._air_s(begins_s + self._offset_s[vehicle], self._upload_bytes[task] * scale * scale)
        return link.serve(arrival_s, air_s), air_s

    def _air_s(self, begins_s: float, size_bytes: float) -> float:
        """Until the recorded link has let so many bytes through, in whole packets."""
        packets = max(1, -(-int(size_bytes) // PACKET_BYTES))
        return self._recorded.departure_s(self._recorded.next_packet(begins_s) + packets - 1) - begins_s

    def _measured_bps(self, at_s: float, vehicle: int) -> float:
        now_s = at_s + self._offset_s[vehicle]
        # The recording begins again at its end; one length later it has the same past, and no negative time.
        now_s += self._recorded.duration_s
        packets = self._recorded.next_packet(now_s) - self._recorded.next_packet(now_s - _MEASURED_OVER_S)
        return max(1, packets) * PACKET_BYTES * 8 / _MEASURED_OVER_S
