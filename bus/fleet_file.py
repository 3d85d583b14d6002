"""One TOML file for a whole fleet: who takes part, and what is said of each.

    [fleet]
    name = "crossing-7"
    broker = "mqtt://10.0.0.5:1883"     # or mqtts://10.0.0.5 with tls = "DIR", the folder of its certificates

    [defaults]              # for every member that knows the key
    wait_for_broker_s = 60

    [[edge]]
    name = "edge"
    count = 2               # edge-1 and edge-2

    [[cloud]]
    [[learner]]             # where vehicles have a policy that learns
    [[vehicle]]
    rate_hz = 0.5

    [recorder]
    metrics = 9100

`roadside edge --config fleet.toml --name edge-2` takes its own table, and `roadside fleet` starts them all. Here the
file's structure is read; what the keys may hold is each role's own configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .configuration import read_toml, suggestion
from .defaults import DEFAULT_FLEET
from .errors import ConfigurationError
from .topics import NAME, checked_name

MemberRole = Literal["recorder", "edge", "cloud", "learner", "vehicle"]
# In the order in which a fleet starts: who answers before who asks. A fleet has as many of them as it likes.
ROLES: tuple[MemberRole, ...] = ("edge", "cloud", "learner", "vehicle")

_TABLES = ("fleet", "defaults", *ROLES, "recorder")
_FLEET_KEYS = ("name", "broker", "tls")
_LARGEST_COUNT = 64


@dataclass(frozen=True, slots=True)
class Member:
    """values: keys and values of its configuration, name and fleet included, not validated yet."""

    role: MemberRole
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FleetFile:
    """broker: None where `roadside fleet` is to start one. tls: folder of the members' certificates.

    defaults: laid under each member's values for the keys that its role knows.
    recorder: every fleet has one, whether or not the file speaks of it.
    problems: what is wrong with the file's structure, one line each; the rest is read all the same.
    """

    name: str
    broker: str | None
    defaults: Mapping[str, Any]
    members: tuple[Member, ...]
    recorder: Member
    problems: tuple[str, ...]
    tls: str | None = None

    def of_role(self, role: MemberRole) -> list[Member]:
        if role == "recorder":
            return [self.recorder]
        return [member for member in self.members if member.role == role]

    def values_of(self, member: Member, known: frozenset[str]) -> dict[str, Any]:
        """The member's values over the defaults and the fleet's broker. known: the keys of its configuration.

        Vehicles of one fleet may stand in one folder, so each has a journal called after itself.
        """
        under = {"journal": f"{member.name}.sqlite"} if "journal" in known else {}
        under |= {key: value for key, value in self.defaults.items() if key in known}
        if self.broker is not None:
            under["broker"] = self.broker
        if self.tls is not None:
            under["tls"] = self.tls
        return {**under, **member.values}


def is_fleet(document: Mapping[str, Any]) -> bool:
    """Whether a TOML file is of a fleet: only such a one has tables."""
    return any(isinstance(document.get(name), dict | list) for name in _TABLES)


def read_fleet(document: Mapping[str, Any]) -> FleetFile:
    """Read the structure; never raises, as every problem is kept for whoever reports them."""
    return _Reader(document).read()


def member_values(file: Path, role: MemberRole, name: str | None, known: frozenset[str]) -> dict[str, Any]:
    """What `file` says of one process: the whole of it, or the table of `name` in a fleet's.

    known: the keys of its configuration. Raises ConfigurationError for a file that cannot be read, for a fleet with
    structural problems, and where it does not say which of several members is meant.
    """
    document = read_toml(file)
    if not is_fleet(document):
        return document
    fleet = read_fleet(document)
    if fleet.problems:
        raise ConfigurationError(f"{file}: {fleet.problems[0]}; `roadside check {file}` shows all there is to mend")
    members = fleet.of_role(role)
    named = [member for member in members if name in (None, member.name)]
    if len(named) != 1:
        names = ", ".join(member.name for member in members)
        asked = f"has no {role} called {name!r}" if name is not None else f"has {len(members)} tables [[{role}]]"
        todo = f"give --name, one of {names}" if names else f"add a table [[{role}]]"
        raise ConfigurationError(f"{file} {asked}: {todo}")
    return fleet.values_of(named[0], known)


@dataclass
class _Reader:
    document: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def read(self) -> FleetFile:
        for table in sorted(self.document.keys() - set(_TABLES)):
            self.problems.append(f"unknown table or key {table!r}; {suggestion(table, _TABLES)}")
        head = self._table("fleet")
        for key in sorted(head.keys() - set(_FLEET_KEYS)):
            self.problems.append(f"[fleet]: unknown key {key!r}; {suggestion(key, _FLEET_KEYS)}")
        name = self._text(head, "name") or DEFAULT_FLEET
        if not NAME.match(name):
            self._note_bad_name("[fleet]", name)
            name = DEFAULT_FLEET
        defaults = self._table("defaults")
        for key in sorted(defaults.keys() & {"name", "fleet", "broker", "count"}):
            self.problems.append(f"[defaults]: {key} cannot be everybody's; {_where_it_stands(key)}")
        members = tuple(member for role in ROLES for member in self._members(role, name))
        recorder = self._recorder(name)
        for clash, count in Counter(member.name for member in (*members, recorder)).items():
            if count > 1:
                self.problems.append(f"{count} members are called {clash!r}: give each a name of its own")
        tls = self._text(head, "tls")
        return FleetFile(name, self._text(head, "broker"), defaults, members, recorder, tuple(self.problems), tls)

    def _recorder(self, fleet: str) -> Member:
        table = self._table("recorder")
        for key in sorted(table.keys() & {"name", "fleet", "broker"}):
            self.problems.append(f"[recorder]: {key} cannot be chosen here; leave it out")
        return Member("recorder", "recorder", {**table, "name": "recorder", "fleet": fleet})

    def _table(self, name: str) -> dict[str, Any]:
        table = self.document.get(name, {})
        if isinstance(table, dict):
            return table
        self.problems.append(f"{name} must be one table: write [{name}]")
        return {}

    def _text(self, table: Mapping[str, Any], key: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self.problems.append(f"[fleet]: {key} must be text, not {value!r}")
        return None

    def _members(self, role: MemberRole, fleet: str) -> list[Member]:
        tables = self.document.get(role, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.problems.append(f"{role} must be an array of tables: write [[{role}]]")
            return []
        members: list[Member] = []
        for table in tables:
            where = f"[[{role}]] {len(members) + 1}"
            for key in sorted(table.keys() & {"fleet", "broker"}):
                self.problems.append(f"{where}: {key} is the whole fleet's; {_where_it_stands(key)}")
            for name in self._names(where, role, table, len(members) + 1):
                values = {key: value for key, value in table.items() if key not in ("count", "fleet", "broker")}
                members.append(Member(role, name, {**values, "name": name, "fleet": fleet}))
        return members

    def _names(self, where: str, role: MemberRole, table: Mapping[str, Any], number: int) -> list[str]:
        """One name, or as many as `count` says; without a name, they go on counting the role's members."""
        name, count = table.get("name"), table.get("count")
        if name is not None and not (isinstance(name, str) and NAME.match(name)):
            self._note_bad_name(where, name)
            name = None
        if count is None:
            return [name or f"{role}-{number}"]
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _LARGEST_COUNT:
            self.problems.append(f"{where}: count must be a number from 1 to {_LARGEST_COUNT}, not {count!r}")
            return []
        first = 1 if name else number
        return [f"{name or role}-{each}" for each in range(first, first + count)]

    def _note_bad_name(self, where: str, name: object) -> None:
        try:
            checked_name(str(name))
        except ConfigurationError as error:
            self.problems.append(f"{where}: {error}")


def _where_it_stands(key: str) -> str:
    if key == "fleet":
        return "it stands as name in [fleet]"
    if key == "broker":
        return "it stands in [fleet]; who reaches it under another address takes --broker or ROADSIDE_BROKER"
    return "it stands in the table of who has it"
