"""How to fine-tune; apart, because planning and doing both read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FineTuningOptions:
    """Everything that decides what comes out, but for the model and the data.

    passes: how often each training moment is seen, with one of the three questions each time.
    moments_per_segment: pictures of each annotated segment.
    batch_size: samples an update. They run one after another, so that pictures of any size go together and memory
        is that of one.
    rank: of the adapters; dropout: of what enters them.
    validate_every, checkpoint_every: updates. held_out_moments: at most, of the validation and of the test split.
    served_moments: test moments that the finished model answers as it will be served; 0 for none.
    exit_agreement: share of an exit's spoken tokens that the whole model must have said, too.
    """

    passes: float = 1.0
    moments_per_segment: int = 1
    batch_size: int = 16
    learning_rate: float = 2e-4
    exit_learning_rate: float = 1e-3
    warm_up_share: float = 0.03
    rank: int = 16
    dropout: float = 0.05
    seed: int = 0
    validate_every: int = 100
    checkpoint_every: int = 50
    held_out_moments: int = 200
    served_moments: int = 24
    exit_agreement: float = 0.99

    def updates(self, training_moments: int) -> int:
        """How many updates the passes are."""
        return max(1, round(self.passes * training_moments / self.batch_size))
