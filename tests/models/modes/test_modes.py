"""Every mode against a cloud that is late, answers out of order, loses questions or falls silent.

The models are toys whose words follow from the sequence alone, so that thousands of conversations take a second.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from roadside.models.decoding import (
    Ask,
    CloudReply,
    Drafted,
    Generation,
    Limits,
    Poll,
    RollBack,
    Spoke,
    Steps,
    Upload,
    UploadPrompt,
    UploadTokens,
    Wait,
    to_the_end,
)
from roadside.models.modes import EDGE_MODES, ce, full, naive, standalone
from roadside.models.modes.registry import MODES
from roadside.models.modes.sharing import Sharing
from roadside.models.speakers import Said

PROMPT_POSITIONS = 5
END_TOKEN = 0
VOCABULARY = 6
THRESHOLDS = (0.6, 0.8)
LIMITS = Limits(max_tokens=14, end_token=END_TOKEN, thresholds=THRESHOLDS)
LOSSLESS = [name for name, mode in MODES.items() if mode.is_lossless]
COLLABORATIVE = [name for name, mode in MODES.items() if mode.needs_cloud]

Tokens = tuple[int, ...]
# A busy machine stretches an example at random.
UNHURRIED = settings(deadline=None, max_examples=80)


@dataclass(frozen=True)
class Toy:
    """What three voices say after any sequence. agreement: how often the exits say what the whole model does."""

    seed: int
    agreement: float

    def _dice(self, tokens: Tokens, voice: str) -> random.Random:
        return random.Random(f"{self.seed} {voice} {tokens}")

    def whole(self, tokens: Tokens) -> int:
        return self._dice(tokens, "whole").randrange(VOCABULARY)

    def exit(self, index: int, tokens: Tokens) -> tuple[int, float]:
        dice = self._dice(tokens, f"exit{index}")
        token = self.whole(tokens) if dice.random() < self.agreement else dice.randrange(VOCABULARY)
        return token, dice.random()


@dataclass(frozen=True)
class ToyPrompt:
    positions: int = PROMPT_POSITIONS

    def inputs(self) -> Tokens:
        return (-1,) * self.positions


@dataclass(frozen=True)
class ToyRead:
    hidden: NDArray[np.float32]
    position_ids: None = None


class ToySession:
    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.tokens: list[int] = []
        self.positions = 0

    def read(self, inputs: Tokens) -> ToyRead:
        self.tokens.extend(inputs)
        self.positions = len(self.tokens)
        return ToyRead(np.array(inputs, np.float32)[:, None])

    def speak(self, read: ToyRead, thresholds: tuple[float, ...]) -> Said:
        assert read.hidden[-1, 0] == self.tokens[-1], "what was read last"
        said = tuple(self.tokens[PROMPT_POSITIONS:])
        token, confidence = self.toy.exit(1, said)
        if confidence >= thresholds[0]:
            return Said(token, "exit1", confidence, True)
        token, confidence = self.toy.exit(2, said)
        return Said(token, "exit2", confidence, confidence >= thresholds[1])

    def roll_back(self, positions: int) -> None:
        assert positions <= self.positions
        del self.tokens[positions:]
        self.positions = positions


class ToyEdge:
    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def session(self, sampling: object = None) -> ToySession:
        assert sampling is None
        return ToySession(self.toy)

    def embed(self, token: int) -> Tokens:
        return (token,)


class ToyWhole(ToyEdge):
    def session(self, sampling: object = None) -> Any:
        session = ToySession(self.toy)

        class Whole:
            def say(self, inputs: Tokens) -> Said:
                session.read(inputs)
                return Said(session.toy.whole(tuple(session.tokens[PROMPT_POSITIONS:])), "full", 1.0, True)

        return Whole()


@dataclass
class Whims:
    """What may go wrong on the way; the n-th entry is the n-th question's. delays: in polls, None: it is lost."""

    delays: list[int | None] = field(default_factory=list)
    forgets_overtaken: bool = False
    pieces: int = 3
    silent_after: int = 10_000

    def delay_of(self, number: int) -> int | None:
        return self.delays[number % len(self.delays)] if self.delays else 0


class UnreliableCloud:
    """Plays a session and its cloud, and holds the mode to the rules of the conversation."""

    def __init__(self, toy: Toy, whims: Whims) -> None:
        self.toy = toy
        self.whims = whims
        self.context: list[int] = []
        self.open: list[tuple[Ask, int | None]] = []
        self.pieces: list[CloudReply] = []
        self.asked = self.answered = 0
        self.uploaded: list[int] = []
        self.roll_backs: list[int] = []
        self.spoken: list[int] = []
        self.drafts: list[Drafted] = []

    def talk(self, steps: Steps[Generation]) -> Generation:
        reply = None
        while True:
            try:
                event = steps.send(reply)
            except StopIteration as end:
                return end.value
            reply = None
            match event:
                case Upload(position, hidden):
                    assert position == len(self.context)
                    self.context.extend(int(each) for each in hidden[:, 0])
                    self.uploaded.append(len(hidden))
                case UploadTokens(position, tokens):
                    assert position == len(self.context)
                    self.context.extend(tokens)
                case UploadPrompt(positions):
                    assert not self.context
                    self.context.extend((-1,) * positions)
                case RollBack(positions):
                    assert positions < len(self.context), "a roll-back cuts something"
                    del self.context[positions:]
                    self.open.clear()
                    self.roll_backs.append(positions)
                case Ask():
                    self._take(event)
                case Drafted():
                    self.drafts.append(event)
                case Spoke(tokens):
                    self.spoken.extend(tokens)
                case Poll():
                    reply = self._poll()
                case Wait():
                    reply = self._wait()

    def _take(self, ask: Ask) -> None:
        assert ask.up_to == len(self.context), "asked about what is up, and all of it"
        if len(ask.claimed) > 1:
            assert tuple(self.context[ask.up_to - len(ask.claimed) + 1 :]) == ask.claimed[:-1]
        if self.whims.forgets_overtaken:
            first = ask.up_to - len(ask.claimed)
            self.open = [(each, left) for each, left in self.open if not first < each.up_to <= ask.up_to]
        self.open.append((ask, self.whims.delay_of(self.asked)))
        self.asked += 1

    def _poll(self) -> CloudReply | None:
        ready = next((index for index, (_, left) in enumerate(self.open) if left == 0), None)
        self.open = [(ask, left - 1 if left else left) for ask, left in self.open]
        return None if ready is None else self._answer(ready)

    def _wait(self) -> CloudReply | None:
        """The next that comes, or what a repeated question brings."""
        if self.pieces:
            return self.pieces.pop(0)
        assert self.open, "somebody waits for what was not asked"
        soonest = min(range(len(self.open)), key=lambda index: (self.open[index][1] is None, self.open[index][1] or 0))
        return self._answer(soonest)

    def _answer(self, index: int) -> CloudReply | None:
        if self.answered >= self.whims.silent_after:
            return None
        ask, _ = self.open.pop(index)
        self.answered += 1
        if ask.generate:
            return self._generate(ask)
        claimed = ask.claimed or (-1,)
        first = ask.up_to - len(claimed) + 1
        said: list[int] = []
        for number, claim in enumerate(claimed):
            said.append(self.toy.whole(tuple(self.context[PROMPT_POSITIONS : first + number])))
            if said[-1] != claim:
                break
        right = sum(token == claim for token, claim in zip(said, ask.claimed, strict=False))
        return CloudReply(ask.up_to, tuple(said), right, (1.0,) * len(said))

    def _generate(self, ask: Ask) -> CloudReply | None:
        assert ask.up_to == PROMPT_POSITIONS
        tokens = to_the_end(full.decode(ToyWhole(self.toy), ToyPrompt(), Limits(ask.generate, END_TOKEN))).tokens
        size = self.whims.pieces
        self.pieces = [
            CloudReply(ask.up_to + start, tuple(tokens[start : start + size]), 0, (1.0,) * len(tokens[start:][:size]))
            for start in range(0, len(tokens), size)
        ]
        if self.whims.silent_after < 10_000:
            del self.pieces[self.whims.silent_after :]
        self.open.append((ask, None))
        return self.pieces.pop(0) if self.pieces else None


TOYS = st.builds(Toy, st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 0.8, 0.97]))
DELAYS = st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=6)
SHARINGS = st.builds(
    lambda prompt, draft, window: Sharing("image" if prompt else "hidden", prompt or "hidden", draft, window),
    st.sampled_from([None, "hidden", "tokens"]),
    st.booleans(),
    st.integers(1, 8),
)


def whims(*, silent: bool) -> st.SearchStrategy[Whims]:
    return st.builds(Whims, DELAYS, st.booleans(), st.integers(1, 4), st.integers(0, 8) if silent else st.just(10_000))


def whole_answer(toy: Toy, limits: Limits = LIMITS) -> list[int]:
    return to_the_end(full.decode(ToyWhole(toy), ToyPrompt(), limits)).tokens


def decode(mode: str, toy: Toy, cloud: UnreliableCloud, sharing: Sharing, limits: Limits = LIMITS) -> Generation:
    return cloud.talk(MODES[mode].decode(ToyEdge(toy), ToyPrompt(), limits, sharing))  # pyright: ignore[reportArgumentType]


def test_all_modes_that_can_be_configured_exist():
    assert set(MODES) | {"auto"} == set(EDGE_MODES)


@pytest.mark.parametrize("mode", LOSSLESS)
@UNHURRIED
@given(toy=TOYS, whims=whims(silent=False), sharing=SHARINGS)
def test_lossless_modes_say_what_the_whole_model_says(mode, toy, whims, sharing):
    generation = decode(mode, toy, UnreliableCloud(toy, whims), sharing)
    assert generation.tokens == whole_answer(toy)
    assert set(generation.made_by) == {"full"}


@pytest.mark.parametrize("mode", ["ce", "ce-sync", "ce-optimistic"])
@UNHURRIED
@given(toy=TOYS, whims=whims(silent=False), sharing=SHARINGS)
def test_above_one_ce_says_what_the_whole_model_says(mode, toy, whims, sharing):
    never_sure = Limits(LIMITS.max_tokens, END_TOKEN, (1.1, 1.1))
    assert decode(mode, toy, UnreliableCloud(toy, whims), sharing, never_sure).tokens == whole_answer(toy)


@pytest.mark.parametrize("mode", ["ce-sync", "ce-optimistic"])
@UNHURRIED
@given(toy=TOYS, whims=whims(silent=False), sharing=SHARINGS)
def test_the_variants_of_ce_say_what_ce_says(mode, toy, whims, sharing):
    reference = UnreliableCloud(toy, Whims()).talk(ce.decode(ToyEdge(toy), ToyPrompt(), LIMITS))
    said = decode(mode, toy, UnreliableCloud(toy, whims), sharing)
    assert (said.tokens, said.made_by) == (reference.tokens, reference.made_by)


@pytest.mark.parametrize("mode", COLLABORATIVE)
@UNHURRIED
@given(toy=TOYS, whims=whims(silent=True), sharing=SHARINGS)
def test_a_silent_cloud_never_leaves_an_answer_open_or_wrong(mode, toy, whims, sharing):
    """What the cloud has said is the whole model's; from its last word on the edge speaks by its own rule."""
    cloud = UnreliableCloud(toy, whims)
    generation = decode(mode, toy, cloud, sharing)
    assert LIMITS.reached(generation)
    assert END_TOKEN not in generation.tokens[:-1]
    alone, edge = ToyEdge(toy).session(), ToyEdge(toy)
    read = alone.read(ToyPrompt().inputs())
    for token, speaker in zip(generation.tokens, generation.made_by, strict=True):
        own = alone.speak(read, THRESHOLDS)
        before = tuple(alone.tokens[PROMPT_POSITIONS:])
        if speaker == "full":
            assert token == toy.whole(before)
        else:
            assert (token, speaker) == (own.token, own.speaker)
        read = alone.read(edge.embed(token))
    if MODES[mode].is_lossless:
        after_first_own = [*generation.made_by, "exit1"].index("exit1")
        assert "full" not in generation.made_by[after_first_own:], "once silent, silent for good"


@pytest.mark.parametrize("mode", list(MODES))
@UNHURRIED
@given(toy=TOYS, whims=whims(silent=True), sharing=SHARINGS)
def test_what_was_said_for_good_stands(mode, toy, whims, sharing):
    cloud = UnreliableCloud(toy, whims)
    generation = decode(mode, toy, cloud, sharing)
    assert cloud.spoken == generation.tokens[: len(cloud.spoken)]
    assert len(cloud.spoken) < len(generation.tokens), "the last token comes with the answer"
    assert len(cloud.drafts) <= (1 if sharing.draft else 0)


@UNHURRIED
@given(toy=TOYS, sharing=SHARINGS)
def test_a_draft_is_a_whole_answer(toy, sharing):
    for mode in ("ce", "ce-optimistic", "through"):
        cloud = UnreliableCloud(toy, Whims(delays=[None]))
        decode(mode, toy, cloud, sharing)
        for draft in cloud.drafts:
            tokens = list(draft.tokens)
            assert LIMITS.reached(Generation(tokens))
            if mode == "ce" and draft.made_by[0] != "full":
                assert tokens == to_the_end(standalone.decode(ToyEdge(toy), ToyPrompt(), LIMITS)).tokens


@UNHURRIED
@given(toy=TOYS)
def test_bytes_of_the_naive_split_grow_with_the_square(toy):
    cloud = UnreliableCloud(toy, Whims())
    generation = cloud.talk(naive.decode(ToyEdge(toy), ToyPrompt(), LIMITS))
    assert cloud.uploaded == [PROMPT_POSITIONS + said for said in range(len(generation.tokens))]
    assert cloud.asked == len(generation.tokens)


@pytest.mark.parametrize("mode", ["naive-kv", "ce"])
@UNHURRIED
@given(toy=TOYS)
def test_each_position_goes_up_once(mode, toy):
    cloud = UnreliableCloud(toy, Whims())
    generation = decode(mode, toy, cloud, Sharing())
    # A last token is never fed back.
    assert sum(cloud.uploaded) == PROMPT_POSITIONS + len(generation.tokens) - 1
    assert cloud.roll_backs == []


@UNHURRIED
@given(toy=TOYS)
def test_synchronous_uploads_send_no_more_than_is_asked_about(toy):
    at_once, when_asked = UnreliableCloud(toy, Whims()), UnreliableCloud(toy, Whims())
    decode("ce", toy, at_once, Sharing(draft=False))
    decode("ce-sync", toy, when_asked, Sharing(draft=False))
    assert sum(when_asked.uploaded) <= sum(at_once.uploaded)
    assert len(when_asked.uploaded) == when_asked.asked == at_once.asked


@UNHURRIED
@given(toy=TOYS, window=st.integers(1, 6))
def test_no_more_than_a_window_is_drafted_ahead(toy, window):
    for mode in ("through", "ce-optimistic"):
        cloud = UnreliableCloud(toy, Whims(delays=[None]))
        longest = 0

        def watched(steps: Steps[Generation], cloud: UnreliableCloud = cloud) -> Steps[Generation]:
            nonlocal longest
            reply = None
            while True:
                try:
                    event = steps.send(reply)
                except StopIteration as end:
                    return end.value
                reply = yield event
                longest = max(longest, len(cloud.context) - PROMPT_POSITIONS - len(cloud.spoken))

        cloud.talk(watched(MODES[mode].decode(ToyEdge(toy), ToyPrompt(), LIMITS, Sharing(window=window))))
        assert longest <= window


@pytest.mark.parametrize("mode", ["through", "cloud"])
@UNHURRIED
@given(
    toy=TOYS,
    nonsense=st.lists(
        st.builds(
            CloudReply,
            st.integers(0, 30),
            st.lists(st.integers(0, VOCABULARY), max_size=4).map(tuple),
            st.integers(0, 5),
            st.lists(st.just(0.5), max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_reply_that_answers_no_question_is_passed_over(mode, toy, nonsense):
    """It may have the right shape by chance, and then it counts; else the answer is the edge's own in the end."""
    cloud = UnreliableCloud(toy, Whims())
    cloud._poll = cloud._wait = lambda: nonsense.pop() if nonsense else None  # type: ignore[method-assign]
    generation = decode(mode, toy, cloud, Sharing())
    assert LIMITS.reached(generation)


def test_drafting_through_goes_on_while_the_cloud_is_asked():
    """With exits that are always right nothing is rolled back, and the edge never waits before its draft is whole."""
    toy = Toy(seed=3, agreement=1.0)
    cloud = UnreliableCloud(toy, Whims(delays=[None], forgets_overtaken=True))
    waits: list[int] = []
    original = cloud._wait
    cloud._wait = lambda: (waits.append(len(cloud.context)), original())[1]  # type: ignore[method-assign]
    generation = decode("through", toy, cloud, Sharing())
    assert generation.tokens == whole_answer(toy)
    assert cloud.roll_backs == []
    assert waits == [PROMPT_POSITIONS + len(generation.tokens) - 1]
