"""The nodes that answer: how busy they are, how far away, and whether they are still there."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from ..bus.plain_text import plain_text
from .elements import box, column, set_rows, text
from .fleet_view import FleetView, NodeView
from .wording import NOTHING, duration, milliseconds

_PAGE = 20
_ROLES = {"cloud": 0, "edge": 1}
_COLUMNS = [
    column("node", "node"),
    column("role", "tier"),
    column("health", "state"),
    column("running", "running", align="right"),
    column("waiting", "waiting", align="right"),
    column("wait", "a new task would wait", align="right"),
    column("network", "network, there and back", align="right"),
    column("answers", "answers heard", align="right"),
    column("memory", "memory", align="right"),
    column("lag", "event loop late by", align="right"),
    column("model", "model"),
]


class NodeTable:
    def __init__(self, view: FleetView) -> None:
        self._view = view
        with box("section"):
            text("Roadside edges and clouds", "heading")
            text(
                "Load as each node reports it, running tasks of those it can run at once. Network: the mean of what"
                " vehicles measured with their answers.",
                "about",
            )
            self._empty = text("Waiting for the first node. `roadside edge` and `roadside cloud` start one.", "empty")
            with box("tablebox") as self._box:
                self._table = ui.table(columns=_COLUMNS, rows=[], row_key="node", pagination=_PAGE)
                self._table.props("dense flat").mark("nodes")

    def draw(self, now_s: float) -> None:
        nodes = sorted(
            (node for node in self._view.nodes.values() if node.membership.state is not None),
            key=lambda node: (_ROLES.get(_role(node), 2), node.name),
        )
        self._empty.set_visibility(not nodes)
        self._box.set_visibility(bool(nodes))
        if self._table.props.get("hide-bottom") != (len(nodes) <= _PAGE):
            self._table.props["hide-bottom"] = len(nodes) <= _PAGE
        set_rows(self._table, [_row(node, self._view, now_s) for node in nodes])


def _role(node: NodeView) -> str:
    return node.membership.state.role if node.membership.state is not None else ""


def _row(node: NodeView, view: FleetView, now_s: float) -> dict[str, Any]:
    state = node.membership.state
    assert state is not None
    load = state.load
    return {
        "node": node.name,
        "role": state.role,
        "health": _health(node, view, now_s),
        "running": f"{load.running} of {load.slots}" if load is not None else NOTHING,
        "waiting": f"{load.queued:,}" if load is not None else NOTHING,
        "wait": milliseconds(load.wait_ms) if load is not None else NOTHING,
        "network": milliseconds(node.network_ms),
        "answers": f"{node.answers:,}",
        "memory": f"{state.memory_bytes / 1e6:,.0f} MB" if state.memory_bytes else NOTHING,
        "lag": milliseconds(state.event_loop_lag_ms) if state.alive else NOTHING,
        "model": plain_text(state.model) or NOTHING,
    }


def _health(node: NodeView, view: FleetView, now_s: float) -> str:
    membership = node.membership
    if membership.dead_since_s is not None:
        return f"✕ dead for {duration(now_s - membership.dead_since_s)}"
    silent_s = membership.silent_s(now_s, listening_since_s=view.connection.since_s)
    return f"? silent for {duration(silent_s)}" if silent_s is not None else "● alive"
