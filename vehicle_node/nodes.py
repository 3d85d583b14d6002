"""What a vehicle knows of the nodes: their last reports, its own tasks on their way, and how long the network takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec

from ..bus.messages import Load, NodeState, Role
from ..bus.places import Place
from ..policy.candidates import NodeView

_GUESSED_NETWORK_MS = 20.0  # until the first round trip has been timed
_SMOOTHING = 0.2
# A decision lists every node at up to two places, and travels; who announces thousands of names is no fleet.
MOST_NODES = 128
# A node that has left, or was not heard of for so long, gives way to a new one where there is no room for both.
_GONE_AFTER_S = 60.0
_PLACES_OF: dict[Role, frozenset[Place]] = {
    "vehicle": frozenset(),
    "edge": frozenset(("edge", "edge+cloud")),
    "cloud": frozenset(("cloud",)),
}


@dataclass(slots=True)
class _Node:
    state: NodeState
    reported_s: float
    timed_network_ms: float | None = None
    unreported: set[str] = field(default_factory=set)

    @property
    def network_ms(self) -> float:
        return _GUESSED_NETWORK_MS if self.timed_network_ms is None else self.timed_network_ms


def speaks_for_itself(state: NodeState, sender: str) -> bool:
    """Whether a node's report is about the node that sent it, and offers no place but those of its role."""
    return state.node == sender and _PLACES_OF[state.role].issuperset(state.places)


class NodeTable:
    """Times are seconds of the vehicle's monotonic clock; the nodes' own clocks are never looked at."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def update_state(self, state: NodeState, now_s: float) -> bool:
        """Take a node's report. True where a node that was alive is dead now.

        Where there is no room for one more, it takes that of the one that was not heard of for longest among those
        that are gone; where none is, it is not taken up.
        """
        known = self._nodes.get(state.node)
        if known is None:
            if len(self._nodes) >= MOST_NODES and not self._forget_one(now_s):
                return False
            self._nodes[state.node] = _Node(state, now_s)
            return False
        died = known.state.alive and not state.alive
        known.state, known.reported_s = state, now_s
        if died:
            known.unreported.clear()
        return died

    def _forget_one(self, now_s: float) -> bool:
        """Of the nodes that are gone the one that was not heard of for longest; False where none is."""
        gone = {
            name: node.reported_s
            for name, node in self._nodes.items()
            if not node.state.alive or now_s - node.reported_s > _GONE_AFTER_S
        }
        if gone:
            del self._nodes[min(gone, key=gone.__getitem__)]
        return bool(gone)

    def update_load(self, node: str, load: Load, now_s: float) -> None:
        """An ACK, Reject or Result carries the node's load of that moment: fresher than any heartbeat."""
        if (known := self._nodes.get(node)) is not None and known.state.alive:
            known.state = msgspec.structs.replace(known.state, load=load)
            known.reported_s = now_s

    def sent(self, node: str, task_id: str) -> None:
        """A task is on its way that the node's reports do not count yet."""
        if (known := self._nodes.get(node)) is not None:
            known.unreported.add(task_id)

    def settled(self, node: str, task_id: str) -> None:
        """The node has answered for the task (ACK, Reject or Result), or nobody waits for it any more."""
        if (known := self._nodes.get(node)) is not None:
            known.unreported.discard(task_id)

    def observe_network(self, node: str, network_ms: float) -> None:
        """A round trip was timed: from a task's sending to its ACK, which a node gives before it does anything else."""
        if (known := self._nodes.get(node)) is None:
            return
        before = network_ms if known.timed_network_ms is None else known.timed_network_ms
        known.timed_network_ms = before + _SMOOTHING * (network_ms - before)

    def network_ms(self, node: str) -> float:
        """Expected round trip to a node that has announced itself, without queueing and inference."""
        return self._nodes[node].network_ms

    def quickest_ms(self, node: str, kind: str) -> float:
        """Expected time to an answer if nothing were queued; infinite for a node that is dead or tells no load."""
        known = self._nodes.get(node)
        if known is None or not known.state.alive or (load := known.state.load) is None:
            return math.inf
        return known.network_ms + min((by_kind.get(kind, 0.0) for by_kind in load.service_ms.values()), default=0.0)

    def is_dead(self, node: str) -> bool:
        """Whether a node's last word was its will, or it is forgotten since."""
        known = self._nodes.get(node)
        return known is None or not known.state.alive

    def is_silent(self, node: str, now_s: float, *, silent_after_ms: float) -> bool:
        """Whether nothing was heard of a node for so long."""
        known = self._nodes.get(node)
        return known is None or (now_s - known.reported_s) * 1000 > silent_after_ms

    def views(self, now_s: float, *, refused_by: frozenset[str] = frozenset()) -> list[NodeView]:
        return [
            NodeView(
                state=node.state,
                age_ms=(now_s - node.reported_s) * 1000,
                unreported=len(node.unreported),
                network_ms=node.network_ms,
                refused=name in refused_by,
            )
            for name, node in self._nodes.items()
        ]
