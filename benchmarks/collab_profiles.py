"""What computing costs on the virtual clock: the paper's timings, or this machine's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..models.mode_planner import Cut


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call: milliseconds for the call, and for each position that it runs."""

    call_ms: float
    position_ms: float = 0.0

    def of(self, positions: int) -> float:
        """Milliseconds; a call over nothing is not made."""
        return self.call_ms + self.position_ms * positions if positions else 0.0

    def times(self, factor: float) -> Cost:
        """On a machine that takes so many times as long."""
        return Cost(self.call_ms * factor, self.position_ms * factor)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one token costs in each part of a model, and where it is cut.

    prompt: making a prompt's embeddings, and whatever its positions cost on top of a stage's call.
    first, second: the edge's layers up to its first exit, and from there to its second, heads included.
    rest: the layers behind the first exit, head included; whole: all layers.
    message_ms: what it costs the edge to send or read a message, for as long as it computes nothing else.
    """

    name: str
    cut: Cut
    prompt: Cost
    first: Cost
    second: Cost
    rest: Cost
    whole: Cost
    message_ms: float = 0.0

    @property
    def hidden_size(self) -> int:
        return self.cut.hidden_size

    def paced(self, *, edge: float, cloud: float) -> Profile:
        """Where edge and cloud take so many times as long; a prompt is the edge's business."""
        return replace(
            self,
            prompt=self.prompt.times(edge),
            first=self.first.times(edge),
            second=self.second.times(edge),
            message_ms=self.message_ms * edge,
            rest=self.rest.times(cloud),
            whole=self.whole.times(cloud),
        )

    def alone_ms(self, positions: int, tokens: int) -> float:
        """A whole answer of so many tokens in one place, after a prompt of so many positions."""
        return self.prompt.of(positions) + self.whole.of(positions) + (tokens - 1) * self.whole.of(1)


# CE-CoLLM, Table I: a LLaMA of 7B with exits after 8 and 16 of 32 layers, edge and cloud with an A100 each. The whole
# model took 37 ms a token, of which half its layers cost the edge 20 and the upper three quarters the cloud 28. A batch
# of some positions costs what one does, for the weights have to be read once; a prompt costs half a millisecond for
# each of its positions, wherever it is read first.
PAPER = Profile(
    name="paper",
    cut=Cut(first_exit=8, second_exit=16, layers=32, hidden_size=4096),
    prompt=Cost(0.0, 0.5),
    first=Cost(10.0),
    second=Cost(10.0),
    rest=Cost(28.0),
    whole=Cost(37.0),
)

# Assumed: a roadside computer of the Jetson class, and a server whose software was made for speed. Here the cloud is
# faster than the edge's own layers.
FAST_CLOUD = Profile(
    name="fast-cloud",
    cut=PAPER.cut,
    prompt=Cost(0.0, 1.0),
    first=Cost(17.0),
    second=Cost(18.0),
    rest=Cost(9.0),
    whole=Cost(12.0),
)
