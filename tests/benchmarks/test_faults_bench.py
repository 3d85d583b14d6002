"""What `roadside bench faults` makes of its seeds; the fleet itself is broken in tests/faults/test_fault_seeds.py."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from roadside.benchmarks.faults import _standalone_ms, recovery_by_fault, violations_in
from roadside.benchmarks.faults_traffic import Addressees, _inbox, _poisoned
from roadside.benchmarks.small_disk import SmallDisk
from roadside.bus.errors import MessageRefused
from roadside.bus.inbox import read
from roadside.qos.history import Event

BROKEN = ("lost", "duplicate_visible", "stale_shown", "wrong_context", "orphan_contexts", "begun_after_deadline")


def row(fault: str, recovery_ms: float | None, **counts: int) -> dict[str, Any]:
    fixed = {"seed": 1, "fault": fault, "created": 10, "expired_but_computed_ms": 5.0, "recovery_ms": recovery_ms}
    return {**fixed, **dict.fromkeys(BROKEN, 0), **counts}


def whole(**counts: int) -> dict[str, int]:
    ledger = dict.fromkeys(("ledger_lost", "ledger_duplicate_visible", "ledger_stale_shown"), 0)
    return {**dict.fromkeys(BROKEN, 0), **ledger, "ledger_unrecorded": 3, "created": 100, **counts}


def test_recovery_is_told_for_each_fault_over_those_that_recovered():
    rows = [row("broker-killed", 100.0), row("broker-killed", 300.0, lost=2), row("broker-killed", None)]
    (told,) = recovery_by_fault(rows)
    assert (told["seeds"], told["created"], told["violations"], told["recovered"]) == (3, 30, 2, 2)
    assert (told["recovery_ms_p50"], told["recovery_ms_p99"]) == (100.0, 300.0)


@pytest.mark.parametrize("name", BROKEN)
def test_every_breach_counts_in_a_seed_or_over_the_whole_run(name: str):
    good = {"rows": [row("reset", 1.0)], "whole": whole()}
    assert violations_in(good) == 0
    assert violations_in({**good, "rows": [row("reset", 1.0, **{name: 1})]}) == 1
    assert violations_in({**good, "whole": whole(**{name: 2})}) == 2


def test_what_the_ledger_alone_knows_counts_as_well():
    assert violations_in({"rows": [], "whole": whole(ledger_duplicate_visible=1)}) == 1


def test_going_on_alone_is_timed_from_the_cut_or_the_question_that_came_after_it():
    def asked(at_s: float, session: str, up_to: int, rollback: int = 0) -> Event:
        return Event(at_s, "edge-1", "token.wanted", {"session": session, "rollback": rollback, "up_to": up_to})

    def gone(at_s: float, session: str) -> Event:
        return Event(at_s, "edge-1", "cloud.gone", {"session": session})

    events = [
        gone(0.5, "before the cut"),
        asked(0.9, "asked before", 7),
        asked(1.2, "asked after", 5),
        asked(1.5, "asked after", 5),  # again
        gone(1.4, "asked before"),
        gone(1.7, "asked after"),
        asked(1.8, "another after a roll-back", 5),
        asked(2.1, "another after a roll-back", 5, rollback=1),
        gone(2.4, "another after a roll-back"),
    ]
    assert _standalone_ms(events, 1.0) == pytest.approx([400.0, 500.0, 300.0])


def test_poison_is_refused_wherever_it_is_sent():
    draw, everybody = random.Random(5), Addressees("f", ("v",), ("e-1", "e-2"), "c")
    for _ in range(300):
        with pytest.raises(MessageRefused):
            read(_inbox(everybody, draw), _poisoned(draw))


def test_a_filled_disk_takes_no_task_until_it_is_freed(tmp_path: Path):
    with SmallDisk(tmp_path / "disk") as disk:
        if not disk.is_there:
            pytest.skip("this user may not mount a tmpfs: nothing to fill up")
        database = tmp_path / "disk" / "journal.sqlite"
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE tasks (id TEXT)")
        disk.fill(database)
        with pytest.raises(sqlite3.OperationalError, match=r"full|I/O"):
            connection.execute("INSERT INTO tasks VALUES ('lost')")
        disk.free()
        connection.execute("INSERT INTO tasks VALUES ('kept')")
        connection.close()
    left = sqlite3.connect(database)
    assert left.execute("SELECT id FROM tasks").fetchall() == [("kept",)]
    left.close()
