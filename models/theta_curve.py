"""A picture of what an exit threshold buys: how often the cloud is asked, and how good the answers are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bus.errors import ConfigurationError

# Row keys to what the legend says, shares from 0 to 1.
_LINES = {
    "cloud_token_share": "tokens asked of the cloud",
    "agrees_with_full": "answers of the whole model's classes",
    "action_accuracy": "right action",
    "justification_accuracy": "right reason",
}


def draw_theta_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows that have a theta, over it. The axis is of ranks: thresholds crowd near 1.

    Raises ConfigurationError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    points = sorted((row for row in rows if "theta" in row), key=lambda row: row["theta"])
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for key, label in _LINES.items():
        axes.plot([row[key] for row in points], marker="o", markersize=4, label=label)
    axes.set_xticks(range(len(points)), [_name(row["theta"]) for row in points])
    axes.set(xlabel="exit threshold (both exits)", ylabel="share", ylim=(0, 1.02))
    axes.set_title(f"Edge and cloud together, {points[0]['n']} scenes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot write {path} ({error}); name a .png in a folder that exists") from None


def _name(theta: float) -> str:
    return f"{theta:g}" if theta <= 1 else "never sure"
