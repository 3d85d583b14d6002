"""The picture of a sweep: a panel per figure, a point per combination of settings, a bar for its 95% interval."""

from __future__ import annotations

from pathlib import Path

from ..bus.errors import RunError
from .sweep_summary import FIGURES, Group

_PANEL_WIDTH_IN = 3.2
_ROW_HEIGHT_IN = 0.32
_MARGIN_IN = 1.2


def plot_sweep(groups: list[Group], path: Path) -> Path:
    """Write a PNG, and return where it is.

    Raises ModuleNotFoundError without matplotlib, RunError where the file cannot be written.
    """
    # Imported here: only who plots needs it, and it comes with the extra `train`.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = [_label(group) for group in groups]
    # Longer names of settings need more room to the left of the first panel.
    names_in = 0.09 * max(map(len, labels))
    size = (names_in + _PANEL_WIDTH_IN * len(FIGURES), _MARGIN_IN + _ROW_HEIGHT_IN * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(FIGURES), sharey=True, squeeze=False)[0]
    for panel, (name, (heading, _)) in zip(panels, FIGURES.items(), strict=True):
        for height, group in enumerate(groups):
            if (estimate := group.figures[name]) is not None:
                panel.errorbar(estimate.value, height, xerr=estimate.half_width, fmt="o", color="C0", capsize=3)
        panel.set_title(heading)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(groups)), labels)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    figure.supxlabel("mean over the seeds, with its 95% interval", fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror}): give another --plot") from error
    return path


def _label(group: Group) -> str:
    settings = [f"{name} {value}" for name, value in group.settings.items() if value is not None]
    return ", ".join(settings) or "all runs"
