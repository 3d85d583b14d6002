"""The card beside a trained model: what it learned from, on which machine, how well it does, and what it is not."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ..bus.kinds import KINDS
from ..bus.machine import processor_name
from ..datasets.samples import TEST_FIRST_SEED, TRAINING_FIRST_SEED, VALIDATION_FIRST_SEED

LIMITS = (
    "It knows the rendered world only: on real footage its answers are not to be relied on.",
    "It looks at one frame and was taught the three questions of the task-kind table; to others it answers the same.",
    "Quality is the share of answers with the right classes on held-out rendered scenes; a class is right or wrong.",
    "It must not steer anything.",
)


def make_card(
    *,
    parameters: int,
    options: dict[str, Any],
    steps: dict[str, int],
    last_losses: dict[str, float],
    cpu_minutes: dict[str, float],
    scores: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """The card as plain values. scores: as scoring.score returns them; `quality` is read off them by place."""
    return {
        "name": "roadside-vlm",
        "parameters": parameters,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "what": "single frames of rendered drives with telemetry as text; no photograph, no recording",
            "training_first_seed": TRAINING_FIRST_SEED,
            "validation_first_seed": VALIDATION_FIRST_SEED,
            "test_first_seed": TEST_FIRST_SEED,
        },
        "options": options,
        "steps": steps,
        "last_losses": last_losses,
        "cpu_minutes": cpu_minutes,
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "scores": scores,
        "quality": {place: {kind: scores[place][kind] for kind in KINDS} for place in ("edge", "cloud")},
        "limits": LIMITS,
    }
