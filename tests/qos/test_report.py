"""The report's figures: each on cases small enough to count by hand, and their sums on anything that can happen."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.messages import ContextUse, NodeState, Outcome, TaskState, Truth
from roadside.qos import report
from roadside.qos.journal import Journal, JournalEntry
from roadside.qos.ledger import RecordedOutcome
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.run import RunDirectory

MakeOutcome = Callable[..., Outcome]

_NAMES = {"vehicle": "vehicle-1"}
_STATES = get_args(TaskState)


def _entry(task_id: str, state: TaskState | None, created_at_s: float = 100.0) -> JournalEntry:
    return JournalEntry("vehicle-1", task_id, "explain", 2000.0, created_at_s, state, None, 0)


def _heard(outcome: Outcome, repeat: str = "") -> RecordedOutcome:
    return RecordedOutcome("vehicle-1", 1.0, repeat, outcome)  # pyright: ignore[reportArgumentType]


def test_percentile_is_an_observed_value() -> None:
    values = [float(number) for number in range(1, 101)]
    assert report.percentile(values, 0.50) == 50
    assert report.percentile(values, 0.99) == 99
    assert report.percentile(values, 1.0) == 100
    assert report.percentile([7.0], 0.01) == 7
    assert report.percentile([], 0.5) is None


@given(values=st.lists(st.floats(0, 1e6), min_size=1), share=st.floats(0.01, 1.0))
def test_percentile_leaves_its_share_below(values: list[float], share: float) -> None:
    found = report.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_latency_of_the_answers(an_outcome: MakeOutcome) -> None:
    answers = [an_outcome(latency_ms=float(ms), first_answer_ms=ms / 2) for ms in range(1, 11)]
    assert report.latency_ms(answers) == {"p50": 5.0, "p90": 9.0, "p99": 10.0, "first_answer_p50": 2.5}


def test_in_time_are_results_before_their_deadline(an_outcome: MakeOutcome) -> None:
    outcomes = [
        an_outcome(latency_ms=2000.0, deadline_ms=2000.0),
        an_outcome(latency_ms=2000.1, deadline_ms=2000.0),
        an_outcome(state="fallback", latency_ms=1.0),
    ]
    assert report.in_time(outcomes) == 1


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["measured", "measured"], {"mean": 2.0, "method": "measured"}),
        (["measured", "modelled"], {"mean": 2.0, "method": "modelled"}),
        ([], {"mean": None, "method": "modelled"}),
    ],
)
def test_energy_is_measured_only_if_all_of_it_is(
    methods: list[str], expected: dict[str, object], an_outcome: MakeOutcome
) -> None:
    answers = [an_outcome(energy_j=1.0 + 2 * number, energy_method=method) for number, method in enumerate(methods)]
    assert report.energy_j(answers) == expected


def test_quality_counts_only_what_was_asked(an_outcome: MakeOutcome) -> None:
    verdicts = [(True, False), (None, True), (False, True), (None, None)]
    answers = [an_outcome(truth=Truth("a", "j", action, reason)) for action, reason in verdicts]
    answers.append(an_outcome(truth=None))
    assert report.qos(answers) == {"action_accuracy": 1 / 2, "justification_accuracy": 2 / 3, "n": 3}
    assert report.qos([]) == {"action_accuracy": None, "justification_accuracy": None, "n": 0}


def test_placements_are_results_where_they_were_made(an_outcome: MakeOutcome) -> None:
    outcomes = [
        an_outcome(requested="cloud", place="edge"),
        an_outcome(place="edge"),
        an_outcome(place="cloud"),
        an_outcome(state="fallback", place="vehicle"),
    ]
    assert report.placements(outcomes) == {"vehicle": 0, "edge": 2, "edge+cloud": 0, "cloud": 1}


def test_context_counts_tokens_of_edge_and_cloud_together(an_outcome: MakeOutcome) -> None:
    use = ContextUse("cloud-1", 41, 192, payload_bytes_up=41 * 384, bytes_up=20_000, cloud_requests=1)
    cut = ContextUse("cloud-1", 50, 192, 50 * 384, 30_000, cloud_requests=2, resent_positions=3, ended_alone=True)
    outcomes = [
        an_outcome(place="edge+cloud", made_by=("exit1", "full", "exit2", "exit1"), context=use),
        an_outcome(place="edge+cloud", made_by=("exit1", "exit2", "exit2", "exit1"), context=cut),
        an_outcome(place="cloud", made_by=("full", "full")),
        an_outcome(place="edge+cloud", state="expired", context=use),
    ]
    assert report.context(outcomes) == {
        "answers": 2,
        "tokens": 8,
        "cloud_token_share": 0.125,
        "cloud_requests": 3,
        "positions": 91,
        "hidden_size": 192,
        "payload_bytes_up": 91 * 192 * 2,
        "bytes_up": 50_000,
        "resent_positions": 3,
        "ended_alone": 1,
    }
    wider = an_outcome(place="edge+cloud", context=ContextUse("cloud-1", 1, 256, 512, 600, 0))
    assert report.context([*outcomes, wider])["hidden_size"] is None


def test_the_journal_knows_better_than_the_ledger(an_outcome: MakeOutcome) -> None:
    counts = report.count_tasks([_entry("a", "expired")], [_heard(an_outcome(task_id="a", state="result"))])
    assert (counts["expired"], counts["result"], counts["created"]) == (1, 0, 1)


def test_a_vehicle_whose_journal_is_elsewhere_counts(an_outcome: MakeOutcome) -> None:
    counts = report.count_tasks([], [_heard(an_outcome(task_id="a", state="fallback"))])
    assert (counts["created"], counts["fallback"], counts["unrecorded"]) == (1, 1, 0)


def test_an_ending_that_the_ledger_missed_is_not_lost() -> None:
    counts = report.count_tasks([_entry("a", "result"), _entry("b", None)], [])
    assert (counts["created"], counts["result"], counts["lost"], counts["unrecorded"]) == (2, 1, 1, 1)


def test_a_second_different_answer_is_a_visible_duplicate(an_outcome: MakeOutcome) -> None:
    first, second = an_outcome(task_id="a"), an_outcome(task_id="a", state="fallback")
    unseen = an_outcome(task_id="a", state="expired")
    for repeats, duplicates in (
        ([_heard(first, "redelivered")], 0),
        ([_heard(second, "contradicting")], 1),
        ([_heard(second, "contradicting"), _heard(second, "contradicting")], 2),
        ([_heard(unseen, "contradicting")], 0),
    ):
        counts = report.count_tasks([_entry("a", "result")], [_heard(first), *repeats])
        assert (counts["duplicate_visible"], counts["created"], counts["result"]) == (duplicates, 1, 1)


def test_a_late_result_is_stale(an_outcome: MakeOutcome) -> None:
    heard = [
        _heard(an_outcome(task_id="a", latency_ms=2001.0)),
        _heard(an_outcome(task_id="b", latency_ms=1999.0)),
    ]
    assert report.count_tasks([], heard)["stale_shown"] == 1


def test_while_a_run_goes_on_a_task_is_open_until_its_time_is_over() -> None:
    journal = [_entry("old", None, created_at_s=100.0), _entry("new", None, created_at_s=200.0)]
    during = report.count_tasks(journal, [], still_running_at_s=201.0)
    assert (during["open"], during["lost"], during["created"]) == (1, 1, 2)
    after = report.count_tasks(journal, [])
    assert (after["open"], after["lost"], after["created"]) == (0, 2, 2)


@dataclass(frozen=True)
class Fate:
    """What may become of one task: `state` None is a task that nothing ever ended."""

    state: TaskState | None
    journalled: bool
    recorded: bool
    redelivered: int
    contradicted_by: tuple[TaskState, ...]
    accepted: bool
    late: bool


_fates = st.builds(
    Fate,
    state=st.none() | st.sampled_from(_STATES),
    journalled=st.booleans(),
    recorded=st.booleans(),
    redelivered=st.integers(0, 2),
    contradicted_by=st.lists(st.sampled_from(_STATES), max_size=2).map(tuple),
    accepted=st.booleans(),
    late=st.booleans(),
)


@given(fates=st.lists(_fates, max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_counts_add_up_whatever_happens(
    fates: list[Fate], an_outcome: MakeOutcome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("run"), configuration={}, seed=0, argv=[])
    with Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal, LedgerWriter(run) as writer:
        for number, fate in enumerate(fates):
            _live(fate, f"task-{number}", journal, writer, an_outcome)
    run.finish()
    summary = report.summarise(run)
    tasks = summary["tasks"]

    heard = [fate for fate in fates if fate.state and fate.recorded]
    known = [fate for fate in fates if fate.journalled or fate in heard]
    ends = Counter(fate.state if fate.state else "lost" for fate in known)
    assert tasks["created"] == len(known)
    assert {state: tasks[state] for state in (*_STATES, "lost")} == {state: ends[state] for state in (*_STATES, "lost")}
    assert tasks["created"] == sum(tasks[state] for state in (*_STATES, "lost"))
    assert tasks["open"] == 0
    assert tasks["accepted"] == sum(fate.accepted for fate in heard)
    assert tasks["unrecorded"] == sum(
        fate.journalled and fate.state is not None and not fate.recorded for fate in fates
    )
    assert tasks["stale_shown"] == sum(fate.late and fate.state == "result" for fate in heard)
    assert tasks["duplicate_visible"] == sum(_answers_too_many(fate) for fate in heard)
    in_time = sum(fate.state == "result" and not fate.late for fate in heard)
    assert summary["in_time_share"] == pytest.approx(in_time / len(known) if known else 0.0)
    assert sum(summary["placements"].values()) == sum(fate.state == "result" for fate in heard)


def _live(fate: Fate, task_id: str, journal: Journal, writer: LedgerWriter, an_outcome: MakeOutcome) -> None:
    if fate.journalled:
        journal.created(task_id, "explain", 2000.0)
        if fate.state:
            journal.ended(an_outcome(task_id=task_id, state=fate.state))
    if not (fate.state and fate.recorded):
        return
    latency_ms = 2500.0 if fate.late else 100.0
    outcome = an_outcome(task_id=task_id, state=fate.state, accepted=fate.accepted, latency_ms=latency_ms)
    for _ in range(1 + fate.redelivered):
        writer.add(outcome, _NAMES, 1.0)
    for number, state in enumerate(fate.contradicted_by):
        writer.add(an_outcome(task_id=task_id, state=state, text=f"contradiction {number}"), _NAMES, 1.0)


def _answers_too_many(fate: Fate) -> int:
    shown = sum(state in ("result", "fallback") for state in (fate.state, *fate.contradicted_by))
    return max(0, shown - 1)


_KEYS = {
    "run": None,
    "broker": None,
    "duration_s": None,
    "tasks": {
        "created", "accepted", "result", "fallback", "expired", "rejected", "lost", "duplicate_visible", "stale_shown",
    },
    "latency_ms": {"p50", "p90", "p99", "first_answer_p50"},
    "in_time_share": None,
    "energy_j": {"mean", "method"},
    "qos": {"action_accuracy", "justification_accuracy", "n"},
    "placements": {"vehicle", "edge", "edge+cloud", "cloud"},
    "context": {
        "bytes_up", "payload_bytes_up", "positions", "hidden_size", "cloud_requests", "tokens", "cloud_token_share",
    },
    "overload": {
        "refused", "displaced", "expired_in_queue", "expired_work_ms", "late_answers", "frames_dropped",
        "messages_dropped", "messages_overflowed", "messages_unsent",
    },
    "damage": None,
}  # fmt: skip


@pytest.mark.parametrize("tasks", [0, 3])
def test_all_keys_are_there_even_of_an_empty_run(run: RunDirectory, tasks: int, an_outcome: MakeOutcome) -> None:
    run.note_broker("amqtt")
    with LedgerWriter(run) as writer:
        for number in range(tasks):
            writer.add(an_outcome(task_id=f"task-{number}"), _NAMES, 1.0)
    run.finish()
    summary = report.summarise(run)
    run.write_report(summary)
    assert json.loads(run.report_path.read_text()) == summary
    assert summary.keys() == _KEYS.keys()
    for key, inner in _KEYS.items():
        if inner is not None:
            assert summary[key].keys() >= inner
    assert summary["run"] == str(run.path)
    assert summary["broker"] == "amqtt"


def test_counters_are_those_of_every_life_of_every_process(
    run: RunDirectory, a_state: Callable[..., NodeState]
) -> None:
    with LedgerWriter(run) as writer:
        for node, uptime_s, counters in (
            ("edge-1", 10.0, {"expired_work_ms": 30, "overflow.task": 2}),
            ("edge-1", 20.0, {"expired_work_ms": 40, "overflow.task": 2}),
            ("edge-2", 20.0, {"expired_work_ms": 100}),
            ("edge-1", 1.0, {"expired_work_ms": 5}),
            ("vehicle-1", 5.0, {"frames_dropped": 7, "dropped.node-state": 3, "unsent.task": 1}),
        ):
            writer.add(a_state(node=node, uptime_s=uptime_s, counters=counters), {}, 1.0)
        writer.add(NodeState(node="edge-2", role="edge", alive=False), {}, 2.0)
    run.finish()
    found = report.summarise(run)["overload"]
    assert found["expired_work_ms"] == 40 + 100 + 5
    assert (found["messages_overflowed"], found["messages_dropped"], found["messages_unsent"]) == (2, 3, 1)
    assert (found["frames_dropped"], found["displaced"]) == (7, 0)


def test_duration_is_that_of_the_run(run: RunDirectory) -> None:
    with LedgerWriter(run):
        pass
    run.finish()
    manifest = run.read_manifest()
    assert manifest.ended_at is not None
    expected_s = (manifest.ended_at - manifest.started_at).total_seconds()
    assert report.summarise(run)["duration_s"] == pytest.approx(expected_s, abs=1e-3)


def test_a_run_that_is_still_being_written(run: RunDirectory, an_outcome: MakeOutcome) -> None:
    with Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal, LedgerWriter(run) as writer:
        for number in range(1, 4):
            journal.created(f"task-{number}", "explain", 600_000.0)
            tasks = report.summarise(run)["tasks"]
            assert (tasks["created"], tasks["open"], tasks["lost"]) == (number, 1, 0)
            journal.ended(an_outcome(task_id=f"task-{number}"))
            assert report.summarise(run)["tasks"]["unrecorded"] == 1
            writer.add(an_outcome(task_id=f"task-{number}", created_at_s=time.time()), _NAMES, 1.0)
            writer.flush()
            tasks = report.summarise(run)["tasks"]
            assert (tasks["result"], tasks["open"], tasks["unrecorded"]) == (number, 0, 0)


def test_a_damaged_journal_is_named(run: RunDirectory) -> None:
    with LedgerWriter(run):
        pass
    run.journal_path("vehicle-1").write_bytes(b"broken" * 500)
    (damage,) = report.summarise(run)["damage"]
    assert "vehicle-1.sqlite" in damage
