"""`roadside fine-tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Model

verbs = typer.Typer()


@verbs.command(
    "fine-tune", epilog="Example:  roadside fine-tune --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --data bdd-x"
)
def fine_tune(
    data: Annotated[Path, typer.Option(help="Folder of a driving log in BDD-X's format, with its videos and splits.")],
    model: Model = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write [default: <model's name>-fine-tuned]")] = None,
    passes: Annotated[float, typer.Option(min=0.001, help="How often each training moment is seen.")] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples an update; memory is that of one.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="Of the adapters, at its peak.")] = 2e-4,
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Of the adapters.")] = 16,
    seed: Annotated[int, typer.Option(help="The same seed learns the same.")] = 0,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    keep_adapter: Annotated[
        bool, typer.Option("--keep-adapter", help="Write the adapter and name its base, instead of merged weights.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and load no weights.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a vision-language model, with early exits, on the training split of a driving log.

    Started again after a stop with the same flags, it goes on from its last checkpoint.
    """
    from ..models.fine_tuning import fine_tune as tune
    from ..models.fine_tuning import plan_fine_tuning
    from ..models.fine_tuning_options import FineTuningOptions

    options = FineTuningOptions(passes=passes, batch_size=batch_size, learning_rate=learning_rate, rank=rank, seed=seed)
    if dry_run:
        plan = plan_fine_tuning(model, data, options, device=device)
        typer.echo(json.dumps(plan.as_json()) if as_json else "\n".join(plan.lines()))
        return
    out = out or Path(f"{Path(model or 'bundled').name}-fine-tuned")
    card = tune(
        model,
        data,
        out,
        options,
        device=device,
        keep_adapter=keep_adapter,
        warn=lambda words: typer.echo(f"roadside: {words}", err=True),
    )
    if as_json:
        typer.echo(json.dumps(card))
        return
    for picture in ("picture", "blank-image", "another-image"):
        accuracy = card["scores"][picture]["token_accuracy"]
        typer.echo(f"{picture}: " + ", ".join(f"{voice} {share:.1%}" for voice, share in accuracy.items()))
    if refusal := card.get("not_at_the_edge"):
        typer.echo(f"the edge cannot host it: {refusal}")
    typer.echo(f"wrote {out}; try: roadside ask IMAGE --model {out}")
