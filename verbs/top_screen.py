"""What `roadside top` shows: one screen of text for what is known of a fleet, and nothing that it did not make itself.

Names, answers and reasons were chosen by others: all of them pass `plain_text` before a terminal sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..bus.plain_text import plain_text
from ..qos.last_minute import Ended, LastMinute, Rates
from ..ui.fleet_view import FleetView, Membership, NodeView, VehicleView
from .top_figures import condition

_NUMBER = re.compile(r"([0-9]+)")
_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "–"
_BINS = 30
# Title, two lines about the last minute, two headings with an empty line before each, and the line of keys.
_FIXED_LINES = 8
_OLD_AFTER_S = 10.0
_STYLES = {"alive": "green", "mute": "bold yellow", "left": "bold red"}

Member = TypeVar("Member", NodeView, VehicleView)


@dataclass(frozen=True, slots=True)
class Frame:
    """Around the tables. height: lines that there are room for; None: as many as it takes.

    title: which fleet at which broker. keys: what may be pressed; empty where nobody can.
    """

    title: str
    clock: str
    keys: str = ""
    height: int | None = None
    paused: bool = False


def screen(view: FleetView, minute: LastMinute, now_s: float, frame: Frame) -> RenderableType:
    """Title, totals, nodes and vehicles; where there is no room for all members, those that fit and how many more."""
    nodes, vehicles = _sorted(view.nodes.values()), _sorted(view.vehicles.values())
    node_room, vehicle_room = _rooms(len(nodes), len(vehicles), frame.height)
    listening_s = view.connection.since_s
    parts: list[RenderableType] = [
        _title(view, frame, now_s),
        _totals(minute, now_s),
        _over_time(minute, now_s),
        Text(),
    ]
    parts += [_nodes(nodes[:node_room], minute, now_s, listening_s), *_rest(len(nodes), node_room, "node"), Text()]
    parts.append(_vehicles(vehicles[:vehicle_room], minute, now_s, listening_s))
    parts += _rest(len(vehicles), vehicle_room, "vehicle")
    if frame.keys:
        parts.append(Text(frame.keys, style="dim"))
    return Group(*parts)


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value, the largest one full; a space where there is none."""
    largest = max((value for value in values if value is not None), default=0.0)
    if largest <= 0:
        return " " * len(values)
    top = len(_BARS) - 1
    return "".join(" " if value is None else _BARS[round(max(0.0, value) / largest * top)] for value in values)


def _title(view: FleetView, frame: Frame, now_s: float) -> Text:
    line = _line()
    line.append(plain_text(frame.title), style="bold")
    line.append(f"   {frame.clock}")
    if frame.paused:
        line.append("   paused", style="bold yellow")
    if view.connection.problem:
        for_s = now_s - view.connection.since_s
        line.append(f"   {plain_text(view.connection.problem)} for {for_s:.0f} s", style="bold red")
    return line


def _totals(minute: LastMinute, now_s: float) -> Text:
    rates, line = minute.rates(now_s), _line()
    line.append("last minute  ", style="dim")
    line.append(f"{rates.tasks} tasks  {rates.tasks_per_s:.1f}/s  ")
    line.append(f"{_share(rates.in_time_share)} in time", style=_style_of(rates))
    line.append(f"  p50 {_ms(rates.p50_ms)}  p90 {_ms(rates.p90_ms)}  p99 {_ms(rates.p99_ms)} ms")
    return line


def _over_time(minute: LastMinute, now_s: float) -> Text:
    medians = minute.p50_over_time(now_s, _BINS)
    line = _line()
    line.append("p50 over it  ", style="dim")
    line.append(sparkline(medians), style="cyan")
    if largest := max((value for value in medians if value is not None), default=None):
        line.append(f"  full bar: {largest:.0f} ms", style="dim")
    return line


def _nodes(nodes: Sequence[NodeView], minute: LastMinute, now_s: float, listening_s: float) -> Table:
    answers_per_s = minute.answers_per_s(now_s)
    table = _table(("node", 12), ("role", 5), ("state", 9))
    for heading in ("busy", "queue", "wait", "answers/s", "MB", "lag ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True, overflow="ellipsis", ratio=1)
    for node in nodes:
        state = node.membership.state
        load = state.load if state is not None else None
        table.add_row(
            plain_text(node.name),
            state.role if state is not None else _NOTHING,
            _health(node.membership, now_s, listening_s),
            f"{load.running}/{load.slots}" if load is not None else _NOTHING,
            str(load.queued) if load is not None else _NOTHING,
            f"{load.wait_ms:.0f} ms" if load is not None else _NOTHING,
            f"{answers_per_s.get(node.name, 0.0):.1f}",
            f"{state.memory_bytes / 1e6:.0f}" if state is not None else _NOTHING,
            f"{state.event_loop_lag_ms:.0f}" if state is not None else _NOTHING,
            plain_text(state.model) if state is not None else "",
        )
    return table


def _vehicles(vehicles: Sequence[VehicleView], minute: LastMinute, now_s: float, listening_s: float) -> Table:
    newest = minute.newest(now_s)
    table = _table(("vehicle", 12), ("state", 9))
    for heading in ("tasks/s", "in time", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("place", no_wrap=True, max_width=10)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("latest answer", no_wrap=True, overflow="ellipsis", ratio=1)
    for vehicle in vehicles:
        rates = minute.rates(now_s, vehicle=vehicle.name)
        table.add_row(
            plain_text(vehicle.name),
            _health(vehicle.membership, now_s, listening_s),
            f"{rates.tasks_per_s:.1f}",
            Text(_share(rates.in_time_share), style=_style_of(rates)),
            *_latest(newest.get(vehicle.name), now_s),
        )
    return table


def _latest(ended: Ended | None, now_s: float) -> tuple[str, str, Text, Text]:
    """Latency, place, age and answer of a vehicle's newest task."""
    if ended is None:
        return _NOTHING, _NOTHING, Text(_NOTHING), Text()
    outcome, age_s = ended.outcome, now_s - ended.heard_s
    said = plain_text(outcome.text) or f"({plain_text(outcome.reason) or outcome.state})"
    return (
        f"{outcome.latency_ms:.0f}",
        outcome.place if outcome.state == "result" else outcome.state,
        Text(f"{age_s:.0f} s", style="yellow" if age_s > _OLD_AFTER_S else ""),
        Text(said, style="" if outcome.state == "result" else "yellow"),
    )


def _health(membership: Membership, now_s: float, listening_s: float) -> Text:
    what, for_s = condition(membership, now_s, listening_since_s=listening_s)
    if what is None:
        return Text(_NOTHING)
    return Text(what if what == "alive" else f"{what} {for_s:.0f} s", style=_STYLES[what])


def _rooms(nodes: int, vehicles: int, height: int | None) -> tuple[int, int]:
    """How many nodes and vehicles fit; whom one side does not need, the other has."""
    if height is None:
        return nodes, vehicles
    # Nobody at all takes a line, too, and so does the number of those that do not fit.
    room = max(2, height - _FIXED_LINES)
    half = room // 2
    for_nodes = min(max(nodes, 1), max(half, room - max(vehicles, 1)))
    for_vehicles = room - for_nodes
    return _cut(nodes, for_nodes), _cut(vehicles, for_vehicles)


def _cut(members: int, lines: int) -> int:
    return members if members <= lines else max(0, lines - 1)


def _rest(members: int, shown: int, what: str) -> list[Text]:
    """What is said of those that are not shown."""
    if not members:
        return [Text(f"no {what} has announced itself yet", style="dim")]
    return [Text(f"and {members - shown} more", style="dim")] if members > shown else []


def _sorted(members: Iterable[Member]) -> list[Member]:
    """By name; numbers in names by their value."""
    return sorted(
        members,
        key=lambda member: [(part.zfill(64) if part.isdigit() else part) for part in _NUMBER.split(member.name)],
    )


def _table(*columns: tuple[str, int]) -> Table:
    """Its first columns, of at most so many characters; a name that is longer is cut with an ellipsis."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
    for heading, longest in columns:
        table.add_column(heading, no_wrap=True, overflow="ellipsis", max_width=longest, min_width=min(longest, 5))
    return table


def _line() -> Text:
    return Text(no_wrap=True, overflow="ellipsis")


def _style_of(rates: Rates) -> str:
    share = rates.in_time_share
    if share is None:
        return ""
    return "green" if share >= 0.95 else "yellow" if share >= 0.8 else "bold red"


def _share(share: float | None) -> str:
    return _NOTHING if share is None else f"{share:.0%}"


def _ms(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0f}"
