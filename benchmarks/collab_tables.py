"""The bench's result as a person reads it: fewer columns, and one line for each link."""

from __future__ import annotations

from typing import Any

_ROW_COLUMNS = {
    "mode": "mode",
    "total_ms": "ms",
    "edge_ms": "edge",
    "cloud_ms": "cloud",
    "link_ms": "link",
    "kib_up": "KiB up",
    "cloud_requests": "asked",
    "token_identity": "identity",
    "task_accuracy": "right",
}
_COMPARED = ("cloud", "standalone", "ce", "ce-optimistic", "through", "auto", "auto-lossy")
_TABLE_1_COLUMNS = ("total_s", "cloud_s", "edge_s", "comm_s")


def for_a_person(result: dict[str, Any]) -> dict[str, Any]:
    """What `print_bench` shows."""
    # The goals are the ratios, with their limits.
    told_otherwise = ("cells", "ratios" if result["goals"] else "goals")
    shown = {key: value for key, value in result.items() if key not in told_otherwise}
    if result["goals"]:
        shown["goals"] = [_goal(line) for line in result["goals"]]
    return shown | {
        "rows": [_row(row) for row in result["rows"]],
        "total ms by link": _by_link([*result["rows"], *result["cells"]]),
        "table_1": [_table_1_line(line) for line in result["table_1"]],
    }


def _goal(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "value": f"{line['value']:.3f}", "met": "yes" if line["met"] else "NO"}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    known = row | {"kib_up": row["bytes_up"] / 1024}
    return {title: _short(known[key]) for key, title in _ROW_COLUMNS.items()}


def _by_link(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each link, a column for each mode that one would choose from."""
    links = dict.fromkeys(row["link"] for row in rows)
    totals = {(row["mode"], row["link"]): row["total_ms"] for row in rows}
    return [{"link": link, **{mode: _short(totals[mode, link]) for mode in _COMPARED}} for link in links]


def _table_1_line(line: dict[str, Any]) -> dict[str, Any]:
    """Ours, with the paper's in brackets where it has any. Seconds for 100 answers."""
    shown = {"data": line["data"], "strategy": line["strategy"]}
    for column in _TABLE_1_COLUMNS:
        shown[column.removesuffix("_s") + " s"] = _with_paper(line[column], line.get(f"paper_{column}"))
    shown["/ cloud"] = _with_paper(line["total / cloud"], line.get("paper_total / cloud"))
    return shown


def _with_paper(ours: float, paper: float | None) -> str:
    return _short(ours) if paper is None else f"{_short(ours)} ({_short(paper)})"


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
