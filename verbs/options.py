"""Flags that several verbs share, and what a verb does with a configuration, a summary or a bench."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ..bus.defaults import BROKER_VARIABLE, LOG_LEVEL_VARIABLE, TLS_VARIABLE, VIDEO_VARIABLE
from ..bus.errors import ConfigurationError
from ..bus.places import PLACES
from ..policy.names import DEFAULT_POLICY, POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from rich.table import Table

    from ..bus.configuration import LogLevel, MemberConfiguration
    from ..bus.fleet_file import MemberRole

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; messages go to stderr.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; flags win over it.")]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker", envvar=BROKER_VARIABLE, help="mqtt[s]://[user:password@]host[:port]")
]
TlsFolder = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        envvar=TLS_VARIABLE,
        metavar="DIR",
        help="Folder with this process's certificate, from `roadside secure`; for a broker of mqtts.",
    ),
]
IdentityName = Annotated[
    str | None,
    typer.Option("--identity", metavar="NAME", help="Whose certificate of --tls is shown [default: watcher-1]."),
]
FleetName = Annotated[str | None, typer.Option("--fleet", help="Name of the fleet; fleets on one broker do not meet.")]
NodeName = Annotated[str | None, typer.Option("--name", help="Name of this process on the bus.")]
Model = Annotated[
    str | None, typer.Option("--model", help="A model's folder or Hugging Face id [default: the bundled model]")
]
WaitForBroker = Annotated[
    float | None,
    typer.Option(
        "--wait-for-broker", metavar="SECONDS", help="Keep trying an absent broker [default: 0; inf: for ever]"
    ),
]
MetricsAt = Annotated[
    str | None,
    typer.Option("--metrics", metavar="[HOST:]PORT", help="Serve Prometheus metrics; port 0 takes a free one."),
]
LogLevelName = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        envvar=LOG_LEVEL_VARIABLE,
        parser=str.lower,
        metavar="LEVEL",
        help="debug, info, warning or error [default: info]",
    ),
]
VideoSource = Annotated[
    str | None,
    typer.Option(
        "--video", envvar=VIDEO_VARIABLE, metavar="FILE|URL", help="Instead of a log: a video file, or a live camera."
    ),
]
LinkSpec = Annotated[
    str | None,
    typer.Option("--link", metavar="LINK", help="RATE,RTT (10Mbps,40ms), or trace files: mahimahi rate, cicv5g delay."),
]
KeepFramesRule = Annotated[
    str | None,
    typer.Option("--keep-frames", help="none, sampled (published for people) or tasks (what nodes were asked)."),
]
VehicleModel = Annotated[
    str | None,
    typer.Option(
        "--vehicle-model",
        metavar="ID|DIR",
        help='A small model of the vehicle\'s own; "bundled" for the bundled one [default: none, its narrator alone]',
    ),
]
FramesPerTask = Annotated[
    int | None,
    typer.Option(
        "--frames-per-task",
        min=1,
        max=2,
        help="2: a vehicle also sends the frame of a second ago, twice the bytes [default: 1]",
    ),
]
WithParent = Annotated[bool, typer.Option("--exit-with-parent", hidden=True, help="Stop when stdin is closed.")]
Theta = Annotated[
    float | None,
    typer.Option("--theta", min=0.0, max=10.0, help="Confidence at which an exit speaks [default: as calibrated]."),
]
ModeName = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="How edges decode: standalone; with a cloud: ce, ce-sync, ce-optimistic, through, cloud, naive, naive-kv; "
        "or auto.",
    ),
]
PlaceName = Annotated[str | None, typer.Option("--place", help="All to vehicle, edge, edge+cloud or cloud.")]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help=f"How a place is chosen: {', '.join(POLICIES)} [default: {DEFAULT_POLICY}]"),
]
PolicyWeightsFile = Annotated[
    Path | None,
    typer.Option("--policy-weights", help="File of `roadside train policy` [default: those that ship]"),
]


def run_node(
    role: MemberRole,
    kind: type[MemberConfiguration],
    run: Callable[[Any, Any], Coroutine[Any, Any, None]],
    file: Path | None,
    flags: dict[str, Any],
    exit_with_parent: bool,
) -> None:
    """file: of this process, or of a fleet, of which it takes the table of its role and name."""
    from ..bus.configuration import load_configuration
    from ..bus.fleet_file import member_values
    from ..bus.waiting import until_reachable

    values = member_values(file, role, flags["name"], frozenset(kind.__struct_fields__)) if file is not None else {}
    configuration = load_configuration(kind, values, flags, where="flags" if file is None else str(file))

    async def main(stop: Any) -> None:
        who = {"tls": configuration.tls, "identity": configuration.name}
        if await until_reachable(configuration.broker, wait_s=configuration.wait_for_broker_s, stop=stop, **who):
            await run(configuration, stop)

    run_process(configuration.name, main, exit_with_parent, configuration.log_level)


def run_process(
    name: str,
    main: Callable[[Any], Coroutine[Any, Any, None]],
    exit_with_parent: bool,
    log_level: LogLevel = "info",
) -> None:
    from ..bus.process import configure_logging, run_until_stopped

    configure_logging(name, level=log_level)
    run_until_stopped(main, exit_with_parent=exit_with_parent)


def own_model_loader(model: str | None) -> Callable[[], Any] | None:
    """What loads a vehicle's own model; None for a vehicle without one, which then never imports torch."""
    if model is None:
        return None
    from ..models.answering import vehicle_answerer

    return partial(vehicle_answerer, None if model == "bundled" else model)


def place_named(place: str | None) -> Any:
    if place is not None and place not in PLACES:
        raise ConfigurationError(f"nobody answers at {place!r}; there are {', '.join(PLACES)}")
    return place


def log_level_named(level: str | None) -> LogLevel:
    from ..bus.configuration import LogLevel

    levels: dict[str, LogLevel] = {name: name for name in get_args(LogLevel)}
    if level is None or level in levels:
        return levels[level or "info"]
    raise ConfigurationError(f"there is no log level {level!r}; there are {', '.join(levels)}")


@contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with its rate; without a total, one that only moves."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total, rate="")

        def advance(done: int) -> None:
            progress.advance(task, done)
            speed = progress.tasks[0].speed
            progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


def print_report(directory: Any, summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    from rich.console import Console

    from ..qos.tables import render

    Console().print(render(directory, summary))


# Of a table's first column, in characters.
_LONGEST_UNWRAPPED = 32


def _bench_table(heading: str, rows: list[dict[str, Any]]) -> Table:
    """A line for each row; a single row stands upright, since it may be long."""
    from rich.table import Table

    def written(value: Any) -> str:
        if value is None:
            return "–"
        if not isinstance(value, float):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    table = Table(title=heading)
    if len(rows) == 1:
        table.add_column("figure")
        table.add_column("value", justify="right")
        for name, value in rows[0].items():
            table.add_row(name.replace("_", " "), written(value))
        return table
    # What a row is of must stay readable, however narrow the terminal, and leave room for its figures.
    first, *others = rows[0]
    longest = max(len(written(row[first])) for row in rows)
    table.add_column(first.replace("_", " "), no_wrap=longest <= _LONGEST_UNWRAPPED, min_width=12, overflow="fold")
    for column in others:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(written(value) for value in row.values()))
    return table


def print_bench(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    from rich.console import Console

    machine = result["machine"]
    title = f"roadside bench {result['bench']} on {machine['cpu']}, {machine['cores']} cores"
    # What a bench found on its way to its rows is a table of its own.
    tables = {title: result["rows"]} | {name: found for name, found in result.items() if isinstance(found, list)}
    del tables["rows"]
    for heading, rows in tables.items():
        Console().print(_bench_table(heading, rows))
    for name in sorted(result.keys() - {"bench", "machine", "settings", *tables, "rows"}):
        if result[name]:
            typer.echo(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in result[name].items()))
