"""Which decoding mode would be done first: what `auto` goes by.

A model of an answer's time in closed form, from what was measured of late: the link, both tiers' speed, and how often
the early exits are sure and right. It need not be exact, only right about the order; `roadside bench collab` holds it
against the modes themselves. All times are milliseconds, means over answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from .modes import EdgeMode
from .modes.sharing import Sharing

BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class EdgePace:
    """What an edge takes: to encode a prompt, to read it and say the first token, and for each later token, by the exit
    that says it."""

    encode_ms: float
    prompt_ms: float
    exit1_ms: float
    exit2_ms: float


@dataclass(frozen=True, slots=True)
class CloudPace:
    """What a cloud takes: to encode a prompt; to run it; for one batch of hidden states and for one of token ids, which
    it runs through its first layers as well; for a token of an answer that it makes alone. wait_ms: before each."""

    encode_ms: float
    prompt_ms: float
    hidden_ms: float
    tokens_ms: float
    alone_ms: float
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Habits:
    """Of a model's answers. tokens: of one, the closing one included.

    exit1_share: of the tokens that the first exit says. unsure_share: of those that no exit is sure of.
    unsure_agreement, sure_agreement: how often the whole model would say the same.
    """

    tokens: float = 14.0
    exit1_share: float = 0.5
    unsure_share: float = 0.25
    unsure_agreement: float = 0.5
    sure_agreement: float = 0.995


@dataclass(frozen=True, slots=True)
class Sizes:
    """prompt_positions: in the sequence; prompt_bytes: of the question as it is; position_bytes: of a hidden state."""

    prompt_positions: float
    prompt_bytes: float
    position_bytes: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything that the choice depends on. uplink_bps: bits per second."""

    round_trip_ms: float
    uplink_bps: float
    edge: EdgePace
    cloud: CloudPace
    habits: Habits
    sizes: Sizes

    def up_ms(self, size_bytes: float) -> float:
        return size_bytes * 8 / self.uplink_bps * 1000

    @property
    def token_ms(self) -> float:
        """Of the edge, for one token after the first."""
        share = self.habits.exit1_share
        return share * self.edge.exit1_ms + (1 - share) * self.edge.exit2_ms


@dataclass(frozen=True, slots=True)
class Choice:
    mode: EdgeMode
    sharing: Sharing
    predicted_ms: float


def choose(
    modes: Iterable[EdgeMode], sharings: Iterable[Sharing], conditions: Conditions, *, within_ms: float | None = None
) -> Choice:
    """The fastest of the modes, each with the sharing that suits it best; of equals the earlier one.

    within_ms: what is left of the answer's time: where no mode would be done by then, the edge answers by itself.
    """
    options = itertools.product(modes, sharings)
    predicted = [Choice(mode, sharing, answer_ms(mode, sharing, conditions)) for mode, sharing in options]
    best = min(predicted, key=lambda choice: choice.predicted_ms)
    if within_ms is not None and best.predicted_ms > within_ms:
        return Choice("standalone", best.sharing, answer_ms("standalone", best.sharing, conditions))
    return best


def answer_ms(mode: EdgeMode, sharing: Sharing, conditions: Conditions) -> float:
    """How long an answer takes. Raises ValueError for modes that are there for comparison only."""
    edge, habits = conditions.edge, conditions.habits
    drafting_ms = edge.encode_ms + edge.prompt_ms + (habits.tokens - 1) * conditions.token_ms
    match mode:
        case "standalone":
            return drafting_ms
        case "cloud":
            return _cloud_ms(conditions)
        case "ce":
            return drafting_ms + _Stalls(sharing, conditions).of_ce_ms
        case "ce-optimistic":
            return drafting_ms + _Stalls(sharing, conditions).of_ce_optimistic_ms
        case "through":
            return drafting_ms + _Stalls(sharing, conditions).of_through_ms
        case _:
            raise ValueError(f"no estimate for {mode}")


def _cloud_ms(conditions: Conditions) -> float:
    cloud = conditions.cloud
    waiting_ms = conditions.round_trip_ms + cloud.wait_ms + conditions.up_ms(conditions.sizes.prompt_bytes)
    return waiting_ms + cloud.encode_ms + cloud.prompt_ms + (conditions.habits.tokens - 1) * cloud.alone_ms


class _Stalls:
    """What the edge waits for in an answer: each time from a token drafted to the cloud's word on it."""

    def __init__(self, sharing: Sharing, conditions: Conditions) -> None:
        self._conditions = conditions
        habits, cloud, sizes = conditions.habits, conditions.cloud, conditions.sizes
        by_id = sharing.answer == "tokens"
        self._token_up_ms = conditions.up_ms(BYTES_PER_TOKEN if by_id else sizes.position_bytes)
        self._batch_ms = cloud.tokens_ms if by_id else cloud.hidden_ms
        self._stall_ms = conditions.round_trip_ms + cloud.wait_ms + self._token_up_ms + self._batch_ms
        if sharing.prompt == "image":
            ready_ms = conditions.up_ms(sizes.prompt_bytes) + cloud.encode_ms
            ahead_ms = conditions.edge.encode_ms + conditions.edge.prompt_ms
        else:
            ready_ms = conditions.up_ms(sizes.prompt_positions * sizes.position_bytes)
            # The edge looks at the picture first, whoever waits for what.
            ahead_ms = 0.0
        # How much longer the first word takes than later ones: the prompt is still on its way, or being run.
        self._prompt_late_ms = max(0.0, ready_ms - ahead_ms) + max(0.0, cloud.prompt_ms - self._batch_ms)
        self._unsure = habits.unsure_share
        self._wrong = habits.unsure_share * (1 - habits.unsure_agreement)

    @property
    def of_ce_ms(self) -> float:
        """One for each token that no exit is sure of."""
        expected = self._conditions.habits.tokens * self._unsure
        return expected * (self._stall_ms + self._backlog_ms(self._unsure)) + self._first_ms(self._unsure)

    @property
    def of_ce_optimistic_ms(self) -> float:
        """One for each wrong guess, and what the last right one still takes when the draft is whole."""
        stall_ms = self._stall_ms + self._waste_ms + self._backlog_ms(self._wrong)
        in_vain_ms = self._conditions.habits.tokens * self._wrong * stall_ms
        return in_vain_ms + self._tail_ms(stall_ms) + self._first_ms(self._unsure)

    @property
    def of_through_ms(self) -> float:
        """One for each wrong guess, sure or not, and one at the end, for nothing is said without the cloud."""
        habits = self._conditions.habits
        wrong = self._wrong + (1 - self._unsure) * (1 - habits.sure_agreement)
        stalls = habits.tokens * wrong + 1 - wrong
        # A question may find the cloud computing an earlier one of the same answer.
        busy = min(1.0, self._unsure * self._batch_ms / self._conditions.token_ms)
        stall_ms = self._stall_ms + busy * self._batch_ms / 2 + self._waste_ms + self._backlog_ms(wrong)
        return stalls * stall_ms + self._first_ms(wrong)

    def _first_ms(self, share: float) -> float:
        """What is left of the prompt's delay at the first stall, where such a share of the tokens stalls."""
        tokens = self._conditions.habits.tokens
        stalls_at_all = 1 - (1 - share) ** tokens
        return stalls_at_all * max(0.0, self._prompt_late_ms - min(1 / max(share, 1e-9), tokens) * self._pace_ms)

    def _backlog_ms(self, share: float) -> float:
        """What waits on a link slower than the edge, behind what was drafted since the last stall."""
        since = min(1 / max(share, 1e-9), self._conditions.habits.tokens)
        return since * max(0.0, self._token_up_ms - self._pace_ms)

    @property
    def _waste_ms(self) -> float:
        """What was drafted in vain during a stall, and is still on its way up when the edge goes on from elsewhere."""
        in_vain = min(self._stall_ms / self._pace_ms, self._conditions.habits.tokens / 2)
        return max(0.0, in_vain * self._token_up_ms - self._stall_ms)

    def _tail_ms(self, stall_ms: float) -> float:
        """The last guess that was right and asked about is so many tokens before the end; the rest of its stall."""
        right, left_ms, tail_ms, chance = self._unsure - self._wrong, stall_ms, 0.0, 1.0
        for _ in range(round(self._conditions.habits.tokens)):
            tail_ms += chance * right * max(0.0, left_ms)
            chance *= 1 - right
            left_ms -= self._pace_ms
        return tail_ms

    @property
    def _pace_ms(self) -> float:
        return self._conditions.token_ms
