"""What a decoding mode is written against: who can read a sequence and say its next token.

Modes know these protocols and no tensors, so that the code which runs in a node also replays recorded decodings on a
bench's virtual clock. `partitions` has the parts of a real model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .sampling import Sampling

# Whatever a speaker reads: embeddings, a processor's inputs, or the next entry of a recording.
Inputs = TypeVar("Inputs")
InputsOut = TypeVar("InputsOut", covariant=True)


@dataclass(frozen=True, slots=True)
class Said:
    """One token. speaker: "exit1", "exit2" or "full"; sure: whether its confidence reached the speaker's threshold."""

    token: int
    speaker: str
    confidence: float
    sure: bool


class Prompt(Protocol[InputsOut]):
    """A question as its model reads it. positions: how many it takes in the sequence."""

    @property
    def positions(self) -> int: ...

    def inputs(self) -> InputsOut:
        """What a session reads first. Encoding the image may be put off until somebody asks for this."""
        ...


class Read(Protocol):
    """What came out of the first stage.

    hidden: float32 [positions, hidden_size], the residual stream at the first exit; nobody writes to it.
    position_ids: int64 [axes, positions] of a model that counts positions on several axes, else None.
    """

    @property
    def hidden(self) -> NDArray[np.float32]: ...

    @property
    def position_ids(self) -> NDArray[np.int64] | None: ...


class EdgeSession(Protocol[Inputs]):
    """One sequence in an edge's layers. positions: read so far."""

    positions: int

    def read(self, inputs: Inputs, /) -> Any:
        """Run the next positions up to the first exit: a `Read`, which `speak` takes back."""
        ...

    def speak(self, read: Any, thresholds: tuple[float, ...], /) -> Said:
        """The token after what was read last, by the first exit that is sure, or else by the deepest."""
        ...

    def roll_back(self, positions: int, /) -> None:
        """Forget all but the first so many positions."""
        ...


class Edge(Protocol[Inputs]):
    """A model up to its deepest early exit."""

    def session(self, sampling: Sampling | None = None, /) -> EdgeSession[Inputs]: ...

    def embed(self, token: int, /) -> Inputs:
        """What a session reads after a token that was said."""
        ...


class WholeSession(Protocol[Inputs]):
    """One sequence through every layer."""

    def say(self, inputs: Inputs, /) -> Said:
        """The token after the inputs of the next positions."""
        ...


class Whole(Protocol[Inputs]):
    """A model with every layer. It reads embeddings, or the inputs that its processor makes."""

    def session(self, sampling: Sampling | None = None, /) -> WholeSession[Inputs]: ...

    def embed(self, token: int, /) -> Inputs: ...
