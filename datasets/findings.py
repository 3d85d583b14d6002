"""What was found wrong with a user's data: how often, and the first few places, so that somebody can look."""

from __future__ import annotations

from collections import Counter

NAMED_PER_REASON = 5


class Findings:
    """counts: by reason. examples: by reason the first places ("row 17", a file's name) where it was found."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count something `count` times at one place; nothing where `count` is 0."""
        if not count:
            return
        self.counts[reason] += count
        named = self.examples.setdefault(reason, [])
        if len(named) < NAMED_PER_REASON:
            named.append(where)
