"""The table of a sweep: one CSV row per run, with its settings and every figure of its summary."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bus.errors import RunError
from ..demo import DemoOptions
from .sweep_plan import SETTINGS, settings_of

DONE, FAILED = "done", "failed"
# Both a setting and a figure have these names.
_RENAMED = {"duration_s": "run_duration_s", "broker": "broker_kind"}


class SweepTable:
    """A CSV file, read where it is there already, and written as a whole after each change.

    Whoever reads meanwhile, or after the sweep was killed, finds a valid file. Raises RunError where it cannot be read
    as a sweep's, or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[str, ...], dict[str, str]] = {}
        if path.exists():
            self._read()

    def row_of(self, options: DemoOptions) -> dict[str, str] | None:
        """The row of a run with just these settings, all of it text; None where there is none."""
        return self._rows.get(_key(_texts(settings_of(options))))

    def put(
        self, options: DemoOptions, *, status: str, error: str, run: Path, wall_s: float, summary: Mapping[str, Any]
    ) -> None:
        """Write the row of a run, in place of the one that it has.

        wall_s: of the whole run, with starting and stopping its processes. summary: as `roadside demo --json` prints
        it; empty for a run that failed.
        """
        circumstances = {"status": status, "error": error, "wall_s": round(wall_s, 2), "run": run}
        figures = {_RENAMED.get(name, name): value for name, value in summary.items() if name != "run"}
        row = _texts(settings_of(options) | circumstances | _flat(figures))
        self._rows[_key(row)] = row
        self._write()

    def _read(self) -> None:
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, strict=True))
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            raise RunError(f"cannot read {self.path} ({error}): give another --out, or move it away") from None
        if any("status" not in row or None in row or None in row.values() for row in rows):
            raise RunError(f"{self.path} is not the table of a sweep: give another --out, or move it away")
        # A setting that is younger than the table had its default.
        defaults = _texts(settings_of(DemoOptions()))
        self._rows = {_key(defaults | row): defaults | row for row in rows}

    def _write(self) -> None:
        columns = list(dict.fromkeys(column for row in self._rows.values() for column in row))
        # Settings come first, also those that are younger than the table.
        columns.sort(key=lambda column: column not in SETTINGS)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(self._rows.values())
            draft.replace(self.path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise RunError(f"cannot write {self.path} ({error.strerror}): free space, or give another --out") from error


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in SETTINGS)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"latency_ms": {"p50": 1}}` becomes `{"latency_ms_p50": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        flat |= _flat(value, f"{prefix}{name}_") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
