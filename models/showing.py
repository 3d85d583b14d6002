"""Answers in the making, shown before they are complete: the edge's own draft, and an answer's words as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .decoding import Chose, Drafted, Spoke


class Showing:
    """Watches one answer on the inference thread, and tells of it on the event loop that it was made on.

    draft: told what the edge would answer by itself. words: told all tokens that stand so far, each time some more do,
    at most once in interval_ms, and for the first time after so long; None: never.
    mode: how the answer is decoded, once that was chosen.
    """

    def __init__(
        self,
        *,
        draft: Callable[[Drafted], None],
        words: Callable[[tuple[int, ...]], None],
        interval_ms: float | None,
    ) -> None:
        self.mode: str | None = None
        self._tell_draft = draft
        self._tell_words = words
        self._interval_s = None if interval_ms is None else interval_ms / 1000
        self._shown_s = time.monotonic()
        self._tokens: list[int] = []
        self._loop = asyncio.get_running_loop()

    def saw(self, event: Chose | Drafted | Spoke) -> None:
        """For the inference thread."""
        match event:
            case Chose(mode):
                self.mode = mode
            case Drafted():
                self._loop.call_soon_threadsafe(self._tell_draft, event)
            case Spoke(tokens):
                self._tokens.extend(tokens)
                if tokens and self._is_due():
                    self._loop.call_soon_threadsafe(self._tell_words, tuple(self._tokens))

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        if self._interval_s is None or now_s - self._shown_s < self._interval_s:
            return False
        self._shown_s = now_s
        return True
