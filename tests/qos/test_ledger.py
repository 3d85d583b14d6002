"""What the ledger was told, it tells again; repeats are marked, and other files are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import RunError
from roadside.bus.messages import (
    Accepted,
    Candidate,
    ContextUse,
    Decision,
    EnergyMethod,
    NodeState,
    Outcome,
    Rejected,
    Result,
    Task,
    TaskState,
    Timing,
    Truth,
)
from roadside.bus.places import Place
from roadside.qos.ledger import Ledger
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.run import RunDirectory

_NAMES = {"fleet": "demo", "vehicle": "vehicle-1", "node": "edge-1"}
_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
# Labels are on one line, and times and joules neither negative nor endless.
_words = st.from_regex(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{0,20}", fullmatch=True)
_numbers = st.floats(0, 1e9)
_counts = st.integers(0, 2**53)
_verdicts = st.none() | st.booleans()
_candidates = st.builds(
    Candidate,
    *(_names, st.sampled_from(get_args(Place)), _numbers, _numbers, _numbers, _numbers, _words),
    st.lists(_numbers, max_size=4).map(tuple),
)
_outcomes = st.builds(
    Outcome,
    task_id=_names,
    state=st.sampled_from(get_args(TaskState)),
    requested=st.sampled_from(get_args(Place)),
    place=st.sampled_from(get_args(Place)),
    energy_method=st.sampled_from(get_args(EnergyMethod)),
    accepted=st.booleans(),
    attempts=_counts,
    timing=st.builds(Timing, _numbers, _numbers, _numbers),
    decision=st.none()
    | st.builds(Decision, _words, _counts, _numbers, _words, st.lists(_candidates, max_size=3).map(tuple)),
    context=st.none() | st.builds(ContextUse, _names, *[_counts] * 6, st.booleans()),
    made_by=st.lists(_words, max_size=4).map(tuple),
    truth=st.none() | st.builds(Truth, _words, _words, _verdicts, _verdicts),
    **dict.fromkeys(("kind", "reason", "text", "node", "mode", "clip"), _words),
    **dict.fromkeys(
        ("created_at_s", "deadline_ms", "latency_ms", "first_answer_ms", "network_ms", "energy_j", "moment_s"), _numbers
    ),
)


@given(outcomes=st.lists(_outcomes, max_size=5, unique_by=lambda outcome: outcome.task_id))
@settings(max_examples=40, deadline=None)
def test_outcomes_come_back_as_they_were(outcomes: list[Outcome], tmp_path_factory: pytest.TempPathFactory) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    with LedgerWriter(run) as writer:
        for number, outcome in enumerate(outcomes):
            writer.add(outcome, _NAMES, float(number))
    with Ledger.open(run) as ledger:
        recorded = ledger.outcomes()
    assert [one.outcome for one in recorded] == outcomes
    assert [one.received_at_s for one in recorded] == [float(number) for number in range(len(outcomes))]
    assert {(one.vehicle, one.repeat) for one in recorded} <= {("vehicle-1", "")}


def test_repeats_are_kept_and_marked(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(), _NAMES, 1.0)
        writer.add(an_outcome(), _NAMES, 2.0)
        writer.flush()
        writer.add(an_outcome(text="something else"), _NAMES, 3.0)
        writer.add(an_outcome(), _NAMES | {"vehicle": "vehicle-2"}, 4.0)
    # A recorder that was restarted goes on in the same file.
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(), _NAMES, 5.0)
    with Ledger.open(run) as ledger:
        assert [(one.vehicle, one.repeat) for one in ledger.outcomes()] == [
            ("vehicle-1", ""),
            ("vehicle-1", "redelivered"),
            ("vehicle-1", "contradicting"),
            ("vehicle-2", ""),
            ("vehicle-1", "redelivered"),
        ]


def test_what_waits_is_read_after_the_flush(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(), _NAMES, 1.0)
        with Ledger.open(run) as ledger:
            assert ledger.outcomes() == []
            writer.flush()
            assert len(ledger.outcomes()) == 1


def test_nodes_over_the_run(
    run: RunDirectory, a_state: Callable[..., NodeState], a_result: Callable[..., Result]
) -> None:
    load = a_result().load
    with LedgerWriter(run) as writer:
        for memory_bytes, lag_ms in ((300, 9.0), (500, 1.0), (400, 2.0)):
            writer.add(a_state(memory_bytes=memory_bytes, event_loop_lag_ms=lag_ms), {}, 1.0)
        # A last will knows nothing of the model.
        writer.add(NodeState(node="edge-1", role="edge", alive=False), {}, 2.0)
        writer.add(a_state(node="cloud-1", role="cloud", model="large"), {}, 2.0)
        writer.add(a_state(node="vehicle-1", role="vehicle", load=None), {}, 2.0)
        writer.add(NodeState(node="edge-9", role="edge", alive=False), {}, 2.0)
        writer.add(a_result(final=False), _NAMES, 3.0)
        writer.add(a_result(), _NAMES, 3.0)
        writer.add(Accepted("a", 1, load), _NAMES, 4.0)
        for reason in ("full", "deadline", "full"):
            writer.add(Rejected("b", 1, reason, 50.0, load), _NAMES, 4.0)
    with Ledger.open(run) as ledger:
        nodes = ledger.nodes()
        states = ledger.node_states()
        assert ledger.refusals() == {"full": 2, "deadline": 1}
    assert [node.node for node in nodes] == ["vehicle-1", "edge-1", "cloud-1"]
    edge = nodes[1]
    assert (edge.role, edge.model, edge.peak_memory_bytes, edge.worst_event_loop_lag_ms) == ("edge", "small", 500, 9.0)
    assert (edge.answers, edge.refusals) == (1, 3)
    assert [state.alive for state in states if state.node == "edge-1"] == [True, True, True, False]


def test_a_message_without_a_table_is_refused(run: RunDirectory) -> None:
    task = msgspec.convert(
        {"type": "Task", "task_id": "a", "attempt": 1, "kind": "explain", "prompt": "?", "frames": [b"jpeg"]}
        | {"telemetry": {}, "deadline_ms": 1.0, "remaining_ms": 1.0, "qos_floor": 0.5, "place": "edge"},
        Task,
    )
    with LedgerWriter(run) as writer, pytest.raises(TypeError, match="Task"):
        writer.add(task, _NAMES, 1.0)


def test_a_run_without_a_ledger(run: RunDirectory) -> None:
    with pytest.raises(RunError, match="no ledger"):
        Ledger.open(run)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and then nothing of the kind", b"garbage" * 1000])
def test_a_file_that_is_no_ledger(run: RunDirectory, content: bytes) -> None:
    run.ledger_path.write_bytes(content)
    with pytest.raises(RunError, match=r"ledger\.sqlite"):
        Ledger.open(run)


def test_a_ledger_with_overwritten_pages(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with LedgerWriter(run) as writer:
        for number in range(200):
            writer.add(an_outcome(task_id=f"task-{number}"), _NAMES, 1.0)
    content = run.ledger_path.read_bytes()
    page = int.from_bytes(content[16:18], "big")
    # The first page, with the header, stays whole: only reading the rows finds the damage.
    run.ledger_path.write_bytes(content[:page] + b"\xff" * (len(content) - page))
    with Ledger.open(run) as ledger, pytest.raises(RunError, match="damaged"):
        ledger.outcomes()


def test_a_ledger_of_another_schema(run: RunDirectory) -> None:
    with LedgerWriter(run):
        pass
    connection = sqlite3.connect(run.ledger_path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opening in (Ledger.open, LedgerWriter):
        with pytest.raises(RunError, match="schema 99"):
            opening(run)


def test_a_full_disk_is_told(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with LedgerWriter(run) as writer:
        connection = writer._connection
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        for number in range(1000):
            writer.add(an_outcome(task_id=f"task-{number}"), _NAMES, 1.0)
        with pytest.raises(RunError, match="free space"):
            writer.flush()
        connection.execute("PRAGMA max_page_count = 1000000")
        writer.flush()
    with Ledger.open(run) as ledger:
        assert len(ledger.outcomes()) == 1000


def test_any_sqlite_reader_understands_it(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(), _NAMES, 1.0)
    query = "SELECT place, queue_ms, decision ->> '$.candidates[1].node', action_correct FROM outcomes"
    connection = sqlite3.connect(run.ledger_path)
    row: Any = connection.execute(query).fetchone()
    connection.close()
    assert row == ("cloud", 10.0, "cloud-1", 1)
