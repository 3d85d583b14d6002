"""Exit thresholds from held-out scenes: from which confidence does an exit say what the whole model would say."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .training_data import QuestionWriter, Scenes, to_pixels
from .training_losses import read, see
from .vlm import Recipe

CURVE_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Votes:
    """What one exit and the whole model would say at each token of the held-out answers, [tokens] each."""

    confidence: Tensor
    agrees: Tensor

    def where(self, chosen: Tensor) -> Votes:
        return Votes(self.confidence[chosen], self.agrees[chosen])


@dataclass(frozen=True)
class CurvePoint:
    """What a threshold would do: how many tokens the exit speaks, and how many of those the whole model would too."""

    threshold: float
    spoken_share: float
    agreement: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds, shallowest exit first, with the curves that they were read from."""

    thresholds: tuple[float, ...]
    agreement: float
    tokens: int
    curves: tuple[tuple[CurvePoint, ...], ...]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def calibrate(votes_by_exit: list[Votes], agreement: float) -> Calibration:
    """For each exit the smallest threshold at which its spoken tokens agree with the whole model often enough.

    An exit is judged by the tokens that the ones before it left to it, for those are what it will be given.
    """
    thresholds: list[float] = []
    curves: list[tuple[CurvePoint, ...]] = []
    left_over = torch.ones_like(votes_by_exit[0].agrees)
    for votes in votes_by_exit:
        given = votes.where(left_over)
        thresholds.append(smallest_threshold(given, agreement))
        curves.append(tuple(_curve_point(given, threshold) for threshold in CURVE_THRESHOLDS))
        left_over = left_over & (votes.confidence < thresholds[-1])
    return Calibration(tuple(thresholds), agreement, len(votes_by_exit[0].agrees), tuple(curves))


def smallest_threshold(votes: Votes, agreement: float) -> float:
    """The smallest confidence from which on the share of agreeing tokens is at least `agreement`; 1 where none is."""
    # Thresholds are written with four decimals. Cut off there, a token speaks at its own step and at lower ones.
    steps, order = (votes.confidence.double() * 10_000).floor().sort(descending=True)
    # Of the tokens down to each one, the share that agrees; where several stand on a step, all of them speak.
    share = votes.agrees[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_on_step = torch.cat([steps[1:] < steps[:-1], torch.tensor([True])])
    enough = steps[(share >= agreement) & last_on_step]
    return float(enough[-1]) / 10_000 if len(enough) else 1.0


def _curve_point(votes: Votes, threshold: float) -> CurvePoint:
    spoken = votes.confidence >= threshold
    if not len(spoken):
        # The exits before it spoke everything.
        return CurvePoint(threshold, 0.0, 1.0)
    agreement = float(votes.agrees[spoken].double().mean()) if bool(spoken.any()) else 1.0
    return CurvePoint(threshold, round(float(spoken.double().mean()), 4), round(agreement, 4))


@torch.inference_mode()
def collect_votes(
    model: Any,
    exit_heads: nn.ModuleList,
    exit_layers: tuple[int, ...],
    scenes: Scenes,
    writer: QuestionWriter,
    recipe: Recipe,
    seed: int,
    batch_size: int = 50,
) -> list[Votes]:
    """Let each exit and the whole model say every next token of right answers to questions about the scenes."""
    rng = random.Random(seed)
    confidences: list[list[Tensor]] = [[] for _ in exit_layers]
    agreements: list[list[Tensor]] = [[] for _ in exit_layers]
    for start in range(0, len(scenes), batch_size):
        indices = list(range(start, min(start + batch_size, len(scenes))))
        questions = writer.ask(scenes, indices, rng)
        image_tokens, _ = see(model, to_pixels(scenes.frames[indices]), recipe)
        hidden_states = read(model, questions, image_tokens)
        asked = questions.labels != -100
        whole = model.lm_head(hidden_states[-1][asked]).argmax(dim=-1)
        for exit_index, layer in enumerate(exit_layers):
            probabilities = torch.softmax(exit_heads[exit_index](hidden_states[layer][asked]), dim=-1)
            confidence, token = probabilities.max(dim=-1)
            confidences[exit_index].append(confidence)
            agreements[exit_index].append(token == whole)
    return [
        Votes(torch.cat(confidence), torch.cat(agrees))
        for confidence, agrees in zip(confidences, agreements, strict=True)
    ]
