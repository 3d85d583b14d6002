"""Timelines: what edge, link and cloud do in one answer, as the virtual clock has logged it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..datasets.link_traces import parse_link
from .collab_cells import HEADLINE
from .collab_clock import Place, Span, VirtualLink
from .collab_contenders import Contender, replay
from .collab_edge import whole_answer
from .collab_plots import new_figure, save
from .collab_profiles import Profile
from .collab_replay import Replayed
from .collab_traces import TracedScene

# One of each kind; the others differ from these in what goes up, or in a threshold.
_DRAWN = (
    *("cloud", "naive", "naive-kv", "standalone", "ce", "ce-sync"),
    *("ce-optimistic", "through-hidden", "through-tokens"),
)
_LANES: tuple[Place, ...] = ("edge", "uplink", "cloud", "downlink")
_COLOURS = {
    "prompt": "#9aa5b1",
    "first": "#4c78a8",
    "second": "#1f3a5f",
    "message": "#d8d8d8",
    "Upload": "#72b7b2",
    "UploadTokens": "#72b7b2",
    "UploadPrompt": "#9aa5b1",
    "Ask": "#e45756",
    "cut": "#e45756",
    "batch": "#f58518",
    "reply": "#54a24b",
}
_LEGEND = {
    "prompt": "prompt",
    "first": "to the first exit",
    "second": "to the second",
    "Upload": "context",
    "Ask": "question",
    "batch": "batch of the cloud",
    "reply": "reply",
}


def draw_timelines(
    scenes: Sequence[TracedScene], contenders: Sequence[Contender], profile: Profile, folder: Path
) -> list[Path]:
    """A picture for each of some contenders, all of one answer on one link; returns where they are.

    Raises ModuleNotFoundError without matplotlib, ConfigurationError where the folder cannot be written.
    """
    scene = _telling(scenes)
    replayed = {
        each.name: replay(each, scene, profile, VirtualLink(parse_link(HEADLINE)), max_tokens=scene.question.max_tokens)
        for each in contenders
        if each.name in _DRAWN
    }
    longest_ms = max(each.total_ms for name, each in replayed.items() if name != "naive")
    return [save(_picture(name, each, longest_ms), folder / f"{name}.png") for name, each in replayed.items()]


def _telling(scenes: Sequence[TracedScene]) -> TracedScene:
    """A scene where the edge is unsure of two tokens or three, and once wrong: there every mode shows what it does."""

    def distance(scene: TracedScene) -> tuple[int, int]:
        answer = whole_answer(scene, max_tokens=scene.question.max_tokens)
        thresholds = scene.model.thresholds
        unsure = wrong = 0
        for length in range(len(answer)):
            votes = scene.at_exits(answer[:length])
            sure = [vote.confidence >= least for vote, least in zip(votes, thresholds, strict=True)]
            said = votes[0] if sure[0] else votes[1]
            unsure += not any(sure)
            wrong += said.token != answer[length]
        return abs(wrong - 1), abs(unsure - 2)

    return min(scenes, key=distance)


def _picture(name: str, replayed: Replayed, longest_ms: float) -> Any:
    figure = new_figure(9, 2.1)
    axes = figure.add_subplot()
    for span in replayed.spans:
        height = len(_LANES) - 1 - _LANES.index(span.place)
        # What takes no time would be invisible; a question is drawn as a thin line.
        length_ms = max(span.length_ms, longest_ms / 600)
        axes.barh(height, length_ms, left=span.begin_ms, height=_height(span), color=_COLOURS[span.name], alpha=0.85)
    axes.axvline(replayed.total_ms, color="black", linewidth=1)
    shown = {span.name for span in replayed.spans}
    handles = [axes.barh(0, 0, color=_COLOURS[key], label=label) for key, label in _LEGEND.items() if key in shown]
    axes.legend(handles=handles, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1.05))
    axes.set_yticks(range(len(_LANES)), reversed(_LANES))
    axes.set(xlim=(0, max(longest_ms, replayed.total_ms) * 1.02), ylim=(-0.6, len(_LANES) - 0.4))
    axes.set_title(f"{name}: {replayed.total_ms:.0f} ms at {HEADLINE}", fontsize="small")
    axes.set_xlabel("milliseconds", fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _height(span: Span) -> float:
    """Messages overlap on a link, since each is under way for half a round trip."""
    return 0.8 if span.place in ("edge", "cloud") else 0.4
