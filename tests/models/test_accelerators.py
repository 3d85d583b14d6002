"""Trainings that follow one another in one process."""

from __future__ import annotations

from roadside.models.accelerators import new_accelerator


def test_each_training_gets_the_settings_that_it_asks_for() -> None:
    for precision, steps in (("bf16", 1), ("no", 4), ("bf16", 2)):
        accelerator = new_accelerator(mixed_precision=precision, gradient_accumulation_steps=steps, cpu=True)
        assert accelerator.mixed_precision == precision
        assert accelerator.gradient_accumulation_steps == steps
