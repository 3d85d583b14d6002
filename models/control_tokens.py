"""A prompt from anywhere, without what a model would take for its own structure: control characters and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..bus.plain_text import plain_text


class ControlTokens:
    """Of one tokenizer: the beginning and end of a turn, the place of an image, and the like.

    They are left out in capitals as well, since a tokenizer may put everything into small letters first.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        # The longest first: one may begin with another.
        ordered = sorted((token for token in tokens if token), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None

    def stripped(self, prompt: str) -> str:
        """On one line, and nothing in it that a tokenizer would read as a control token."""
        prompt = plain_text(prompt)
        removed = 1
        # Again, as long as taking one out brings the ends of another together.
        while removed and self._any is not None:
            prompt, removed = self._any.subn("", prompt)
        return prompt
