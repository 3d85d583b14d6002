"""Every way in which a model answers, on the same scenes: whole, blind, early exits alone, edge and cloud together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..bus.errors import MessageRefused, ModelError
from ..bus.kinds import EXPLAIN
from ..datasets.caption_table import score_row
from ..datasets.captions import Caption
from ..datasets.evaluation_scenes import EvaluationScene
from ..datasets.findings import Findings
from ..datasets.meteor import Meteor
from ..datasets.references import Reference
from .answering import CloudAnswerer, EdgeAnswerer, cloud_answerer, edge_answerer
from .collaboration import Collaboration
from .decoding import Generation, to_the_end
from .local_cloud import LocalCloud
from .partitions import EncodedPrompt
from .questions import Question
from .together import decode_together

FULL, BLANK, EDGE, TOGETHER = "full", "blank-image", "edge-exit", "edge+cloud"
# One threshold for both exits; above 1 the cloud is asked for every token.
THETAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.1)


@dataclass
class Voice:
    """What one way of answering said: a caption, tokens and their speakers for each scene; rows are made from it."""

    captions: list[Caption] = field(default_factory=list)
    tokens: list[tuple[int, ...]] = field(default_factory=list)
    made_by: Counter[str] = field(default_factory=Counter)
    positions_up: int = 0
    bytes_up: int = 0

    def add(self, caption: Caption, generation: Generation) -> None:
        self.captions.append(caption)
        self.tokens.append(tuple(generation.tokens))
        self.made_by.update(generation.made_by)

    def share_of(self, speaker: str) -> float:
        """Of all tokens."""
        return self.made_by[speaker] / self.made_by.total()


@dataclass(frozen=True)
class Evaluated:
    """references: of the scenes that could be asked about; rows: of caption_table.score_row, one for each voice."""

    model: str
    references: list[Reference]
    rows: list[dict[str, Any]]


def evaluate_model(
    model: str | None,
    scenes: Iterable[EvaluationScene],
    findings: Findings,
    *,
    thetas: Sequence[float] = (),
    theta_scenes: int = 300,
    meteor: Meteor | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Evaluated:
    """Ask a model to explain each scene, as nodes would ask it, and score what it says.

    thetas: exit thresholds at which edge and cloud together are tried too, on the first so many scenes.
    findings: counts scenes that the model refuses, which are left out. advance: told after each how many more there
    are. Raises ModelError where the model cannot be loaded or refuses all.
    """
    voices = Voices(
        edge_answerer(model, collaboration=Collaboration(draft=False)), cloud_answerer(model), thetas, theta_scenes
    )
    for scene in scenes:
        try:
            voices.answer(scene)
        except MessageRefused as refusal:
            findings.add(f"scene refused: {refusal.reason}", scene.reference.id)
        advance(1)
    if not voices.references:
        raise ModelError(f"{voices.model} answered about no scene ({dict(findings.counts)}): look at the log's videos")
    return Evaluated(voices.model, voices.references, voices.rows(meteor))


class Voices:
    """Two halves of one model, and what they said so far."""

    def __init__(
        self, edge: EdgeAnswerer, cloud: CloudAnswerer, thetas: Sequence[float] = (), theta_scenes: int = 300
    ) -> None:
        self.model = cloud.model
        self.references: list[Reference] = []
        self._edge, self._cloud = edge, cloud
        self._theta_scenes = theta_scenes
        self._voices = {name: Voice() for name in (FULL, BLANK, EDGE, TOGETHER)}
        self._by_theta = {theta: Voice() for theta in thetas}

    def answer(self, scene: EvaluationScene) -> None:
        """Let every voice explain a scene. Raises MessageRefused, and has then heard none of them."""
        telemetry = dict(scene.reference.telemetry)
        question = Question(EXPLAIN.prompt, (scene.jpeg,), telemetry, max_tokens=EXPLAIN.max_tokens)
        # Both halves read a prompt alike, so that it is read once.
        prompt = self._cloud.encode(question)
        blind = replace(question, frames=(scene.blank,))
        said = {
            FULL: to_the_end(self._cloud.decode(question, "cloud", prompt)),
            BLANK: to_the_end(self._cloud.decode(blind, "cloud", self._cloud.encode(blind))),
            EDGE: to_the_end(self._edge.decode(question, "edge", prompt)),
        }
        for name, generation in said.items():
            self._hear(self._voices[name], generation)
        self._answer_together(self._voices[TOGETHER], question, prompt)
        if len(self.references) < self._theta_scenes:
            exits = len(self._edge.partition.exits.layers)
            for theta, voice in self._by_theta.items():
                self._answer_together(voice, replace(question, exit_thresholds=(theta,) * exits), prompt)
        self.references.append(scene.reference)

    def rows(self, meteor: Meteor | None = None) -> list[dict[str, Any]]:
        """Of the four voices, then of each theta; on its own scenes, which may be fewer."""
        edge = self._voices[EDGE]
        more = {
            EDGE: {f"{speaker}_token_share": edge.share_of(speaker) for speaker in ("exit1", "exit2")},
            TOGETHER: self._collaboration(self._voices[TOGETHER]),
        }
        rows = [self._row(name, voice, meteor, more.get(name, {})) for name, voice in self._voices.items()]
        return rows + [
            self._row(f"theta {theta:g}", voice, meteor, {"theta": theta} | self._collaboration(voice))
            for theta, voice in self._by_theta.items()
        ]

    def _row(self, name: str, voice: Voice, meteor: Meteor | None, more: dict[str, Any]) -> dict[str, Any]:
        true = [reference.caption for reference in self.references[: len(voice.captions)]]
        return score_row(name, voice.captions, true, meteor=meteor, **more)

    def _collaboration(self, voice: Voice) -> dict[str, float]:
        """What the cloud had to do, and how near the answers come to the whole model's."""
        full, count = self._voices[FULL], len(voice.tokens)
        return {
            "cloud_token_share": voice.share_of("full"),
            "identical_to_full": _share_alike(voice.tokens, full.tokens),
            "agrees_with_full": _share_alike(
                [caption.classes for caption in voice.captions], [caption.classes for caption in full.captions]
            ),
            "positions_up": voice.positions_up / count,
            "bytes_up": voice.bytes_up / count,
        }

    def _answer_together(self, voice: Voice, question: Question, prompt: EncodedPrompt) -> None:
        together = decode_together(self._edge.decode(question, "edge+cloud", prompt), LocalCloud(self._cloud.whole))
        self._hear(voice, together.result)
        voice.positions_up += together.positions
        voice.bytes_up += together.bytes_up

    def _hear(self, voice: Voice, generation: Generation) -> None:
        voice.add(Caption.of_answer(self._cloud.words(tuple(generation.tokens))), generation)


def _share_alike(some: Sequence[object], all_of_full: Sequence[object]) -> float:
    """Of the first ones, as many as there are in `some`."""
    return sum(one == other for one, other in zip(some, all_of_full, strict=False)) / len(some)
