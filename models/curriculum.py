"""What each step of a training learns from: mostly single frames, now and then two frames of a scene."""

from __future__ import annotations

from dataclasses import dataclass

from .learning import batch_at
from .training_data import Scenes

# Every so many steps the batch is of scenes with two frames.
PAIRED_EVERY_STEPS = 4
# Of those batches every so many shows the newest frame alone: a model must also learn what it can tell from that.
NEWEST_ALONE_EVERY = 5


@dataclass(frozen=True)
class Curriculum:
    """Batches by step, each of one number of frames, so that its sequences are of one length.

    single: scenes of one frame; paired: scenes of two. Every scene of a kind comes once before any comes again.
    """

    single: Scenes
    paired: Scenes

    def of_single_frames(self, seed: str, step: int, size: int) -> tuple[Scenes, list[int]]:
        """The scenes, and the indices of the batch in them."""
        return self.single, batch_at(len(self.single), size, seed, step)

    def of_both(self, seed: str, step: int, size: int) -> tuple[Scenes, list[int]]:
        """As `of_single_frames`, and every PAIRED_EVERY_STEPS steps scenes of two frames."""
        turn, place = divmod(step, PAIRED_EVERY_STEPS)
        if place < PAIRED_EVERY_STEPS - 1:
            return self.of_single_frames(seed, step - turn, size)
        alone = turn % NEWEST_ALONE_EVERY == NEWEST_ALONE_EVERY - 1
        return self.paired.newest() if alone else self.paired, batch_at(len(self.paired), size, seed, turn)
