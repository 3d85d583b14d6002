"""The table at the end of a run, read as text."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console
from roadside.bus.messages import NodeState, Outcome, Rejected, Result, Timing, Truth
from roadside.qos.journal import Journal
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory
from roadside.qos.tables import render

_NAMES = {"vehicle": "vehicle-1", "node": "edge-1"}


def _text(run: RunDirectory, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render(run, summarise(run)))
    return console.export_text()


@pytest.fixture
def finished_run(
    run: RunDirectory,
    an_outcome: Callable[..., Outcome],
    a_state: Callable[..., NodeState],
    a_result: Callable[..., Result],
) -> RunDirectory:
    """Six answers of the edge, two of the cloud, one fallback, and one refusal."""
    edge = {"place": "edge", "node": "edge-1", "latency_ms": 321.0, "timing": Timing(queue_ms=7.0, inference_ms=205.0)}
    wrong = Truth("the car stops", "because a pedestrian crosses .", True, False)
    with LedgerWriter(run) as writer:
        for number in range(6):
            writer.add(an_outcome(task_id=f"edge-{number}", **edge), _NAMES, 1.0)
        writer.add(an_outcome(task_id="cloud-0"), _NAMES, 1.0)
        writer.add(an_outcome(task_id="cloud-1", truth=wrong), _NAMES, 1.0)
        writer.add(
            an_outcome(task_id="late", state="fallback", reason="no answer in time", place="vehicle", truth=None),
            _NAMES,
            1.0,
        )
        counters = {"displaced": 3, "expired_work_ms": 817, "dropped.frame": 5, "dropped.task": 6}
        writer.add(a_state(memory_bytes=432_000_000, counters=counters), _NAMES, 1.0)
        writer.add(Rejected("late", 1, "cannot make the deadline", 50.0, a_result().load), _NAMES, 1.0)
    run.finish()
    return run


@pytest.mark.parametrize("width", [80, 100, 160])
def test_it_fits_the_terminal_and_cuts_nothing(finished_run: RunDirectory, width: int) -> None:
    text = _text(finished_run, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_a_row_per_place(finished_run: RunDirectory) -> None:
    rows = {line.split()[0]: line.split() for line in _text(finished_run, 100).splitlines() if line.strip()}
    assert rows["edge"] == ["edge", "6", "321", "321", "7", "205", "0", "12", "100%", "100%", "1.50"]
    assert rows["cloud"] == ["cloud", "2", "84", "84", "10", "60", "0", "12", "100%", "50%", "1.50"]
    assert rows["fallback"][:2] == ["fallback", "1"]


def test_totals_causes_examples_and_path(finished_run: RunDirectory) -> None:
    text = _text(finished_run, 400)
    for part in (
        "9 tasks: 8 answered in time (89%), 1 by the vehicle's narrator instead (fallback)",
        "100% name the right action and 88% name the right reason",
        "no answer in time",
        "cannot make the deadline",
        "because a pedestrian crosses .",
        "action right, reason wrong",
        "432",
    ):
        assert part in text
    assert str(finished_run.path) in text


def test_what_the_fleet_did_about_overload(finished_run: RunDirectory) -> None:
    lines = [line.split() for line in _text(finished_run, 100).splitlines()]
    for row in ("attempt put out of a node's line 3", "ms computed in vain 817", "message dropped 11"):
        assert any(line[: len(row.split())] == row.split() for line in lines), row
    assert not any(line[:3] == ["camera", "frame", "dropped"] for line in lines), "of which there was none"


def test_what_must_never_happen_is_not_hidden(run: RunDirectory, an_outcome: Callable[..., Outcome]) -> None:
    with Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal, LedgerWriter(run) as writer:
        journal.created("lost", "explain", 2000.0)
        writer.add(an_outcome(task_id="stale", latency_ms=3000.0), _NAMES, 1.0)
    run.finish()
    text = _text(run, 100)
    assert "1 task without any ending" in text
    assert "1 task shown after the deadline" in text
    assert "shown twice" not in text


def test_a_run_in_which_nothing_happened(run: RunDirectory) -> None:
    with LedgerWriter(run):
        pass
    run.finish()
    text = _text(run, 100)
    assert "0 tasks" in text
    assert "Where the answers were made" not in text


def test_the_summary_needs_neither_models_nor_network() -> None:
    script = "import sys, roadside.qos.report; sys.exit(bool({'torch', 'aiomqtt'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 0
