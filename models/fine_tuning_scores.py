"""What fine-tuned voices say on held-out moments: losses, exit thresholds, and answers as they will be served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bus.kinds import KINDS, TaskKind
from ..datasets.scoring import judge
from .answering import ALONE, UnsplitAnswerer, any_cloud_answerer, edge_answerer
from .calibration import Votes
from .fine_tuning_data import Moment
from .fine_tuning_model import VOICES, answer_losses
from .questions import Answerer, answer_at_once


@dataclass(frozen=True)
class Heard:
    """What each voice would say at every token of right answers.

    losses: [answers, voices]; right, confidence, agrees: [tokens, voices], whether a voice's choice is the answer's
    token, how sure it is, and whether it is the whole model's choice.
    """

    losses: Tensor
    right: Tensor
    confidence: Tensor
    agrees: Tensor

    def mean_losses(self) -> dict[str, float]:
        return dict(zip(VOICES, self.losses.mean(dim=0).tolist(), strict=True))

    def votes(self) -> list[Votes]:
        """By exit."""
        return [Votes(self.confidence[:, voice], self.agrees[:, voice]) for voice in range(1, len(VOICES))]

    def token_accuracy(self) -> dict[str, float]:
        return dict(zip(VOICES, self.right.double().mean(dim=0).tolist(), strict=True))


class Hearing:
    """Collects `Heard`, answer by answer."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._tokens: list[tuple[Tensor, ...]] = []

    def add(self, logits: Tensor, answer: Tensor) -> None:
        """logits: [voices, tokens, vocabulary]; answer: [tokens]."""
        confidence, chosen = torch.softmax(logits.float(), dim=-1).max(dim=-1)
        self._losses.append(answer_losses(logits, answer).cpu())
        by_token = (chosen == answer, confidence, chosen == chosen[0])
        self._tokens.append(tuple(each.T.cpu() for each in by_token))

    def heard(self) -> Heard:
        right, confidence, agrees = (torch.cat(each) for each in zip(*self._tokens, strict=True))
        return Heard(torch.stack(self._losses), right, confidence, agrees)


def success_rates(answerer: Answerer, moments: Sequence[Moment], advance: Callable[[int], None]) -> dict[str, float]:
    """Share of a model's answers that name the right classes, by kind, where the annotation names known ones.

    A kind for which no annotation does is left out.
    """
    right: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for moment in moments:
        for kind in KINDS.values():
            said = answer_at_once(answerer, moment.question(kind)).text
            if (verdict := _verdict(kind, said, moment)) is not None:
                judged[kind.name] += 1
                right[kind.name] += verdict
        advance(1)
    return {name: round(right[name] / count, 4) for name, count in judged.items()}


def _verdict(kind: TaskKind, said: str, moment: Moment) -> bool | None:
    """Whether everything that can be judged is right; None where nothing can."""
    judgement = judge(kind, said, moment.segment)
    parts = [part for part in (judgement.action_correct, judgement.justification_correct) if part is not None]
    return all(parts) if parts else None


def served(folder: str) -> tuple[dict[str, Answerer], str]:
    """The places at which a model's folder can be served, with their answerers; and why not at the edge, or nothing."""
    cloud = any_cloud_answerer(folder)
    if isinstance(cloud, UnsplitAnswerer):
        return {"cloud": cloud}, cloud.refusal
    return {"edge": edge_answerer(folder, collaboration=ALONE), "cloud": cloud}, ""
