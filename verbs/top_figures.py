"""What `roadside top` knows, as plain JSON for other programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from ..qos.last_minute import LastMinute
from ..ui.fleet_view import FleetView, Membership


def figures(view: FleetView, minute: LastMinute, now_s: float) -> dict[str, Any]:
    """One object. Ages are in seconds; names and answers are as others chose them, to be escaped by whoever shows them.

    condition: "alive", "mute" (nothing was heard for longer than it should be) or "left"; None: it has not told yet.
    """
    answers_per_s, newest = minute.answers_per_s(now_s), minute.newest(now_s)
    nodes = [
        {"node": name, **_state(node.membership, view, now_s), "answers_per_s": answers_per_s.get(name, 0.0)}
        for name, node in sorted(view.nodes.items())
    ]
    vehicles = [
        {
            "vehicle": name,
            **_state(vehicle.membership, view, now_s),
            "last_minute": asdict(minute.rates(now_s, vehicle=name)),
            "latest": None
            if (ended := newest.get(name)) is None
            else {
                "age_s": now_s - ended.heard_s,
                **{
                    key: getattr(ended.outcome, key) for key in ("state", "kind", "place", "node", "latency_ms", "text")
                },
            },
        }
        for name, vehicle in sorted(view.vehicles.items())
    ]
    connected = not view.connection.problem
    return {"connected": connected, "last_minute": asdict(minute.rates(now_s)), "nodes": nodes, "vehicles": vehicles}


def condition(membership: Membership, now_s: float, *, listening_since_s: float) -> tuple[str | None, float]:
    """See `figures`; and for how many seconds it has been mute or gone."""
    if membership.dead_since_s is not None:
        return "left", now_s - membership.dead_since_s
    if (silence_s := membership.silent_s(now_s, listening_since_s=listening_since_s)) is not None:
        return "mute", silence_s
    return ("alive" if membership.state is not None else None), 0.0


def _state(membership: Membership, view: FleetView, now_s: float) -> dict[str, Any]:
    what, for_s = condition(membership, now_s, listening_since_s=view.connection.since_s)
    state = membership.state
    return {
        "condition": what,
        "condition_s": for_s,
        "role": None if state is None else state.role,
        "model": None if state is None else state.model,
        "memory_bytes": None if state is None else state.memory_bytes,
        "event_loop_lag_ms": None if state is None else state.event_loop_lag_ms,
        "load": None if state is None or state.load is None else msgspec.to_builtins(state.load),
    }
