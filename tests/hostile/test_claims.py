"""What a member may claim in right messages, and how little that moves the others."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec import structs
from roadside.bus.errors import MessageRefused
from roadside.bus.messages import NodeState
from roadside.models.admission import Job
from roadside.models.control_tokens import ControlTokens
from roadside.models.inference_worker import InferenceWorker
from roadside.models.local_runner import LocalRunner
from roadside.qos.watch import outcome_line, result_line
from roadside.vehicle_node.nodes import MOST_NODES, NodeTable

from .corpus import LOAD, OUTCOME, PROMPTS, RESULT, TASK


def state(name: str, *, alive: bool = True) -> NodeState:
    return NodeState(node=name, role="edge", alive=alive, places=("edge",), load=LOAD)


def names(table: NodeTable, now_s: float) -> set[str]:
    return {view.state.node for view in table.views(now_s)}


def test_a_thousand_names_leave_room_for_those_that_were_there():
    table = NodeTable()
    table.update_state(state("edge-1"), 0.0)
    for number in range(1000):
        table.update_state(state(f"phantom-{number}"), 1.0)
    assert len(names(table, 1.0)) == MOST_NODES
    assert "edge-1" in names(table, 1.0)
    # Turned away, it is nobody: as dead as one that said so, and never asked.
    assert table.is_dead("phantom-999")
    assert table.is_silent("phantom-999", 1.0, silent_after_ms=1e9)
    assert table.quickest_ms("phantom-999", "explain") == float("inf")
    table.sent("phantom-999", "t-1")


def test_those_who_left_or_fell_silent_give_way_the_longest_silent_first():
    table = NodeTable()
    table.update_state(state("edge-1"), 0.0)
    for number in range(MOST_NODES - 1):
        table.update_state(state(f"phantom-{number}"), 1.0 + number)
    table.update_state(state("phantom-5", alive=False), 200.0)
    table.update_state(state("edge-1"), 200.0)
    table.update_state(state("newcomer-1"), 200.0)
    assert {"edge-1", "newcomer-1"} <= names(table, 200.0)
    assert "phantom-0" not in names(table, 200.0)
    assert len(names(table, 200.0)) == MOST_NODES


class _Broken:
    """A model that does what no model should."""

    model, model_hash = "broken", ""
    modes = {"edge": "standalone"}  # noqa: RUF012
    quality = {}  # noqa: RUF012

    def begin(self, question, place, circumstances):
        del question, place, circumstances
        raise RuntimeError("index 7 is out of bounds")
        yield

    def words(self, tokens):
        return str(tokens)


async def test_a_model_that_fails_costs_the_task_and_nothing_else():
    worker = InferenceWorker()
    try:
        runner = LocalRunner(_Broken(), worker, cloud_line=None, slot_power_w=1.0)  # pyright: ignore[reportArgumentType]
        job = Job("car-1", TASK, 1, time.monotonic())
        for _ in range(2):
            with pytest.raises(MessageRefused) as refused:
                await asyncio.wait_for(runner.answer(job, lambda draft: None, lambda waits: None), 20)
            assert refused.value.reason == "failed"
    finally:
        worker.close()


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_cleaned_to_the_question_in_them(name):
    tokens = ControlTokens(["<image>", "</s>", "<s>"])
    assert " ".join(tokens.stripped(PROMPTS[name]).split()) == TASK.prompt


def test_a_tokenizer_without_control_tokens_still_gets_one_plain_line():
    assert ControlTokens([]).stripped("a\n\0b") == "a b"


def test_no_answer_steers_the_terminal_of_who_watches():
    evil = "\x1b[2J\x1b]0;owned\x07 [/red] [bold]"
    lines = [
        outcome_line("car-1", structs.replace(OUTCOME, text=evil)),
        result_line("car-1", "edge-1", structs.replace(RESULT, text=evil), 1e9),
    ]
    for line in lines:
        assert line.isprintable()
        assert line.count("[") == 3  # brackets are the answer's own
