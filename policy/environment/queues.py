"""First come, first served, exactly: when a task leaves a link, and when one of a node's slots takes it.

A single server needs no event queue: with tasks in the order of their arrival, the time at which it is free again is
all that must be remembered (Lindley, 1952; Kiefer and Wolfowitz, 1955, for several servers). It holds here because
tasks come to a node over one link, which keeps their order.
"""

from __future__ import annotations

from heapq import heapreplace


class Server:
    """So many slots behind one queue. Times are seconds; tasks must be served in the order of their arrival."""

    __slots__ = ("_free_s",)

    def __init__(self, slots: int = 1) -> None:
        self._free_s = [0.0] * slots

    @property
    def free_s(self) -> float:
        """When the first slot is free for whoever comes next; it may lie in the past."""
        return self._free_s[0]

    def serve(self, arrival_s: float, service_s: float) -> float:
        """Take a task behind everything served before; returns when it is done."""
        begins_s = self._free_s[0]
        if arrival_s > begins_s:
            begins_s = arrival_s
        done_s = begins_s + service_s
        heapreplace(self._free_s, done_s)
        return done_s

    def copy(self) -> Server:
        twin = Server(0)
        twin._free_s = self._free_s.copy()
        return twin
