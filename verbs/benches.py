"""`roadside bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Json, print_bench

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


@verbs.command("capacity", epilog="Example:  roadside bench capacity --json")
def bench_capacity(
    quick: Annotated[bool, typer.Option("--quick", help="Short stages and a short hold: a rough knee.")] = False,
    as_json: Json = False,
) -> None:
    """How many tasks per second the fleet takes here, and whether a queue grows at 70% of that; about six minutes."""
    from ..benchmarks.capacity import measure_capacity

    print_bench(measure_capacity(quick=quick), as_json)
