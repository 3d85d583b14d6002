"""The policies as a picture: utility over the heartbeat, a panel per number of edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bus.errors import RunError

_LINES = ("clairvoyant", "ddpg", "bandit", "linucb", "active-inference", "jsq", "softmax-greedy", "greedy-utility")


def plot_policy(result: dict[str, Any], folder: Path) -> Path:
    """Write policy-utility.png; RunError where the folder cannot be written."""
    # Imported here: only who plots needs it, and it comes with the extra `train`.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = sorted({row["edges"] for row in result["rows"]})
    figure = Figure(figsize=(3.1 * len(edges), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(edges), sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, edges, strict=True):
        for number, policy in enumerate(_LINES):
            rows = [row for row in result["rows"] if row["edges"] == count and row["policy"] == policy]
            rows.sort(key=lambda row: row["heartbeat_s"])
            if rows:
                at = range(len(rows))
                panel.errorbar(
                    [place + 0.04 * (number - len(_LINES) / 2) for place in at],
                    [row["utility"] for row in rows],
                    yerr=[row["utility_ci95"] or 0.0 for row in rows],
                    fmt="o-",
                    markersize=3,
                    linewidth=1,
                    color=f"C{number}",
                    label=policy,
                )
                panel.set_xticks(at, [f"{row['heartbeat_s']:g}" for row in rows])
        panel.set_title(f"{count} edges", fontsize="medium")
        panel.set_xlabel("heartbeat, s")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("utility, mean and 95% interval")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    path = folder / "policy-utility.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror}): give another --plot") from error
    return path
