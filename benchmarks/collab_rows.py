"""Rows of the bench: means over the answers, and how near they come to those of the cloud alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ..qos.intervals import Estimate, mean_95
from .collab_auto import Planned
from .collab_cells import Cell, CellResults, Taken
from .collab_contenders import Contender
from .collab_edge import Tokens
from .collab_traces import TracedScene

_MEANS = ("total_ms", "first_token_ms", "edge_ms", "cloud_ms", "link_ms", "bytes_up", "positions_up", "cloud_requests")


class Judge:
    """Whether answers are right, by the project's scorer: both the action and its reason."""

    def __init__(self, scenes: Sequence[TracedScene]) -> None:
        self._scenes = scenes
        self._known: dict[tuple[int, Tokens], bool] = {}

    def right(self, taken: Sequence[Taken]) -> list[bool]:
        """Of one answer to each scene."""
        return [self._is_right(number, each.tokens) for number, each in enumerate(taken)]

    def _is_right(self, number: int, tokens: Tokens) -> bool:
        key = number, tokens
        if key not in self._known:
            scene = self._scenes[number]
            said, true = scene.caption(tokens).classes, scene.reference.caption.classes
            self._known[key] = (said.action, said.justification) == (true.action, true.justification)
        return self._known[key]


def rows(
    cell: Cell, results: CellResults, contenders: Sequence[Contender | Planned], judge: Judge
) -> list[dict[str, Any]]:
    """One row for each contender, on one link."""
    cloud = results["cloud"]
    return [_row(contender, cell, results[contender.name], cloud, judge) for contender in contenders]


def _row(
    contender: Contender | Planned, cell: Cell, taken: Sequence[Taken], cloud: Sequence[Taken], judge: Judge
) -> dict[str, Any]:
    means = {key: mean(taken, key) for key in _MEANS}
    tokens = sum(len(each.tokens) for each in taken)
    return {
        "mode": contender.name,
        "link": cell.label,
        "theta": contender.theta,
        **means,
        "cloud_request_share": sum(each.cloud_requests for each in taken) / tokens,
        "cloud_compute_share": means["cloud_ms"] / mean(cloud, "cloud_ms"),
        "token_identity": token_identity(taken, cloud),
        "task_accuracy": statistics.fmean(judge.right(taken)),
    }


def mean(taken: Sequence[Taken], key: str) -> float:
    return statistics.fmean(getattr(each, key) for each in taken)


def token_identity(taken: Sequence[Taken], cloud: Sequence[Taken]) -> float:
    """Share of tokens that stand where the cloud's answer has them; what is too much or missing counts as different."""
    same = total = 0
    for one, other in zip(taken, cloud, strict=True):
        same += sum(mine == its for mine, its in zip(one.tokens, other.tokens, strict=False))
        total += max(len(one.tokens), len(other.tokens))
    return same / total


def accuracy_difference(taken: Sequence[Taken], cloud: Sequence[Taken], judge: Judge) -> Estimate:
    """Task accuracy against the cloud's, scene by scene, with its 95% interval."""
    pairs = zip(judge.right(taken), judge.right(cloud), strict=True)
    difference = mean_95([float(one) - float(other) for one, other in pairs])
    assert difference is not None, "there are scenes"
    return difference
