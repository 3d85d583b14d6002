"""What a dispatcher knows when it decides: the nodes' last reports, its own tasks since then, and itself as it is."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..features import Observed
from .dynamics import Dynamics, FleetState
from .layout import Layout
from .traces import Traces
from .uplinks import Uplinks

InFlight = Literal["vehicle", "fleet", "none"]


class Observer:
    """All nodes report together, at the first decision that is `heartbeat_s` or more after their last report.

    in_flight: whose tasks since then a dispatcher adds to the report: those of its own vehicle, as a vehicle can; of
        the whole fleet, as one central dispatcher could; or none.
    """

    def __init__(
        self,
        layout: Layout,
        traces: Traces,
        dynamics: Dynamics,
        uplinks: Uplinks,
        *,
        vehicles: int,
        heartbeat_s: float,
        in_flight: InFlight,
    ) -> None:
        nodes, dispatchers = layout.edges + 2, vehicles if in_flight == "vehicle" else 1
        self._layout = layout
        self._first_server = vehicles - 1  # of the node with number 0, if it had one
        self._uplinks = uplinks
        self._heartbeat_s = heartbeat_s
        self._vehicle = traces.vehicle.tolist()
        self._arrival_s = traces.arrival_s.tolist()
        self._report_error = traces.report_error
        self._service_ms = dynamics.announced_service_ms
        self._power_w = dynamics.announced_power_w
        self._quality = dynamics.quality
        self._in_flight = in_flight
        self._reported_s = -math.inf
        self._reported_wait_ms = np.zeros(len(layout))
        self._reported_link_free_ms = np.zeros(len(layout))
        self._reported_in_flight = np.zeros(len(layout))
        self._unreported = np.zeros((dispatchers, nodes))
        # When what was sent to each node is done there; the vehicles' own ones apart.
        self._done_s: list[list[float]] = [[] for _ in range(nodes)]
        self._own_done_s: list[list[float]] = [[] for _ in range(vehicles)]

    def observe(self, state: FleetState, task: int) -> Observed:
        """What is known when the task arrives."""
        now_s, vehicle, layout = self._arrival_s[task], self._vehicle[task], self._layout
        if now_s - self._reported_s >= self._heartbeat_s:
            self._report(state, task, now_s)
        compute_wait_ms = self._reported_wait_ms.copy()
        compute_wait_ms[0] = max(0.0, state.servers[vehicle].free_s - now_s) * 1000
        age_ms = np.full(len(layout), (now_s - self._reported_s) * 1000)
        age_ms[0] = 0.0
        in_flight = self._reported_in_flight.copy()
        in_flight[0] = _still_there(self._own_done_s[vehicle], now_s)
        return Observed(
            place=layout.place,
            upload_ms=self._uplinks.announced_upload_ms[task],
            round_trip_ms=layout.round_trip_ms,
            link_wait_ms=self._link_wait_ms(state, task, now_s),
            compute_wait_ms=compute_wait_ms,
            age_ms=age_ms,
            # Index 0 is the vehicle itself, which knows its own queue: nothing is ever counted there.
            unreported=self._unreported[vehicle if self._in_flight == "vehicle" else 0][layout.node],
            service_ms=self._service_ms[task],
            power_w=self._power_w[task],
            quality=self._quality[task],
            in_flight=in_flight,
            slots=layout.slots,
        )

    def sent(self, task: int, row: int, done_s: float) -> None:
        """The task was sent there, and will be done at that time."""
        node, vehicle = int(self._layout.node[row]), self._vehicle[task]
        if node == 0:
            heappush(self._own_done_s[vehicle], done_s)
            return
        heappush(self._done_s[node], done_s)
        if self._in_flight != "none":
            self._unreported[vehicle if self._in_flight == "vehicle" else 0, node] += 1

    def _report(self, state: FleetState, task: int, now_s: float) -> None:
        layout, nodes = self._layout, range(1, self._layout.edges + 2)
        wait_ms = [0.0, *(max(0.0, state.servers[self._first_server + node].free_s - now_s) * 1000 for node in nodes)]
        in_flight = [0, *(_still_there(self._done_s[node], now_s) for node in nodes)]
        self._reported_s = now_s
        self._reported_wait_ms = np.array(wait_ms)[layout.node]
        self._reported_in_flight = np.array(in_flight, float)[layout.node]
        if self._report_error is not None:
            self._reported_wait_ms *= self._report_error[task]
        if self._uplinks.shared:
            link_free_ms = [0.0, *(link.free_s * 1000 for link in state.links)]
            self._reported_link_free_ms = np.array(link_free_ms)[layout.node]
        self._unreported.fill(0)

    def _link_wait_ms(self, state: FleetState, task: int, now_s: float) -> NDArray[np.float64]:
        if self._uplinks.shared:
            return np.maximum(self._reported_link_free_ms - now_s * 1000, 0.0)
        # A vehicle knows the queue of its own radio.
        own_ms = max(0.0, state.links[self._vehicle[task]].free_s - now_s) * 1000
        return np.where(self._layout.node == 0, 0.0, own_ms)


def _still_there(done_s: list[float], now_s: float) -> int:
    while done_s and done_s[0] <= now_s:
        heappop(done_s)
    return len(done_s)
