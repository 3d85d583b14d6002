"""`roadside check`: what a TOML file would run, and everything in it that could not. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from .bus.configuration import MemberConfiguration, problems_in, read_toml, suggestion
from .bus.connection import BrokerAddress
from .bus.errors import ConfigurationError
from .bus.fleet_file import ROLES, FleetFile, MemberRole, is_fleet, read_fleet
from .bus.metrics import parse_listen_address
from .bus.topics import checked_name
from .datasets.sources import without_password

_IDENTITY = {"name", "fleet", "broker"}
_HUB = "is not a folder here: it would be looked for on the Hugging Face hub"


@dataclass(frozen=True, slots=True)
class Finding:
    """where: the member's name, or "" where it is about the whole file."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True, slots=True)
class MemberSummary:
    """settings: what differs from the role's defaults, name, fleet and broker left out."""

    role: str
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """broker: its URL without the password; None where `roadside fleet` would start one of its own.

    tls: folder of certificates, where there is one.
    problems keep something from running; notes are worth knowing and keep nothing.
    """

    file: str
    kind: str
    fleet: str
    broker: str | None
    broker_url: str | None = field(repr=False)
    tls: str | None
    members: tuple[MemberSummary, ...]
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def plain(self) -> dict[str, Any]:
        """For JSON; without the password."""
        shown = asdict(self)
        del shown["broker_url"]
        return {**shown, "ok": self.ok}


def check_file(file: Path, broker: str | None = None, tls: Path | None = None) -> CheckReport:
    """Check the file of one process or of a fleet. Raises ConfigurationError only where it cannot be read at all.

    broker, tls: to be used instead of the file's.
    """
    document = read_toml(file)
    if is_fleet(document):
        return _check_fleet(file, read_fleet(document), broker, tls)
    return _check_process(file, document, broker, tls)


def configuration_of(role: MemberRole) -> type[MemberConfiguration]:
    """Imported here, as a fleet without nodes needs nothing of what they are made of."""
    if role == "vehicle":
        from .vehicle_node.configuration import VehicleConfiguration

        return VehicleConfiguration
    if role == "recorder":
        from .qos.recording import RecorderConfiguration

        return RecorderConfiguration
    if role == "edge":
        from .edge_node.configuration import EdgeConfiguration

        return EdgeConfiguration
    if role == "learner":
        from .learner_node.configuration import LearnerConfiguration

        return LearnerConfiguration
    from .cloud_node.configuration import CloudConfiguration

    return CloudConfiguration


def _check_fleet(file: Path, fleet: FleetFile, broker: str | None, tls: Path | None) -> CheckReport:
    findings = _Findings()
    for problem in fleet.problems:
        findings.problem("", problem)
    kinds: dict[MemberRole, type[MemberConfiguration]] = {
        role: configuration_of(role) for role in (*ROLES, "recorder") if fleet.of_role(role)
    }
    findings.default_keys(fleet, kinds)
    if not fleet.members:
        findings.problem("", "nobody takes part: add tables [[edge]], [[cloud]] or [[vehicle]]")
    made: list[tuple[MemberRole, MemberConfiguration]] = []
    for member in (*fleet.members, fleet.recorder):
        kind = kinds[member.role]
        values = fleet.values_of(member, frozenset(kind.__struct_fields__))
        configuration = findings.convert(kind, values, member.name)
        findings.of_member(member.role, configuration)
        made.append((member.role, configuration))
    findings.between_members(made, {member.role for member in fleet.members})
    url, folder = broker or fleet.broker, fleet.tls if tls is None else str(tls)
    findings.certificates(url, folder, made)
    return findings.report(file, "fleet", fleet.name, url, folder, made)


def _check_process(file: Path, document: Mapping[str, Any], broker: str | None, tls: Path | None) -> CheckReport:
    """A file of one process does not say of which role: it is taken for the one that knows most of its keys."""
    every: tuple[MemberRole, ...] = (*ROLES, "recorder")
    unknown = {role: len(document.keys() - set(configuration_of(role).__struct_fields__)) for role in every}
    roles: list[MemberRole] = [role for role in every if unknown[role] == min(unknown.values())]
    findings = _Findings()
    configuration = findings.convert(configuration_of(roles[0]), document, "")
    findings.of_member(roles[0], configuration)
    url, folder = broker or configuration.broker, configuration.tls if tls is None else str(tls)
    findings.certificates(url, folder, [(roles[0], configuration)])
    return findings.report(file, " or ".join(roles), configuration.fleet, url, folder, [(roles[0], configuration)])


class _Findings:
    """Collects what is found, and goes on."""

    def __init__(self) -> None:
        self._problems: list[Finding] = []
        self._notes: list[Finding] = []

    def problem(self, where: str, what: str) -> None:
        self._problems.append(Finding(where, what))

    def note(self, where: str, what: str) -> None:
        self._notes.append(Finding(where, what))

    def report(
        self,
        file: Path,
        kind: str,
        fleet: str,
        broker_url: str | None,
        tls: str | None,
        made: list[tuple[MemberRole, MemberConfiguration]],
    ) -> CheckReport:
        broker = self._broker(broker_url)
        members = tuple(MemberSummary(role, each.name, _settings(each)) for role, each in made)
        return CheckReport(
            str(file), kind, fleet, broker, broker_url, tls, members, tuple(self._problems), tuple(self._notes)
        )

    def convert(self, kind: type[MemberConfiguration], values: Mapping[str, Any], where: str) -> MemberConfiguration:
        """The configuration, with the role's defaults in place of what cannot be used."""
        problems = problems_in(kind, values)
        usable = {key: value for key, value in values.items() if key not in problems}
        if together := problems_in(kind, usable):
            problems |= together
            usable = {key: usable[key] for key in usable.keys() & _IDENTITY}
        for problem in problems.values():
            self.problem(where, problem)
        return msgspec.convert(usable, kind)

    def _broker(self, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            return str(BrokerAddress.parse(url))
        except ConfigurationError as error:
            self.problem("", str(error))
            return None

    def certificates(
        self, broker_url: str | None, tls: str | None, made: list[tuple[MemberRole, MemberConfiguration]]
    ) -> None:
        """Who runs on another machine has its certificate there: that it is missing here is only worth knowing."""
        if broker_url is not None and tls is not None and not broker_url.startswith("mqtts:"):
            self.problem("", f"tls = {tls!r} is for a broker that is spoken to over TLS: write its URL as mqtts://")
        for _, member in made:
            if (folder := tls or member.tls) is not None and not (Path(folder) / f"{member.name}.crt").is_file():
                self.note(member.name, f"no certificate for it in {folder}: it cannot run on this machine")

    def default_keys(self, fleet: FleetFile, kinds: Mapping[MemberRole, type[MemberConfiguration]]) -> None:
        """A default that no member knows would be lost without a word."""
        known = dict.fromkeys(key for kind in kinds.values() for key in kind.__struct_fields__)
        for key in (key for key in fleet.defaults if key not in known):
            self.problem("[defaults]", f"nobody here knows the key {key!r}; {suggestion(key, known)}")

    def of_member(self, role: MemberRole, configuration: MemberConfiguration) -> None:
        name = configuration.name
        for each in _refusals(role, configuration):
            self.problem(name, each)
        model = _local_model(configuration)
        if model is not None and not Path(model).is_dir():
            if model.count("/") == 1 and not model.startswith((".", "/", "~")):
                self.note(name, f"model {model!r} {_HUB}")
            else:
                self.problem(name, f"no model at {model}: give a model's folder or a Hugging Face id like owner/name")

    def between_members(self, made: list[tuple[MemberRole, MemberConfiguration]], roles: set[MemberRole]) -> None:
        """What only shows when the members are looked at together."""
        clouds = {each.name for role, each in made if role == "cloud"}
        learners = {each.name for role, each in made if role == "learner"}
        journals: dict[Path, str] = {}
        folders: dict[Path, str] = {}
        ports: dict[int, str] = {}
        for _, member in made:
            place = getattr(member, "place", None)
            for needed in () if place in (None, "vehicle") else str(place).split("+"):
                if needed not in roles:
                    self.problem(member.name, f"place = {place!r}, but this fleet has no {needed}: add [[{needed}]]")
            cloud = getattr(member, "cloud", None)
            if cloud is not None and cloud not in clouds:
                self.problem(member.name, f"cloud = {cloud!r}, but this fleet has no cloud of that name")
            followed = getattr(member, "policy_from", None)
            if followed is not None and followed not in learners:
                self.problem(member.name, f"policy_from = {followed!r}, but this fleet has no learner of that name")
            if (folder := getattr(member, "folder_path", None)) is not None:
                first = folders.setdefault(folder.resolve(), member.name)
                if first != member.name:
                    self.problem(member.name, f"folder {folder} is {first}'s: give each learner a folder of its own")
            if (journal := getattr(member, "journal", None)) is not None:
                first = journals.setdefault(Path(journal).resolve(), member.name)
                if first != member.name:
                    self.problem(member.name, f"journal {journal} is {first}'s: give each vehicle a file of its own")
            port = _port(member)
            if port and (first := ports.setdefault(port, member.name)) != member.name:
                self.note(member.name, f"metrics port {port} is {first}'s too: on one machine only one can have it")


def _refusals(role: MemberRole, configuration: MemberConfiguration) -> Iterator[str]:
    """What a configuration of the right types would still be refused for when it is used, in the words of then."""
    attempts: list[Any] = [lambda: checked_name(configuration.name)]
    if (metrics := configuration.metrics) is not None:
        attempts.append(lambda: parse_listen_address(metrics))
    if role == "vehicle":
        attempts += [lambda: _look_at_source(configuration), lambda: _make_policy(configuration)]
    if role == "learner":
        attempts.append(lambda: _look_at_start(configuration))
    if _asks_a_server(configuration):
        attempts.append(lambda: _look_at_server_settings(configuration))
    for attempt in attempts:
        try:
            attempt()
        except ConfigurationError as error:
            yield str(error)
    journal = getattr(configuration, "journal", None)
    if journal is not None and not Path(journal).absolute().parent.is_dir():
        yield f"journal = {journal!r}: there is no folder {Path(journal).parent}"


def _look_at_source(configuration: Any) -> None:
    """A live camera is left alone: to look whether it is there would be to start something."""
    from .vehicle_node.scenes import check_source, is_live

    if configuration.video is None or configuration.log is not None or not is_live(configuration.video):
        check_source(Path(configuration.log) if configuration.log is not None else None, configuration.video)


def _local_model(configuration: Any) -> str | None:
    """The folder or hub id that it would load; None for the bundled one, and where it loads none."""
    if _asks_a_server(configuration):
        return None
    own = getattr(configuration, "vehicle_model", None)
    return getattr(configuration, "model", None) if own in (None, "bundled") else own


def _asks_a_server(configuration: Any) -> bool:
    return getattr(configuration, "backend", None) == "openai"


def _look_at_server_settings(configuration: Any) -> None:
    """The server itself is left alone."""
    from .cloud_node.backends.gateway import check_server_settings

    check_server_settings(configuration)


def _make_policy(configuration: Any) -> None:
    from .policy.registry import make_policy

    make_policy(configuration.policy, configuration.policy_options)


def _look_at_start(configuration: Any) -> None:
    """What a learner would begin with, where it does not go on from a folder of its own."""
    from .policy.weights import load_weights

    if not configuration.folder_path.exists():
        load_weights(configuration.start_path)


def _port(configuration: MemberConfiguration) -> int:
    """Of the metrics; 0 where there are none, any free port will do, or the address was refused above."""
    if configuration.metrics is None:
        return 0
    try:
        return parse_listen_address(configuration.metrics)[1]
    except ConfigurationError:
        return 0


def _settings(configuration: MemberConfiguration) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(configuration)
    defaults: dict[str, Any] = msgspec.to_builtins(type(configuration)(name=configuration.name))
    said = {key: value for key, value in values.items() if key not in _IDENTITY and value != defaults[key]}
    # A camera's URL may hold a password.
    return {key: without_password(value) if isinstance(value, str) else value for key, value in said.items()}
