"""CE-CoLLM's mode, driven by hand against the other half of the same model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.models.answering import CloudAnswerer, EdgeAnswerer, cloud_answerer, edge_answerer
from roadside.models.decoding import Ask, CloudReply, Drafted, Generation, Limits, Steps, Upload, Wait, to_the_end
from roadside.models.exits import most_likely
from roadside.models.modes import ce, full, standalone
from roadside.models.modes.sharing import Sharing
from roadside.models.partitions import EncodedPrompt
from roadside.models.precision import to_float16, to_float32
from roadside.models.questions import Question

NEVER_SURE = (1.1, 1.1)
QUESTION = Question("what is the car doing and why ?", (), {"Vehicle.Speed": 36.0})
MAX_TOKENS = 12


@dataclass
class Cloud:
    """The other half: what went up runs through the rest of the model when a token is wanted.

    answers_until_silent: how many questions are answered before it falls silent.
    """

    answerer: CloudAnswerer
    answers_until_silent: int = 1_000
    positions: int = 0
    bytes_up: int = 0
    questions: int = 0
    drafts: list[Drafted] = field(default_factory=list)

    @torch.inference_mode()
    def talk(self, steps: Steps[Generation]) -> Generation:
        session = self.answerer.whole.rest.session()
        reply, asked = None, 0
        while True:
            try:
                event = steps.send(reply)
            except StopIteration as end:
                return end.value
            reply = None
            match event:
                case Upload():
                    assert event.hidden.dtype == np.float32
                    assert event.position == self.positions, "each position goes up once, in order"
                    assert self.questions <= self.answers_until_silent, "nothing goes up to a cloud that was silent"
                    self.positions += len(event.hidden)
                    hidden = to_float16(torch.from_numpy(event.hidden))
                    self.bytes_up += hidden.nbytes
                    session.feed(to_float32(hidden)[None])
                case Ask():
                    assert event.up_to == self.positions
                    asked = event.up_to
                    self.questions += 1
                case Drafted():
                    self.drafts.append(event)
                case Wait() if self.questions <= self.answers_until_silent:
                    assert asked == self.positions
                    token, confidence = most_likely(self.answerer.whole.head(session.catch_up()[:, -1]))
                    reply = CloudReply(asked, (token,), 0, (confidence,))


@pytest.fixture(scope="module")
def edge(tiny_folder: Path) -> EdgeAnswerer:
    return edge_answerer(str(tiny_folder))


@pytest.fixture(scope="module")
def whole(tiny_folder: Path) -> CloudAnswerer:
    return cloud_answerer(str(tiny_folder))


@pytest.fixture(scope="module")
def prompt(edge: EdgeAnswerer, frame: bytes) -> EncodedPrompt:
    return edge.encode(Question(QUESTION.prompt, (frame,), QUESTION.telemetry))


def limits(thresholds: tuple[float, ...]) -> Limits:
    return Limits(MAX_TOKENS, -1, thresholds)


@pytest.mark.parametrize("draft", [True, False])
def test_above_one_it_is_the_unsplit_model_token_by_token(edge, whole, prompt, draft):
    cloud = Cloud(whole)
    together = cloud.talk(ce.decode(edge.partition, prompt, limits(NEVER_SURE), Sharing(draft=draft)))
    expected = to_the_end(full.decode(whole.whole, prompt, limits(())))
    assert together.tokens == expected.tokens
    assert set(together.made_by) == {"full"}
    assert cloud.questions == len(together.tokens)
    # float16 on the way moves a confidence a little, and never so far that another token would win here.
    np.testing.assert_allclose(together.confidences, expected.confidences, atol=2e-3)


@pytest.mark.parametrize("thresholds", [NEVER_SURE, (0.0, 0.0), (0.05, 0.05)])
def test_what_goes_up_is_every_position_that_was_fed_once(edge, whole, prompt, thresholds):
    cloud = Cloud(whole)
    generation = cloud.talk(ce.decode(edge.partition, prompt, limits(thresholds)))
    # A last token is never fed back.
    assert cloud.positions == prompt.positions + len(generation.tokens) - 1
    assert cloud.bytes_up == cloud.positions * edge.partition.first.hidden_size * 2


def test_an_edge_that_is_always_sure_asks_nobody(edge, whole, prompt):
    cloud = Cloud(whole)
    generation = cloud.talk(ce.decode(edge.partition, prompt, limits((0.0, 0.0))))
    assert generation == to_the_end(standalone.decode(edge.partition, prompt, limits((0.0, 0.0))))
    assert (cloud.questions, cloud.drafts) == (0, [])


@settings(max_examples=20, deadline=None)
@given(answers_until_silent=st.integers(0, MAX_TOKENS), threshold=st.floats(0.0, 1.1), draft=st.booleans())
def test_a_silent_cloud_leaves_the_edge_to_end_alone(edge, whole, prompt, answers_until_silent, threshold, draft):
    """Whatever the cloud said until then stands, and from there on the edge speaks as it would by itself."""
    thresholds = (threshold, threshold)
    cloud = Cloud(whole, answers_until_silent=answers_until_silent)
    generation = cloud.talk(ce.decode(edge.partition, prompt, limits(thresholds), Sharing(draft=draft)))
    by_cloud = generation.made_by.count("full")
    assert by_cloud <= answers_until_silent
    assert cloud.questions <= answers_until_silent + 1
    assert len(generation.tokens) == MAX_TOKENS
    if answers_until_silent == 0:
        alone = to_the_end(standalone.decode(edge.partition, prompt, limits(thresholds)))
        assert generation == alone


def test_the_draft_is_the_edge_s_own_answer_and_changes_nothing(edge, whole, prompt):
    cloud, without = Cloud(whole), Cloud(whole)
    generation = cloud.talk(ce.decode(edge.partition, prompt, limits(NEVER_SURE)))
    assert generation == without.talk(ce.decode(edge.partition, prompt, limits(NEVER_SURE), Sharing(draft=False)))
    (draft,) = cloud.drafts
    alone = to_the_end(standalone.decode(edge.partition, prompt, limits(NEVER_SURE)))
    assert list(draft.tokens) == alone.tokens
    assert without.drafts == []
