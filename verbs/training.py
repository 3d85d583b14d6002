"""`roadside train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

verbs = typer.Typer(no_args_is_help=True, help="Train what roadside ships, or your own.")


@verbs.command("vlm", epilog="Example:  roadside train vlm my-model --cpu-minutes 15")
def train_vlm(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    cpu_minutes: Annotated[float, typer.Option(min=0.05, help="CPU time to spend on training proper.")] = 15.0,
    seed: Annotated[int, typer.Option()] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the data and time, and worse for it.")] = False,
) -> None:
    """Train the small vision-language model on rendered scenes, with its early exits, and score it."""
    from ..models.training import train_vlm as train

    card = train(out, cpu_minutes=cpu_minutes, seed=seed, quick=quick)
    for name, scores in card["scores"].items():
        typer.echo(f"{name}: " + ", ".join(f"{what} {share:.1%}" for what, share in scores.items()))
    typer.echo(f"wrote {out}; try: roadside demo --model {out}")
