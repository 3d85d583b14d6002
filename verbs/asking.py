"""Verbs that use a model without a fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Model

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside ask frame.jpg --place cloud --telemetry Vehicle.Speed=36")
def ask(
    image: Annotated[Path, typer.Argument(help="JPEG or PNG file.")],
    prompt: Annotated[str | None, typer.Argument(help="[default: what is the car doing and why ?]")] = None,
    place: Annotated[str, typer.Option(help="edge (early exits) or cloud (whole model).")] = "cloud",
    model: Model = None,
    telemetry: Annotated[
        list[str] | None, typer.Option(help="VSS signal as NAME=VALUE, e.g. Vehicle.Speed=36 (km/h); may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask one question about one image, without a broker."""
    from ..models.ask import ask_once

    answer = ask_once(image, prompt, place=place, model=model, telemetry=telemetry or [])
    if as_json:
        typer.echo(json.dumps(answer))
        return
    typer.echo(answer["text"])
    makers = ", ".join(f"{count} by {maker}" for maker, count in answer["made_by"].items())
    typer.echo(
        f"  {answer['place']}: {answer['tokens']} tokens ({makers}), confidence {answer['confidence']:.2f}, "
        f"vision {answer['vision_ms']:.1f} ms, decoding {answer['decode_ms']:.1f} ms, model {answer['model']}",
        err=True,
    )
