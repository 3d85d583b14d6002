"""How an edge decodes where a cloud is at hand: what its user chose, and what it then does with one question."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..bus.errors import ConfigurationError
from .modes import EdgeMode
from .modes.sharing import Sharing

PromptUpload: TypeAlias = Literal["hidden", "image", "auto"]
ContextForm: TypeAlias = Literal["hidden", "tokens", "auto"]


@dataclass(frozen=True, slots=True)
class Collaboration:
    """What an edge may do, and how.

    mode: "auto" picks for each question the one that would be done first. lossless: of those only such as say what the
        whole model says.
    prompt_upload: how a prompt goes up. "hidden": as hidden states; raw pixels stay with the edge, and "auto" never
        picks the mode `cloud`. "image": as it is, for the cloud to encode. "auto": whichever is done first; where
        nothing is known of the link, whichever is less to send.
    context: how the tokens after it go up: as hidden states, as ids, or (auto) as what is done first. Ids want a prompt
        that went up as an image.
    draft: tell the vehicle what the edge would say alone. window: how many tokens may be drafted ahead of the cloud.
    """

    mode: EdgeMode = "ce"
    lossless: bool = False
    prompt_upload: PromptUpload = "hidden"
    context: ContextForm = "hidden"
    draft: bool = True
    window: int = 32

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        if self.context != "hidden" and self.prompt_upload == "hidden":
            raise ConfigurationError(
                f"context {self.context!r} needs the prompt at the cloud as it is: set prompt_upload to image or auto"
            )

    @property
    def candidates(self) -> tuple[EdgeMode, ...]:
        """The modes to pick from."""
        if self.mode != "auto":
            return (self.mode,)
        lossless: tuple[EdgeMode, ...] = ("through",) if self.prompt_upload == "hidden" else ("through", "cloud")
        return lossless if self.lossless else ("ce-optimistic", *lossless)

    def sharings(self) -> list[Sharing]:
        """What may go up of a question, that with the fewest raw pixels first."""
        prompts = ("hidden", "image") if self.prompt_upload == "auto" else (self.prompt_upload,)
        answers = ("hidden", "tokens") if self.context == "auto" else (self.context,)
        return [
            Sharing(prompt, answer, self.draft, self.window)
            for prompt, answer in itertools.product(prompts, answers)
            if prompt == "image" or answer == "hidden"
        ]
