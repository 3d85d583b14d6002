"""METEOR, by the Java program that the field uses, out of the extra `meteor` (the package pycocoevalcap)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from types import TracebackType

from ..bus.errors import ConfigurationError
from .caption_tokens import tokens


class Meteor:
    """METEOR 1.5 for English (Denkowski and Lavie, 2014). A context manager, which ends the program."""

    def __init__(self) -> None:
        """Starts the program. Raises ConfigurationError where the package or Java is missing."""
        try:
            from pycocoevalcap.meteor.meteor import Meteor as Program  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigurationError("METEOR needs a package more: pip install 'roadside[meteor]'") from None
        if shutil.which("java") is None:
            raise ConfigurationError("METEOR is a Java program: install a Java runtime, or leave --meteor out")
        self._program = Program()

    def __enter__(self) -> Meteor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.meteor_p.kill()
        self._program.meteor_p.wait()

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Of a corpus, times 100; one or more references for each candidate."""
        said = {index: [_words(caption)] for index, caption in enumerate(candidates)}
        true = {index: [_words(each) for each in several] for index, several in enumerate(references)}
        score, _ = self._program.compute_score(true, said)
        return 100 * score


def _words(caption: str) -> str:
    return " ".join(tokens(caption))
