"""What a cloud gains from several edges asking at once: one pass for all, against one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.batched_stages import catch_up_together
from ..models.stages import StageSession
from .collab_edge import whole_answer
from .collab_goals import goal
from .collab_model import TracingModel
from .collab_timing import cpu_ms
from .collab_traces import TracedScene

EDGES = 8
_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second of the cloud's CPU time, each asked for by itself. margins: of tokens that differ."""

    edges: int
    tokens: int
    alone_per_s: float
    batched_per_s: float
    margins: list[float]

    @property
    def ratio(self) -> float:
        return self.batched_per_s / self.alone_per_s

    def as_goal(self) -> dict[str, Any]:
        name = f"cloud throughput, {self.edges} edges batched / one at a time"
        return goal(name, self.ratio, "at least", _LIMIT)

    def as_row(self) -> dict[str, Any]:
        return {
            "edges": self.edges,
            "tokens": self.tokens,
            "alone_tokens_per_s": self.alone_per_s,
            "batched_tokens_per_s": self.batched_per_s,
            "differing": len(self.margins),
            "largest_margin": max(self.margins, default=0.0),
        }


def measure_throughput(model: TracingModel, scenes: Sequence[TracedScene], edges: int = EDGES) -> Throughput:
    """The whole model's answers to the scenes, `edges` at a time; every token, and the prompt, a request of its own.

    Of fewer scenes than edges, each is one edge's.
    """
    edges = min(edges, len(scenes))
    alone_ms = batched_ms = 0.0
    tokens = 0
    margins: list[float] = []
    for start in range(0, len(scenes) - edges + 1, edges):
        pieces = [_pieces(model, scene) for scene in scenes[start : start + edges]]
        took_ms, one_by_one = _timed(lambda pieces=pieces: [_alone(model, each) for each in pieces])
        alone_ms += took_ms
        took_ms, together = _timed(lambda pieces=pieces: _together(model, pieces))
        batched_ms += took_ms
        for some, others in zip(one_by_one, together, strict=True):
            tokens += len(some)
            margins += [margin for (token, margin), (other, _) in zip(some, others, strict=True) if token != other]
    return Throughput(edges, tokens, tokens / alone_ms * 1000, tokens / batched_ms * 1000, margins)


@torch.inference_mode()
def _pieces(model: TracingModel, scene: TracedScene) -> list[Tensor]:
    """The residual stream at the first exit, of the prompt and of each token but the last: what edges send."""
    session = model.edge.first.session()
    session.feed(model.prompt(scene.question).inputs())
    pieces = [session.catch_up()]
    for token in whole_answer(scene, max_tokens=scene.question.max_tokens)[:-1]:
        session.feed(model.edge.embed(token))
        pieces.append(session.catch_up())
    return pieces


@torch.inference_mode()
def _alone(model: TracingModel, pieces: Sequence[Tensor]) -> list[tuple[int, float]]:
    """One edge's tokens, each with the margin to the next likely one."""
    session, said = model.whole.rest.session(), []
    for piece in pieces:
        session.feed(piece)
        said += _words(model, session.catch_up()[:, -1])
    return said


@torch.inference_mode()
def _together(model: TracingModel, pieces: Sequence[Sequence[Tensor]]) -> list[list[tuple[int, float]]]:
    """All edges' tokens, step by step; an edge whose answer is complete asks no more."""
    sessions: list[StageSession] = [model.whole.rest.session() for _ in pieces]
    said: list[list[tuple[int, float]]] = [[] for _ in pieces]
    for step in range(max(map(len, pieces))):
        asking = [number for number, of_edge in enumerate(pieces) if step < len(of_edge)]
        for number in asking:
            sessions[number].feed(pieces[number][step])
        caught_up = catch_up_together([sessions[number] for number in asking])
        rows = torch.cat([output[:, -1] for output in caught_up.outputs])
        for number, word in zip(asking, _words(model, rows), strict=True):
            said[number].append(word)
    return said


def _words(model: TracingModel, hidden: Tensor) -> list[tuple[int, float]]:
    """Of the last positions [sequences, hidden_size]: each one's token and margin."""
    best, tokens = model.whole.head(hidden).float().topk(2, dim=-1)
    return list(zip(tokens[:, 0].tolist(), (best[:, 0] - best[:, 1]).tolist(), strict=True))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began_ms = cpu_ms()
    made = work()
    return cpu_ms() - began_ms, made
