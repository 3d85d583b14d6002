"""How the page names, writes and colours things; no browser in here."""

from __future__ import annotations

from datetime import datetime

from ..bus.messages import Outcome
from ..bus.places import Place
from ..bus.plain_text import plain_text
from ..qos.watch import verdict
from .task_traces import TaskTrace

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart. Nothing is told by colour
# alone: wherever one of them stands, its meaning stands beside it in words.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#8A8F98",
)  # fmt: skip

PLACE_COLOURS: dict[Place, str] = {"vehicle": ORANGE, "edge": SKY, "edge+cloud": GREEN, "cloud": BLUE}
PLACE_NAMES: dict[Place, str] = {
    "vehicle": "vehicle itself",
    "edge": "roadside edge",
    "edge+cloud": "edge and cloud together",
    "cloud": "cloud",
}
FALLBACK_COLOUR = VERMILION
# In the order of activity.PARTS.
PART_COLOURS = (VERMILION, BLUE, GREEN, ORANGE, GREY)
PART_NAMES = ("queue of the node", "computing", "waiting for the cloud", "network", "vehicle itself")
ENDINGS = {
    "result": "answered in time",
    "fallback": "narrator instead (fallback)",
    "expired": "expired",
    "rejected": "rejected",
}
NOTHING = "–"


def quoted(text: str) -> str:
    return f"“{plain_text(text)}”" if text.strip() else "(no words)"


def milliseconds(ms: float | None) -> str:
    return NOTHING if ms is None else f"{ms:,.0f} ms"


def age(seconds: float) -> str:
    """How long ago, in words."""
    if seconds < 1.5:
        return "now"
    if seconds < 90:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 5400 else f"{seconds / 3600:.0f} h ago"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else NOTHING


def maker_name(maker: str) -> str:
    """Who made a token: "exit1", "exit2" ... are an edge's early exits; "full" is the whole model."""
    if maker.startswith("exit"):
        return f"early exit {plain_text(maker[4:])}".strip()
    return "whole model" if maker == "full" else plain_text(maker)


def maker_colour(maker: str) -> str:
    if maker == "full":
        return BLUE
    return {"exit1": ORANGE, "exit2": GREEN}.get(maker, SKY if maker.startswith("exit") else GREY)


def ending(trace: TaskTrace, now_s: float) -> str:
    """How a task ended, or that it has not, in words."""
    if trace.outcome is None:
        return "under way" if trace.is_under_way(now_s) else "its end was not heard"
    return ENDINGS[trace.outcome.state]


def judgement(outcome: Outcome) -> str:
    """Whether the answer says what the driving log says."""
    said = verdict(outcome)
    return f"{said}, says the log" if said else ""


def ending_colour(outcome: Outcome) -> str:
    """Of the bar and the mark beside an answer: its place's, unless the narrator had to step in."""
    return PLACE_COLOURS[outcome.place] if outcome.state == "result" else FALLBACK_COLOUR


def clock(at_s: float) -> str:
    """A wall clock's time, Unix seconds, as people here read it; the vehicle's own, so it may be any."""
    try:
        return f"{datetime.fromtimestamp(at_s):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return NOTHING
