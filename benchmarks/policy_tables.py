"""A measurement of the policies as a person reads it: a table per number of edges, heartbeats across."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def tables_of(result: dict[str, Any]) -> dict[str, Any]:
    """The bench's object with its long lists made short: the headline's rows, and utilities by edges and heartbeat."""
    headline = result["settings"]["headline"]
    long = ("rows", "paired", "ablations", "elsewhere", "decisions")
    tables: dict[str, Any] = {key: value for key, value in result.items() if key not in long}
    edges = sorted({row["edges"] for row in result["rows"]})
    tables["rows"] = [
        {
            "policy": row["policy"],
            "seeds": row["seeds"],
            "utility": estimate_text(row["utility"], row["utility_ci95"]),
            "in_time": f"{row['in_time_share']:.1%}",
            "right": f"{row['quality']:.1%}",
            "p50_ms": f"{row['latency_ms_p50']:.0f}",
            "p95_ms": f"{row['latency_ms_p95']:.0f}",
            "energy_j": f"{row['energy_j']:.1f}",
        }
        for row in result["rows"]
        if (row["edges"], row["heartbeat_s"]) == (headline["edges"], headline["heartbeat_s"])
    ]
    for count in edges:
        rows = sorted((row for row in result["rows"] if row["edges"] == count), key=lambda row: row["heartbeat_s"])
        tables[f"utility with {count} edges, by heartbeat"] = _across(
            rows, "utility", lambda row: f"{row['heartbeat_s']:g} s"
        )
    if result["ablations"]:
        tables["in the headline cell, against"] = [
            {
                "policy": row["policy"],
                "in_flight": row["in_flight"],
                "utility": f"{row['utility']:.3f}",
                "against": row["against"],
                "difference": _difference_text(row),
            }
            for row in result["ablations"]
        ]
    tables["utility elsewhere"] = _across(
        result["elsewhere"],
        "utility",
        lambda row: f"{row['scenario']}, {row['rate_hz']:g}/s, drift {row['drift']:g}",
    )
    tables["ms to decide, features included, by candidates"] = _across(
        result["decisions"], "decision_ms_p50", lambda row: str(row["candidates"])
    )
    return tables


def estimate_text(value: float, half_width: float | None) -> str:
    return f"{value:.3f}" if half_width is None else f"{value:.3f} ± {half_width:.3f}"


def _across(rows: list[dict[str, Any]], figure: str, column: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """A line per policy and a column for each value of `column`, in the rows' order."""
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        lines.setdefault(row["policy"], {"policy": row["policy"]})[column(row)] = f"{row[figure]:.3f}"
    return list(lines.values())


def _difference_text(row: dict[str, Any]) -> str:
    if row["lower95"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} ({row['lower95']:+.3f} to {row['upper95']:+.3f})"
