"""What a vehicle knows of the nodes: their last reports, its own tasks on their way, and how long the network takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ..bus.messages import Load, NodeState
from ..policy.candidates import NodeView

_FIRST_NETWORK_MS = 20.0  # a guess until the first answer has been timed
_SMOOTHING = 0.2


@dataclass(slots=True)
class _Node:
    state: NodeState
    reported_s: float
    network_ms: float = _FIRST_NETWORK_MS
    unreported: set[str] = field(default_factory=set)


class NodeTable:
    """Times are seconds of the vehicle's monotonic clock; the nodes' own clocks are never looked at."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def update_state(self, state: NodeState, now_s: float) -> bool:
        """Take a node's report. True where a node that was alive is dead now."""
        known = self._nodes.get(state.node)
        if known is None:
            self._nodes[state.node] = _Node(state, now_s)
            return False
        died = known.state.alive and not state.alive
        known.state, known.reported_s = state, now_s
        if died:
            known.unreported.clear()
        return died

    def update_load(self, node: str, load: Load, now_s: float) -> None:
        """An ACK, Reject or Result carries the node's load of that moment: fresher than any heartbeat."""
        if (known := self._nodes.get(node)) is not None and known.state.alive:
            known.state = msgspec.structs.replace(known.state, load=load)
            known.reported_s = now_s

    def sent(self, node: str, task_id: str) -> None:
        """A task is on its way that the node's reports do not count yet."""
        self._nodes[node].unreported.add(task_id)

    def settled(self, node: str, task_id: str) -> None:
        """The node has answered for the task (ACK, Reject or Result), or nobody waits for it any more."""
        if (known := self._nodes.get(node)) is not None:
            known.unreported.discard(task_id)

    def observe_network(self, node: str, network_ms: float) -> None:
        known = self._nodes[node]
        known.network_ms += _SMOOTHING * (network_ms - known.network_ms)

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
