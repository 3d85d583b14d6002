"""The card beside a trained model: what it learned from, on which machine, how well it does, and what it is not."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ..bus.kinds import KINDS
from ..bus.machine import processor_name
from ..datasets.phrases import COMBINATIONS
from ..datasets.samples import TEST_FIRST_SEED, TRAINING_FIRST_SEED, VALIDATION_FIRST_SEED
from .scoring import FrameScores, Scores

LIMITS = (
    "It knows the rendered world only: on real footage its answers are not to be relied on.",
    "It looks at one or two frames and was taught the three questions of the task-kind table; to others it answers the"
    " same.",
    "Quality is the share of answers with the right classes on held-out rendered scenes; a class is right or wrong.",
    "It must not steer anything.",
)


def training_machine(device: str, *packages: str) -> dict[str, Any]:
    """What a card says of the machine that a model was trained on, and the versions of these packages there."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "device": device,
        **{package: version(package) for package in packages},
    }


def make_card(
    *,
    parameters: int,
    options: dict[str, Any],
    last_losses: dict[str, float],
    cpu_minutes: dict[str, float],
    device: str,
    scores: Scores,
    along_drives: FrameScores,
    obscured: FrameScores,
) -> dict[str, Any]:
    """The card as plain values.

    scores: on scenes that are even over the pairs of action and reason; along_drives: on moments even over time, which
    is what a vehicle meets and `quality` promises by place, for one frame; obscured: on scenes whose newest frame hides
    the reason.
    """
    places = ("edge", "cloud", "edge+cloud")
    return {
        "name": "roadside-vlm",
        "parameters": parameters,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "what": "one or two frames of rendered drives with telemetry as text; no photograph, no recording",
            "training_first_seed": TRAINING_FIRST_SEED,
            "validation_first_seed": VALIDATION_FIRST_SEED,
            "test_first_seed": TEST_FIRST_SEED,
            "test_scenes": scores.scenes,
            "test_moments": along_drives.newest.scenes,
            "test_obscured_scenes": obscured.newest.scenes,
            "pairs_of_action_and_reason": len(COMBINATIONS),
        },
        "options": options,
        "last_losses": last_losses,
        "cpu_minutes": cpu_minutes,
        "machine": training_machine(device, "torch", "transformers", "accelerate")
        | {"python": platform.python_version()},
        "scores": scores.voices,
        "scores_along_drives": along_drives.newest.voices,
        "scores_along_drives_with_two_frames": along_drives.paired.voices,
        "scores_where_the_newest_frame_hides_the_reason": {
            "both_frames": obscured.paired.voices,
            "newest_frame": obscured.newest.voices,
        },
        "explain_by_pair": scores.by_pair,
        "request_rate": scores.request_rate,
        "theta_curve": [asdict(point) for point in scores.theta_curve],
        "quality": {place: {kind: along_drives.newest.voices[place][kind] for kind in KINDS} for place in places},
        "limits": LIMITS,
    }
