"""`roadside bench`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ..policy.names import DEFAULT_POLICY
from .options import Json, PolicyName, print_bench, progress_bar

PlotFolder = Annotated[
    Path | None, typer.Option("--plot", metavar="DIR", help="Also draw the figures, as PNGs in this folder.")
]

verbs = typer.Typer(no_args_is_help=True, help="Measure; every figure of the README comes from one of these.")


@verbs.command("footprint", epilog="Example:  roadside bench footprint --json")
def bench_footprint(as_json: Json = False) -> None:
    """Start-up time of the command line, and memory and event-loop lag of each kind of process."""
    from ..benchmarks.footprint import measure_footprint

    print_bench(measure_footprint(), as_json)


@verbs.command("bus", epilog="Example:  roadside bench bus --json")
def bench_bus(
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from fewer messages.")] = False,
    as_json: Json = False,
) -> None:
    """Latency and throughput of the bus beside bare aiomqtt, on the same broker in the same run; half a minute."""
    from ..benchmarks.bus import measure_bus

    print_bench(measure_bus(quick=quick), as_json)


@verbs.command("tls", epilog="Example:  roadside bench tls --json")
def bench_tls(
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from fewer messages.")] = False,
    as_json: Json = False,
) -> None:
    """What mutual TLS and access rules cost: a secured mosquitto beside an open one, in the same run; a minute."""
    from ..benchmarks.secured_bus import measure_secured_bus

    print_bench(measure_secured_bus(quick=quick), as_json)


@verbs.command("calibrate", epilog="Example:  roadside bench calibrate runs/20261121-101500-ab12 --json")
def bench_calibrate(
    run: Annotated[Path | None, typer.Argument(help="A run's folder [default: a fresh demo run]")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the fitted constants go [default: environment.toml in the run]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit the simulated fleet to a real run, and replay the run in it; two minutes where there is no run yet."""
    from ..benchmarks.calibrate import measure_calibration

    print_bench(measure_calibration(run, out), as_json)


@verbs.command("capacity", epilog="Example:  roadside bench capacity --json")
def bench_capacity(
    quick: Annotated[bool, typer.Option("--quick", help="Short stages and a short hold: a rough knee.")] = False,
    as_json: Json = False,
) -> None:
    """How many tasks per second the fleet takes here, and whether a queue grows at 70% of that; about six minutes."""
    from ..benchmarks.capacity import measure_capacity

    print_bench(measure_capacity(quick=quick), as_json)


@verbs.command("collab", epilog="Example:  roadside bench collab --quick --plot pictures")
def bench_collab(
    profile: Annotated[
        str,
        typer.Option(help="What computing costs: paper (CE-CoLLM's machines) or measured (the bundled model here)."),
    ] = "paper",
    link: Annotated[
        str | None,
        typer.Option(metavar="LINK", help="Between edge and cloud, for the rows: RATE,RTT or traces [100Mbps,20ms]."),
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Also run processes over MQTT through the shaping proxy; a minute more.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from 150 scenes instead of 1,000.")] = False,
    plot: PlotFolder = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw what edge, link and cloud do in one answer of each mode.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Time random weights on cpu or cuda, and take that as the profile.")
    ] = None,
    layers: Annotated[int, typer.Option(min=4, help="Of those random weights.")] = 32,
    hidden: Annotated[int, typer.Option(min=128, help="Width of those random weights.")] = 4096,
    as_json: Json = False,
) -> None:
    """Edge and cloud together in every mode, on the bundled model's own decoding traces, beside CE-CoLLM's tables."""
    _end_as_by_ctrl_c()
    from ..benchmarks.collab import CollabOptions, measure_collab, profile_named
    from ..benchmarks.collab_tables import for_a_person

    options = CollabOptions(
        profile=profile_named(profile),
        link=link,
        real=real,
        plot=plot,
        timeline=timeline,
        device=device,
        layers=layers,
        hidden_size=hidden,
    )
    result, pictures = measure_collab(options.quick() if quick else options, progress_bar)
    _tell_written(pictures)
    print_bench(result if as_json else for_a_person(result), as_json)


@verbs.command("overload", epilog="Example:  roadside bench overload --json")
def bench_overload(
    quick: Annotated[bool, typer.Option("--quick", help="Two loads, short stages and a rough knee.")] = False,
    knee: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="HZ", help="Tasks per second that the fleet takes here, if that is known."),
    ] = None,
    policy: PolicyName = None,
    shared_cores: Annotated[
        bool, typer.Option("--shared-cores", help="Let the load use the nodes' cores; else each has half of them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Goodput, refusals and fairness at up to five times the knee of the fleet here; about seven minutes."""
    from ..benchmarks.overload import measure_overload
    from ..bus.process import configure_logging

    configure_logging("bench")
    measured = measure_overload(
        policy=policy or DEFAULT_POLICY, quick=quick, knee_tasks_per_s=knee, shared_cores=shared_cores
    )
    print_bench(measured, as_json)


@verbs.command("poison", epilog="Example:  roadside bench poison --json")
def bench_poison(
    quick: Annotated[bool, typer.Option("--quick", help="One pair of short stretches.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, max=10_000.0, metavar="HZ", help="Messages of the stranger a second [default: 60]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Latency of a fleet's tasks while a stranger publishes nonsense, over that without; about six minutes."""
    from ..benchmarks.poison import POISON_PER_S, measure_poison
    from ..bus.process import configure_logging

    configure_logging("bench")
    print_bench(measure_poison(quick=quick, poison_per_s=rate or POISON_PER_S), as_json)


@verbs.command("default", epilog="Example:  roadside bench default runs/20261121-101500-ab12")
def bench_default(
    run: Annotated[Path | None, typer.Argument(help="A run's folder [default: a fresh demo run]")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the fitted constants go [default: environment.toml in the run]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from fewer seeds and tasks.")] = False,
    as_json: Json = False,
) -> None:
    """Rank the policies in the simulated fleet that is fitted to a run, and say which should be the default."""
    _end_as_by_ctrl_c()
    from ..benchmarks.calibrate import measure_calibration
    from ..benchmarks.policy_default import DefaultPlan, measure_default

    plan = DefaultPlan().quick() if quick else DefaultPlan()
    result = measure_default(lambda: measure_calibration(run, out), plan)
    columns = ("policy", "utility", *(f"load_{load:g}" for load in plan.loads), "behind", "behind_lower95")
    _print_shown(result, as_json, columns=columns, hidden=("best", "wins", "default"))
    if not as_json:
        holds = "as it is" if result["wins"] == result["default"] else f"which is {result['default']} now"
        typer.echo(f"{result['best']} is best; the rule makes {result['wins']} the default, {holds}")


@verbs.command("perllm", epilog="Example:  roadside bench perllm --json")
def bench_perllm(
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from fewer requests and seeds.")] = False,
    plot: PlotFolder = None,
    as_json: Json = False,
) -> None:
    """PerLLM's evaluation anew, every policy beside cloud-only and the linear program's bound; some minutes."""
    _end_as_by_ctrl_c()
    from ..benchmarks.perllm import QUICK, PerllmPlan, measure_perllm
    from ..benchmarks.perllm_plot import plot_perllm

    result = measure_perllm(QUICK if quick else PerllmPlan())
    if plot is not None:
        _tell_written(plot_perllm(result, plot))
    # A terminal is too narrow for intervals, and for a row of every policy in every cell.
    columns = ("policy", "success_share", "throughput_ratio", "joules_per_request", "billed_joules_per_request")
    _print_shown(result, as_json, columns=(*columns, "energy_bound_ratio", "bound"), hidden=("cells",))


@verbs.command("policy", epilog="Example:  roadside bench policy --quick")
def bench_policy(
    quick: Annotated[bool, typer.Option("--quick", help="The same rows from fewer seeds and tasks.")] = False,
    environment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Constants of another fleet, as `roadside bench calibrate` writes them."),
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="headline, or collaborative: with edge+cloud, and knobs that do something.")
    ] = "headline",
    rate: Annotated[float, typer.Option(min=0.01, metavar="HZ", help="Mean tasks per second of the fleet.")] = 20.0,
    edges: Annotated[
        list[int] | None, typer.Option(min=1, help="Only this many edges; may be repeated, the first is the headline.")
    ] = None,
    heartbeat: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0, metavar="SECONDS", help="Only this heartbeat; may be repeated, the first is the headline."
        ),
    ] = None,
    plot: PlotFolder = None,
    as_json: Json = False,
) -> None:
    """Every policy in the simulated fleet, seed by seed on the same arrivals; twenty minutes, or two with --quick."""
    _end_as_by_ctrl_c()
    from ..benchmarks.policy import measure_policy, plan_of
    from ..benchmarks.policy_plot import plot_policy
    from ..benchmarks.policy_tables import tables_of

    plan = plan_of(file=environment, scenario=scenario, rate_hz=rate, edges=edges, heartbeats_s=heartbeat)
    result = measure_policy(plan.quick() if quick else plan)
    if plot is not None:
        _tell_written([plot_policy(result, plot)])
    print_bench(result if as_json else tables_of(result), as_json)
    if not as_json:
        _tell_constants(result)


@verbs.command("faults", epilog="Example:  roadside bench faults --seeds 23 --json")
def bench_faults(
    seeds: Annotated[int, typer.Option(min=1, help="How many; each breaks something in its own way.")] = 23,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; the same seed draws the same fault.")] = 0,
    fault: Annotated[
        str | None, typer.Option(help="Only this one: broker-killed, edge-killed ...; a wrong name lists them.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the run with all its histories in this new folder.")
    ] = None,
    at_most: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Begin no seed later than this after the first.")
    ] = float("inf"),
    as_json: Json = False,
) -> None:
    """Kill, cut, freeze, poison and overload a real fleet, and check the contract of every task; six seconds a seed.

    Exit status 1 where it was broken; what happened to the task, and how to repeat it, goes to stderr.
    """
    _end_as_by_ctrl_c()
    from ..benchmarks.faults import FaultOptions, measure_faults, violations_in
    from ..bus.process import configure_logging

    # What breaks is broken on purpose.
    configure_logging("bench", level="error")

    options = FaultOptions(seeds=seeds, first_seed=first_seed, fault=fault, keep=keep, at_most_s=at_most)
    result = measure_faults(options, progress_bar, lambda line: typer.echo(line, err=True))
    if as_json:
        print_bench(result, as_json)
    else:
        print_bench(
            {key: result[key] for key in ("bench", "machine", "settings", "whole", "ratios")}
            | {"rows": result["recovery"]},
            as_json,
        )
    if violations_in(result):
        raise typer.Exit(1)


@verbs.command("journal", epilog="Example:  roadside bench journal --folder . --json")
def bench_journal(
    folder: Annotated[
        Path | None, typer.Option(help="On the disk that is meant [default: where temporary files go]")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a vehicle's journal costs a task, as it is and with every write forced to the disk; some seconds."""
    from ..benchmarks.journal import measure_journal

    print_bench(measure_journal(folder=folder), as_json)


@verbs.command("rivals", epilog="Example:  roadside bench rivals --json")
def bench_rivals(as_json: Json = False) -> None:
    """How each rival policy does with each of the settings tried for it, on seeds kept for that; six minutes."""
    _end_as_by_ctrl_c()
    from ..benchmarks.rivals import measure_rivals

    print_bench(measure_rivals(), as_json)


@verbs.command("soak", epilog="Example:  roadside bench soak --minutes 60")
def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.5, help="How long the fleet drives.")] = 60.0,
    knee: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="HZ", help="Tasks per second that the fleet takes here, if that is known."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Steady load with a fault every minute: does memory grow, do answers slow down, does anything get lost?"""
    from ..benchmarks.soak import measure_soak
    from ..bus.process import configure_logging

    configure_logging("bench", level="error")  # what breaks is broken on purpose
    print_bench(measure_soak(minutes=minutes, knee_tasks_per_s=knee), as_json)


@verbs.command("ui", epilog="Example:  roadside bench ui --vehicles 100 --json")
def bench_ui(
    vehicles: Annotated[int, typer.Option(min=1, max=500, help="Of two tasks a second each.")] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="A minute, in which memory has not settled.")] = False,
    as_json: Json = False,
) -> None:
    """What the live page costs under a large fleet, and whether it or the browser grows; a quarter of an hour."""
    from dataclasses import replace

    from ..benchmarks.page import QUICK, PageSettings, measure_page

    settings = replace(QUICK if quick else PageSettings(), vehicles=vehicles)
    with progress_bar("watching", round(settings.settle_s + settings.watch_s)) as advance:
        result = measure_page(settings, advance)
    print_bench(result, as_json)


def _end_as_by_ctrl_c() -> None:
    """So that the processes which compute go down with this one when it is told to stop."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _tell_written(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(f"wrote {path}", err=True)


def _print_shown(
    result: dict[str, Any], as_json: bool, *, columns: tuple[str, ...], hidden: tuple[str, ...] = ()
) -> None:
    """All of it as JSON; for a person, these columns of the rows and no table that is hidden."""
    if as_json:
        print_bench(result, as_json)
        return
    shown = {key: value for key, value in result.items() if key not in hidden}
    print_bench(shown | {"rows": [{name: row[name] for name in columns} for row in result["rows"]]}, as_json)
    _tell_constants(result)


def _tell_constants(result: dict[str, Any]) -> None:
    typer.echo(f"constants {result['settings']['constants_sha256']}; --json has the rest")
