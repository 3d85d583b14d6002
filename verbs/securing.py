"""`roadside secure`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..bus.defaults import DEFAULT_FLEET
from ..bus.errors import ConfigurationError

if TYPE_CHECKING:
    from ..bus.access_rules import IdentityRole
    from ..bus.secured_fleet import Register, SecuredFleet

verbs = typer.Typer()

_NAMES = "NAMES|N"
_LARGEST_COUNT = 1000


@verbs.command(
    epilog="Example:  roadside secure certificates --vehicles 2 --edges kerb-1 --clouds 1 --broker-host broker.lan;  "
    "roadside secure certificates --add vehicle bus-12;  roadside secure certificates --revoke bus-12"
)
def secure(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of one fleet; made where it does not exist.")],
    vehicles: Annotated[str, typer.Option(metavar=_NAMES, help="car,bus-12; or 3, for vehicle-1 to vehicle-3.")] = "",
    edges: Annotated[str, typer.Option(metavar=_NAMES)] = "",
    clouds: Annotated[str, typer.Option(metavar=_NAMES)] = "",
    learners: Annotated[str, typer.Option(metavar=_NAMES)] = "",
    recorders: Annotated[str, typer.Option(metavar=_NAMES)] = "recorder",
    watchers: Annotated[str, typer.Option(metavar=_NAMES, help="One for each onlooker at a time.")] = "1",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A fleet's TOML file, instead of the names: all of its members.")
    ] = None,
    fleet: Annotated[str | None, typer.Option("--fleet", help="Its name [default: the file's, else demo]")] = None,
    broker_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Name or address under which the broker is reached; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the broker will listen.")] = 8883,
    installed_at: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Where DIR/broker will stand on the broker's machine [default: as it stands]"
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="For which new certificates are good.")] = 365,
    add: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ROLE NAME", help="A new identity: vehicle, edge, cloud, learner, recorder or watcher."),
    ] = None,
    renew: Annotated[
        str | None, typer.Option(metavar="NAME", help="A new key and certificate for an identity, or for broker.")
    ] = None,
    revoke: Annotated[str | None, typer.Option(metavar="NAME", help="Lock an identity out for good.")] = None,
) -> None:
    """Make a fleet's own certificates, access rules and mosquitto configuration; or change or show those of a folder.

    With names or --config it makes a new fleet, and nothing is ever overwritten; with DIR alone it shows who is in it.
    """
    from ..bus.secured_fleet import SecuredFleet, read_register

    names = _members(vehicles=vehicles, edges=edges, clouds=clouds, learners=learners)
    if sum(each is not None for each in (add, renew, revoke)) + bool(names or config) > 1:
        raise ConfigurationError("one thing at a time: make a fleet, --add, --renew or --revoke")
    if names or config:
        fleet, names = _of_file(config, fleet, names) if config is not None else (fleet or DEFAULT_FLEET, names)
        others = _members(recorders=recorders, watchers=watchers)
        made = SecuredFleet.create(
            folder,
            fleet=fleet,
            members=[*names, *(each for each in others if each not in names)],
            hosts=broker_host or (),
            port=port,
            days=days,
            installed_at=installed_at,
        )
        _tell_made(made)
    elif add is not None:
        role, name = add
        SecuredFleet.open(folder).add(name, _role_named(role), days=days)
        typer.echo(f"added {role} {name}: take {folder}/ca.crt, {name}.crt and {name}.key to its machine")
        _tell_to_reload(folder)
    elif renew is not None:
        SecuredFleet.open(folder).renew(renew, days=days)
        if renew == "broker":
            typer.echo(f"renewed the broker's certificate: replace its files by those in {folder}/broker, restart it")
        else:
            typer.echo(f"renewed {renew}: replace {renew}.crt and {renew}.key on its machine; it need not be restarted")
            typer.echo(
                f"the old ones are good until they end; if they are stolen: --revoke {renew}, then --add a new name"
            )
    elif revoke is not None:
        SecuredFleet.open(folder).revoke(revoke)
        typer.echo(f"revoked {revoke}; a connection that it has stands until then, but nothing more goes through")
        _tell_to_reload(folder)
    else:
        _show(folder, read_register(folder))


def _members(**given: str) -> list[tuple[str, IdentityRole]]:
    """By the plural of a role: "a,b", or how many."""
    members: list[tuple[str, IdentityRole]] = []
    for plural, names in given.items():
        role = _role_named(plural.removesuffix("s"))
        if names.isdecimal() and int(names) > _LARGEST_COUNT:
            raise ConfigurationError(f"--{plural} {names} is more than {_LARGEST_COUNT}: make several fleets")
        each = [f"{role}-{number}" for number in range(1, int(names) + 1)] if names.isdecimal() else names.split(",")
        members.extend((name.strip(), role) for name in each if name.strip())
    return members


def _of_file(
    file: Path, fleet: str | None, names: list[tuple[str, IdentityRole]]
) -> tuple[str, list[tuple[str, IdentityRole]]]:
    from ..bus.configuration import read_toml
    from ..bus.fleet_file import is_fleet, read_fleet

    document = read_toml(file)
    if names or fleet is not None or not is_fleet(document):
        raise ConfigurationError(f"{file} must be the file of a fleet, and say by itself who is in it and its name")
    read = read_fleet(document)
    if read.problems:
        raise ConfigurationError(f"{file}: {read.problems[0]}; `roadside check {file}` shows all there is to mend")
    return read.name, [(member.name, _role_named(member.role)) for member in (*read.members, read.recorder)]


def _role_named(role: str) -> IdentityRole:
    from ..bus.access_rules import IDENTITY_ROLES

    if role not in IDENTITY_ROLES:
        raise ConfigurationError(f"there is no role {role!r}; there are {', '.join(IDENTITY_ROLES)}")
    return cast("IdentityRole", role)


def _tell_made(made: SecuredFleet) -> None:
    register, folder = made.register, made.folder
    host = next((host for host in register.hosts if host not in ("localhost", "127.0.0.1", "::1")), "127.0.0.1")
    counts = ", ".join(f"{each.role} {each.name}" for each in register.members)
    for line in (
        f"fleet {register.fleet}: {counts}",
        "",
        "1. Keep ca.key away from every machine of the fleet: who has it can let anybody in.",
        f"2. The broker gets {folder}/broker, and runs: mosquitto -c {register.installed_at}/mosquitto.conf",
        f"   (on one machine, to try it: roadside broker --tls {folder} --port {register.port})",
        f"3. Each process gets ca.crt and its own NAME.crt and NAME.key of {folder}, and is told both:",
        f"   export ROADSIDE_BROKER=mqtts://{host}:{register.port} ROADSIDE_TLS={folder}",
        f"4. roadside watch --fleet {register.fleet} shows who is there. Certificates end on {_day(register)}.",
    ):
        typer.echo(line)


def _day(register: Register) -> str:
    return f"{min(register.broker_ends_at, *(each.ends_at for each in register.members)):%Y-%m-%d}"


def _tell_to_reload(folder: Path) -> None:
    typer.echo(
        f"the broker must know: replace its files by those in {folder}/broker, then `systemctl reload mosquitto`"
    )


def _show(folder: Path, register: Register) -> None:
    from rich.console import Console
    from rich.table import Table

    now = datetime.datetime.now(datetime.UTC)
    table = Table(title=f"fleet {register.fleet}, broker at {', '.join(register.hosts)} port {register.port}")
    for heading in ("identity", "role", "certificate ends", "days left"):
        table.add_column(heading)
    table.add_row("broker", "broker", f"{register.broker_ends_at:%Y-%m-%d}", str((register.broker_ends_at - now).days))
    for each in register.identities:
        left = "revoked" if each.revoked else str((each.ends_at - now).days)
        table.add_row(each.name, each.role, f"{each.ends_at:%Y-%m-%d}", left)
    Console().print(table)
    typer.echo(f"change it with: roadside secure {folder} --add ROLE NAME, --renew NAME or --revoke NAME")
