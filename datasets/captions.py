"""A caption in the field's two parts, what the car does and why, with the classes that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .bddx import Segment
from .phrases import Parsed, parse, parse_action, parse_justification

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Not keywords.py's: "stopped at a light" is all action where the field's captions are compared by their words.
_REASON = re.compile(r"\b(because|since|due to|so that|in order to|as)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Caption:
    """action and justification: the words of each part, either may be empty. classes: those that they name."""

    action: str
    justification: str
    classes: Parsed

    @classmethod
    def of_answer(cls, text: str) -> Caption:
        """From one free answer such as "the car stops because the light is red ."; scored by class as in a run."""
        action, justification = split_explanation(text)
        return cls(action, justification, parse(text))

    @classmethod
    def of_parts(cls, action: str, justification: str) -> Caption:
        """From two columns, as BDD-X and its followers keep them."""
        reason, *details = parse_justification(justification)
        return cls(action, justification, Parsed(parse_action(action), reason, *details))

    @classmethod
    def of_segment(cls, segment: Segment) -> Caption:
        return cls.of_parts(segment.action, segment.justification)


def split_explanation(text: str) -> tuple[str, str]:
    """(action, justification) of an explanation; the justification begins with its connective, as in BDD-X.

    The first sentence that gives a reason counts. Where none does, the first sentence is the action and the rest the
    justification.
    """
    sentences = _SENTENCE_END.split(text.strip())
    for sentence in sentences:
        found = _REASON.search(sentence)
        if found:
            return sentence[: found.start()].strip(), sentence[found.start() :].strip()
    return sentences[0], " ".join(sentences[1:])
