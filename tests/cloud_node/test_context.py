"""One context: whatever reaches it, in whatever order, a token that it gives is the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray
from roadside.cloud_node.context import Batch, Computed, Context, Missing, Refused
from roadside.models.exits import most_likely

LONGEST = 40


@dataclass(frozen=True)
class Chunk:
    """As an edge sends it."""

    rollback: int
    kept: int
    position: int
    hidden: NDArray[np.float16]

    def reach(self, context: Context) -> str:
        return context.take(self.hidden, position=self.position, rollback=self.rollback, kept=self.kept)


def compute(cut: Any, context: Context, batch: Batch) -> int:
    token, confidence = batch.run(cut.head)
    context.finish(batch, Computed(token, confidence, 0.0, 0.0))
    return token


@torch.inference_mode()
def straight(cut: Any, hidden: NDArray[np.float16]) -> int:
    """The token after one uninterrupted pass over the float16 states: test_stages shows that it is the model's."""
    session = cut.rest.session()
    session.feed(torch.from_numpy(hidden.astype(np.float32))[None])
    return most_likely(cut.head(session.catch_up()[:, -1]))[0]


def edge_and_network(cut: Any) -> type[RuleBasedStateMachine]:
    """An honest edge, a network that repeats, reorders, drops and delays, and a context between them."""

    class EdgeAndNetwork(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.context = Context(cut.rest.session())
            self.tokens: list[int] = []
            # Kept as they went up: another pass over the sequence may round a number the other way.
            self.hidden = np.empty((0, cut.hidden_size), np.float16)
            self.rollback = self.kept = 0
            self.in_flight: list[Chunk] = []
            self.under_way: tuple[Batch, NDArray[np.float16]] | None = None

        def chunk(self, first: int, end: int) -> Chunk:
            return Chunk(self.rollback, self.kept, first, self.hidden[first:end])

        @precondition(lambda self: len(self.tokens) < LONGEST - 5)
        @rule(tokens=st.lists(st.integers(3, cut.vocabulary - 1), min_size=1, max_size=5))
        def go_on(self, tokens: list[int]) -> None:
            first = len(self.tokens)
            self.tokens += tokens
            self.hidden = np.concatenate([self.hidden, cut.hidden(self.tokens)[first:]])
            self.in_flight.append(self.chunk(first, len(self.tokens)))

        @precondition(lambda self: self.tokens)
        @rule(data=st.data())
        def roll_back(self, data: st.DataObject) -> None:
            self.kept = data.draw(st.integers(0, len(self.tokens) - 1))
            self.rollback += 1
            del self.tokens[self.kept :]
            self.hidden = self.hidden[: self.kept]

        @precondition(lambda self: self.in_flight)
        @rule(data=st.data(), stays=st.booleans())
        def deliver(self, data: st.DataObject, stays: bool) -> None:
            at = data.draw(st.integers(0, len(self.in_flight) - 1))
            chunk = self.in_flight[at]
            if not stays:
                del self.in_flight[at]
            assert chunk.reach(self.context) in ("new", "duplicate", "stale")

        @precondition(lambda self: self.in_flight)
        @rule(data=st.data())
        def drop(self, data: st.DataObject) -> None:
            self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))

        @precondition(lambda self: self.tokens)
        @rule(data=st.data(), resend=st.booleans())
        def ask(self, data: st.DataObject, resend: bool) -> None:
            up_to = data.draw(st.integers(1, len(self.tokens)))
            standing = self.context.look(rollback=self.rollback, up_to=up_to)
            if standing == "ready":
                assert self.under_way is None
                self.under_way = self.context.begin(up_to), self.hidden[:up_to]
            elif isinstance(standing, Computed):
                assert standing.token == straight(cut, self.hidden[:up_to])
            elif isinstance(standing, Missing):
                assert 0 <= standing.first < standing.end <= up_to
                if resend:
                    self.in_flight.append(self.chunk(standing.first, standing.end))
            elif standing == "busy":
                assert self.under_way is not None
            else:
                assert standing == "overtaken"

        @precondition(lambda self: self.under_way)
        @rule(too_late=st.booleans())
        def finish(self, too_late: bool) -> None:
            assert self.under_way is not None
            batch, hidden = self.under_way
            self.under_way = None
            if too_late:
                self.context.finish(batch, None)
            else:
                assert compute(cut, self.context, batch) == straight(cut, hidden)

        def teardown(self) -> None:
            """However bad it was, what is asked for again and arrives makes the context whole."""
            if self.under_way is not None:
                self.finish(too_late=True)
            self.go_on([7])
            up_to = len(self.tokens)
            for _ in range(2):  # the first stretch may be named before a roll-back is known
                standing = self.context.look(rollback=self.rollback, up_to=up_to)
                if isinstance(standing, Missing):
                    self.chunk(standing.first, standing.end).reach(self.context)
            assert self.context.look(rollback=self.rollback, up_to=up_to) == "ready"
            token = compute(cut, self.context, self.context.begin(up_to))
            assert token == straight(cut, self.hidden)

    return EdgeAndNetwork


def test_a_token_is_the_models_own_whatever_the_network_did(cut: Any) -> None:
    run_state_machine_as_test(
        edge_and_network(cut),
        settings=settings(max_examples=150, stateful_step_count=30, deadline=None),
    )


def test_an_answer_of_cloud_tokens_is_the_unsplit_models(cut: Any) -> None:
    tokens = [11, 42, 5, 77, 30]
    context, sent = Context(cut.rest.session()), 0
    for _ in range(24):
        context.take(cut.hidden(tokens)[sent:], position=sent, rollback=0, kept=0)
        sent = len(tokens)
        token = compute(cut, context, context.begin(sent))
        assert token == cut.next_token(tokens)
        tokens.append(token)


def test_positions_of_before_a_roll_back_never_pass_for_those_after_it(cut: Any) -> None:
    """The first chunk after the roll-back is lost, and the second tells by `kept` what it should have cut off."""
    context = Context(cut.rest.session())
    old, new = list(range(10, 22)), [*range(10, 14), *range(40, 48)]
    context.take(cut.hidden(old), position=0, rollback=0, kept=0)
    assert compute(cut, context, context.begin(12)) == straight(cut, cut.hidden(old))
    context.take(cut.hidden(new)[8:], position=8, rollback=1, kept=4)
    assert context.look(rollback=1, up_to=12) == Missing(4, 8)
    assert context.take(cut.hidden(old)[4:8], position=4, rollback=0, kept=0) == "stale"
    assert context.look(rollback=0, up_to=12) == "stale"
    context.take(cut.hidden(new)[4:8], position=4, rollback=1, kept=4)
    assert compute(cut, context, context.begin(12)) == straight(cut, cut.hidden(new))


def test_who_missed_a_roll_back_trusts_nothing_it_has(cut: Any) -> None:
    context = Context(cut.rest.session())
    context.take(cut.hidden([5, 6, 7, 8]), position=0, rollback=0, kept=0)
    context.take(cut.hidden([5, 6, 7, 9])[3:], position=3, rollback=2, kept=3)
    assert context.look(rollback=2, up_to=4) == Missing(0, 3)


def test_the_same_position_with_other_bytes_is_a_conflict_run_or_not(cut: Any) -> None:
    context = Context(cut.rest.session())
    hidden = cut.hidden([5, 6, 7])
    other = hidden.copy()
    other[1, 0] += np.float16(1)
    assert context.take(hidden, position=0, rollback=0, kept=0) == "new"
    assert context.take(hidden[1:], position=1, rollback=0, kept=0) == "duplicate"
    assert context.take(other, position=0, rollback=0, kept=0) == "conflict"
    compute(cut, context, context.begin(3))
    assert context.take(hidden, position=0, rollback=0, kept=0) == "duplicate"
    assert context.take(other[1:2], position=1, rollback=0, kept=0) == "conflict"


def test_a_request_is_computed_once_and_answered_as_often_as_it_comes(cut: Any) -> None:
    context = Context(cut.rest.session())
    context.take(cut.hidden([5, 6, 7, 8, 9]), position=0, rollback=0, kept=0)
    batch = context.begin(4)
    assert context.look(rollback=0, up_to=4) == "busy"
    assert context.look(rollback=0, up_to=5) == "busy"
    token = compute(cut, context, batch)
    again = context.look(rollback=0, up_to=4)
    assert isinstance(again, Computed)
    assert again.token == token
    compute(cut, context, context.begin(5))
    assert context.look(rollback=0, up_to=4) == again
    assert context.look(rollback=0, up_to=3) == "overtaken"


def arrays_in(context: Context) -> list[Any]:
    """All hidden states and cached keys and values that a context holds, as they lie in memory."""
    cache = [tensor for layer in context._stage.cache_layers for tensor in (layer.keys, layer.values)]
    return [*context._rows.values(), *(tensor.numpy() for tensor in cache)]


def test_what_is_freed_is_zeroed_also_behind_a_batch_under_way(cut: Any) -> None:
    context = Context(cut.rest.session())
    context.take(cut.hidden([5, 6, 7]), position=0, rollback=0, kept=0)
    rows = list(context._rows.values())
    batch = context.begin(3)
    compute(cut, context, batch)
    # What was run is only in the cache from here on.
    assert not any(row.any() for row in [*rows, batch.hidden])
    context.take(cut.hidden([5, 6, 7, 8])[3:], position=3, rollback=0, kept=0)
    held = arrays_in(context)
    assert all(array.any() for array in held)
    assert context.memory_bytes >= sum(array.nbytes for array in held)

    batch = context.begin(4)
    context.free()
    assert not held[0].any()
    assert held[-1].any(), "the batch still reads the cache"
    batch.run(cut.head)
    grown = arrays_in(context)
    assert all(array.any() for array in grown)
    context.finish(batch, Computed(1, 0.5, 0.0, 0.0))
    assert not any(array.any() for array in grown)
    assert context.memory_bytes == context._stage.memory_bytes == 0


@pytest.mark.parametrize("reason", ["conflict", "too-large"])
def test_a_context_that_was_given_up_says_why_and_holds_nothing(cut: Any, reason: Any) -> None:
    context = Context(cut.rest.session())
    context.take(cut.hidden([5, 6, 7]), position=0, rollback=0, kept=0)
    compute(cut, context, context.begin(3))
    held = arrays_in(context)
    context.refuse(reason)
    assert context.look(rollback=0, up_to=3) == Refused(reason)
    assert context.memory_bytes == 0
    assert not any(array.any() for array in held)
