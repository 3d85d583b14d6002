"""The way of a training as a picture."""

from __future__ import annotations

from pathlib import Path


def draw_training_curve(rewards: list[float], validations: list[tuple[int, float]], png_path: Path) -> None:
    """Left: each episode's mean reward, pale, and the mean of every twenty; right: utility at each validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    left.plot(rewards, color="0.8", linewidth=0.6)
    pieces = [rewards[start : start + 20] for start in range(0, len(rewards), 20)]
    left.plot([20 * number + 10 for number in range(len(pieces))], [sum(piece) / len(piece) for piece in pieces])
    left.set(title="while it learns", xlabel="episode", ylabel="mean reward")
    right.plot([steps for steps, _ in validations], [utility for _, utility in validations], marker="o")
    right.set(title="validation", xlabel="decisions", ylabel="mean utility")
    figure.tight_layout()
    figure.savefig(png_path, dpi=90)
    pyplot.close(figure)
