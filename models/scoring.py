"""How often a model's answers are right on held-out rendered scenes, as it would serve them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from ..bus.kinds import EXPLAIN, KINDS
from ..datasets.jpeg import encode_jpeg
from ..datasets.phrases import parse
from ..datasets.samples import Sample
from .answering import cloud_answerer, edge_answerer
from .questions import Answerer, Question, answer_at_once

JPEG_QUALITY = 85


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


def score(folder: Path, samples: Iterable[Sample], advance: Callable[[int], None]) -> dict[str, dict[str, float]]:
    """Score a model folder on samples; `advance` is told after each how many more there are.

    Returns success rates by voice: "cloud" and "edge" by task kind, and with the explain kind also of the action, the
    justification and its two slots; "blank-image" the same of the cloud with a black frame, which shows what the
    words of the telemetry alone are worth; "exit1-share", the share of the edge's tokens that its first exit spoke.
    """
    voices = {"cloud": cloud_answerer(str(folder)), "edge": edge_answerer(str(folder))}
    tallies = {name: Tally() for name in (*voices, "blank-image")}
    first_exit = Tally()
    for sample in samples:
        jpeg = encode_jpeg(sample.image, JPEG_QUALITY)
        for name, answerer in voices.items():
            for kind in KINDS:
                made_by = _judge(tallies[name], answerer, kind, sample, jpeg)
                for speaker in made_by if name == "edge" else ():
                    first_exit.count("share", speaker == "exit1")
        black = encode_jpeg(Image.new("RGB", sample.image.size), JPEG_QUALITY)
        _judge(tallies["blank-image"], voices["cloud"], EXPLAIN.name, sample, black)
        advance(1)
    return {name: tally.rates() for name, tally in tallies.items()} | {"exit1-share": first_exit.rates()}


def _judge(tally: Tally, answerer: Answerer, kind_name: str, sample: Sample, jpeg: bytes) -> tuple[str, ...]:
    """Ask one question and count what was right; returns who made the answer's tokens."""
    kind = KINDS[kind_name]
    answer = answer_at_once(answerer, Question(kind.prompt, (jpeg,), sample.telemetry, max_tokens=kind.max_tokens))
    said, facts = parse(answer.text), sample.facts
    right = {
        "action": said.action == facts.action,
        "justification": said.justification == facts.justification,
    }
    tally.count(kind.name, all(right[part] for part in kind.asks_for))
    if kind is EXPLAIN:
        for part, correct in right.items():
            tally.count(part, correct)
        if facts.vehicle is not None:
            tally.count("vehicle", said.vehicle == facts.vehicle)
        if facts.side is not None:
            tally.count("side", said.side == facts.side)
    return answer.made_by
