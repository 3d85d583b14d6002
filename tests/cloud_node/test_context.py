"""One context: whatever reaches it, in whatever order, a token that it gives is the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from roadside.cloud_node.context import Context, Missing, Ready, Refused, Verdict
from roadside.cloud_node.parts import Batch, run_together
from roadside.models.exits import most_likely
from roadside.models.questions import Question
from roadside.models.sampling import Sampling

PROMPT = [5, 6, 7, 8, 9]


def take(context: Context, hidden: NDArray[np.float32], position: int = 0, rollback: int = 0, kept: int = 0) -> str:
    return context.take_rows(hidden, position=position, rollback=rollback, kept=kept)


def take_prompt(cut: Any, context: Context, tokens: Sequence[int] = PROMPT, rollback: int = 0) -> None:
    words = cut.words(tokens)
    assert context.take_prompt(len(tokens), words.encode(), rollback=rollback, kept=0) == "new"
    context.encoded(cut.parts.beginning.encode(Question(words, ())), rollback)


def run(cut: Any, context: Context, batch: Batch) -> tuple[int, ...]:
    """The tokens that were wanted."""
    (chosen,) = run_together([batch], cut.parts).by_batch
    assert chosen is not None
    context.finish(batch, chosen)
    return tuple(each.token for each in chosen)


def compute(cut: Any, context: Context, up_to: int) -> int:
    standing = context.look(rollback=context.rollback, up_to=up_to)
    assert standing == Ready((up_to,))
    return run(cut, context, context.begin([up_to]))[0]


@torch.inference_mode()
def straight(cut: Any, hidden: NDArray[np.float32]) -> int:
    """The token after one uninterrupted pass over the hidden states: test_stages shows that it is the model's."""
    session = cut.parts.rest.session()
    session.feed(torch.from_numpy(hidden.copy())[None])
    return most_likely(cut.parts.head(session.catch_up()[:, -1]))[0]


def test_an_answer_of_cloud_tokens_is_the_unsplit_models(cut: Any) -> None:
    tokens = [11, 42, 5, 77, 30]
    context, sent = Context(cut.parts), 0
    for _ in range(24):
        take(context, cut.hidden(tokens)[sent:], position=sent)
        sent = len(tokens)
        token = compute(cut, context, sent)
        assert token == cut.next_token(tokens)
        tokens.append(token)


def test_positions_of_before_a_roll_back_never_pass_for_those_after_it(cut: Any) -> None:
    """The first chunk after the roll-back is lost, and the second tells by `kept` what it should have cut off."""
    context = Context(cut.parts)
    old, new = list(range(10, 22)), [*range(10, 14), *range(40, 48)]
    take(context, cut.hidden(old))
    assert compute(cut, context, 12) == straight(cut, cut.hidden(old))
    take(context, cut.hidden(new)[8:], position=8, rollback=1, kept=4)
    assert context.look(rollback=1, up_to=12) == Missing(4, 8)
    assert take(context, cut.hidden(old)[4:8], position=4) == "stale"
    assert context.look(rollback=0, up_to=12) == "stale"
    take(context, cut.hidden(new)[4:8], position=4, rollback=1, kept=4)
    assert compute(cut, context, 12) == straight(cut, cut.hidden(new))


def test_who_missed_a_roll_back_trusts_nothing_it_has(cut: Any) -> None:
    context = Context(cut.parts)
    take(context, cut.hidden([5, 6, 7, 8]))
    take(context, cut.hidden([5, 6, 7, 9])[3:], position=3, rollback=2, kept=3)
    assert context.look(rollback=2, up_to=4) == Missing(0, 3)


def test_the_same_position_with_other_bytes_is_a_conflict_run_or_not(cut: Any) -> None:
    context = Context(cut.parts)
    hidden = cut.hidden([5, 6, 7])
    other = hidden.copy()
    other[1, 0] += np.float32(1)
    assert take(context, hidden, position=0) == "new"
    assert take(context, hidden[1:], position=1) == "duplicate"
    assert take(context, other, position=0) == "conflict"
    compute(cut, context, 3)
    assert take(context, hidden, position=0) == "duplicate"
    assert take(context, other[1:2], position=1) == "conflict"


def test_a_request_is_computed_once_and_answered_as_often_as_it_comes(cut: Any) -> None:
    context = Context(cut.parts)
    take(context, cut.hidden([5, 6, 7, 8, 9]))
    batch = context.begin([4])
    assert context.look(rollback=0, up_to=4) == "busy"
    assert context.look(rollback=0, up_to=5) == "busy"
    (token,) = run(cut, context, batch)
    again = context.look(rollback=0, up_to=4)
    assert isinstance(again, Verdict)
    assert again.tokens == (token,)
    compute(cut, context, 5)
    assert context.look(rollback=0, up_to=4) == again
    assert context.look(rollback=0, up_to=3) == "overtaken"


# Claims


def test_claims_are_judged_in_one_batch_up_to_the_first_that_is_wrong(cut: Any) -> None:
    right = cut.answer(PROMPT, 5)
    wrong = (right[3] + 1) % cut.vocabulary
    drafted = [*PROMPT, *right[:3], wrong, right[4]]
    context = Context(cut.parts)
    take(context, cut.hidden(drafted)[:-1])
    up_to, claimed = len(drafted) - 1, tuple(drafted[len(PROMPT) :])
    wanted = tuple(range(len(PROMPT), up_to + 1))
    assert context.look(rollback=0, up_to=up_to, claimed=claimed) == Ready(wanted)
    run(cut, context, context.begin(wanted))
    verdict = context.look(rollback=0, up_to=up_to, claimed=claimed)
    assert isinstance(verdict, Verdict)
    assert (list(verdict.tokens), verdict.n_accepted) == (right[:4], 3)
    assert len(verdict.confidences) == 4
    assert context.look(rollback=0, up_to=up_to - 2, claimed=claimed[:-2]) == Verdict(
        verdict.tokens[:3], verdict.confidences[:3], 3, verdict.queue_ms, verdict.compute_ms
    )


def test_right_claims_come_back_as_they_are(cut: Any) -> None:
    right = cut.answer(PROMPT, 3)
    context = Context(cut.parts)
    take(context, cut.hidden([*PROMPT, *right])[:-1])
    standing = context.look(rollback=0, up_to=7, claimed=right)
    assert isinstance(standing, Ready)
    run(cut, context, context.begin(standing.wanted))
    verdict = context.look(rollback=0, up_to=7, claimed=right)
    assert isinstance(verdict, Verdict)
    assert (list(verdict.tokens), verdict.n_accepted) == (right, 3)


def test_a_wrong_claim_is_answered_without_what_comes_behind_it(cut: Any) -> None:
    """What was drafted behind it may still be on its way, and nobody needs it any more."""
    context = Context(cut.parts)
    take(context, cut.hidden(PROMPT))
    token = compute(cut, context, 5)
    claimed = ((token + 1) % cut.vocabulary, 3, 4)
    verdict = context.look(rollback=0, up_to=7, claimed=claimed)
    assert isinstance(verdict, Verdict)
    assert (verdict.tokens, verdict.n_accepted) == ((token,), 0)
    assert context.look(rollback=0, up_to=7, claimed=(token, 3, 4)) == Missing(5, 7)


def test_a_wrong_claim_is_cut_off_and_the_right_token_goes_on(cut: Any) -> None:
    context, tokens = Context(cut.parts), list(PROMPT)
    take(context, cut.hidden([*PROMPT, 3, 4]))
    standing = context.look(rollback=0, up_to=7, claimed=(3, 4, 5))
    assert isinstance(standing, Ready)
    run(cut, context, context.begin(standing.wanted))
    for rollback in range(1, 6):
        verdict = context.look(rollback=rollback - 1, up_to=len(tokens))
        assert isinstance(verdict, Verdict)
        kept = len(tokens)
        tokens.append(verdict.tokens[0])
        hidden = cut.hidden([*tokens, 3])
        assert take(context, hidden[kept:], position=kept, rollback=rollback, kept=kept) == "new"
        standing = context.look(rollback=rollback, up_to=kept + 2, claimed=(3, 4))
        assert isinstance(standing, Ready)
        run(cut, context, context.begin(standing.wanted))
    assert tokens[len(PROMPT) :] == cut.answer(PROMPT, 5)


def test_a_batch_computes_all_that_was_asked_for_on_its_way(cut: Any) -> None:
    """Also what was asked for while another batch was under way, and whose asker has not woken up yet."""
    context, tokens = Context(cut.parts), [*PROMPT, 11, 12, 13, 14]
    take(context, cut.hidden(tokens))
    batch = context.begin([5])
    assert context.look(rollback=0, up_to=6, claimed=(12,)) == "busy"
    assert context.look(rollback=0, up_to=8, claimed=(13, 14)) == "busy"
    run(cut, context, batch)
    standing = context.look(rollback=0, up_to=9)
    assert standing == Ready((9,))
    wanted = context.still_wanted((9,))
    assert wanted == (6, 7, 8, 9)
    run(cut, context, context.begin(wanted))
    for up_to in wanted:
        verdict = context.look(rollback=0, up_to=up_to)
        assert isinstance(verdict, Verdict)
        assert verdict.tokens == (cut.next_token(tokens[:up_to]),)


# Prompts and tokens


def test_a_prompt_and_tokens_are_run_by_the_cloud_alone(cut: Any) -> None:
    context, tokens = Context(cut.parts), list(PROMPT)
    assert context.take_prompt(5, b"prompt", rollback=0, kept=0) == "new"
    assert context.take_prompt(5, b"prompt", rollback=0, kept=0) == "duplicate"
    assert context.look(rollback=0, up_to=5) == "busy", "until it was encoded"
    context.encoded(cut.parts.beginning.encode(Question(cut.words(tokens), ())), 0)
    for _ in range(4):
        token = compute(cut, context, len(tokens))
        assert token == cut.next_token(tokens)
        context.take_tokens([token], position=len(tokens), rollback=0, kept=0)
        tokens.append(token)
    # Then hidden states, whose tokens the first layers have not seen.
    hidden = cut.hidden([*tokens, 7, 8])
    take(context, hidden[len(tokens) :], position=len(tokens))
    assert compute(cut, context, len(tokens) + 2) == cut.next_token([*tokens, 7, 8])


def test_a_prompt_and_what_follows_may_be_run_in_one_batch(cut: Any) -> None:
    context, sequence = Context(cut.parts), [*PROMPT, 11, 12, 13, 14]
    take(context, cut.hidden(sequence)[7:], position=7)
    context.take_tokens([11, 12], position=5, rollback=0, kept=0)
    take_prompt(cut, context)
    assert compute(cut, context, 9) == cut.next_token(sequence)


def test_tokens_cannot_follow_hidden_states(cut: Any) -> None:
    context = Context(cut.parts)
    take(context, cut.hidden(PROMPT))
    context.take_tokens([11], position=5, rollback=0, kept=0)
    assert context.look(rollback=0, up_to=6) == Refused("unusable")
    compute(cut, context, 5)
    assert context.look(rollback=0, up_to=6) == Refused("unusable")
    late = Context(cut.parts)
    take_prompt(cut, late)
    take(late, cut.hidden([*PROMPT, 11])[5:], position=5)
    compute(cut, late, 6)
    late.take_tokens([12], position=6, rollback=0, kept=0)
    assert late.look(rollback=0, up_to=7) == Refused("unusable")


@pytest.mark.parametrize("kept", [5, 6, 8])
def test_tokens_are_cut_back_as_hidden_states_are(cut: Any, kept: int) -> None:
    context, tokens = Context(cut.parts), [*PROMPT, 11, 12, 13, 14]
    take_prompt(cut, context)
    context.take_tokens(tokens[5:], position=5, rollback=0, kept=0)
    assert compute(cut, context, 9) == cut.next_token(tokens)
    other = [*tokens[:kept], 40, 41]
    context.take_tokens([40, 41], position=kept, rollback=1, kept=kept)
    assert compute(cut, context, kept + 2) == cut.next_token(other)


def test_a_prompt_that_is_cut_into_is_wanted_again(cut: Any) -> None:
    context = Context(cut.parts)
    take_prompt(cut, context)
    compute(cut, context, 5)
    context.take_tokens([11], position=3, rollback=1, kept=3)
    assert context.look(rollback=1, up_to=4) == Missing(0, 3)
    other = Context(cut.parts)
    take_prompt(cut, other)
    take(other, cut.hidden([20, 21]), rollback=1, kept=0)
    assert compute(cut, other, 2) == cut.next_token([20, 21])


def test_another_prompt_is_a_conflict(cut: Any) -> None:
    context = Context(cut.parts)
    take_prompt(cut, context)
    assert context.take_prompt(5, b"another", rollback=0, kept=0) == "conflict"
    assert context.take_prompt(6, cut.words(PROMPT).encode(), rollback=0, kept=0) == "conflict"
    assert take(context, cut.hidden(PROMPT)) == "conflict", "the same position in another form"
    assert context.take_tokens([11], position=0, rollback=0, kept=0) == "conflict"


def test_the_cloud_goes_on_by_itself(cut: Any) -> None:
    context, tokens = Context(cut.parts), list(PROMPT)
    take_prompt(cut, context)
    for _ in range(6):
        token = compute(cut, context, len(tokens))
        assert context.append(token, len(tokens)) == "new"
        tokens.append(token)
    assert tokens[5:] == cut.answer(PROMPT, 6)


def test_a_sampled_token_is_the_same_whoever_draws_it(cut: Any) -> None:
    sampling = Sampling(1.3, 7)
    context = Context(cut.parts)
    take(context, cut.hidden(PROMPT))
    assert context.samples_with(sampling)
    with torch.inference_mode():
        logits = cut.model(torch.tensor([PROMPT])).logits[0, -1].numpy()
    assert compute(cut, context, 5) == sampling.pick(logits, 5)
    assert not context.samples_with(None), "one session, one way of choosing"
    assert not context.samples_with(Sampling(1.3, 8))


# Memory


def arrays_in(context: Context) -> list[Any]:
    """All hidden states and cached keys and values that a context holds, as they lie in memory."""
    stages = [stage for stage in (context._rest, context._first) if stage is not None]
    cache = [tensor for stage in stages for layer in stage.cache_layers for tensor in (layer.keys, layer.values)]
    return [*context._rows.values(), *(tensor.numpy() for tensor in cache if tensor is not None)]


@pytest.mark.parametrize("form", ["hidden", "tokens"])
def test_what_is_freed_is_zeroed_also_behind_a_batch_under_way(cut: Any, form: str) -> None:
    context = Context(cut.parts)
    if form == "hidden":
        take(context, cut.hidden([5, 6, 7]))
    else:
        take_prompt(cut, context, [5, 6, 7])
    rows = list(context._rows.values())
    batch = context.begin([3])
    run(cut, context, batch)
    # What was run is only in the cache from here on.
    assert not any(row.any() for row in rows)
    assert batch.hidden is None or not batch.hidden.any()
    take(context, cut.hidden([5, 6, 7, 8])[3:], position=3)
    held = arrays_in(context)
    assert all(array.any() for array in held)
    assert context.memory_bytes >= sum(array.nbytes for array in held)

    batch = context.begin([4])
    context.free()
    assert not held[0].any()
    assert held[-1].any(), "the batch still reads the cache"
    (chosen,) = run_together([batch], cut.parts).by_batch
    grown = arrays_in(context)
    assert all(array.any() for array in grown)
    context.finish(batch, chosen)
    assert not any(array.any() for array in grown)
    assert context.memory_bytes == context._rest.memory_bytes == 0


@pytest.mark.parametrize("form", ["hidden", "tokens"])
def test_a_batch_takes_what_was_foretold(cut: Any, form: str) -> None:
    context, tokens = Context(cut.parts), list(range(10, 50))
    if form == "hidden":
        take(context, cut.hidden(tokens))
    else:
        take_prompt(cut, context, tokens[:30])
        context.take_tokens(tokens[30:], position=30, rollback=0, kept=0)
    foretold = context.growth_bytes(40)
    batch = context.begin([40])
    while_running = context.memory_bytes
    run(cut, context, batch)
    layers = 3 if form == "hidden" else 5
    assert foretold == 40 * layers * 2 * 2 * 8 * 4, "positions, layers, keys and values, heads, their size, float32"
    assert sum(array.nbytes for array in arrays_in(context)) == foretold
    assert foretold <= context.memory_bytes <= while_running


@pytest.mark.parametrize("reason", ["conflict", "too-large"])
def test_a_context_that_was_given_up_says_why_and_holds_nothing(cut: Any, reason: Any) -> None:
    context = Context(cut.parts)
    take(context, cut.hidden([5, 6, 7]))
    compute(cut, context, 3)
    held = arrays_in(context)
    context.refuse(reason)
    assert context.look(rollback=0, up_to=3) == Refused(reason)
    assert context.memory_bytes == 0
    assert not any(array.any() for array in held)


# Several contexts in one batch


def test_contexts_in_one_batch_do_not_see_each_other(cut: Any) -> None:
    sequences = [list(range(10, 26)), [5], list(range(40, 47)), [7, 7, 7]]
    contexts = [Context(cut.parts) for _ in sequences]
    for number, (context, tokens) in enumerate(zip(contexts, sequences, strict=True)):
        if number % 2:
            take_prompt(cut, context, tokens)
        else:
            take(context, cut.hidden(tokens))
    for _ in range(6):
        batches = [context.begin([len(tokens)]) for context, tokens in zip(contexts, sequences, strict=True)]
        ran = run_together(batches, cut.parts)
        assert ran.alone == 0
        for context, tokens, batch, chosen in zip(contexts, sequences, batches, ran.by_batch, strict=True):
            assert chosen is not None
            context.finish(batch, chosen)
            assert chosen[0].token == cut.next_token(tokens)
            position = len(tokens)
            tokens.append(chosen[0].token)
            if batch.first is None:
                take(context, cut.hidden(tokens)[position:], position=position)
            else:
                context.append(chosen[0].token, position)


def test_what_overflows_costs_its_own_context_only(cut: Any) -> None:
    sick, sound = Context(cut.parts), Context(cut.parts)
    take(sick, np.full((2, cut.hidden_size), np.inf, np.float32))
    take(sound, cut.hidden(PROMPT))
    batches = [sick.begin([2]), sound.begin([5])]
    first, second = run_together(batches, cut.parts).by_batch
    assert first is None
    assert second is not None
    assert second[0].token == cut.next_token(PROMPT)


def test_the_margin_is_the_distance_to_the_next_best(cut: Any) -> None:
    context = Context(cut.parts)
    take(context, cut.hidden(PROMPT))
    (chosen,) = run_together([context.begin([5])], cut.parts).by_batch
    assert chosen is not None
    with torch.inference_mode():
        best, second = cut.model(torch.tensor([PROMPT])).logits[0, -1].topk(2).values.tolist()
    assert chosen[0].margin == pytest.approx(best - second, abs=2e-2)
