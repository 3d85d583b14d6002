"""What a decision comes to: the task's way over the link, through the node's queue, and what it costs and is worth.

    T = link wait + upload + compute wait + inference + waiting for the cloud's tokens + round trip
    E = slot power * inference + the cloud's * computing tokens + transmit power * air time       (utility.py has U)

An edge that waits for the cloud's tokens works on other tasks meanwhile, as the real one does: that time is the
task's and not the slot's. The cloud says single tokens beside its slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bus.places import PLACES
from ..experience import Knobs
from .constants import Collaborative, EnvironmentConstants, Node
from .layout import Layout
from .queues import Server
from .traces import Traces
from .uplinks import Uplinks

_VEHICLE, _COLLABORATIVE = PLACES.index("vehicle"), PLACES.index("edge+cloud")
OWN_KNOBS = Knobs()


class Realised(NamedTuple):
    """How a task went. quality: probability that its answer is right, in time or not; utility: realised.

    service_s: of the latency, what the place's own computing took.
    """

    latency_s: float
    service_s: float
    energy_j: float
    in_time: bool
    quality: float
    utility: float


@dataclass(slots=True)
class FleetState:
    """Every queue of the fleet. links: as the uplinks number them; servers: of each vehicle, then each other node."""

    links: list[Server]
    servers: list[Server]

    def copy(self) -> FleetState:
        """For looking ahead: what is tried on the copy has not happened."""
        return FleetState([link.copy() for link in self.links], [server.copy() for server in self.servers])


class Dynamics:
    """Turns decisions into outcomes. It knows everything that a policy does not; all that is random was drawn before.

    announced_service_ms, announced_power_w, quality: [m, n] what a node would say of each task, at its own knobs;
        a service is from its beginning to its answer, and the power is the mean during it.
    """

    def __init__(self, constants: EnvironmentConstants, layout: Layout, traces: Traces, uplinks: Uplinks) -> None:
        self._constants = constants
        self._layout = layout
        self._uplinks = uplinks
        self._utility = constants.utility_model
        alone_s, asking_s = _service_s(constants, layout, traces)
        self._token_share = _computing_share(constants.collaborative)
        self.announced_service_ms = (alone_s + asking_s) * 1000
        busy_j = layout.power_w * alone_s + constants.cloud.power_w * self._token_share * asking_s
        # A place that answers at once uses nothing, whatever its power.
        self.announced_power_w = busy_j / np.maximum(alone_s + asking_s, 1e-9)
        self.quality = _quality(constants, layout, traces)
        # Python's own numbers from here on: a step takes them one at a time.
        self._arrival_s = traces.arrival_s.tolist()
        self._deadline_s = traces.deadline_s.tolist()
        self._vehicle = traces.vehicle.tolist()
        self._kind = traces.kind.tolist()
        self._tokens = traces.tokens.tolist()
        self._alone_s = (alone_s / traces.node_speed * traces.slowness[:, None]).tolist()
        self._asking_s = asking_s.tolist()
        self._quality = self.quality.tolist()
        self._place = layout.place.tolist()
        self._power_w = layout.power_w.tolist()
        self._cloud_power_w = constants.cloud.power_w
        self._round_trip_s = (layout.round_trip_ms / 1000).tolist()
        vehicles = constants.arrivals.vehicles
        self._server = [
            None if place == _VEHICLE else vehicles + node - 1
            for node, place in zip(layout.node.tolist(), self._place, strict=True)
        ]

    def fresh_state(self) -> FleetState:
        """Nothing queued anywhere."""
        constants, edges = self._constants, self._layout.edges
        tiers: list[Node] = [constants.vehicle] * constants.arrivals.vehicles
        tiers += [*[constants.edge] * edges, constants.cloud]
        return FleetState(self._uplinks.fresh_links(), [Server(tier.slots) for tier in tiers])

    def server_of(self, task: int, row: int) -> int:
        """Index into the state's servers."""
        server = self._server[row]
        return self._vehicle[task] if server is None else server

    def run(self, state: FleetState, task: int, row: int, knobs: Knobs = OWN_KNOBS) -> Realised:
        """Send the task there: the queues of `state` take it. Tasks must come in their order."""
        arrival_s = self._arrival_s[task]
        quality = self._quality[task][row]
        service_s, asking_s = self._alone_s[task][row], self._asking_s[task][row]
        collaborative = self._constants.collaborative
        scale = 1.0
        if collaborative is not None and knobs is not OWN_KNOBS and self._place[row] != _VEHICLE:
            scale = max(knobs.frame_scale, collaborative.smallest_frame_scale)
            if self._place[row] == _COLLABORATIVE and knobs.exit_threshold is not None:
                quality, asking_s = self._with_threshold(task, knobs.exit_threshold, collaborative)
            quality *= 1 - collaborative.frame_loss * (1 - scale) ** 2
        at_node_s = arrival_s
        energy_j = self._power_w[row] * service_s + self._cloud_power_w * self._token_share * asking_s
        if self._place[row] != _VEHICLE:
            at_node_s, air_s = self._uplinks.send(state.links, task, row, scale)
            energy_j += self._utility.transmit_power_w * air_s
        done_s = state.servers[self.server_of(task, row)].serve(at_node_s, service_s)
        latency_s = done_s + asking_s + self._round_trip_s[row] - arrival_s
        return self._realised(task, latency_s, service_s, energy_j, quality)

    def _realised(self, task: int, latency_s: float, service_s: float, energy_j: float, quality: float) -> Realised:
        deadline_s, model = self._deadline_s[task], self._utility
        in_time = latency_s <= deadline_s
        utility = model.utility(
            latency_ms=latency_s * 1000, deadline_ms=deadline_s * 1000, energy_j=energy_j, quality=quality
        )
        return Realised(latency_s, service_s, energy_j, in_time, quality, float(utility))

    def _with_threshold(self, task: int, threshold: float, collaborative: Collaborative) -> tuple[float, float]:
        """Quality and waiting time of edge and cloud together under a threshold that is not the node's own."""
        kind = self._constants.kinds[self._kind[task]]
        quality = _between(kind.quality.edge, kind.quality.cloud, threshold, collaborative)
        return quality, _asking_s_per_token(threshold, collaborative) * self._tokens[task]


def _service_s(
    constants: EnvironmentConstants, layout: Layout, traces: Traces
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[m, n] each: inference as announced, and the wait for the cloud's tokens, at the nodes' own threshold."""
    alone_s = traces.tokens[:, None] / layout.tokens_per_second
    asking_s = np.zeros_like(alone_s)
    if constants.collaborative is not None:
        per_token_s = _asking_s_per_token(constants.collaborative.exit_threshold, constants.collaborative)
        asking_s = traces.tokens[:, None] * per_token_s * (layout.place == _COLLABORATIVE)
    for index, kind in enumerate(constants.kinds):
        for place, service_ms in kind.service_ms.items():
            measured = (traces.kind[:, None] == index) & (layout.place == PLACES.index(place))
            alone_s[measured] = service_ms / 1000
            asking_s[measured] = kind.context_ms / 1000 if place == "edge+cloud" else 0.0
    return alone_s, asking_s


def _quality(constants: EnvironmentConstants, layout: Layout, traces: Traces) -> NDArray[np.float64]:
    """[m, n] probability of a right answer, at the nodes' own threshold."""
    by_kind = []
    for kind in constants.kinds:
        of_place = {"vehicle": kind.quality.vehicle, "edge": kind.quality.edge, "cloud": kind.quality.cloud}
        if constants.collaborative is not None:
            threshold, together = constants.collaborative.exit_threshold, kind.quality.together
            if together is None:
                together = _between(kind.quality.edge, kind.quality.cloud, threshold, constants.collaborative)
            of_place["edge+cloud"] = together
        by_kind.append([of_place[place] for place in layout.places])
    return np.array(by_kind)[traces.kind]


def _between(edge: float, cloud: float, threshold: float, collaborative: Collaborative) -> float:
    """Quality of edge and cloud together: between theirs as the measured curve is between its ends."""
    right = collaborative.right
    share = (np.interp(threshold, collaborative.thresholds, right) - right[0]) / (right[-1] - right[0])
    return edge + (cloud - edge) * float(share)


def _asking_s_per_token(threshold: float, collaborative: Collaborative) -> float:
    """Mean wait for the cloud per token of an answer."""
    rate = float(np.interp(threshold, collaborative.thresholds, collaborative.request_rate))
    return rate * (collaborative.token_round_trip_ms + collaborative.token_ms) / 1000


def _computing_share(collaborative: Collaborative | None) -> float:
    """How much of an edge's wait for a token the cloud computes."""
    if collaborative is None:
        return 0.0
    return collaborative.token_ms / max(collaborative.token_ms + collaborative.token_round_trip_ms, 1e-9)
