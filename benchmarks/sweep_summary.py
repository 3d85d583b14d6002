"""What a sweep found: for each combination of settings the means over its seeds, with 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..demo import DemoOptions
from ..qos.intervals import Estimate, mean_95
from .sweep import SweepResult
from .sweep_plan import SweepPlan
from .sweep_table import DONE, FAILED, SweepTable

# The columns of the table that a person looks at first, with a heading and how to write a value.
FIGURES = {
    "in_time_share": ("in time", "{:.3f}"),
    "latency_ms_p50": ("p50 ms", "{:.0f}"),
    "latency_ms_p90": ("p90 ms", "{:.0f}"),
    "qos_action_accuracy": ("action right", "{:.3f}"),
    "qos_justification_accuracy": ("reason right", "{:.3f}"),
    "energy_j_mean": ("energy J", "{:.2f}"),
}
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed alone. settings: those in which the groups differ.

    seeds: how many runs were done; failed: how many were not; lost: tasks, in all of them. figures: by column of the
    table, over the runs that have a value there.
    """

    settings: dict[str, Any]
    seeds: int
    failed: int
    lost: int
    figures: dict[str, Estimate | None]


def groups_of(plan: SweepPlan, table: SweepTable) -> list[Group]:
    """The groups in the order of the plan, also those of which no run is done yet."""
    rows: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for options in plan.runs:
        members = rows.setdefault(_values(options, plan), [])
        if (row := table.row_of(options)) is not None:
            members.append(row)
    return [_group(dict(zip(plan.varied, values, strict=True)), members) for values, members in rows.items()]


def summary_of(result: SweepResult, plot: Path | None) -> dict[str, Any]:
    """The object that `roadside sweep --json` prints."""
    groups = groups_of(result.plan, result.table)
    return {
        "csv": str(result.table.path),
        "plot": None if plot is None else str(plot),
        "runs": result.runs,
        "groups": [
            {
                "settings": {name: _plain(value) for name, value in group.settings.items()},
                "seeds": group.seeds,
                "failed": group.failed,
                "lost": group.lost,
                "figures": {
                    name: None if figure is None else {"mean": figure.value, "ci95": figure.half_width}
                    for name, figure in group.figures.items()
                },
            }
            for group in groups
        ],
    }


def summary_table(groups: list[Group]) -> Table:
    """The same for a person: mean ± half of the 95% interval."""
    table = Table(title="Means over the seeds, with 95% intervals", title_justify="left", box=None, pad_edge=False)
    names = list(groups[0].settings)
    for name in names:
        table.add_column(name.replace("_", " "))
    for heading in ("seeds", "failed", "lost", *(heading for heading, _ in FIGURES.values())):
        table.add_column(heading, justify="right")
    for group in groups:
        settings = (_NOTHING if group.settings[name] is None else str(group.settings[name]) for name in names)
        counts = (str(count) for count in (group.seeds, group.failed, group.lost))
        figures = (_written(group.figures[name], form) for name, (_, form) in FIGURES.items())
        table.add_row(*settings, *counts, *figures)
    return table


def _values(options: DemoOptions, plan: SweepPlan) -> tuple[Any, ...]:
    return tuple(getattr(options, name) for name in plan.varied)


def _group(settings: dict[str, Any], rows: list[dict[str, str]]) -> Group:
    done = [row for row in rows if row["status"] == DONE]
    return Group(
        settings=settings,
        seeds=len(done),
        failed=sum(row["status"] == FAILED for row in rows),
        lost=sum(int(row["tasks_lost"]) for row in done),
        figures={name: mean_95([float(row[name]) for row in done if row.get(name)]) for name in FIGURES},
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _written(figure: Estimate | None, form: str) -> str:
    if figure is None:
        return _NOTHING
    if figure.half_width is None:
        return form.format(figure.value)
    return f"{form.format(figure.value)} ± {form.format(figure.half_width)}"
