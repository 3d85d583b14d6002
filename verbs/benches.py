"""`roadside bench`."""

from __future__ import annotations

import typer

from .options import Json, print_bench

verbs = typer.Typer(no_args_is_help=True, help="Measure; every figure of the README comes from one of these.")


@verbs.command("footprint", epilog="Example:  roadside bench footprint --json")
def bench_footprint(as_json: Json = False) -> None:
    """Start-up time of the command line, and memory and event-loop lag of each kind of process."""
    from ..benchmarks.footprint import measure_footprint

    print_bench(measure_footprint(), as_json)
