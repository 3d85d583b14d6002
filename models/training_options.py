"""The options of a training of the bundled model."""

from __future__ import annotations

from dataclasses import dataclass, field

from .vlm import Recipe


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. The same options give the same model, but for the machine's rounding.

    scenes: drawn evenly over the pairs of action and reason; moments: drawn evenly over the time of drives, which are
        mostly uneventful and full of what may yet become a reason. Both are of single frames.
    obscured_scenes: of two frames, the newest of which hides the reason; paired_scenes and paired_moments: of two
        frames, drawn as scenes and moments are.
    vision_steps: batches from which the vision tower learns alone; answer_steps: from which everything learns.
    kinds_per_scene: of how many kinds each scene is asked a question.
    exit_learning_rate: higher than the model's, because the exits are single layers and run after a moving target.
    detail_weight: what a word that tells a vehicle's kind or a side counts beside other words: one wrong word, one
        wrong answer.
    auxiliary_weight: what the scene heads' losses count beside the answers' while the whole model learns.
    exit_layers: after so many decoder layers the exits speak.
    exit_agreement: share of an exit's spoken tokens that the whole model must have said too.
    """

    seed: int = 0
    scenes: int = 25_000
    moments: int = 12_000
    obscured_scenes: int = 4_000
    paired_scenes: int = 1_000
    paired_moments: int = 1_500
    calibration_scenes: int = 800
    test_scenes: int = 1_200
    test_moments: int = 600
    test_obscured_scenes: int = 400
    vision_steps: int = 4_800
    vision_batch_size: int = 32
    answer_steps: int = 5_800
    answer_batch_size: int = 16
    kinds_per_scene: int = 2
    vision_learning_rate: float = 1e-3
    learning_rate: float = 8e-4
    exit_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 60
    detail_weight: float = 2.0
    auxiliary_weight: float = 0.3
    exit_layers: tuple[int, ...] = (1, 2)
    exit_agreement: float = 0.99
    checkpoint_every_steps: int = 200
    recipe: Recipe = field(default_factory=Recipe)


QUICK = TrainingOptions(
    scenes=4_000,
    moments=2_000,
    obscured_scenes=800,
    paired_scenes=200,
    paired_moments=300,
    calibration_scenes=200,
    test_scenes=300,
    test_moments=150,
    test_obscured_scenes=150,
    vision_steps=900,
    answer_steps=500,
    checkpoint_every_steps=100,
)
