"""What `auto` picks: its estimates, what they are fed with, and what its user allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.models.answer_measurements import Measurements, Share
from roadside.models.circumstances import Circumstances, LinkEstimate
from roadside.models.collaboration import Collaboration
from roadside.models.decoding import Ask, CloudReply, Generation, Steps, Wait
from roadside.models.mode_choice import CloudPace, Conditions, EdgePace, Habits, Sizes, answer_ms, choose
from roadside.models.mode_planner import Cut, ModePlanner
from roadside.models.modes.sharing import Sharing
from roadside.models.questions import Question
from roadside.models.speakers import Said

# CE-CoLLM's machines, and hidden states of 4,096 numbers.
PAPER = Conditions(
    round_trip_ms=20.0,
    uplink_bps=100e6,
    edge=EdgePace(encode_ms=0.0, prompt_ms=25.0, exit1_ms=10.0, exit2_ms=20.0),
    cloud=CloudPace(encode_ms=0.0, prompt_ms=40.0, hidden_ms=28.0, tokens_ms=37.0, alone_ms=37.0),
    habits=Habits(tokens=14, exit1_share=0.6, unsure_share=0.2, unsure_agreement=0.6, sure_agreement=0.999),
    sizes=Sizes(prompt_positions=38, prompt_bytes=9_000, position_bytes=8_192),
)
SHARINGS = [Sharing(), Sharing("image"), Sharing("image", "tokens")]
MODES = ("ce", "ce-optimistic", "through", "cloud", "standalone")

conditions = st.builds(
    lambda round_trip_ms, mbps, unsure, agreement: replace(
        PAPER,
        round_trip_ms=round_trip_ms,
        uplink_bps=mbps * 1e6,
        habits=replace(PAPER.habits, unsure_share=unsure, unsure_agreement=agreement),
    ),
    st.floats(1, 200),
    st.floats(0.5, 500),
    st.floats(0, 0.9),
    st.floats(0, 1),
)


@given(conditions, st.sampled_from(MODES), st.sampled_from(SHARINGS))
@settings(deadline=None)
def test_no_mode_is_estimated_faster_on_a_worse_link(better: Conditions, mode: Any, sharing: Sharing) -> None:
    slower = replace(better, uplink_bps=better.uplink_bps / 2)
    farther = replace(better, round_trip_ms=better.round_trip_ms + 10)
    estimate = answer_ms(mode, sharing, better)
    assert answer_ms(mode, sharing, slower) >= estimate - 1e-6
    assert answer_ms(mode, sharing, farther) >= estimate - 1e-6
    if mode != "cloud":
        assert estimate >= answer_ms("standalone", sharing, better)


@given(conditions, st.sampled_from(SHARINGS))
@settings(deadline=None)
def test_an_edge_that_is_always_sure_and_right_waits_for_nobody(at: Conditions, sharing: Sharing) -> None:
    sure = replace(at, habits=replace(at.habits, unsure_share=0.0, sure_agreement=1.0))
    alone = answer_ms("standalone", sharing, sure)
    assert answer_ms("ce", sharing, sure) == pytest.approx(alone)
    assert answer_ms("ce-optimistic", sharing, sure) == pytest.approx(alone)
    # But a lossless mode has to hear that it was right.
    assert answer_ms("through", sharing, sure) > alone + at.round_trip_ms


def test_a_slow_uplink_wants_tokens_and_a_fast_one_hidden_states() -> None:
    slow, fast = replace(PAPER, uplink_bps=1e6), replace(PAPER, uplink_bps=1e9)
    assert choose(["through"], SHARINGS, slow).sharing.answer == "tokens"
    assert choose(["through"], SHARINGS, fast).sharing.answer == "hidden"


def test_a_fast_cloud_nearby_answers_best_by_itself() -> None:
    near = replace(
        PAPER, round_trip_ms=2.0, cloud=replace(PAPER.cloud, hidden_ms=2.0, tokens_ms=3.0, alone_ms=3.0, prompt_ms=5.0)
    )
    assert choose(["through", "cloud"], SHARINGS, near).mode == "cloud"
    assert choose(["through", "cloud"], SHARINGS, PAPER).mode == "through"


def test_with_no_time_left_the_edge_answers_alone() -> None:
    enough = answer_ms("through", Sharing(), PAPER) + 1
    assert choose(["through"], [Sharing()], PAPER, within_ms=enough).mode == "through"
    assert choose(["through"], [Sharing()], PAPER, within_ms=enough - 2).mode == "standalone"


def test_modes_for_comparison_are_not_estimated() -> None:
    with pytest.raises(ValueError, match="naive"):
        answer_ms("naive", Sharing(), PAPER)


# The planner

QUESTION = Question("why ?", (b"x" * 9_000,))
CUT = Cut(first_exit=8, second_exit=16, layers=32, hidden_size=4096)
LINK = LinkEstimate(round_trip_ms=20.0, uplink_bps=100e6, compute_ms=28.0, takes_prompts=True)


def planner(measured: bool = True, **settings: Any) -> ModePlanner:
    made = ModePlanner(Collaboration(**settings), CUT)
    if measured:
        for name, value in {"encode_ms": 15.0, "prompt_ms": 25.0, "exit1_ms": 10.0, "exit2_ms": 20.0}.items():
            getattr(made.measurements, name).observe(value)
    return made


def plan(
    made: ModePlanner, link: LinkEstimate | None = LINK, remaining_ms: float | None = None
) -> tuple[str, str, str]:
    mode, sharing = made.plan(QUESTION, 38, Circumstances(link, remaining_ms))
    return mode, sharing.prompt, sharing.answer


def test_a_mode_that_was_set_is_the_one_that_runs() -> None:
    assert plan(planner(mode="ce")) == ("ce", "hidden", "hidden")
    assert plan(planner(mode="through"), link=None) == ("through", "hidden", "hidden")
    assert plan(planner(mode="through"), remaining_ms=1.0)[0] == "through"


def test_raw_pixels_stay_with_the_edge_unless_they_may_go() -> None:
    for link in (LINK, replace(LINK, uplink_bps=1e6), replace(LINK, compute_ms=1.0, answer_ms=5.0)):
        for lossless in (True, False):
            mode, prompt, answer = plan(planner(mode="auto", lossless=lossless), link)
            assert (prompt, answer) == ("hidden", "hidden")
            assert mode != "cloud"
            if lossless:
                assert mode == "through"


def test_auto_sends_what_is_faster_where_it_may() -> None:
    anything = planner(mode="auto", lossless=True, prompt_upload="auto", context="auto")
    assert plan(anything, replace(LINK, uplink_bps=1e6)) == ("through", "image", "tokens")
    assert plan(anything, replace(LINK, compute_ms=1.0, answer_ms=5.0))[0] == "cloud"
    assert plan(anything, replace(LINK, takes_prompts=False, compute_ms=1.0))[:2] == ("through", "hidden")
    assert plan(anything, remaining_ms=50.0)[0] == "standalone"


def test_by_bytes_where_nothing_was_measured() -> None:
    assert plan(planner(mode="through", prompt_upload="auto"), link=None)[1] == "image"
    small = ModePlanner(Collaboration(mode="ce", prompt_upload="auto"), replace(CUT, hidden_size=64))
    assert plan(small, link=None)[1] == "hidden"
    assert plan(planner(measured=False, mode="auto"))[0] == "ce-optimistic"


def test_token_ids_need_a_prompt_that_may_go_up() -> None:
    with pytest.raises(ConfigurationError, match="prompt_upload"):
        Collaboration(context="tokens")


# What it is fed with


class ScriptedEdge:
    """Says what the test wrote down, and takes as long as it wrote down, on the test's clock."""

    def __init__(self, script: list[tuple[Said, float]], clock: list[float]) -> None:
        self.script, self.clock, self.positions = script, clock, 0

    def session(self, sampling: object = None) -> ScriptedEdge:
        return self

    def read(self, inputs: int) -> int:
        self.positions += inputs
        return inputs

    def speak(self, read: int, thresholds: tuple[float, ...]) -> Said:
        said, took_s = self.script.pop(0)
        self.clock[0] += took_s
        return said

    def roll_back(self, positions: int) -> None:
        self.positions = positions

    def embed(self, token: int) -> int:
        return 1


class FivePositions:
    positions = 5
    encode_ms = 12.0

    def inputs(self) -> int:
        return 5


def test_an_answer_tells_pace_shares_and_agreement() -> None:
    clock = [0.0]
    sure, unsure = Said(1, "exit1", 0.9, True), Said(2, "exit2", 0.4, False)
    edge = ScriptedEdge([(sure, 0.050), (unsure, 0.020), (unsure, 0.020), (sure, 0.010)], clock)
    measurements = Measurements(now_s=lambda: clock[0])

    def decode(watched: Any) -> Steps[Generation]:
        session, generation = watched.session(None), Generation()
        for inputs in (5, 1, 1, 1):
            said = session.speak(session.read(inputs), (0.5, 0.5))
            generation.add(said.token, said.speaker, said.confidence)
        yield Ask(8, claimed=(1, 2, 2, 1))
        yield Wait()
        return generation

    steps = measurements.watch(edge, FivePositions(), decode)
    assert isinstance(next(steps), Ask)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(CloudReply(8, (1, 2, 7), 2, (1.0, 1.0, 1.0)))

    def after(prior: float, *cases: bool) -> float:
        share = Share(prior)
        for so in cases:
            share.observe(so=so)
        return share.value

    paces = {name: getattr(measurements, name).value for name in ("encode_ms", "prompt_ms", "exit1_ms", "exit2_ms")}
    assert paces == pytest.approx({"encode_ms": 12.0, "prompt_ms": 50.0, "exit1_ms": 10.0, "exit2_ms": 20.0})
    habits, before = measurements.habits, Habits()
    assert habits.tokens == 4
    assert habits.exit1_share == pytest.approx(after(before.exit1_share, True, False, False, True))
    assert habits.unsure_share == pytest.approx(after(before.unsure_share, False, True, True, False))
    # The cloud said nothing of the last token: it stopped at the one before.
    assert habits.sure_agreement == pytest.approx(after(before.sure_agreement, True))
    assert habits.unsure_agreement == pytest.approx(after(before.unsure_agreement, True, False))
