"""`roadside replay`: a recorded run's processes, fed with what they heard, beside what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from ..replay.run import RunReplay

verbs = typer.Typer()


@verbs.command(
    epilog="Example:  roadside demo --record-messages --run runs/one;  roadside replay runs/one --node vehicle-1"
)
def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was recorded with --record-messages.")],
    node: Annotated[str | None, typer.Option(help="Only this process [default: all of them]")] = None,
    as_json: Json = False,
) -> None:
    """Feed a run's messages into its processes again and compare: where tasks went, and what was answered.

    Exit status 1 where anything differs.
    """
    from ..bus.process import configure_logging
    from ..replay.run import replay_run

    configure_logging("replay", level="error")
    result = replay_run(run, node=node, say=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(result.as_plain()))
    else:
        _print(result)
    if result.differs:
        raise typer.Exit(1)


def _print(result: RunReplay) -> None:
    for process in result.processes:
        left_out = "".join(f"; {count} {why}" for why, count in sorted(process.left_out.items()))
        same = process.compared - len(process.differences)
        typer.echo(f"{process.name}: {same} of {process.compared} tasks as recorded{left_out}")
        for each in process.differences:
            typer.echo(f"  {each.task_id}: another {each.what}{f' ({each.note})' if each.note else ''}")
            typer.echo(f"    expected  {each.expected}")
            typer.echo(f"    got       {each.got}")
