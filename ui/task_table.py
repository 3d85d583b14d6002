"""The newest tasks, a line each; a click opens one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from ..bus.plain_text import plain_text
from .elements import box, column, set_rows, text
from .task_traces import TaskTrace
from .wording import NOTHING, clock, ending, judgement, milliseconds

ROWS = 50
_COLUMNS = [
    column("time", "ended"),
    column("vehicle", "vehicle"),
    column("kind", "kind"),
    column("ending", "how it ended", wraps=True),
    column("who", "answered by"),
    column("took", "took", align="right"),
    column("deadline", "deadline", align="right"),
    column("answer", "answer", wraps=True),
    column("judged", "the log says", wraps=True),
]


class TaskTable:
    """open_task: called with vehicle and task id when somebody clicks."""

    def __init__(self, open_task: Callable[[str, str], None]) -> None:
        self._open_task = open_task
        self._tasks: dict[int, tuple[str, str]] = {}
        with box("section"):
            text("Tasks", "heading")
            text(
                f"The newest {ROWS}. Click one to see who did what and when, who said each word, and why it went where"
                " it went.",
                "about",
            )
            self._empty = text("Waiting for the first task.", "empty")
            with box("tablebox tasks") as self._box:
                self._table = ui.table(columns=_COLUMNS, rows=[], row_key="number")
                self._table.props("dense flat hide-bottom").mark("tasks")
                # Of the event only what is needed comes back: the row's key.
                self._table.on("rowClick", self._clicked, [[], ["number"], []])

    def draw(self, traces: Iterable[TaskTrace], now_s: float) -> None:
        """traces: newest first."""
        shown = list(islice(traces, ROWS))
        self._tasks = {trace.number: (trace.vehicle, trace.task_id) for trace in shown}
        self._empty.set_visibility(not shown)
        self._box.set_visibility(bool(shown))
        set_rows(self._table, [task_row(trace, now_s) for trace in shown])

    def _clicked(self, event: GenericEventArguments) -> None:
        row = event.args[1] if isinstance(event.args, list) and len(event.args) > 1 else None
        number = row.get("number") if isinstance(row, dict) else None
        if number in self._tasks:
            self._open_task(*self._tasks[number])


def task_row(trace: TaskTrace, now_s: float) -> dict[str, Any]:
    """What the table says of a task; plain text in every cell."""
    outcome = trace.outcome
    row = {"number": trace.number, "vehicle": trace.vehicle, "ending": ending(trace, now_s)}
    if outcome is None:
        provisional = trace.provisional
        answer = f"for now: {plain_text(provisional.text)}" if provisional is not None else ""
        unknown = dict.fromkeys(("time", "kind", "took", "deadline"), NOTHING)
        return {**row, **unknown, "who": trace.events[-1].node, "answer": answer, "judged": ""}
    return {
        **row,
        "time": clock(outcome.created_at_s + outcome.latency_ms / 1000),
        "kind": outcome.kind,
        "who": f"{outcome.node} ({outcome.place})" if outcome.place != "vehicle" else "vehicle itself",
        "took": milliseconds(outcome.latency_ms),
        "deadline": milliseconds(outcome.deadline_ms),
        "answer": plain_text(outcome.text),
        "judged": judgement(outcome).removesuffix(", says the log"),
    }
