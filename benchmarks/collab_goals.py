"""What collaborative decoding has to reach, as ratios within one run, each with its limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from .collab_cells import HEADLINE, Cell, CellResults
from .collab_rows import mean

FAST, USUAL, FAR, SLOW = "300Mbps,5ms", HEADLINE, "100Mbps,50ms", "10Mbps,50ms"

# Of one mode's mean time over another's, in a cell.
_TIME_LIMITS = (
    ("ce-half", "cloud", FAST, 0.95),
    ("ce-optimistic", "ce", USUAL, 0.80),
    ("ce-optimistic", "ce", FAR, 0.73),
    ("through", "cloud", USUAL, 0.68),
    ("through", "cloud", FAR, 0.78),
    ("through", "cloud", SLOW, 0.82),
    ("through", "ce", USUAL, 1.05),
    ("through", "ce", FAR, 1.00),
    ("through", "ce", SLOW, 0.72),
)
_CLOUD_COMPUTE_LIMIT = 0.35
_AUTO_LIMIT = 1.05

Sense = Literal["at most", "at least"]


def goal(name: str, value: float, sense: Sense, limit: float) -> dict[str, Any]:
    """One line of the table of goals."""
    met = value <= limit if sense == "at most" else value >= limit
    return {"name": name, "value": value, "goal": f"{sense} {limit:g}", "met": met}


def time_goals(cells: Mapping[str, CellResults]) -> list[dict[str, Any]]:
    """How long modes take beside others, in the cells that the goals speak of. cells: by link."""
    return [
        goal(f"{mode} / {other} at {link}", time_ratio(cells[link], mode, other), "at most", limit)
        for mode, other, link, limit in _TIME_LIMITS
        if link in cells
    ]


def compute_goal(results: CellResults) -> dict[str, Any]:
    """How much of the cloud's computing `ce` leaves to it."""
    share = mean(results["ce"], "cloud_ms") / mean(results["cloud"], "cloud_ms")
    return goal("cloud compute of ce / cloud", share, "at most", _CLOUD_COMPUTE_LIMIT)


def auto_goals(cells: Mapping[str, CellResults], pools: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """How far each automatic choice is from the best of its pool, where it is farthest."""
    worst: list[dict[str, Any]] = []
    for auto, pool in pools.items():
        by_link = {
            link: mean(results[auto], "total_ms") / min(mean(results[name], "total_ms") for name in pool)
            for link, results in cells.items()
        }
        link = max(by_link, key=by_link.__getitem__)
        where = Cell(link).label
        worst.append(goal(f"{auto} / best of its modes, at its worst ({where})", by_link[link], "at most", _AUTO_LIMIT))
    return worst


def time_ratio(results: CellResults, mode: str, other: str) -> float:
    """Of the mean times of two contenders."""
    return mean(results[mode], "total_ms") / mean(results[other], "total_ms")
