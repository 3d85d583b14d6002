"""Who takes part: decoding modes, each with what it shares and from which confidence its exits speak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..bus.tensors import TensorType
from ..models.decoding import Limits
from ..models.modes import EdgeMode
from ..models.modes.registry import MODES
from ..models.modes.sharing import Sharing
from .collab_clock import Clock, VirtualLink
from .collab_edge import Recording, TracedEdge, TracedPrompt, whole_answer
from .collab_profiles import Profile
from .collab_replay import Replay, Replayed

# What the edge would say alone is told to a vehicle, and would cost the edge its computing; here nobody hears it.
HIDDEN = Sharing(draft=False)
IMAGE = Sharing(prompt="image", answer="hidden", draft=False)
TOKENS = Sharing(prompt="image", answer="tokens", draft=False)


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the bench.

    thresholds: from which confidence each exit speaks. context: precision of hidden states on the wire.
    """

    name: str
    mode: EdgeMode
    thresholds: tuple[float, ...]
    sharing: Sharing = HIDDEN
    context: TensorType = "float16"

    @property
    def theta(self) -> str | None:
        """The thresholds as they stand in a row; None of modes without exits."""
        if self.mode in ("cloud", "naive", "naive-kv"):
            return None
        return " / ".join(f"{threshold:.4g}" for threshold in self.thresholds)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Of both exits.

    own: the model's, with which an edge answers alone and drafts. calibrated: those at which the answers of `ce` mean
    what the whole model's do. half: those at which half of the tokens are asked for.
    """

    own: tuple[float, ...]
    calibrated: tuple[float, ...]
    half: tuple[float, ...]


def line_up(thresholds: Thresholds) -> list[Contender]:
    """All that run by themselves."""
    own, calibrated = thresholds.own, thresholds.calibrated
    return [
        Contender("cloud", "cloud", own, IMAGE),
        Contender("naive", "naive", own, context="float32"),
        Contender("naive-kv", "naive-kv", own),
        Contender("standalone", "standalone", own),
        Contender("ce", "ce", calibrated),
        Contender("ce-own-theta", "ce", own),
        Contender("ce-sync", "ce-sync", calibrated),
        Contender("ce-half", "ce", thresholds.half),
        Contender("ce-optimistic", "ce-optimistic", calibrated),
        Contender("ce-optimistic-image", "ce-optimistic", calibrated, IMAGE),
        Contender("ce-optimistic-tokens", "ce-optimistic", calibrated, TOKENS),
        Contender("through-hidden", "through", own),
        Contender("through-image", "through", own, IMAGE),
        Contender("through-tokens", "through", own, TOKENS),
        Contender("through-int8", "through", own, context="int8"),
    ]


def replay(
    contender: Contender, recording: Recording, profile: Profile, link: VirtualLink, *, max_tokens: int
) -> Replayed:
    """One answer of a contender on the virtual clock."""
    clock = Clock()
    limits = Limits(max_tokens, recording.end_token, contender.thresholds)
    steps = MODES[contender.mode].decode(
        TracedEdge(recording, profile, clock), TracedPrompt(recording, profile, clock), limits, contender.sharing
    )
    return Replay(recording, profile, link, clock, context=contender.context).run(steps)


def half_asking(recordings: Iterable[Recording], *, max_tokens: int, share: float = 0.5) -> tuple[float, float]:
    """One threshold for both exits at which `ce` asks its cloud for about that share of the tokens.

    It stands for the paper's workload (49.6% of the tokens at its theta of 0.8), whatever this model is sure of.
    """
    surest = sorted(max(votes) for votes in zip(*exit_confidences(recordings, max_tokens=max_tokens), strict=True))
    theta = surest[int(share * len(surest))]
    return theta, theta


def exit_confidences(recordings: Iterable[Recording], *, max_tokens: int) -> tuple[list[float], list[float]]:
    """Of both exits, at every token of the whole model's answers."""
    first: list[float] = []
    second: list[float] = []
    for recording in recordings:
        answer = whole_answer(recording, max_tokens=max_tokens)
        for length in range(len(answer)):
            votes = recording.at_exits(answer[:length])
            first.append(votes[0].confidence)
            second.append(votes[1].confidence)
    return first, second
