"""`roadside train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

verbs = typer.Typer(no_args_is_help=True, help="Train what roadside ships, or your own.")


@verbs.command("vlm", epilog="Example:  roadside train vlm my-model --device cpu")
def train_vlm(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    seed: Annotated[int, typer.Option()] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A fraction of the data and steps, and worse for it.")] = False,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
) -> None:
    """Train the small vision-language model on rendered scenes, with its early exits, and score it.

    Started again after a stop, it goes on from its last checkpoint.
    """
    from ..models.training import train_vlm as train

    card = train(out, seed=seed, quick=quick, device=device)
    for name, scores in card["scores"].items():
        typer.echo(f"{name}: " + ", ".join(f"{what} {share:.1%}" for what, share in scores.items()))
    typer.echo(f"wrote {out}; try: roadside demo --model {out}")
