"""Cells: every contender on the same scenes over one link."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bus.link import CapacityTrace, DelayTrace, LinkShape
from ..datasets.link_traces import parse_link
from .collab_auto import Planned, PlanningEdge
from .collab_clock import VirtualLink
from .collab_contenders import Contender, replay
from .collab_edge import Tokens, whole_answer
from .collab_profiles import Profile
from .collab_replay import Replayed
from .collab_traces import TracedScene

ROUND_TRIPS_MS = (5, 20, 50, 100)
RATES_MBPS = (300, 100, 10)
HEADLINE = "100Mbps,20ms"

# Recorded while driving; where they lie beside the repository. What a trace does not tell is given for it.
_TRACES = Path("../shared/data/network")
_RECORDED = (
    f"{_TRACES / 'mahimahi' / 'ATT-LTE-driving.up'},40ms",
    f"100Mbps,{_TRACES / 'cicv5g' / 'urban_n78_v40_run06.txt'}",
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one answer took, without how; see `Replayed`."""

    tokens: Tokens
    made_by: tuple[str, ...]
    total_ms: float
    first_token_ms: float
    edge_ms: float
    cloud_ms: float
    link_ms: float
    bytes_up: int
    positions_up: int
    cloud_requests: int

    @classmethod
    def of(cls, replayed: Replayed) -> Taken:
        generation = replayed.generation
        return cls(
            tokens=tuple(generation.tokens),
            made_by=tuple(generation.made_by),
            total_ms=replayed.total_ms,
            first_token_ms=replayed.first_token_ms,
            edge_ms=replayed.edge_ms,
            cloud_ms=replayed.cloud_ms,
            link_ms=replayed.link_ms,
            bytes_up=replayed.bytes_up,
            positions_up=replayed.positions_up,
            cloud_requests=replayed.cloud_requests,
        )


# By contender, in the order of the scenes.
CellResults = dict[str, list[Taken]]


def cell_names() -> list[str]:
    """The grid of the paper's kind, and what was recorded on the road, where that is at hand."""
    grid = [f"{rate}Mbps,{round_trip}ms" for round_trip in ROUND_TRIPS_MS for rate in RATES_MBPS]
    return grid + [recorded for recorded in _RECORDED if all(map(_is_there, recorded.split(",")))]


def _is_there(part: str) -> bool:
    return "/" not in part or Path(part).is_file()


class Cell:
    """One link. name: as `--link` takes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shape = parse_link(name)

    @property
    def label(self) -> str:
        """Its name without the folders of trace files."""
        return ",".join(Path(part).name for part in self.name.split(","))

    def run(
        self,
        scenes: Sequence[TracedScene],
        contenders: Sequence[Contender],
        planned: Sequence[Planned],
        profile: Profile,
        advance: Callable[[int], None],
    ) -> CellResults:
        """Let every contender answer every scene, each on a link to itself.

        A recorded link is begun at as many places as there are scenes. advance: told of scenes that are done.
        """
        results: CellResults = {contender.name: [] for contender in (*contenders, *planned)}
        tokens = (len(whole_answer(scene, max_tokens=scene.question.max_tokens)) for scene in scenes)
        answers_ms = [profile.alone_ms(scene.positions, count) for scene, count in zip(scenes, tokens, strict=True)]
        planning = [PlanningEdge(each, profile, answer_ms=statistics.fmean(answers_ms)) for each in planned]
        for number, scene in enumerate(scenes):
            began_s = _recorded_s(self.shape) * number / len(scenes)
            for contender in contenders:
                link = VirtualLink(self.shape, began_s)
                replayed = replay(contender, scene, profile, link, max_tokens=scene.question.max_tokens)
                results[contender.name].append(Taken.of(replayed))
            for edge in planning:
                results[edge.planned.name].append(Taken.of(edge.answer(scene, VirtualLink(self.shape, began_s))))
            scene.rest()
            advance(1)
        return results


def _recorded_s(shape: LinkShape) -> float:
    """How long the link's recording lasts, the longest one's length; 0 for a link that stays as it is."""
    recordings = (shape.uplink, shape.downlink, shape.round_trip)
    durations_s = (each.duration_s for each in recordings if isinstance(each, (CapacityTrace, DelayTrace)))
    return max(durations_s, default=0.0)
