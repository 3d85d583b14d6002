"""What a decoding mode produces."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Generation:
    """Tokens as they come, each with who said it and how sure they were; the end token is one of them."""

    tokens: list[int] = field(default_factory=list)
    made_by: list[str] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    cancelled: bool = False

    def add(self, token: int, speaker: str, confidence: float) -> None:
        self.tokens.append(token)
        self.made_by.append(speaker)
        self.confidences.append(confidence)

    @property
    def mean_confidence(self) -> float:
        """Mean over the tokens; 0 where nothing was said."""
        return sum(self.confidences) / len(self.confidences) if self.confidences else 0.0
