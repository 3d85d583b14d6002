"""What the live page knows of a fleet: fed by messages, drawn by the page, without a browser or a connection itself.

Everything is bounded, since anybody who may publish decides what arrives: members, traces and pictures are kept up to
a limit, the longest unheard giving way. All times are of one monotonic clock, the page's own, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from ..bus import topics
from ..bus.messages import Accepted, Frame, NodeState, Outcome, Rejected, Result
from ..bus.subscription import Received
from ..bus.topics import Topic
from .activity import Activity
from .pictures import Pictures
from .task_traces import TaskTrace, TaskTraces

# What a view wants to hear.
SUBSCRIBED: tuple[Topic, ...] = (
    topics.VEHICLE_STATE, topics.NODE_STATE, topics.FRAME, topics.ACK, topics.RESULT, topics.OUTCOME,
)  # fmt: skip

MEMBERS = 256
# Members tell their state once a second or more often; a last will may take ten seconds to be published.
SILENT_AFTER_S = 4.0
_SPEED = "Vehicle.Speed"
# Of the network time to a node, of each new answer.
_NETWORK_WEIGHT = 0.2


class _Heard(Protocol):
    heard_s: float


_Member = TypeVar("_Member", bound=_Heard)


@dataclass(slots=True)
class Membership:
    """One life of a node or vehicle after the other, as its states and last wills tell it.

    heard_s: when anything was heard of it. dead_since_s: when it was heard that it has left or died.
    """

    heard_s: float
    state: NodeState | None = None
    boot_id: str = ""
    sequence: int = 0
    dead_since_s: float | None = None

    def hear(self, state: NodeState, boot_id: str, sequence: int, now_s: float) -> None:
        """Take a state, unless it is older than what is known.

        A last will has the sequence 0, whenever it is published; that of an earlier life, which the broker may publish
        when the next has begun, says nothing of this one. A life whose will was published may come back.
        """
        same_life = boot_id == self.boot_id
        is_alive = self.state is not None and self.dead_since_s is None
        if same_life and sequence <= self.sequence and (state.alive or sequence):
            return
        if not state.alive and not same_life and is_alive:
            return
        self.heard_s = now_s
        self.boot_id, self.sequence = boot_id, max(sequence, self.sequence if same_life else 0)
        if state.alive:
            self.state, self.dead_since_s = state, None
        elif self.dead_since_s is None:
            # What it said of itself before tells more than its will, except how busy it is.
            self.state = state if self.state is None else msgspec.structs.replace(self.state, alive=False, load=None)
            self.dead_since_s = now_s

    def silent_s(self, now_s: float, *, listening_since_s: float) -> float | None:
        """For how long a member that has not left has told nothing, where that is longer than it should be.

        listening_since_s: since when the page could have heard it.
        """
        silence_s = now_s - max(self.heard_s, listening_since_s)
        return silence_s if self.dead_since_s is None and silence_s > SILENT_AFTER_S else None


@dataclass(slots=True)
class VehicleView:
    """trace: of the newest task that a provisional or final answer was heard of. ended: tasks that have ended."""

    name: str
    heard_s: float
    membership: Membership
    activity: Activity = field(default_factory=Activity)
    trace: TaskTrace | None = None
    ended: int = 0
    clip: str = ""
    moment_s: float = 0.0
    speed_kmh: float | None = None


@dataclass(slots=True)
class NodeView:
    """network_ms: round trip less what the node reports, averaged over the answers that vehicles had from it."""

    name: str
    heard_s: float
    membership: Membership
    answers: int = 0
    network_ms: float | None = None


@dataclass(slots=True)
class Connection:
    """problem: why there is none, for people; empty while it stands. since_s: for how long it is as it is."""

    problem: str
    since_s: float


class FleetView:
    """heard: messages that were taken; missed: that came faster than the page could read.

    A learner's weights are no concern of the page, and neither is what edge and cloud say to each other.
    """

    def __init__(self, now_s: float, *, members: int = MEMBERS) -> None:
        self.connection = Connection("connecting", now_s)
        self.vehicles: OrderedDict[str, VehicleView] = OrderedDict()
        self.nodes: OrderedDict[str, NodeView] = OrderedDict()
        self.activity = Activity()
        self.traces = TaskTraces()
        self.pictures = Pictures()
        self.heard = 0
        self.missed = 0
        self._members = members

    def connected(self, now_s: float) -> None:
        self.connection = Connection("", now_s)

    def disconnected(self, problem: str, now_s: float) -> None:
        if not self.connection.problem:
            self.connection = Connection(problem, now_s)
        self.connection.problem = problem

    def hear(self, received: Received, now_s: float) -> None:
        """Take a message of one of `SUBSCRIBED`; now_s: never less than in an earlier call."""
        self.heard += 1
        body, names = received.body, received.names
        if isinstance(body, NodeState):
            self._hear_state(received, body, now_s)
        elif isinstance(body, Frame):
            vehicle = self._vehicle(names["vehicle"], now_s)
            vehicle.clip, vehicle.moment_s = body.clip, body.moment_s
            vehicle.speed_kmh = body.telemetry.get(_SPEED)
            self.pictures.put(vehicle.name, body.jpeg)
        elif isinstance(body, Accepted | Rejected):
            self.traces.accepted(names["vehicle"], names["node"], body, now_s)
        elif isinstance(body, Result):
            self.traces.answered(names["vehicle"], names["node"], body, now_s)
            self._show_newest(names["vehicle"], body.task_id, now_s)
        elif isinstance(body, Outcome):
            self._hear_outcome(names["vehicle"], body, now_s)

    def _hear_state(self, received: Received, state: NodeState, now_s: float) -> None:
        if received.topic is topics.VEHICLE_STATE:
            membership = self._vehicle(received.names["vehicle"], now_s).membership
        else:
            membership = self._node(received.names["node"], now_s).membership
        membership.hear(state, received.envelope.boot_id, received.envelope.sequence, now_s)

    def _hear_outcome(self, vehicle_name: str, outcome: Outcome, now_s: float) -> None:
        if not self.traces.ended(vehicle_name, outcome, now_s):
            return
        vehicle = self._vehicle(vehicle_name, now_s)
        vehicle.ended += 1
        vehicle.activity.add(outcome, now_s)
        self.activity.add(outcome, now_s)
        self._show_newest(vehicle_name, outcome.task_id, now_s)
        if outcome.state == "result" and outcome.place != "vehicle":
            node = self._node(outcome.node, now_s)
            node.answers += 1
            known_ms = outcome.network_ms if node.network_ms is None else node.network_ms
            node.network_ms = known_ms + _NETWORK_WEIGHT * (outcome.network_ms - known_ms)

    def _show_newest(self, vehicle_name: str, task_id: str, now_s: float) -> None:
        vehicle = self._vehicle(vehicle_name, now_s)
        trace = self.traces.get(vehicle_name, task_id)
        # A straggler of an older task does not replace a newer one's answer.
        if trace is not None and (vehicle.trace is None or trace.number >= vehicle.trace.number):
            vehicle.trace = trace

    def _vehicle(self, name: str, now_s: float) -> VehicleView:
        if (vehicle := self.vehicles.get(name)) is None:
            vehicle = self.vehicles[name] = VehicleView(name, now_s, Membership(now_s))
            for gone in _too_many(self.vehicles.values(), self._members):
                del self.vehicles[gone.name]
                self.pictures.forget(gone.name)
        vehicle.heard_s = now_s
        return vehicle

    def _node(self, name: str, now_s: float) -> NodeView:
        if (node := self.nodes.get(name)) is None:
            node = self.nodes[name] = NodeView(name, now_s, Membership(now_s))
            for gone in _too_many(self.nodes.values(), self._members):
                del self.nodes[gone.name]
        node.heard_s = now_s
        return node


def _too_many(members: Iterable[_Member], limit: int) -> list[_Member]:
    """Those longest unheard of, as many as there are above the limit; the newest, which came last, is none of them."""
    known = list(members)
    return sorted(known[:-1], key=lambda member: member.heard_s)[: len(known) - limit] if len(known) > limit else []
