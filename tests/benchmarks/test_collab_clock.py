"""The virtual clock of the collaboration bench, with answers whose every token is made up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.benchmarks.collab_clock import VirtualLink
from roadside.benchmarks.collab_cloud import VirtualCloud
from roadside.benchmarks.collab_contenders import HIDDEN, IMAGE, TOKENS, Contender, replay
from roadside.benchmarks.collab_edge import Tokens, TracedRead, Vote, whole_answer
from roadside.benchmarks.collab_profiles import PAPER, Cost
from roadside.benchmarks.collab_replay import Replayed
from roadside.bus.tensors import TensorType
from roadside.datasets.link_traces import parse_link
from roadside.models.decoding import Ask, RollBack, Upload, UploadPrompt, UploadTokens

THRESHOLDS = (0.8, 0.8)
END = 0
PROMPT = 30
MAX_TOKENS = 20
AT_ONCE = "10Gbps,0ms"
D = PAPER.hidden_size


@dataclass(frozen=True)
class MadeUp:
    """An answer that is a count up to its length. guesses: by position, how sure which exit is and whether it is right.

    After a wrong word the whole model goes on counting, and the exits are unsure and right.
    """

    length: int
    guesses: dict[int, tuple[str, bool]] = field(default_factory=dict)
    positions: int = PROMPT
    prompt_bytes: int = 10_000
    end_token: int = END

    def at_exits(self, tokens: Tokens, /) -> tuple[Vote, Vote]:
        on_path = tokens == tuple(range(1, len(tokens) + 1))
        speaker, right = self.guesses.get(len(tokens), ("exit1", True)) if on_path else ("nobody", True)
        token = self.at_end(tokens).token if right else 99
        return Vote(token, 0.9 * (speaker == "exit1"), 1.0), Vote(token, 0.9 * (speaker != "nobody"), 1.0)

    def at_end(self, tokens: Tokens, context: str = "float32", /) -> Vote:
        return Vote(END if len(tokens) >= self.length - 1 else len(tokens) + 1, 1.0, 1.0)


def play(
    mode, recording, link=AT_ONCE, thresholds=THRESHOLDS, sharing=HIDDEN, context: TensorType = "float16", profile=PAPER
) -> Replayed:
    contender = Contender(mode, mode, thresholds, sharing, context)
    return replay(contender, recording, profile, VirtualLink(parse_link(link)), max_tokens=MAX_TOKENS)


guesses = st.dictionaries(
    st.integers(0, 12), st.tuples(st.sampled_from(["exit1", "exit2", "nobody"]), st.booleans()), max_size=8
)
links = st.sampled_from(["10Gbps,0ms", "300Mbps,5ms", "100Mbps,20ms", "10Mbps,50ms", "1Mbps,100ms"])


def test_the_edge_alone_takes_its_stages_and_nothing_else():
    recording = MadeUp(5, {1: ("exit2", True), 3: ("nobody", True)})
    replayed = play("standalone", recording)
    # A prompt of 30 at half a millisecond, five tokens to the first exit, two of them on to the second.
    assert replayed.total_ms == pytest.approx(15 + 5 * 10 + 2 * 10)
    assert (replayed.bytes_up, replayed.cloud_requests, replayed.cloud_ms) == (0, 0, 0)


def test_the_cloud_alone_takes_the_prompt_s_way_and_every_layer():
    replayed = play("cloud", MadeUp(5), "8Mbps,40ms", sharing=IMAGE)
    sending_ms = replayed.total_ms - (15 + 5 * 37 + 40)
    # 10,000 bytes at 8 Mbps, and some framing each way.
    assert 10 < sending_ms < 11
    assert replayed.edge_ms == 0
    assert replayed.bytes_up == 10_000


def test_ce_waits_for_each_token_that_nobody_is_sure_of():
    recording = MadeUp(5, {1: ("nobody", True), 3: ("nobody", False)})
    replayed = play("ce", recording, "10Gbps,20ms")
    assert replayed.total_ms == pytest.approx(15 + 5 * 10 + 2 * (10 + 20 + 28), abs=0.5)
    assert replayed.cloud_requests == 2
    assert replayed.link_ms == pytest.approx(2 * 20, abs=0.5)
    assert replayed.total_ms == pytest.approx(replayed.edge_ms + replayed.cloud_ms + replayed.link_ms)


def test_a_wrong_word_of_a_sure_exit_stands_in_ce_and_not_in_through():
    recording = MadeUp(6, {2: ("exit1", False)})
    whole = whole_answer(recording, max_tokens=MAX_TOKENS)
    assert tuple(play("ce", recording).generation.tokens) != whole
    assert tuple(play("through", recording).generation.tokens) == whole


def test_through_costs_one_round_trip_where_the_draft_is_right():
    replayed = play("through", MadeUp(8), "10Gbps,50ms")
    assert replayed.total_ms == pytest.approx(15 + 8 * 10 + 50 + 28, abs=1)


def test_optimistic_waits_for_nothing_but_the_last_guess_where_all_are_right():
    recording = MadeUp(12, {1: ("nobody", True)})
    patient, hasty = play("ce", recording, "100Mbps,50ms"), play("ce-optimistic", recording, "100Mbps,50ms")
    assert hasty.total_ms == pytest.approx(15 + 12 * 10 + 10)
    assert hasty.generation.tokens == patient.generation.tokens
    assert patient.total_ms > hasty.total_ms + 70


@pytest.mark.parametrize("mode", ["ce", "naive-kv"])
def test_every_position_but_the_last_token_s_goes_up_once(mode):
    replayed = play(mode, MadeUp(9, {4: ("nobody", True)}))
    assert replayed.positions_up == PROMPT + 9 - 1
    assert replayed.bytes_up == replayed.positions_up * D * 2


def test_synchronous_uploads_end_with_the_last_question():
    replayed = play("ce-sync", MadeUp(9, {4: ("nobody", True)}))
    assert replayed.positions_up == PROMPT + 4


def test_the_naive_split_sends_everything_again_each_time():
    replayed = play("naive", MadeUp(9), context="float32")
    assert replayed.positions_up == sum(PROMPT + count for count in range(9))
    assert replayed.bytes_up == replayed.positions_up * D * 4


def test_ids_up_cost_the_cloud_every_layer():
    hidden = play("through", MadeUp(8, {3: ("nobody", True)}))
    tokens = play("through", MadeUp(8, {3: ("nobody", True)}), sharing=TOKENS)
    assert tokens.generation.tokens == hidden.generation.tokens
    assert tokens.cloud_ms > hidden.cloud_ms
    assert tokens.bytes_up < 10_000 + 4 * 20
    assert hidden.bytes_up >= (PROMPT + 7) * D * 2


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 14),
    guesses=guesses,
    link=links,
    mode=st.sampled_from(["cloud", "naive", "naive-kv", "through"]),
    sharing=st.sampled_from([HIDDEN, IMAGE, TOKENS]),
)
def test_lossless_modes_say_what_the_whole_model_says_over_any_link(length, guesses, link, mode, sharing):
    recording = MadeUp(length, guesses)
    replayed = play(mode, recording, link, sharing=sharing)
    assert tuple(replayed.generation.tokens) == whole_answer(recording, max_tokens=MAX_TOKENS)
    assert set(replayed.generation.made_by) == {"full"}


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 14), guesses=guesses, link=links)
def test_optimistic_says_what_ce_says_over_any_link(length, guesses, link):
    recording = MadeUp(length, guesses)
    hasty, patient = play("ce-optimistic", recording, link), play("ce", recording, link)
    assert hasty.generation.tokens == patient.generation.tokens


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 14), guesses=guesses, link=links, mode=st.sampled_from(["ce", "ce-sync", "naive-kv"]))
def test_where_nothing_overlaps_the_parts_make_up_the_whole(length, guesses, link, mode):
    replayed = play(mode, MadeUp(length, guesses), link)
    assert replayed.total_ms == pytest.approx(replayed.edge_ms + replayed.cloud_ms + replayed.link_ms)
    edge = [span for span in replayed.spans if span.place == "edge"]
    assert all(one.end_ms <= other.begin_ms + 1e-9 for one, other in pairwise(edge))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 14), guesses=guesses, mode=st.sampled_from(["ce", "naive", "cloud"]))
def test_a_longer_way_is_never_faster(length, guesses, mode):
    recording = MadeUp(length, guesses)
    totals = [play(mode, recording, f"100Mbps,{way}ms").total_ms for way in (0, 5, 20, 80)]
    assert totals == sorted(totals)


def test_messages_cost_the_edge_where_the_profile_says_so():
    recording = MadeUp(5, {1: ("nobody", True)})
    free, dear = play("ce", recording), play("ce", recording, profile=replace(PAPER, message_ms=2.0))
    # Five uploads, a question and its reply.
    assert dear.edge_ms == pytest.approx(free.edge_ms + 7 * 2.0)


def hidden(*tokens):
    return TracedRead(tokens).hidden


def cloud(recording=None):
    return VirtualCloud(recording or MadeUp(50), PAPER, "float32", lambda at_ms: at_ms + 1)


def test_one_batch_answers_every_question_that_waits_and_forgets_those_that_are_covered():
    server = cloud()
    server.send(0, Upload(0, hidden(*[-1] * PROMPT)))
    server.send(0, Ask(PROMPT, claimed=(1,)))
    # The first batch begins at once; these wait until it is done.
    server.send(5, Upload(PROMPT, hidden(1, 2, 3)))
    server.send(5, Ask(PROMPT + 1, claimed=(2,)))
    server.send(6, Ask(PROMPT + 3, claimed=(3, 4)))
    server.send(7, Ask(PROMPT + 2, claimed=(8,)))
    replies = []
    while (sent := server.next_reply()) is not None:
        replies.append((sent.number, sent.reply.tokens, sent.reply.n_accepted, sent.at_ms))
    # The second asks about 31 positions, which the third (32 and 33) does not tell.
    assert replies == [(0, (1,), 1, 29), (1, (2,), 1, 57), (2, (3, 4), 2, 57), (3, (3,), 0, 57)]


def test_a_newer_claim_of_the_same_token_replaces_the_older():
    server = cloud()
    server.send(0, Upload(0, hidden(*[-1] * PROMPT)))
    server.send(0, Ask(PROMPT, claimed=(1,)))
    server.send(5, Upload(PROMPT, hidden(1, 2)))
    server.send(5, Ask(PROMPT + 1, claimed=(1, 2)))
    server.send(6, Ask(PROMPT + 2, claimed=(1, 2, 9)))
    first, second = server.next_reply(), server.next_reply()
    assert first is not None
    assert second is not None
    assert (second.number, second.reply.tokens, second.reply.n_accepted) == (2, (1, 2, 3), 2)
    assert server.next_reply() is None


def test_a_roll_back_voids_what_waits_and_makes_the_cloud_run_the_positions_anew():
    server = cloud()
    server.send(0, Upload(0, hidden(*[-1] * PROMPT, 1, 7, 8)))
    server.send(0, Ask(PROMPT + 3))
    server.send(5, Ask(PROMPT + 2))
    server.send(6, RollBack(PROMPT + 1))
    server.send(6, Upload(PROMPT + 1, hidden(2)))
    server.send(6, Ask(PROMPT + 2))
    numbers = []
    while (sent := server.next_reply()) is not None:
        numbers.append((sent.number, sent.reply.tokens))
    assert numbers == [(0, (4,)), (2, (3,))]
    assert [span.positions for span in server.spans if span.place == "cloud"] == [PROMPT + 3, 1]


def test_replies_come_when_their_time_has_come_and_not_before():
    server = cloud()
    server.send(10, UploadPrompt(PROMPT))
    server.send(10, Ask(PROMPT))
    # A prompt that the cloud encodes runs through every layer, at 37 + 15 ms.
    assert server.replies_by(62.9) is None
    sent = server.replies_by(63)
    assert sent is not None
    assert (sent.at_ms, sent.queue_ms, sent.compute_ms) == (63, 0, 52)
    server.send(70, UploadTokens(PROMPT, (1,)))
    server.send(70, Ask(PROMPT + 1))
    assert server.replies_by(107.9) is None
    assert server.replies_by(108) is not None


def test_a_question_about_what_never_went_up_is_a_fault_of_the_mode():
    server = cloud()
    server.send(0, Upload(0, hidden(*[-1] * PROMPT)))
    server.send(0, Ask(PROMPT + 2))
    with pytest.raises(ValueError, match="32 positions, and 30 went up"):
        server.next_reply()
    server = cloud()
    server.send(0, Upload(3, hidden(1)))
    server.send(0, Ask(4))
    with pytest.raises(ValueError, match="never went up"):
        server.next_reply()


def test_a_link_s_queue_delays_what_comes_behind():
    link = VirtualLink(parse_link("8Mbps,20ms"))
    assert link.up(0.0, 10_000) == pytest.approx(20)
    assert link.up(0.0, 1_000) == pytest.approx(21)
    assert link.up(100.0, 1_000) == pytest.approx(111)
    assert link.down(0.0, 1_000) == pytest.approx(11)


def test_a_recorded_link_begins_where_it_is_told_to(tmp_path):
    trace = tmp_path / "trace.up"
    # One packet of 1,500 bytes each millisecond for a second, then one each 100 ms.
    trace.write_text("\n".join(map(str, [*range(1, 1001), *range(1100, 3001, 100)])))
    shape = parse_link(str(trace))
    assert VirtualLink(shape, began_s=0.0).up(0.0, 15_000) < 12
    assert VirtualLink(shape, began_s=1.5).up(0.0, 15_000) > 800


def test_a_call_over_nothing_costs_nothing():
    assert Cost(28.0, 0.5).of(0) == 0
    assert Cost(28.0, 0.5).of(4) == 30
