"""What a cloud keeps for edges, and for how long. Plain values, so that a configuration can name them without torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ContextSettings:
    """What contexts may take.

    session_ttl_s: a session that is silent for so long is forgotten.
    budget_bytes: of all sessions together; beyond it, the least recently used are forgotten, those of edges that hold
        more than an equal share of it first. 0: no edge is helped.
    session_bytes, max_positions: of one session; one that needs more is refused.
    sessions_per_edge: one more, and the edge's own longest silent one is forgotten.
    edges: leases at once; one more, and the longest silent edge loses its own.
    """

    session_ttl_s: float = 10.0
    budget_bytes: int = 512 * 1024 * 1024
    session_bytes: int = 128 * 1024 * 1024
    max_positions: int = 2048
    sessions_per_edge: int = 64
    edges: int = 256


@dataclass(frozen=True)
class CollaborationSettings:
    """How edges are served.

    grace_ms: how long a request waits for positions that have not arrived before they are asked for again.
    max_batch: how many contexts are computed in one pass.
    """

    contexts: ContextSettings = field(default_factory=ContextSettings)
    grace_ms: float = 20.0
    max_batch: int = 16
