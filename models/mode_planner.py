"""Which mode an edge decodes a question with, and what goes up of it: its user's choice and its own measurements."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .answer_measurements import Measurements
from .circumstances import Circumstances, LinkEstimate
from .collaboration import Collaboration
from .mode_choice import CloudPace, Conditions, EdgePace, Sizes, choose
from .modes import EdgeMode
from .modes.sharing import Sharing
from .questions import Question

# Before anything has gone up: a good mobile uplink.
_UNMEASURED_UPLINK_BPS = 20e6
_BYTES_PER_SIGNAL = 32


@dataclass(frozen=True, slots=True)
class Cut:
    """Of a model. The edge holds the layers up to second_exit; hidden states travel as they are after first_exit."""

    first_exit: int
    second_exit: int
    layers: int
    hidden_size: int


@dataclass
class ModePlanner:
    """Plans each answer of one edge."""

    collaboration: Collaboration
    cut: Cut
    measurements: Measurements = field(default_factory=Measurements)

    def plan(self, question: Question, prompt_positions: int, circumstances: Circumstances) -> tuple[EdgeMode, Sharing]:
        """The mode, and what it shares."""
        sizes = self._sizes(question, prompt_positions, circumstances.link)
        collaboration = self.collaboration
        if collaboration.mode == "auto" and circumstances.link is not None and not circumstances.link.takes_prompts:
            collaboration = replace(collaboration, prompt_upload="hidden", context="hidden")
        modes, sharings = collaboration.candidates, collaboration.sharings()
        if len(modes) == len(sharings) == 1:
            return modes[0], sharings[0]
        conditions = self._conditions(sizes, circumstances.link) if circumstances.link is not None else None
        if conditions is None:
            return modes[0], min(sharings, key=lambda sharing: _prompt_bytes_up(sharing, sizes))
        within_ms = circumstances.remaining_ms if collaboration.mode == "auto" else None
        choice = choose(modes, sharings, conditions, within_ms=within_ms)
        return choice.mode, choice.sharing

    def _sizes(self, question: Question, prompt_positions: int, link: LinkEstimate | None) -> Sizes:
        bytes_per_value = 2.0 if link is None else link.bytes_per_value
        words = len(question.prompt.encode()) + _BYTES_PER_SIGNAL * len(question.telemetry)
        return Sizes(
            prompt_positions=prompt_positions,
            prompt_bytes=sum(map(len, question.frames)) + words,
            position_bytes=self.cut.hidden_size * bytes_per_value,
        )

    def _conditions(self, sizes: Sizes, link: LinkEstimate) -> Conditions | None:
        """None as long as this edge has not said a token by both exits."""
        measured = self.measurements
        exit2_ms = measured.exit2_ms.value
        if measured.prompt_ms.value is None or exit2_ms is None:
            return None
        edge = EdgePace(
            encode_ms=measured.encode_ms.value or 0.0,
            prompt_ms=measured.prompt_ms.value,
            exit1_ms=exit2_ms if measured.exit1_ms.value is None else measured.exit1_ms.value,
            exit2_ms=exit2_ms,
        )
        return Conditions(
            round_trip_ms=link.round_trip_ms,
            uplink_bps=link.uplink_bps or _UNMEASURED_UPLINK_BPS,
            edge=edge,
            cloud=self._cloud_pace(edge, link),
            habits=measured.habits,
            sizes=sizes,
        )

    def _cloud_pace(self, edge: EdgePace, link: LinkEstimate) -> CloudPace:
        """From what it says; where it says nothing, as if its layers were as fast as the edge's."""
        cut = self.cut
        behind = cut.layers - cut.first_exit
        edge_layer_ms = edge.exit2_ms / cut.second_exit
        layer_ms = edge_layer_ms if link.compute_ms is None else link.compute_ms / behind
        slower = layer_ms / edge_layer_ms
        prompt_ms = edge.prompt_ms * cut.layers / cut.second_exit * slower
        alone_ms = layer_ms * cut.layers
        tokens = self.measurements.habits.tokens
        if link.answer_ms is not None and tokens > 1:
            alone_ms = max(0.0, link.answer_ms - edge.encode_ms * slower - prompt_ms) / (tokens - 1)
        return CloudPace(
            encode_ms=edge.encode_ms * slower,
            prompt_ms=prompt_ms,
            hidden_ms=layer_ms * behind,
            tokens_ms=layer_ms * cut.layers,
            alone_ms=alone_ms,
            wait_ms=link.wait_ms,
        )


def _prompt_bytes_up(sharing: Sharing, sizes: Sizes) -> float:
    return sizes.prompt_bytes if sharing.prompt == "image" else sizes.prompt_positions * sizes.position_bytes
