"""What a dispatcher knows when it decides: the nodes' last reports, its own tasks since then, and itself as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
Figures = float | Sequence[float] | NDArray[np.float64]


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
        self._next_report_s = -math.inf
        # By number of node; the vehicle's own stays 0.
        self._reported_s = np.zeros(nodes)
        self._reported_wait_ms = np.zeros(nodes)
        self._reported_in_flight = np.zeros(nodes)
        self._reported_link_free_ms = np.zeros(nodes)
        self._unreported = np.zeros((dispatchers, nodes))
        # When what was sent to each node is done there; the vehicles' own ones apart.
        self._done_s: list[list[float]] = [[] for _ in range(nodes)]
        self._own_done_s: list[list[float]] = [[] for _ in range(vehicles)]

    def observe(self, state: FleetState, task: int) -> Observed:
        """What is known when the task arrives."""
        now_s, vehicle, layout = self._arrival_s[task], self._vehicle[task], self._layout
        if now_s >= self._next_report_s:
            self._report(state, task, now_s)
        compute_wait_ms = self._reported_wait_ms[layout.node]
        compute_wait_ms[0] = max(0.0, state.servers[vehicle].free_s - now_s) * 1000
        age_ms = (now_s - self._reported_s[layout.node]) * 1000
        age_ms[0] = 0.0
        in_flight = self._reported_in_flight[layout.node]
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

    def hear(self, node: int | slice, at_s: float, wait_ms: Figures, in_flight: Figures) -> None:
        """A node, or several, by number, report their queues. What was sent to them before then is in it."""
        self._reported_s[node] = at_s
        self._reported_wait_ms[node] = wait_ms
        self._reported_in_flight[node] = in_flight
        self._unreported[:, node] = 0

    def _report(self, state: FleetState, task: int, now_s: float) -> None:
        nodes = range(1, self._layout.edges + 2)
        wait_ms = np.array([max(0.0, state.servers[self._first_server + node].free_s - now_s) for node in nodes]) * 1000
        if self._report_error is not None:
            wait_ms *= self._report_error[task, 1:]
        self.hear(slice(1, None), now_s, wait_ms, [_still_there(self._done_s[node], now_s) for node in nodes])
        if self._uplinks.shared:
            self._reported_link_free_ms[1:] = [link.free_s * 1000 for link in state.links]
        self._next_report_s = now_s + self._heartbeat_s

    def _link_wait_ms(self, state: FleetState, task: int, now_s: float) -> NDArray[np.float64]:
        if self._uplinks.shared:
            return np.maximum(self._reported_link_free_ms[self._layout.node] - now_s * 1000, 0.0)
        # A vehicle knows the queue of its own radio.
        own_ms = max(0.0, state.links[self._vehicle[task]].free_s - now_s) * 1000
        return np.where(self._layout.node == 0, 0.0, own_ms)


def _still_there(done_s: list[float], now_s: float) -> int:
    while done_s and done_s[0] <= now_s:
        heappop(done_s)
    return len(done_s)
