"""What `roadside check` prints."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import asdict, dataclass

import typer

from ..bus.defaults import DEFAULT_WATCHER
from ..bus.errors import BrokerError, ConfigurationError
from ..bus.waiting import round_trip_ms
from ..fleet_check import CheckReport


@dataclass(frozen=True, slots=True)
class Connection:
    """What came of trying the broker: either figure or error; neither where there is none to try."""

    round_trip_ms: float | None = None
    error: str | None = None


def try_broker(url: str | None, tls: str | None, identity: str | None) -> Connection:
    if url is None:
        return Connection()
    try:
        who = {"tls": tls, "identity": identity or DEFAULT_WATCHER} if tls is not None else {}
        return Connection(round_trip_ms=asyncio.run(round_trip_ms(url, **who)))
    except (BrokerError, ConfigurationError) as error:
        return Connection(error=str(error))


def print_check(report: CheckReport, tried: Connection | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**report.plain(), "connection": asdict(tried) if tried is not None else None}))
        return
    broker = f"broker {report.broker}" if report.broker else "`roadside fleet` starts a broker of its own"
    typer.echo(f"{_who(report)}; {broker}")
    for member in report.members:
        settings = "  ".join(f"{key} = {json.dumps(value)}" for key, value in member.settings.items())
        typer.echo(f"  {member.role:<8} {member.name:<16} {settings}".rstrip())
    for note in report.notes:
        typer.echo(f"note: {note}")
    for problem in report.problems:
        typer.echo(f"problem: {problem}")
    if not report.ok:
        typer.echo(f"not usable: {len(report.problems)} to mend")
        return
    typer.echo("usable")
    if tried is not None:
        typer.echo(_connection_line(tried))


def _who(report: CheckReport) -> str:
    if report.kind != "fleet":
        return f"the file of one process ({report.kind}), in fleet {report.fleet}"
    counts = Counter(each.role for each in report.members)
    return f"fleet {report.fleet}: " + (
        ", ".join(f"{n} {role}{'s' * (n > 1)}" for role, n in counts.items()) or "nobody"
    )


def _connection_line(tried: Connection) -> str:
    if tried.error is not None:
        return f"problem: {tried.error}"
    if tried.round_trip_ms is None:
        return "broker: none is named, so there is nothing to try"
    return f"broker: reachable, round trip {tried.round_trip_ms:.1f} ms"
