"""Honest edges, a network that repeats, reorders, drops and delays, and a cloud that forgets, restarts and batches.

Whatever happens in whatever order: no token is ever given that the unsplit model would not give for what the edge has
read, the budget is never passed, and in the end every answer can be completed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import Lease, LeaseRequest, PromptContext
from roadside.cloud_node.context import Context, Missing, Ready, Refused, Verdict
from roadside.cloud_node.contexts import ContextManager
from roadside.cloud_node.parts import Batch, run_together
from roadside.cloud_node.settings import ContextSettings
from roadside.edge_node.sent_context import ContextMessage, Piece, SentContext
from roadside.models.context_codec import ContextPacker
from roadside.models.questions import Question

LONGEST = 30
EDGES = ("edge-1", "edge-2")
BUDGET_BYTES = 24_000
# Beyond it, rounding in batches of other shapes could decide.
NEAR_TIE = 1e-3


@dataclass
class Answer:
    """An edge's side of one session. hidden: as it went up, since another pass could round a number the other way."""

    edge: str
    form: str
    name: str
    sent: SentContext
    tokens: list[int] = field(default_factory=list)
    hidden: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 32), np.float32))
    prompt_positions: int = 0
    alone: bool = False


def fleet_of(cut: Any) -> type[RuleBasedStateMachine]:
    class Fleet(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.number = 0
            self.answers: list[Answer] = []
            self.in_flight: list[tuple[str, ContextMessage]] = []
            self.refusals: set[str] = set()
            self.history: list[tuple[str, ContextMessage]] = []
            self.under_way: list[tuple[Context, Batch]] = []
            self.start_cloud()

        def start_cloud(self) -> None:
            self.manager = ContextManager(
                parts=cut.parts,
                model_hash="abc",
                settings=ContextSettings(budget_bytes=BUDGET_BYTES),
                counters=Counter(),
            )
            self.leases: dict[str, str] = {}
            for edge in EDGES:
                granted = self.manager.lease(edge, LeaseRequest(model_hash="abc", first_exit_layer=2, hidden_size=32))
                assert isinstance(granted, Lease)
                self.leases[edge] = granted.lease

        def new_name(self, edge: str) -> str:
            self.number += 1
            return f"{self.leases[edge]}.{self.number}"

        def open_answers(self) -> list[Answer]:
            return [answer for answer in self.answers if not answer.alone]

        def send(self, answer: Answer, first: int, end: int, *, again: bool = False) -> None:
            for message in answer.sent.messages(answer.name, first, end, again=again):
                self.in_flight.append((answer.edge, message))
                self.history.append((answer.edge, message))

        # What edges do

        @precondition(lambda self: len(self.answers) < 4)
        @rule(
            edge=st.sampled_from(EDGES),
            form=st.sampled_from(["hidden", "tokens", "image, then hidden"]),
            prompt=st.lists(st.integers(3, cut.vocabulary - 1), min_size=1, max_size=6),
        )
        def begin(self, edge: str, form: str, prompt: list[int]) -> None:
            sent = SentContext(packer=ContextPacker("float16"), hidden_size=32, chunk_bytes=256)
            answer = Answer(edge, form, self.new_name(edge), sent)
            self.answers.append(answer)
            if form == "hidden":
                self.read(answer, prompt)
                return
            answer.tokens, answer.prompt_positions = list(prompt), len(prompt)
            answer.hidden = cut.hidden(answer.tokens)
            sent.add(Piece(0, len(prompt), Question(cut.words(prompt), (b"JPEG",))))
            self.send(answer, 0, len(prompt))

        @precondition(lambda self: self.open_answers())
        @rule(data=st.data(), tokens=st.lists(st.integers(3, cut.vocabulary - 1), min_size=1, max_size=5))
        def go_on(self, data: st.DataObject, tokens: list[int]) -> None:
            answer = data.draw(st.sampled_from(self.open_answers()))
            if len(answer.tokens) < LONGEST - 5:
                self.read(answer, tokens)

        def read(self, answer: Answer, tokens: list[int]) -> None:
            first = len(answer.tokens)
            answer.tokens = [*answer.tokens, *tokens]
            new = cut.hidden(answer.tokens)[first:]
            answer.hidden = np.concatenate([answer.hidden, new])
            content: Any = tuple(tokens) if answer.form == "tokens" else answer.sent._packer.pack(new)
            answer.sent.add(Piece(first, len(answer.tokens), content))
            self.send(answer, first, len(answer.tokens))

        @precondition(lambda self: self.open_answers())
        @rule(data=st.data())
        def roll_back(self, data: st.DataObject) -> None:
            answer = data.draw(st.sampled_from(self.open_answers()))
            kept = data.draw(st.integers(min(answer.prompt_positions, len(answer.tokens)), len(answer.tokens)))
            self.cut_back(answer, kept)

        def cut_back(self, answer: Answer, kept: int) -> None:
            answer.sent.roll_back(kept)
            answer.tokens, answer.hidden = answer.tokens[:kept], answer.hidden[:kept]

        @precondition(lambda self: any(answer.tokens for answer in self.open_answers()))
        @rule(data=st.data(), instead=st.lists(st.integers(3, cut.vocabulary - 1), min_size=1, max_size=3))
        def change_its_mind(self, data: st.DataObject, instead: list[int]) -> None:
            """Of the last tokens; what is asked about next has as many positions as before."""
            answer = data.draw(st.sampled_from([each for each in self.open_answers() if each.tokens]))
            kept = max(answer.prompt_positions, len(answer.tokens) - len(instead))
            self.cut_back(answer, kept)
            if len(answer.tokens) < LONGEST - 5:
                self.read(answer, instead)

        # What the network does

        @precondition(lambda self: self.history)
        @rule(data=st.data())
        def repeat(self, data: st.DataObject) -> None:
            """Something that was sent a while ago, before anything of the present arrives."""
            lately = self.history[-12:]
            self.arrive(*lately[data.draw(st.integers(0, len(lately) - 1))])

        @precondition(lambda self: self.in_flight)
        @rule(data=st.data(), stays=st.booleans())
        def deliver(self, data: st.DataObject, stays: bool) -> None:
            at = data.draw(st.integers(0, len(self.in_flight) - 1))
            edge, message = self.in_flight[at]
            if not stays:
                del self.in_flight[at]
            self.arrive(edge, message)

        @rule()
        def deliver_all(self) -> None:
            arriving, self.in_flight = self.in_flight, []
            for edge, message in arriving:
                self.arrive(edge, message)

        def arrive(self, edge: str, message: ContextMessage) -> None:
            try:
                taken = self.manager.take(edge, message, 0.0)
            except MessageRefused as refusal:
                self.refusals.add(refusal.reason)
                return
            assert taken in ("new", "duplicate", "stale") or taken == Refused("no-room")
            if taken == "new" and isinstance(message, PromptContext):
                context = self.manager.find(edge, message.session, 0.0)
                assert context is not None
                question = Question(message.prompt, message.frames)
                prompt = cut.parts.beginning.encode(question)
                self.manager.encoded(context, prompt, rollback=message.rollback, positions=message.positions)

        @precondition(lambda self: self.in_flight)
        @rule(data=st.data())
        def drop(self, data: st.DataObject) -> None:
            self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))

        # What edges ask

        @precondition(lambda self: any(answer.tokens for answer in self.open_answers()))
        @rule(data=st.data(), resend=st.booleans(), claims=st.integers(0, 4))
        def ask(self, data: st.DataObject, resend: bool, claims: int) -> None:
            answer = data.draw(st.sampled_from([each for each in self.open_answers() if each.tokens]))
            up_to = data.draw(st.integers(max(1, answer.prompt_positions), len(answer.tokens)))
            claimed: list[int] = []
            if claims and up_to > max(1, answer.prompt_positions) + claims:
                guess = data.draw(st.integers(3, cut.vocabulary - 1))
                claimed = [*answer.tokens[up_to - claims + 1 : up_to], guess]
            self.question(answer, up_to, claimed, resend=resend)

        def question(self, answer: Answer, up_to: int, claimed: list[int], *, resend: bool) -> None:
            context = self.manager.find(answer.edge, answer.name, 0.0)
            if context is None:
                answer.name = self.new_name(answer.edge)
                if resend:
                    self.send(answer, 0, len(answer.tokens), again=True)
                return
            match context.look(rollback=answer.sent.rollback, up_to=up_to, claimed=claimed):
                case Verdict() as verdict:
                    self.check(answer, up_to, claimed, verdict)
                case Missing(first, end):
                    assert 0 <= first < end <= up_to
                    if resend:
                        self.send(answer, first, end, again=True)
                case Refused(reason):
                    assert reason == "no-room"
                    answer.alone = True
                case Ready(wanted):
                    behind = context.still_wanted(wanted)
                    assert set(wanted) <= set(behind)
                    if self.manager.admit(answer.edge, context, behind) is None:
                        self.under_way.append((context, context.begin(behind)))
                case "busy":
                    waits_for_prompt = answer.form != "hidden"
                    assert waits_for_prompt or any(context is begun for begun, _ in self.under_way)
                case past:
                    assert past in ("overtaken", "stale")

        @precondition(lambda self: any(answer.tokens for answer in self.open_answers()))
        @rule(guesses=st.booleans())
        def ask_all_about_the_newest(self, guesses: bool) -> None:
            """On a good day."""
            self.deliver_all()
            for answer in self.open_answers():
                up_to = len(answer.tokens)
                if up_to > answer.prompt_positions + 3 and guesses:
                    self.question(answer, up_to, [*answer.tokens[up_to - 2 :], 5], resend=True)
                elif answer.tokens:
                    self.question(answer, up_to, [], resend=True)
            if self.under_way:
                self.finish(too_late=False)

        @precondition(lambda self: self.under_way)
        @rule(too_late=st.booleans())
        def finish(self, too_late: bool) -> None:
            begun, self.under_way = self.under_way, []
            batches = [batch for _, batch in begun]
            results = [None] * len(begun) if too_late else run_together(batches, cut.parts).by_batch
            for (context, batch), chosen in zip(begun, results, strict=True):
                assert chosen is not None or too_late
                context.finish(batch, chosen)

        # What clouds do

        @precondition(lambda self: self.answers)
        @rule(data=st.data(), really=st.integers(0, 5))
        def forget(self, data: st.DataObject, really: int) -> None:
            """A session's time is over."""
            if not really:
                answer = data.draw(st.sampled_from(self.answers))
                self.manager.close(answer.edge, answer.name)

        @rule(really=st.integers(0, 11))
        def restart(self, really: int) -> None:
            if not really:
                self.manager.free_all()
                self.start_cloud()
                for answer in self.open_answers():
                    answer.name = self.new_name(answer.edge)

        @invariant()
        def keeps_to_its_budget(self) -> None:
            assert self.manager.memory_bytes <= BUDGET_BYTES

        @invariant()
        def refuses_only_what_is_over(self) -> None:
            assert self.refusals <= {"session"}

        def check(self, answer: Answer, up_to: int, claimed: list[int], verdict: Verdict) -> None:
            first = up_to - max(0, len(claimed) - 1)
            for number, token in enumerate(verdict.tokens):
                logits = self.logits(answer, first + number)
                assert logits[token] >= logits.max() - NEAR_TIE, "the whole model's own"
            right = [said == believed for said, believed in zip(verdict.tokens, claimed, strict=False)]
            assert verdict.n_accepted == sum(right)
            assert all(right[:-1])
            assert len(verdict.tokens) == (up_to - first + 1 if all(right) else len(right))

        @torch.inference_mode()
        def logits(self, answer: Answer, up_to: int) -> NDArray[np.float32]:
            """The unsplit model's, or of one uninterrupted pass over the hidden states."""
            rest, hidden = cut.parts.rest.session(), torch.from_numpy(answer.hidden[:up_to].copy())[None]
            if answer.form != "hidden":
                # Of what the cloud reads itself it has the hidden states unrounded.
                own = up_to if answer.form == "tokens" else answer.prompt_positions
                first = cut.first.session()
                first.feed(torch.cat([cut.parts.beginning.embed(token) for token in answer.tokens[:own]], dim=1))
                hidden[:, :own] = first.catch_up()[:, :up_to]
            rest.feed(hidden)
            return cut.parts.head(rest.catch_up()[:, -1])[0].numpy()

        def teardown(self) -> None:
            """However bad it was, what is asked for again and arrives makes every answer whole."""
            if self.under_way:
                self.finish(too_late=True)
            self.in_flight.clear()
            for answer in self.open_answers():
                self.manager.free_all()  # room for one at a time
                self.start_cloud()
                answer.name = self.new_name(answer.edge)
                self.read(answer, [7])
                up_to = len(answer.tokens)
                for _ in range(3):  # the first stretch may be named before a roll-back is known
                    self.deliver_all()
                    self.question(answer, up_to, [], resend=True)
                    if self.under_way:
                        self.finish(too_late=False)
                context = self.manager.find(answer.edge, answer.name, 0.0)
                assert context is not None
                verdict = context.look(rollback=answer.sent.rollback, up_to=up_to)
                assert isinstance(verdict, Verdict)
                self.check(answer, up_to, [], verdict)

    return Fleet


def test_a_token_is_the_models_own_whatever_network_and_cloud_did(cut: Any) -> None:
    run_state_machine_as_test(
        fleet_of(cut),
        settings=settings(max_examples=150, stateful_step_count=50, deadline=None),
    )
