"""The verbs of `roadside`. Each imports what it needs when it runs, so that `roadside --help` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bus.defaults import BROKER_VARIABLE, DEFAULT_BROKER, DEFAULT_FLEET
from .bus.errors import ConfigurationError, RoadsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .bus.configuration import Configuration

app = typer.Typer(
    name="roadside",
    help="A driving co-pilot spread over vehicle, roadside edge and cloud, over MQTT.\n\n"
    "Begin with `roadside demo`: it needs no weights, no data, no broker and no GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
log_verbs = typer.Typer(no_args_is_help=True, help="Driving logs: make rendered ones, look at them, count.")
train_verbs = typer.Typer(no_args_is_help=True, help="Train what roadside ships, or your own.")
bench_verbs = typer.Typer(no_args_is_help=True, help="Measure; every figure of the README comes from one of these.")
app.add_typer(log_verbs, name="log")
app.add_typer(train_verbs, name="train")
app.add_typer(bench_verbs, name="bench")

# Of the places that messages can name, those that a node of today announces.
_SERVED_PLACES = ("vehicle", "edge", "cloud")

# What the base install leaves out, by the extra that brings it.
_EXTRA_OF = {
    "torch": "edge",
    "transformers": "edge",
    "tokenizers": "edge",
    "safetensors": "edge",
    "matplotlib": "train",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; messages go to stderr.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; flags win over it.")]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker", envvar=BROKER_VARIABLE, help="mqtt://[user:password@]host[:port]")
]
FleetName = Annotated[str | None, typer.Option("--fleet", help="Name of the fleet; fleets on one broker do not meet.")]
NodeName = Annotated[str | None, typer.Option("--name", help="Name of this process on the bus.")]
Model = Annotated[
    str | None, typer.Option("--model", help="A model's folder or Hugging Face id [default: the bundled model]")
]
WithParent = Annotated[bool, typer.Option("--exit-with-parent", hidden=True, help="Stop when stdin is closed.")]
PlaceName = Annotated[str | None, typer.Option("--place", help="Send everything to vehicle, edge or cloud.")]
PolicyName = Annotated[str | None, typer.Option("--policy", help="greedy-utility, random or static (with --place).")]


def main() -> None:
    """Entry point of the console script: a `RoadsideError` becomes one line and an exit status."""
    try:
        app()
    except ConfigurationError as error:
        typer.echo(f"roadside: {error}", err=True)
        sys.exit(2)
    except RoadsideError as error:
        typer.echo(f"roadside: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get(error.name or "")
        if extra is None:
            raise
        typer.echo(f"roadside: this needs {error.name}; pip install 'roadside[{extra}]'", err=True)
        sys.exit(2)


def _print_version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example:  roadside demo --vehicles 3 --policy random --duration 20")
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
    duration: Annotated[float, typer.Option(min=1, help="Seconds for which tasks are created.")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Mean tasks per second and vehicle.")] = 1.0,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="Log seconds per second.")] = 4.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same tasks.")] = 0,
    run: Annotated[Path | None, typer.Option(help="Folder for the run [default: a new one in runs/]")] = None,
    as_json: Json = False,
) -> None:
    """Drive a replayed log through vehicles, edges and a cloud on this machine, and report what happened."""
    from rich.console import Console

    from .bus.process import run_until_stopped
    from .demo import DemoOptions, run_demo

    options = DemoOptions(
        log=log,
        model=model,
        vehicles=vehicles,
        edges=edges,
        clouds=clouds,
        policy=policy or "greedy-utility",
        place=_place(place),
        broker=broker,
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
    _print_report(directory, summary, as_json)


@app.command(epilog="Example:  roadside broker --port 1883")
def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 1883,
    exit_with_parent: WithParent = False,
) -> None:
    """Run a broker in the foreground: mosquitto where it is on PATH, else amqtt. For this machine only."""
    from .bus.broker import Broker

    async def serve(stop: Any) -> None:
        async with Broker(port=port) as running:
            typer.echo(f"{running.kind} listens at {running.url}; Ctrl-C stops it", err=True)
            await stop.wait()

    _run_process("broker", serve, exit_with_parent)


@app.command(epilog="Example:  roadside vehicle --name vehicle-1 --broker mqtt://10.0.0.5:1883 --policy greedy-utility")
def vehicle(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    log: Annotated[Path | None, typer.Option(help="Folder of a driving log [default: the bundled one]")] = None,
    journal: Annotated[Path | None, typer.Option(help="SQLite file of the vehicle's own record.")] = None,
    policy: PolicyName = None,
    place: PlaceName = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same tasks.")] = None,
    speed: Annotated[float | None, typer.Option(help="Log seconds per second.")] = None,
    rate_hz: Annotated[float | None, typer.Option(help="Mean tasks per second.")] = None,
    start: Annotated[float | None, typer.Option(help="Where in the log to begin, in seconds.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds for which tasks are created.")] = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Replay a driving log as one vehicle: ask, place, and never leave the driver without an answer."""
    from .vehicle_node.configuration import VehicleConfiguration
    from .vehicle_node.node import run

    flags = {
        "name": name,
        "broker": broker,
        "fleet": fleet,
        "log": log,
        "journal": journal,
        "policy": policy,
        "place": _place(place),
        "seed": seed,
        "speed": speed,
        "rate_hz": rate_hz,
        "start_s": start,
        "duration_s": duration,
    }
    _run_node(VehicleConfiguration, run, config, flags, exit_with_parent)


@app.command(epilog="Example:  roadside edge --name edge-1 --broker mqtt://10.0.0.5:1883")
def edge(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    model: Model = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Serve as a roadside edge node: the edge partition of the model, with its early exits."""
    from .edge_node.node import EdgeConfiguration, run

    flags = {"name": name, "broker": broker, "fleet": fleet, "model": model}
    _run_node(EdgeConfiguration, run, config, flags, exit_with_parent)


@app.command(epilog="Example:  roadside cloud --name cloud-1 --broker mqtt://10.0.0.5:1883")
def cloud(
    config: ConfigFile = None,
    name: NodeName = None,
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    model: Model = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Serve as a cloud node: the whole model."""
    from .cloud_node.node import CloudConfiguration, run

    flags = {"name": name, "broker": broker, "fleet": fleet, "model": model}
    _run_node(CloudConfiguration, run, config, flags, exit_with_parent)


@app.command(epilog="Example:  roadside record runs/today --broker mqtt://10.0.0.5:1883")
def record(
    run: Annotated[Path, typer.Argument(help="Folder of the run; made where it does not exist.")],
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    exit_with_parent: WithParent = False,
) -> None:
    """Write what happens in a fleet into a run's ledger, until stopped."""
    from .bus.transport import Bus
    from .qos.recorder import record as record_run
    from .qos.run import RunDirectory

    # The demo makes its run and ends it; on its own, the recorder does both.
    own = not run.exists()
    if own:
        directory = RunDirectory.create(run, configuration={"fleet": fleet}, seed=0, argv=sys.argv)
    else:
        directory = RunDirectory.open(run)

    async def serve(stop: Any) -> None:
        async with Bus(url=broker or DEFAULT_BROKER, fleet=fleet or DEFAULT_FLEET, name="recorder") as bus:
            await record_run(bus, directory, stop)
        if own:
            directory.finish()

    _run_process("recorder", serve, exit_with_parent)


@app.command(epilog="Example:  roadside watch --broker mqtt://127.0.0.1:1883 --explain")
def watch(
    broker: BrokerUrl = None,
    fleet: FleetName = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show what the policy saw, and why.")] = False,
) -> None:
    """Print a line for every answer and every change of a node, until stopped."""
    from .qos.watch import watch as watch_fleet

    async def serve(stop: Any) -> None:
        await watch_fleet(broker or DEFAULT_BROKER, fleet or DEFAULT_FLEET, explain=explain, show=typer.echo, stop=stop)

    _run_process("watch", serve, False)


@app.command(epilog="Example:  roadside report runs/20260101-120000-abcd --json")
def report(run: Annotated[Path, typer.Argument(help="Folder of the run.")], as_json: Json = False) -> None:
    """Sum up a run: placements, latency, quality, energy. Works while the run goes on."""
    from .qos.report import summarise
    from .qos.run import RunDirectory

    directory = RunDirectory.open(run)
    _print_report(directory, summarise(directory), as_json)


@app.command(epilog="Example:  roadside ask frame.jpg --place cloud --telemetry Vehicle.Speed=36")
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
    from .models.ask import ask_once

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


@log_verbs.command("make", epilog="Example:  roadside log make --seed 7 --count 4 mylog")
def log_make(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    seed: Annotated[int, typer.Option()] = 0,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Clips.")] = 8,
) -> None:
    """Render a driving log in BDD-X's format: videos, telemetry, annotations, splits."""
    from rich.console import Console
    from rich.progress import Progress

    from .datasets.making import make_log

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rendering", total=count)
        make_log(
            out, seed=seed, count=count, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    typer.echo(f"{count} clips in {out}; try: roadside log show {out}")


@log_verbs.command("show", epilog="Example:  roadside log show mylog --png sheet.png")
def log_show(
    log: Annotated[Path | None, typer.Argument(help="Folder of a log [default: the bundled one]")] = None,
    png: Annotated[Path, typer.Option(help="Picture to write.")] = Path("contact-sheet.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips, from the first on.")] = 12,
) -> None:
    """Draw a contact sheet: each clip's frames with time, telemetry and ground truth."""
    from .datasets.contact_sheet import contact_sheet
    from .datasets.drivelog import DriveLog, bundled_log_path

    contact_sheet(DriveLog.open(log or bundled_log_path()), png, clips=clips)
    typer.echo(f"wrote {png}")


@log_verbs.command("info", epilog="Example:  roadside log info bdd-x --json")
def log_info(
    log: Annotated[Path | None, typer.Argument(help="Folder of a log [default: the bundled one]")] = None,
    as_json: Json = False,
) -> None:
    """Count what a log holds, and what of it could not be used, by reason."""
    from .datasets.drivelog import DriveLog, bundled_log_path

    summary = DriveLog.open(log or bundled_log_path()).summary()
    if as_json:
        typer.echo(json.dumps(summary))
        return
    typer.echo(f"{summary['rows']} rows ({summary['blank_rows']} blank), {summary['videos']} videos")
    typer.echo("segments: " + ", ".join(f"{name} {count}" for name, count in summary["segments"].items()))
    typer.echo("dropped: " + (", ".join(f"{why} {count}" for why, count in summary["dropped"].items()) or "nothing"))


@train_verbs.command("vlm", epilog="Example:  roadside train vlm my-model --cpu-minutes 15")
def train_vlm(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    cpu_minutes: Annotated[float, typer.Option(min=0.05, help="CPU time to spend on training proper.")] = 15.0,
    seed: Annotated[int, typer.Option()] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of the data and time, and worse for it.")] = False,
) -> None:
    """Train the small vision-language model on rendered scenes, with its early exits, and score it."""
    from .models.training import train_vlm as train

    card = train(out, cpu_minutes=cpu_minutes, seed=seed, quick=quick)
    for name, scores in card["scores"].items():
        typer.echo(f"{name}: " + ", ".join(f"{what} {share:.1%}" for what, share in scores.items()))
    typer.echo(f"wrote {out}; try: roadside demo --model {out}")


@bench_verbs.command("footprint", epilog="Example:  roadside bench footprint --json")
def bench_footprint(as_json: Json = False) -> None:
    """Start-up time of the command line, and memory and event-loop lag of each kind of process."""
    from .benchmarks.footprint import measure_footprint

    _print_bench(measure_footprint(), as_json)


def _run_node(
    kind: type[Configuration],
    run: Callable[[Any, Any], Coroutine[Any, Any, None]],
    file: Path | None,
    flags: dict[str, Any],
    exit_with_parent: bool,
) -> None:
    from .bus.configuration import load_configuration

    configuration: Any = load_configuration(kind, file, flags)
    _run_process(configuration.name, lambda stop: run(configuration, stop), exit_with_parent)


def _run_process(name: str, main: Callable[[Any], Coroutine[Any, Any, None]], exit_with_parent: bool) -> None:
    from .bus.process import configure_logging, run_until_stopped

    configure_logging(name)
    run_until_stopped(main, exit_with_parent=exit_with_parent)


def _place(place: str | None) -> Any:
    if place is not None and place not in _SERVED_PLACES:
        raise ConfigurationError(f"nobody answers at {place!r}; there are {', '.join(_SERVED_PLACES)}")
    return place


def _print_report(directory: Any, summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    from rich.console import Console

    from .qos.tables import render

    Console().print(render(directory, summary))


def _print_bench(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    machine = result["machine"]
    table = Table(title=f"roadside bench {result['bench']} on {machine['cpu']}, {machine['cores']} cores")
    rows = result["rows"]
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    for name in result.keys() - {"bench", "machine", "settings", "rows", "ratios"}:
        typer.echo(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in result[name].items()))


if __name__ == "__main__":
    main()
