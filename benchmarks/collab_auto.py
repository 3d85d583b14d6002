"""Contenders whose edge picks mode and sharing anew for each answer, from what it has measured of those before.

It is the planner that nodes use (models/mode_planner.py), fed by measurements on the virtual clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..edge_node.link_meter import LinkMeter
from ..models.circumstances import Circumstances, LinkEstimate
from ..models.collaboration import Collaboration
from ..models.decoding import Limits
from ..models.mode_planner import ModePlanner
from ..models.modes.registry import MODES
from .collab_clock import Clock, VirtualLink
from .collab_contenders import Thresholds
from .collab_edge import TracedEdge, TracedPrompt
from .collab_profiles import Profile
from .collab_replay import Replay, Replayed
from .collab_traces import TracedScene

# The edge may send the picture where that is less than its hidden states, and ids where that is faster.
_ANY_FORM = Collaboration(prompt_upload="auto", context="auto", draft=False)
# What each may come to, as contenders that run by themselves.
_THROUGH = ("through-hidden", "through-image", "through-tokens")
_LOSSLESS = ("cloud", *_THROUGH)
POOLS = {
    "auto": _LOSSLESS,
    "auto-lossy": (*_LOSSLESS, "ce", "ce-optimistic", "ce-optimistic-image", "ce-optimistic-tokens"),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """See `Contender`; what it does is decided answer by answer."""

    name: str
    thresholds: tuple[float, ...]
    collaboration: Collaboration

    @property
    def theta(self) -> str:
        return " / ".join(f"{threshold:.4g}" for threshold in self.thresholds)


def planned_line_up(thresholds: Thresholds) -> list[Planned]:
    """All whose edge plans."""
    return [
        Planned("through", thresholds.own, replace(_ANY_FORM, mode="through")),
        Planned("auto", thresholds.own, replace(_ANY_FORM, mode="auto", lossless=True)),
        Planned("auto-lossy", thresholds.calibrated, replace(_ANY_FORM, mode="auto")),
    ]


class PlanningEdge:
    """An edge on one link, over many answers. answer_ms: what the cloud says that it takes for a whole answer."""

    def __init__(self, planned: Planned, profile: Profile, *, answer_ms: float) -> None:
        self.planned = planned
        self._profile = profile
        self._planner = ModePlanner(planned.collaboration, profile.cut)
        self._meter = LinkMeter()
        self._answer_ms = answer_ms

    def answer(self, scene: TracedScene, link: VirtualLink) -> Replayed:
        """One answer on the virtual clock, from which the next one's plan may learn."""
        clock = Clock()
        edge, prompt = TracedEdge(scene, self._profile, clock), TracedPrompt(scene, self._profile, clock)
        name, sharing = self._planner.plan(scene.question, scene.positions, Circumstances(self._link()))
        limits = Limits(scene.question.max_tokens, scene.end_token, self.planned.thresholds)
        measurements = self._planner.measurements
        measurements.now_s = lambda: clock.now_ms / 1000
        steps = measurements.watch(edge, prompt, lambda watched: MODES[name].decode(watched, prompt, limits, sharing))
        return Replay(scene, self._profile, link, clock, on_timed=self._meter.take).run(steps)

    def _link(self) -> LinkEstimate:
        meter = self._meter
        return LinkEstimate(
            round_trip_ms=meter.round_trip_ms,
            uplink_bps=meter.uplink_bps,
            wait_ms=meter.wait_ms,
            compute_ms=meter.compute_ms,
            answer_ms=self._answer_ms,
            takes_prompts=True,
        )
