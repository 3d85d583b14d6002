"""`roadside train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json

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


@verbs.command("policy", epilog="Example:  roadside train policy my-policy.npz --quick")
def train_policy(
    out: Annotated[Path, typer.Argument(help="File of weights to write, NAME.npz; must not exist.")],
    policy: Annotated[str, typer.Option(help="ddpg, bandit, or an ablation of ddpg.")] = "ddpg",
    seed: Annotated[int, typer.Option()] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the decisions, and worse for it.")] = False,
    environment: Annotated[
        Path | None, typer.Option(help="Constants of the simulated fleet (TOML); the committed ones by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a placement policy in the simulator, on fleets of every size and reports of every age.

    Started again after a stop, it goes on from its last checkpoint. A picture of the training lands beside the weights.
    """
    from ..policy.environment.constants import COMMITTED
    from ..policy.training.run import train_policy as train

    notes = train(out, policy=policy, seed=seed, quick=quick, environment=environment or COMMITTED)
    if as_json:
        typer.echo(json.dumps(notes))
        return
    typer.echo(f"validation utility {notes['validation']:.3f} after {notes['steps']} decisions")
    typer.echo(f"{notes['cpu_minutes']:.1f} CPU minutes; wrote {out}")
