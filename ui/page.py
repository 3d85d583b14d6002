"""One browser's page: its filter, its pause, and the sections that it draws once a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nicegui import ui

from .activity import BIN_S, BINS, Bin
from .charts import Charts
from .elements import box, text
from .fleet_view import FleetView, VehicleView
from .node_table import NodeTable
from .task_sheet import TaskSheet
from .task_table import TaskTable
from .vehicle_cards import VehicleCards
from .wording import NOTHING, duration, share

_DRAW_EVERY_S = 1.0
# Charts change little from one second to the next, and cost the most.
_CHARTS_EVERY = 2
_STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: Callable[[Bin], str]


TILES = (
    Tile("answered in time", lambda total: share(total.in_time, total.ended)),
    Tile("narrator instead (fallback)", lambda total: share(total.fallback, total.ended)),
    Tile(
        "mean time to the answer",
        lambda total: f"{total.latency_ms / total.answered:,.0f} ms" if total.answered else NOTHING,
    ),
    Tile("right, of those the log can judge", lambda total: share(total.right, total.judged)),
    Tile(
        "energy of an answer",
        lambda total: f"{total.energy_j / total.answered:.2f} J" if total.answered else NOTHING,
    ),
)


class Page:
    """fleet, broker: for people; the broker's without its password."""

    def __init__(self, view: FleetView, *, fleet: str, broker: str) -> None:
        self._view = view
        self._broker = broker
        self._paused = False
        self._chosen: set[str] = set()
        self._drawn = 0
        ui.add_css(_STYLE)
        # None: as the browser's own setting says.
        self._dark = ui.dark_mode(None)
        with box("live"):
            self._make_top(fleet)
            self._banner = text("", "banner").mark("banner")
            self._pause_banner = text(
                "Paused: the fleet goes on, this page does not. Nothing is lost.", "banner paused"
            )
            with box("sections"):
                self._make_tiles()
                self._vehicles = VehicleCards(view)
                self._nodes = NodeTable(view)
                self._charts = Charts()
                self._tasks = TaskTable(self._open_task)
        self._sheet = TaskSheet(view)
        ui.timer(_DRAW_EVERY_S, self._draw)

    def _make_top(self, fleet: str) -> None:
        with box("top"):
            text("roadside", "brand")
            text(f"fleet {fleet} · {self._broker}", "faint")
            self._counts = text("", "faint").mark("counts")
            box("spring")
            self._filter = ui.select([], multiple=True, label="only these vehicles", on_change=self._filtered)
            self._filter.classes("filter").props("dense outlined options-dense use-chips clearable")
            self._pause = ui.button("Pause", on_click=self._toggle_pause).props(
                "outline dense no-caps padding='2px 12px'"
            )
            ui.button("Light / dark", on_click=self._toggle_dark).props("outline dense no-caps padding='2px 12px'")

    def _make_tiles(self) -> None:
        with box("section"):
            text("In the last three minutes", "about")
            with box("tiles"):
                self._rate = _figure("tasks ended, per second")
                self._tiles = [_figure(tile.name) for tile in TILES]

    def _filtered(self) -> None:
        self._chosen = set(self._filter.value or ())

    def _toggle_pause(self) -> None:
        self._paused = not self._paused
        self._pause.set_text("Go on" if self._paused else "Pause")
        self._pause_banner.set_visibility(self._paused)

    def _toggle_dark(self) -> None:
        self._dark.value = not self._dark.value

    def _open_task(self, vehicle: str, task_id: str) -> None:
        self._sheet.open(vehicle, task_id, time.monotonic())

    async def _draw(self) -> None:
        now_s = time.monotonic()
        self._draw_connection(now_s)
        self._pause_banner.set_visibility(self._paused)
        if self._paused:
            return
        view = self._view
        vehicles = sorted(view.vehicles.values(), key=lambda vehicle: _natural(vehicle.name))
        names = [vehicle.name for vehicle in vehicles]
        if self._filter.options != names:
            self._filter.set_options(names, value=[name for name in names if name in self._chosen])
        chosen = [vehicle for vehicle in vehicles if not self._chosen or vehicle.name in self._chosen]
        self._counts.set_text(_counted(view))
        if self._drawn % _CHARTS_EVERY == 0:
            self._draw_activity(chosen, now_s)
        self._nodes.draw(now_s)
        shown = {vehicle.name for vehicle in chosen}
        # Without a choice also tasks of vehicles that are not known yet, or no more.
        traces = (trace for trace in view.traces if not self._chosen or trace.vehicle in shown)
        self._tasks.draw(traces, now_s)
        self._sheet.draw(now_s)
        self._drawn += 1
        await self._vehicles.draw(chosen, now_s)

    def _draw_connection(self, now_s: float) -> None:
        connection = self._view.connection
        self._banner.set_visibility(bool(connection.problem))
        since = duration(now_s - connection.since_s)
        self._banner.set_text(
            f"No broker for {since}: {connection.problem}. It keeps trying; what you see was heard before."
        )

    def _draw_activity(self, chosen: list[VehicleView], now_s: float) -> None:
        if self._chosen:
            bins, total = _summed(chosen, now_s)
        else:
            bins, total = self._view.activity.bins(now_s), self._view.activity.total(now_s)
        self._rate.set_text(_rate(bins))
        for tile, figure in zip(TILES, self._tiles, strict=True):
            figure.set_text(tile.value(total))
        self._charts.draw(bins)


def _figure(name: str) -> ui.label:
    with box("tile"):
        figure = text(NOTHING, "figure")
        text(name, "faint small")
    return figure


def _rate(bins: Sequence[Bin]) -> str:
    """Tasks that ended per second, since the first one of those that the bins know."""
    since = next((index for index, each in enumerate(bins) if each.ended), len(bins) - 1)
    # Of the newest bin, half has passed on average.
    return f"{sum(each.ended for each in bins) / (BIN_S * (len(bins) - since - 0.5)):.1f}"


def _summed(vehicles: list[VehicleView], now_s: float) -> tuple[list[Bin], Bin]:
    """The bins of several vehicles together, and the sum of all."""
    bins = [Bin(0) for _ in range(BINS)]
    total = Bin(0)
    for vehicle in vehicles:
        for together, own in zip(bins, vehicle.activity.bins(now_s), strict=True):
            together.merge(own)
        total.merge(vehicle.activity.total(now_s))
    return bins, total


def _counted(view: FleetView) -> str:
    present = sum(vehicle.membership.dead_since_s is None for vehicle in view.vehicles.values())
    nodes = [node for node in view.nodes.values() if node.membership.state is not None]
    alive = sum(node.membership.dead_since_s is None for node in nodes)
    missed = f" · {view.missed:,} messages came too fast to be read" if view.missed else ""
    return f"{present} vehicles · {alive} of {len(nodes)} nodes alive{missed}"


def _natural(name: str) -> tuple[object, ...]:
    """So that vehicle-10 comes after vehicle-9."""
    head = name.rstrip("0123456789")
    return (head, int(name[len(head) :] or 0), name)
