"""One accelerator per training, in a process that may train more than once."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState


def new_accelerator(**settings: Any) -> Accelerator:
    """An accelerator with exactly these settings; for trainings that follow one another, not for two at a time.

    accelerate keeps device and precision for the whole process: a second training with other ones is refused, and one
    that names none silently takes the first one's. No public call forgets them.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # pyright: ignore[reportPrivateUsage]
    GradientState._reset_state()  # pyright: ignore[reportPrivateUsage]
    return Accelerator(**settings)
