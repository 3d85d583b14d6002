"""The checker of the contract: it passes good histories, and finds every single thing that is changed in one.

A good history is drawn (tasks that end in every way, sessions that cut back and send again), and a forged one is a good
one with one change.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.context_digest import digest, digest_of_sequence
from roadside.qos.contract import check
from roadside.qos.history import Event
from roadside.qos.journal import JournalEntry

DEADLINE_MS = 700.0
TTL_S = 1.0
VEHICLE, EDGE, OTHER_EDGE, CLOUD = "vehicle-1", "edge-1", "edge-2", "cloud-1"


@dataclass
class Run:
    """What a fleet wrote down. end_s: when it had long been quiet."""

    events: list[Event] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)
    end_s: float = 0.0

    def note(self, at_s: float, process: str, name: str, **fields: Any) -> None:
        self.events.append(Event(at_s, process, name, fields))

    def violations(self) -> list[str]:
        events = sorted(self.events, key=lambda event: event.at_s)
        return [violation.kind for violation in check(events, self.journal, until_s=self.end_s).violations]

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def change(self, event: Event, *, at_s: float | None = None, **fields: Any) -> None:
        changed = Event(event.at_s if at_s is None else at_s, event.process, event.name, {**event.fields, **fields})
        self.events[self.events.index(event)] = changed


ENDINGS = ("answered", "provisional stands", "moved", "fallback", "own", "expired")


def add_task(run: Run, number: int, created_s: float, how: str) -> None:
    task = f"vehicle-1-{number}"
    deadline_s = created_s + DEADLINE_MS / 1000
    state, shown = "result", True
    run.note(created_s + 0.002, VEHICLE, "task.created", task=task, created_s=created_s, deadline_ms=DEADLINE_MS)
    if how in ("answered", "provisional stands", "moved"):
        nodes = [OTHER_EDGE, EDGE] if how == "moved" else [EDGE]
        for attempt, node in enumerate(nodes, start=1):
            sent_s = created_s + 0.01 + 0.05 * attempt
            mine = {"vehicle": VEHICLE, "task": task, "attempt": attempt}
            run.note(sent_s, VEHICLE, "task.sent", task=task, attempt=attempt, node=node)
            run.note(sent_s + 0.01, node, "task.received", **mine, remaining_ms=600.0)
            run.note(sent_s + 0.02, node, "computing.began", **mine, deadline_s=deadline_s)
            run.note(sent_s + 0.1, node, "job.ended", **mine, answered=True)
        if how == "provisional stands":
            run.note(created_s + 0.3, VEHICLE, "provisional.shown", task=task, node=EDGE)
            ended_s, reason = deadline_s - 0.02, how
        else:
            ended_s, reason = created_s + 0.3, ""
    elif how == "own":
        ended_s, reason = created_s + 0.003, ""
    elif how == "fallback":
        ended_s, reason, state = deadline_s - 0.02, "no answer in time", "fallback"
    else:
        ended_s, reason, state, shown = deadline_s + 3.0, "", "expired", False
    run.note(ended_s, VEHICLE, "task.ended", task=task, state=state, reason=reason, shown=shown, node=EDGE)
    entry = JournalEntry(
        vehicle=VEHICLE,
        task_id=task,
        kind="hazard",
        deadline_ms=DEADLINE_MS,
        created_at_s=1e9 + created_s,
        state=state,  # pyright: ignore[reportArgumentType]
        ended_at_s=1e9 + ended_s,
        refused_endings=0,
    )
    run.journal.append(entry)
    run.end_s = max(run.end_s, ended_s, deadline_s + 2.5)


def add_session(run: Run, number: int, at_s: float, positions: list[int], kept_share: float) -> None:
    """An edge sends `positions` pieces, asks behind each, and once cuts back and goes on otherwise."""
    session, draw = f"lease.{number}", random.Random(number)
    run.note(at_s, CLOUD, "context.opened", edge=EDGE, session=session, ttl_s=TTL_S)
    sequence: list[bytes] = []
    kept = 0
    for rollback in (0, 1):
        for count in positions:
            new = [digest(draw.randbytes(8)) for _ in range(count)]
            here = {"session": session, "rollback": rollback}
            at_s += 0.01
            digests = [each.hex() for each in new]
            run.note(at_s, EDGE, "context.sent", **here, kept=kept, position=len(sequence), digests=digests)
            run.note(at_s + 0.001, CLOUD, "context.stored", edge=EDGE, **here, taken="new")
            sequence += new
            run.note(at_s + 0.002, CLOUD, "token.asked", edge=EDGE, **here, up_to=len(sequence))
            said = {"up_to": len(sequence), "tokens": [7], "ran_on": [digest_of_sequence(sequence)]}
            run.note(at_s + 0.005, CLOUD, "token.said", edge=EDGE, **here, **said, generating=False)
        kept = int(len(sequence) * kept_share)
        sequence = sequence[:kept]
    run.note(at_s + 0.01, CLOUD, "context.freed", edge=EDGE, session=session, why="closed")
    run.end_s = max(run.end_s, at_s + 10.0)


@st.composite
def good_runs(draw: st.DrawFn) -> Run:
    run = Run()
    moments = st.floats(0.0, 20.0, allow_nan=False)
    endings = draw(st.lists(st.sampled_from(ENDINGS), min_size=1, max_size=6))
    # At least one that a node answers: some forgeries need it.
    for number, how in enumerate(["answered", *endings]):
        add_task(run, number, draw(moments), how)
    for number in range(draw(st.integers(1, 3))):
        pieces = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        add_session(run, number, draw(moments), pieces, draw(st.floats(0.0, 1.0)))
    return run


def lose(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    entry = pick(run.journal)
    run.journal[run.journal.index(entry)] = replaced(entry, state=None)
    run.events = [e for e in run.events if not (e.name == "task.ended" and e.fields["task"] == entry.task_id)]


def unjournal(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    run.journal.remove(pick(run.journal))


def end_otherwise(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    ended = pick(run.named("task.ended"))
    run.note(ended.at_s + 0.001, VEHICLE, "task.ended", **{**ended.fields, "state": "rejected", "shown": False})


def show_twice(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    shown = pick([event for event in run.named("task.ended") if event.fields["shown"]])
    run.note(shown.at_s + 0.001, VEHICLE, "task.ended", **shown.fields)


def show_late(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    shown = [e for e in run.named("task.ended") if e.fields["shown"] and e.fields["reason"] != "provisional stands"]
    ended = pick(shown)
    run.change(ended, at_s=ended.at_s + DEADLINE_MS / 1000 + 0.7)


def show_provisional_late(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    created = pick(run.named("task.created"))
    run.note(
        created.at_s + DEADLINE_MS / 1000 + 0.2, VEHICLE, "provisional.shown", task=created.fields["task"], node=EDGE
    )


def compute_on_others(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    run.change(pick(run.named("token.said")), ran_on=[digest_of_sequence([b"somebody else's"])])


def compute_on_a_gap(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    first = [event for event in run.named("context.sent") if event.fields["rollback"] == 0]
    run.events.remove(pick(first))


def tell_another_edge(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    run.change(pick(run.named("token.said")), edge=OTHER_EDGE)


def compute_before_the_rollback(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    """A token after the roll-back that ran on what had been cut off."""
    said = pick([event for event in run.named("token.said") if event.fields["rollback"] == 1])
    run.change(said, ran_on=[digest_of_sequence([b"cut off"] * said.fields["up_to"])])


def keep_for_ever(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    run.events.remove(pick(run.named("context.freed")))


def free_late(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    freed = pick(run.named("context.freed"))
    run.change(freed, at_s=freed.at_s + 8 * TTL_S)


def begin_late(run: Run, pick: Callable[[list[Any]], Any]) -> None:
    began = pick(run.named("computing.began"))
    run.change(began, deadline_s=began.at_s - 0.1)


def replaced(entry: JournalEntry, **changes: Any) -> JournalEntry:
    values = {name: getattr(entry, name) for name in JournalEntry.__struct_fields__}
    return JournalEntry(**{**values, **changes})


FORGERIES = {
    lose: "lost",
    unjournal: "unjournalled",
    end_otherwise: "two-endings",
    show_twice: "duplicate-visible",
    show_late: "stale-shown",
    show_provisional_late: "stale-shown",
    compute_on_others: "wrong-context",
    compute_on_a_gap: "wrong-context",
    tell_another_edge: "wrong-context",
    compute_before_the_rollback: "wrong-context",
    keep_for_ever: "orphan-context",
    free_late: "orphan-context",
    begin_late: "expired-computed",
}


@given(good_runs())
@settings(deadline=None)
def test_a_good_history_passes(run: Run):
    assert run.violations() == []


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
@given(run=good_runs(), number=st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_one_change_is_found(forge: Callable[..., None], run: Run, number: int):
    forge(run, lambda choices: choices[number % len(choices)])
    assert FORGERIES[forge] in run.violations()


def good_run() -> Run:
    run = Run()
    add_task(run, 1, 1.0, "answered")
    add_session(run, 1, 1.0, [3, 1], 0.5)
    return run


def test_without_journals_the_history_alone_says_how_tasks_ended():
    run = good_run()
    assert check(run.events, None, until_s=run.end_s).violations == []
    run.events.remove(run.named("task.ended")[0])
    assert check(run.events, None, until_s=run.end_s).count("lost") == 1


def test_a_task_is_not_lost_while_it_may_still_end():
    run = good_run()
    created = run.named("task.created")[0]
    lose(run, lambda choices: choices[0])
    assert check(run.events, run.journal, until_s=created.at_s + 1.0).violations == []


def test_a_task_that_only_the_journal_knows_is_lost_where_it_is_open():
    run = good_run()
    run.journal.append(replaced(run.journal[0], task_id="killed-at-once", state=None))
    assert check(run.events, run.journal, until_s=run.end_s).count("lost") == 1


def test_what_was_cut_off_by_a_kill_is_no_orphan():
    run = good_run()
    freed = run.named("context.freed")[0]
    run.events.remove(freed)
    run.note(freed.at_s, "harness", "process.killed", target=CLOUD)
    assert run.violations() == []


def test_a_cloud_that_stood_still_may_free_that_much_later():
    run = good_run()
    freed = run.named("context.freed")[0]
    run.change(freed, at_s=freed.at_s + 8.0)
    assert run.violations() == ["orphan-context"]
    run.note(freed.at_s, "harness", "process.stopped", target=CLOUD)
    run.note(freed.at_s + 7.0, "harness", "process.continued", target=CLOUD)
    assert run.violations() == []


def test_computing_for_nobody_is_told_in_milliseconds_without_the_time_of_standing_still():
    run = good_run()
    ended = run.named("job.ended")[0]
    deadline_s = 1.0 + DEADLINE_MS / 1000
    run.change(ended, at_s=deadline_s + 0.5)
    run.note(deadline_s + 0.1, "harness", "process.stopped", target=EDGE)
    run.note(deadline_s + 0.3, "harness", "process.continued", target=EDGE)
    events = sorted(run.events, key=lambda event: event.at_s)
    findings = check(events, run.journal, until_s=run.end_s)
    assert findings.violations == []
    assert findings.computed_in_vain_ms == pytest.approx(300.0)


def test_a_generating_cloud_goes_on_with_its_own_tokens():
    run, sequence = Run(end_s=20.0), [digest(b"prompt")] * 3
    fixed = {"session": "lease.1", "rollback": 0}
    run.note(1.0, CLOUD, "context.opened", edge=EDGE, session="lease.1", ttl_s=TTL_S)
    run.note(1.0, EDGE, "context.sent", **fixed, kept=0, position=0, digests=[each.hex() for each in sequence])
    for token in (5, 6):
        said = {"up_to": len(sequence), "tokens": [token], "ran_on": [digest_of_sequence(sequence)]}
        run.note(1.1, CLOUD, "token.said", edge=EDGE, **fixed, **said, generating=True)
        sequence.append(digest(b"token %d" % token))
    run.note(1.2, CLOUD, "context.freed", edge=EDGE, session="lease.1", why="closed")
    assert run.violations() == []


def test_a_part_of_a_history_is_judged_by_what_falls_into_it():
    run = good_run()
    show_late(run, lambda choices: choices[0])
    assert check(run.events, run.journal, since_s=5.0, until_s=run.end_s).created == 0
    assert check(run.events, run.journal, since_s=5.0, until_s=run.end_s).violations == []
    assert check(run.events, run.journal, since_s=0.5, until_s=run.end_s).count("stale-shown") == 1


def test_a_violation_says_what_happened_and_brings_its_history():
    run = good_run()
    show_twice(run, lambda choices: choices[0])
    (violation,) = [each for each in check(run.events, run.journal).violations if each.kind == "duplicate-visible"]
    assert str(violation) == "duplicate-visible: vehicle-1/vehicle-1-1: 2 answers became visible"
    assert {event.name for event in violation.events} >= {"task.created", "task.sent", "computing.began", "task.ended"}
