"""How often a model's answers are right on held-out rendered scenes, by every voice, and what a threshold does to that.

Frames and prompts are those that serving would make of the same scenes (the tests hold the two together).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bus.kinds import EXPLAIN, KINDS, TaskKind
from ..datasets.phrases import SceneFacts, parse
from .batch_decoding import Decoded, Voice, decode
from .checkpoints import Checkpoint, load
from .training_data import QuestionWriter, Scenes, to_pixels
from .training_losses import see
from .vlm import Recipe

BATCH_SIZE = 100
CURVE_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.01)


class Tally:
    """Counts of right answers by name."""

    def __init__(self) -> None:
        self._right: dict[str, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)

    def count(self, name: str, right: bool) -> None:
        self._right[name] += right
        self._asked[name] += 1

    def rates(self) -> dict[str, float]:
        return {name: round(self._right[name] / asked, 4) for name, asked in sorted(self._asked.items())}


@dataclass(frozen=True)
class ThetaPoint:
    """What one confidence threshold at every exit would do to collaborative decoding of the explain question.

    request_rate: share of tokens that the cloud is asked for. agreement: share of the exits' tokens that the whole
    model would have said too. quality: share of answers with the right action and justification.
    """

    theta: float
    request_rate: float
    agreement: float
    quality: float


@dataclass(frozen=True)
class Scores:
    """voices: rates by name for "cloud", "edge", "edge+cloud" and "blank-image" (the cloud with a black frame).

    A voice's names: task kinds (every asked part right), and of the explain question action, justification, details
    (vehicle and side wherever the right answer has one), vehicle and side.
    request_rate: share of tokens that edge+cloud asks for at the model's own thresholds, by kind.
    """

    scenes: int
    voices: dict[str, dict[str, float]]
    by_pair: dict[str, float]
    request_rate: dict[str, float]
    theta_curve: tuple[ThetaPoint, ...]


@dataclass(frozen=True)
class FrameScores:
    """Scores of the same scenes with all of their frames and with the newest one alone."""

    paired: Scores
    newest: Scores

    @classmethod
    def of(cls, folder: Path, scenes: Scenes, recipe: Recipe) -> FrameScores:
        """Score a model folder on scenes of two frames; without theta curves."""
        checkpoint = load(str(folder))
        both, alone = (Scorer(checkpoint, each, recipe).score(thetas=()) for each in (scenes, scenes.newest()))
        return cls(both, alone)


def score(folder: Path, scenes: Scenes, recipe: Recipe) -> Scores:
    """Score a model folder on scenes."""
    return Scorer(load(str(folder)), scenes, recipe).score()


class Scorer:
    """Asks every voice of one model about some scenes.

    images: their image tokens, [scenes, frames, tokens, hidden_size].
    """

    def __init__(self, checkpoint: Checkpoint, scenes: Scenes, recipe: Recipe) -> None:
        self._model: Any = checkpoint.model
        self._exits = checkpoint.exits
        self._processor: Any = checkpoint.processor
        self._writer = QuestionWriter(checkpoint.processor, recipe)
        self._scenes = scenes
        self.images = self._see(scenes.frames, recipe)
        self.end_token: int = self._processor.tokenizer.eos_token_id
        self._blank = self._see(np.zeros_like(scenes.frames[:1]), recipe).expand_as(self.images)

    def score(self, thetas: Sequence[float] = CURVE_THRESHOLDS) -> Scores:
        own = self._exits.thresholds
        voices: dict[str, dict[str, float]] = {}
        request_rate: dict[str, float] = {}
        by_pair = Tally()
        for voice in ("cloud", "edge", "edge+cloud"):
            tally = Tally()
            for kind in KINDS.values():
                decoded = self.answers(kind, voice, own, self.images)
                self._judge(tally, kind, decoded, by_pair if voice == "cloud" and kind is EXPLAIN else None)
                if voice == "edge+cloud":
                    request_rate[kind.name] = round(_share(decoded.asked_cloud, decoded.spoken), 4)
            voices[voice] = tally.rates()
        blank = Tally()
        self._judge(blank, EXPLAIN, self.answers(EXPLAIN, "cloud", own, self._blank))
        voices["blank-image"] = blank.rates()
        return Scores(
            scenes=len(self._scenes),
            voices=voices,
            by_pair=by_pair.rates(),
            request_rate=request_rate,
            theta_curve=tuple(self._theta_point(theta) for theta in thetas),
        )

    @torch.inference_mode()
    def _see(self, frames: np.ndarray, recipe: Recipe) -> Tensor:
        """Image tokens [scenes, frames, tokens, hidden_size]."""
        starts = range(0, len(frames), BATCH_SIZE)
        batches = [see(self._model, to_pixels(frames[at : at + BATCH_SIZE]), recipe)[0] for at in starts]
        return torch.cat(batches)

    def answers(self, kind: TaskKind, voice: Voice, thresholds: Sequence[float], images: Tensor) -> Decoded:
        """A voice's answers to one kind of question about every scene."""
        parts: list[Decoded] = []
        for start in range(0, len(self._scenes), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(self._scenes)))
            frames = self._scenes.frames_each
            # A telemetry line always has as many words, so the prompts of a kind are of one length.
            tokens = torch.tensor([self._writer.prompt(kind, self._scenes.telemetry[row], frames) for row in rows])
            with torch.inference_mode():
                prompts = self._model.model.inputs_merger(
                    input_ids=tokens,
                    inputs_embeds=self._model.model.text_model.embed_tokens(tokens),
                    image_hidden_states=images[rows.start : rows.stop].flatten(0, 2),
                )
            parts.append(
                decode(
                    self._model,
                    self._exits,
                    prompts,
                    voice,
                    thresholds=thresholds,
                    max_tokens=kind.max_tokens,
                    end_token=self.end_token,
                )
            )
        return Decoded(
            [tokens for part in parts for tokens in part.tokens],
            sum(part.asked_cloud for part in parts),
            sum(part.spoken for part in parts),
            sum(part.agreed for part in parts),
        )

    def _judge(self, tally: Tally, kind: TaskKind, decoded: Decoded, by_pair: Tally | None = None) -> None:
        for tokens, facts in zip(decoded.tokens, self._scenes.facts, strict=True):
            text = self._processor.tokenizer.decode(tokens, skip_special_tokens=True)
            right = _judge_one(tally, kind, text, facts)
            if by_pair is not None:
                by_pair.count(f"{facts.action} {facts.justification}", right)

    def _theta_point(self, theta: float) -> ThetaPoint:
        decoded = self.answers(EXPLAIN, "edge+cloud", [theta] * len(self._exits.layers), self.images)
        tally = Tally()
        self._judge(tally, EXPLAIN, decoded)
        return ThetaPoint(
            theta=theta,
            request_rate=round(_share(decoded.asked_cloud, decoded.spoken), 4),
            agreement=round(decoded.agreed / decoded.spoken, 4) if decoded.spoken else 1.0,
            quality=tally.rates()[EXPLAIN.name],
        )


def _judge_one(tally: Tally, kind: TaskKind, text: str, facts: SceneFacts) -> bool:
    """Count what is right in one answer; returns whether every part that its kind asks for is."""
    said = parse(text)
    right = {"action": said.action == facts.action, "justification": said.justification == facts.justification}
    whole = all(right[part] for part in kind.asks_for)
    tally.count(kind.name, whole)
    if kind is EXPLAIN:
        for part, correct in right.items():
            tally.count(part, correct)
        for name, asked, told in (("vehicle", facts.vehicle, said.vehicle), ("side", facts.side, said.side)):
            if asked is not None:
                tally.count(name, told == asked)
                tally.count("details", told == asked)
    return whole


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else 0.0
