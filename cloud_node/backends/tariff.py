"""What a large model's tokens cost, in money and in energy, as far as anybody knows: all of it configuration."""

from __future__ import annotations

from dataclasses import dataclass

from .chat_replies import Completion


@dataclass(frozen=True, slots=True)
class Tariff:
    """price_per_million_*: in whatever currency the user thinks in. joules_per_*: electric energy of the server.

    A server does not tell its energy over its API. The defaults are guesses of the order of a model of some 65 billion
    parameters, a prompt's tokens at a hundredth of those that are said, as they are computed in one batch: set what
    was measured.
    """

    price_per_million_prompt_tokens: float = 0.0
    price_per_million_completion_tokens: float = 0.0
    joules_per_prompt_token: float = 0.03
    joules_per_completion_token: float = 3.0

    def millionths(self, completion: Completion) -> int:
        """The price of an answer in millionths of the currency, rounded; 0 where its tokens were not counted."""
        return round(
            (completion.prompt_tokens or 0) * self.price_per_million_prompt_tokens
            + (completion.completion_tokens or 0) * self.price_per_million_completion_tokens
        )

    def energy_j(self, completion: Completion) -> float:
        """Modelled; 0 where its tokens were not counted."""
        return (completion.prompt_tokens or 0) * self.joules_per_prompt_token + (
            completion.completion_tokens or 0
        ) * self.joules_per_completion_token
