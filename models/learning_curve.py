"""The losses of a training as a picture."""

from __future__ import annotations

from pathlib import Path


def draw_curve(losses: dict[str, list[float]], png_path: Path) -> None:
    """Write one panel for each phase: every step's loss pale, and the mean of each hundredth of the phase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, max(1, len(losses)), figsize=(9, 3.4), squeeze=False)
    for panel, (name, values) in zip(panels[0], losses.items(), strict=True):
        panel.plot(values, color="0.8", linewidth=0.6)
        size = max(1, len(values) // 100)
        chunks = [values[start : start + size] for start in range(0, len(values), size)]
        panel.plot(
            [(index + 0.5) * size for index in range(len(chunks))], [sum(chunk) / len(chunk) for chunk in chunks]
        )
        panel.set(title=name, xlabel="step", ylabel="loss", yscale="log")
    figure.tight_layout()
    figure.savefig(png_path, dpi=90)
    pyplot.close(figure)
