"""Verbs about whole runs: make one, watch one, sum one up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..bus.defaults import DEFAULT_BROKER, DEFAULT_FLEET
from .options import (
    BrokerUrl,
    FleetName,
    Json,
    LinkSpec,
    Model,
    PlaceName,
    PolicyName,
    place_named,
    print_report,
    run_process,
)

verbs = typer.Typer()


@verbs.command(epilog="Example:  roadside demo --vehicles 3 --policy random --duration 20")
def demo(
    log: Annotated[Path | None, typer.Option(help="Folder of a driving log [default: the bundled one]")] = None,
    model: Model = None,
    vehicles: Annotated[int, typer.Option(min=1, max=64)] = 2,
    edges: Annotated[int, typer.Option(min=0, max=64)] = 2,
    clouds: Annotated[int, typer.Option(min=0, max=64)] = 1,
    policy: PolicyName = "greedy-utility",
    place: PlaceName = None,
    broker: Annotated[
        str | None, typer.Option(help="URL of a running broker [default: mosquitto, else amqtt, started here]")
    ] = None,
    link: LinkSpec = None,
    duration: Annotated[float, typer.Option(min=1, help="Seconds for which tasks are created.")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Mean tasks per second and vehicle.")] = 1.0,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="Log seconds per second.")] = 4.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same tasks.")] = 0,
    run: Annotated[Path | None, typer.Option(help="Folder for the run [default: a new one in runs/]")] = None,
    as_json: Json = False,
) -> None:
    """Drive a replayed log through vehicles, edges and a cloud on this machine, and report what happened."""
    from rich.console import Console

    from ..bus.process import run_until_stopped
    from ..demo import DemoOptions, run_demo

    options = DemoOptions(
        log=log,
        model=model,
        vehicles=vehicles,
        edges=edges,
        clouds=clouds,
        policy=policy or "greedy-utility",
        place=place_named(place),
        broker=broker,
        link=link,
        duration_s=duration,
        rate_hz=rate,
        speed=speed,
        seed=seed,
        run=run,
    )
    finished: list[Any] = []

    async def drive(stop: Any) -> None:
        finished.append(await run_demo(options, Console(stderr=True), stop))

    run_until_stopped(drive)
    directory, summary = finished[0]
    print_report(directory, summary, as_json)


@verbs.command(epilog="Example:  roadside watch --broker mqtt://127.0.0.1:1883 --explain")
def watch(
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show what the policy saw, and why.")] = False,
    vehicle: Annotated[list[str] | None, typer.Option(help="Only this vehicle's; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only tasks of this kind; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print a line for every answer and every member that comes or goes, until stopped."""
    from ..qos.fleet_events import Selection
    from ..qos.fleet_events import watch as watch_fleet

    selection = Selection.of(vehicle or (), kind or ())

    def show(event: Any) -> None:
        typer.echo(json.dumps(event.fields) if as_json else event.line)

    async def serve(stop: Any) -> None:
        await watch_fleet(
            broker or DEFAULT_BROKER,
            fleet or DEFAULT_FLEET,
            selection=selection,
            explain=explain,
            show=show,
            stop=stop,
        )

    run_process("watch", serve, False)


@verbs.command(epilog="Example:  roadside report runs/20260101-120000-abcd --json")
def report(run: Annotated[Path, typer.Argument(help="Folder of the run.")], as_json: Json = False) -> None:
    """Sum up a run: placements, latency, quality, energy. Works while the run goes on."""
    from ..qos.report import summarise
    from ..qos.run import RunDirectory

    directory = RunDirectory.open(run)
    print_report(directory, summarise(directory), as_json)
