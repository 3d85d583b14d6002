"""A card for each vehicle: what it sees, what it was told, by whom, and how much of the deadline that took.

The cards are made once and filled anew, so that a browser's memory does not depend on how long it looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from nicegui import ui

from ..bus.plain_text import plain_text
from .elements import Bar, box, text
from .fleet_view import FleetView, VehicleView
from .task_traces import TaskTrace
from .wording import ENDINGS, GREY, PLACE_NAMES, age, duration, ending_colour, judgement, quoted

CARDS = 12
PICTURES_PATH = "/pictures"
_NO_PICTURE = "No picture yet. A vehicle publishes one now and then where it was started with --frame-interval 2."
_BROKEN_PICTURE = "The last picture cannot be read."


class VehicleCards:
    """The first `CARDS` of the vehicles that are asked for."""

    def __init__(self, view: FleetView) -> None:
        self._view = view
        with box("section"):
            text("Vehicles", "heading")
            text(
                "What each vehicle saw last and the newest answer it got. The bar is the part of the deadline that the"
                " answer took; its colour is the place that answered.",
                "about",
            )
            self._empty = text("", "empty")
            with box("cards"):
                self._cards = [_Card() for _ in range(CARDS)]
            self._more = text("", "about")

    async def draw(self, vehicles: Sequence[VehicleView], now_s: float) -> None:
        self._empty.set_visibility(not vehicles)
        self._empty.set_text(
            "Waiting for the first vehicle of this fleet. `roadside demo` starts some; so does `roadside vehicle`."
        )
        left_out = len(vehicles) - CARDS
        self._more.set_visibility(left_out > 0)
        self._more.set_text(f"and {left_out} more vehicles: choose the ones to see in the filter above")
        shown = vehicles[:CARDS]
        await asyncio.gather(*(self._view.pictures.decode(vehicle.name) for vehicle in shown))
        for card, vehicle in zip(self._cards, shown, strict=False):
            card.draw(vehicle, self._view, now_s)
        for card in self._cards[len(shown) :]:
            card.hide()


class _Card:
    def __init__(self) -> None:
        with box("card") as self._card:
            with box("row title"):
                self._dot = box("dot")
                self._name = text("", "name")
                self._speed = text("", "faint small")
                box("spring")
                self._kind = text("", "chip")
            with box("view"):
                self._picture = ui.element("img").props('alt="what the vehicle saw last"')
                self._no_picture = text(_NO_PICTURE, "nothing")
            self._answer = text("", "answer").mark("answer")
            self._first = text("", "first")
            with box("row barrow"):
                self._who = text("", "chip")
                self._bar = Bar()
            with box("row foot"):
                self._how = text("")
                self._when = text("")
        self.hide()

    def hide(self) -> None:
        self._card.set_visibility(False)

    def draw(self, vehicle: VehicleView, view: FleetView, now_s: float) -> None:
        self._card.set_visibility(True)
        self._name.set_text(vehicle.name)
        self._draw_presence(vehicle, view, now_s)
        self._draw_picture(vehicle, view)
        trace = vehicle.trace
        if trace is None:
            self._draw_waiting()
        elif trace.outcome is None:
            self._draw_provisional(trace, now_s)
        else:
            self._draw_ended(trace, now_s)

    def _draw_presence(self, vehicle: VehicleView, view: FleetView, now_s: float) -> None:
        membership = vehicle.membership
        silent_s = membership.silent_s(now_s, listening_since_s=view.connection.since_s)
        if membership.dead_since_s is not None:
            colour, said = GREY, f"left {age(now_s - membership.dead_since_s)}"
        elif silent_s is not None:
            colour, said = GREY, f"silent for {duration(silent_s)}"
        else:
            colour = "#009E73"
            said = f"{vehicle.speed_kmh:.0f} km/h" if vehicle.speed_kmh is not None else ""
        self._dot.style(f"background: {colour}")
        self._speed.set_text(said)

    def _draw_picture(self, vehicle: VehicleView, view: FleetView) -> None:
        picture = view.pictures.get(vehicle.name)
        shows = picture is not None and not picture.is_broken and bool(picture.thumbnail)
        if picture is not None and shows:
            source = f"{PICTURES_PATH}/{quote(vehicle.name, safe='')}/{picture.version}"
            if self._picture.props.get("src") != source:
                self._picture.props["src"] = source
        self._picture.set_visibility(shows)
        self._no_picture.set_visibility(not shows)
        self._no_picture.set_text(_BROKEN_PICTURE if picture is not None and picture.is_broken else _NO_PICTURE)

    def _draw_waiting(self) -> None:
        self._kind.set_visibility(False)
        self._answer.set_text("no answer yet")
        for label in (self._first, self._who, self._how, self._when):
            label.set_text("")
        self._who.set_visibility(False)
        self._bar.fill([])

    def _draw_provisional(self, trace: TaskTrace, now_s: float) -> None:
        event = trace.provisional or trace.events[-1]
        self._kind.set_visibility(False)
        self._answer.set_text(quoted(event.text))
        self._first.set_text("for now; the final answer is awaited")
        self._who.set_visibility(True)
        self._who.set_text(event.node).style(f"border-left-color: {GREY}")
        self._bar.fill([])
        self._how.set_text("provisional")
        self._when.set_text(age(now_s - event.heard_s))

    def _draw_ended(self, trace: TaskTrace, now_s: float) -> None:
        outcome = trace.outcome
        assert outcome is not None
        colour = ending_colour(outcome)
        self._kind.set_visibility(True)
        self._kind.set_text(outcome.kind)
        self._answer.set_text(quoted(outcome.text))
        self._first.set_text(_first_answer(trace))
        self._who.set_visibility(True)
        who = PLACE_NAMES[outcome.place] if outcome.place == "vehicle" else f"{outcome.node} · {outcome.place}"
        self._who.set_text("narrator (fallback)" if outcome.state == "fallback" else who)
        self._who.style(f"border-left-color: {colour}")
        share = outcome.latency_ms / outcome.deadline_ms if outcome.deadline_ms > 0 else 1.0
        self._bar.fill([(share, colour)])
        how = f"{outcome.latency_ms:,.0f} of {outcome.deadline_ms:,.0f} ms"
        said = judgement(outcome) if outcome.state == "result" else plain_text(outcome.reason) or ENDINGS[outcome.state]
        self._how.set_text(f"{how} · {said}" if said else how)
        self._when.set_text(age(now_s - trace.last_heard_s))


def _first_answer(trace: TaskTrace) -> str:
    """The provisional answer that the final one replaced, where there was one."""
    provisional = [event for event in trace.events if event.what == "provisional"]
    outcome = trace.outcome
    if not provisional or outcome is None:
        return ""
    at = f" after {outcome.first_answer_ms:,.0f} ms" if outcome.first_answer_ms < outcome.latency_ms else ""
    if provisional[0].text == outcome.text:
        return f"first said{at}, and confirmed"
    return f"said first{at}: {quoted(provisional[0].text)}"
