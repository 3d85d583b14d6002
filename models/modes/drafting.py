"""An answer whose first tokens stand and whose last ones are only drafted: how an edge decodes ahead of its cloud."""

from __future__ import annotations

from typing import Generic

from ..decoding import Drafted, Generation, Limits, RollBack, Steps
from ..speakers import Edge, Inputs, Prompt, Said
from . import standalone
from .sharing import SharedSequence, Sharing


class DraftedAnswer(Generic[Inputs]):
    """One answer in the making.

    generation: what stands for good. pending: what was drafted after it, the first still without the cloud's word.
    """

    def __init__(self, edge: Edge[Inputs], prompt: Prompt[Inputs], limits: Limits, sharing: Sharing) -> None:
        self.generation = Generation()
        self.pending: list[Said] = []
        self.sequence = SharedSequence(edge, prompt, limits, sharing)
        self._limits = limits
        self._window = sharing.window
        self._may_tell = sharing.draft

    def draft(self) -> Said:
        """The edge's next token, after the prompt or the last token has been read."""
        said = self.sequence.speak()
        self.pending.append(said)
        return said

    @property
    def up_to(self) -> int:
        """How many positions stand before the first pending token."""
        return self.sequence.prompt_positions + len(self.generation.tokens)

    @property
    def claims(self) -> tuple[int, ...]:
        """The pending tokens."""
        return tuple(said.token for said in self.pending)

    @property
    def length(self) -> int:
        """Of the answer so far, drafted or not."""
        return len(self.generation.tokens) + len(self.pending)

    @property
    def is_whole(self) -> bool:
        """Whether the answer would be complete if all that is pending were right."""
        return self._last_token == self._limits.end_token or self.length >= self._limits.max_tokens

    @property
    def must_wait(self) -> bool:
        """Whether nothing more can be drafted before the cloud has spoken."""
        return bool(self.pending) and (self.is_whole or len(self.pending) >= self._window)

    @property
    def is_complete(self) -> bool:
        """Whether the answer stands to its end."""
        return not self.pending and bool(self.generation.tokens) and self._limits.reached(self.generation)

    def tell(self) -> Steps[None]:
        """The first draft that is whole."""
        if self._may_tell and self.pending and self.is_whole:
            self._may_tell = False
            draft = self.generation.copy()
            for said in self.pending:
                draft.add(said.token, said.speaker, said.confidence)
            yield Drafted(tuple(draft.tokens), tuple(draft.made_by), draft.mean_confidence)

    def confirm(self, confidence: float) -> None:
        """The first pending token is the whole model's as well."""
        self.generation.add(self.pending.pop(0).token, "full", confidence)

    def trust(self) -> None:
        """The first pending token stands on its exit's word."""
        said = self.pending.pop(0)
        self.generation.add(said.token, said.speaker, said.confidence)

    def correct(self, token: int, confidence: float) -> Steps[None]:
        """The whole model says another token than the first pending one: whatever was drafted from there on is void."""
        keep = self.up_to
        self.pending.clear()
        self.generation.add(token, "full", confidence)
        if self._limits.reached(self.generation):
            return
        if keep < self.sequence.session.positions:
            self.sequence.session.roll_back(keep)
            yield RollBack(keep)

    def read_on(self) -> Steps[None]:
        """Read the last token, drafted or not."""
        yield from self.sequence.read(self._last_token)

    def end_alone(self) -> Steps[Generation]:
        """The cloud is silent for good."""
        yield from standalone.end_alone(self.sequence, self.generation, self.pending, self._limits)
        return self.generation

    @property
    def _last_token(self) -> int:
        return self.pending[-1].token if self.pending else self.generation.tokens[-1]
