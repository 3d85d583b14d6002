"""The folder that `roadside secure` makes: a fleet's authority, its members' certificates, and its broker's files.

    DIR/fleet.json                who there is, by role, until when, and who was revoked; no secrets
    DIR/ca.crt, ca.key            the authority; the key belongs on no machine of the fleet
    DIR/NAME.crt, NAME.key        of each identity
    DIR/broker/                   all that a mosquitto needs: mosquitto.conf, access.list, server.crt, server.key, ...

Private keys are readable by their owner alone from the moment they exist. Needs the extra `secure`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from . import mosquitto_configuration
from .access_rules import IdentityRole, access_list
from .certificates import Authority, Issued
from .errors import ConfigurationError
from .topics import checked_name

REGISTER = "fleet.json"
BROKER_FOLDER = "broker"
DEFAULT_DAYS = 365
SECURE_PORT = 8883
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

# An identity of one of these names would stand in a file that is something else.
_TAKEN = {"ca", "broker", "fleet"}


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """serials: hexadecimal, of every certificate that it was ever given, the present one last."""

    name: str
    role: IdentityRole
    ends_at: datetime.datetime
    serials: Annotated[tuple[str, ...], Meta(min_length=1)]
    revoked: bool = False


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """revoked_serials: of certificates that are not to be let in though they have not run out."""

    fleet: str
    hosts: tuple[str, ...]
    port: int
    installed_at: str
    broker_ends_at: datetime.datetime
    identities: tuple[Identity, ...] = ()
    revoked_serials: tuple[str, ...] = ()

    @property
    def members(self) -> list[Identity]:
        return [identity for identity in self.identities if not identity.revoked]

    def find(self, name: str) -> Identity:
        """Raises ConfigurationError where nobody who may take part is called so."""
        for identity in self.members:
            if identity.name == name:
                return identity
        names = ", ".join(identity.name for identity in self.members) or "nobody"
        raise ConfigurationError(f"this fleet has no identity {name!r} that could be meant; there are {names}")


class SecuredFleet:
    """One such folder. `register` says who is in it; every change is written at once."""

    def __init__(self, folder: Path, register: Register, authority: Authority) -> None:
        self.folder = folder
        self.register = register
        self._authority = authority

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        fleet: str,
        members: Sequence[tuple[str, IdentityRole]],
        hosts: Iterable[str] = (),
        port: int = SECURE_PORT,
        days: int = DEFAULT_DAYS,
        installed_at: Path | None = None,
    ) -> SecuredFleet:
        """Make everything anew.

        hosts: under which names and addresses the broker is reached, besides this machine's own. days: for which the
        certificates are good. installed_at: where the broker's files will stand; None: where they are made.
        Raises ConfigurationError for an unusable name, and where the folder has anything in it already.
        """
        _check_names(fleet, [name for name, _ in members])
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(
                f"{folder} is not empty, and nothing is overwritten: give a new folder, or change the fleet in it with"
                " --add, --renew or --revoke"
            )
        authority = Authority.create(fleet)
        lifetime = datetime.timedelta(days=days)
        every_host = tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts)))
        # Before anything is written: a host may be unusable.
        server = authority.issue_broker(every_host, lifetime)
        broker_folder = folder / BROKER_FOLDER
        register = Register(
            fleet=fleet,
            hosts=every_host,
            port=port,
            installed_at=str((installed_at or broker_folder).absolute()),
            broker_ends_at=server.ends_at,
        )
        broker_folder.mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        secured = cls(folder, register, authority)
        _write(folder / "ca.crt", authority.certificate)
        _write_secret(folder / "ca.key", authority.key)
        secured._write_server(server)
        secured._issue(members, lifetime)
        return secured

    @classmethod
    def open(cls, folder: Path) -> SecuredFleet:
        """Raises ConfigurationError where the folder is none that `create` made, or its authority is elsewhere."""
        register = read_register(folder)
        try:
            authority = Authority.read((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {error.filename} ({error.strerror}): to change the fleet, bring its authority's files"
            ) from None
        return cls(folder, register, authority)

    def forget_authority(self) -> None:
        """Delete its key: nothing about the fleet can be changed any more."""
        (self.folder / "ca.key").unlink()

    def add(self, name: str, role: IdentityRole, *, days: int = DEFAULT_DAYS) -> None:
        """A new identity. Raises ConfigurationError for a name that cannot be used or was used before."""
        _check_names(self.register.fleet, [*(identity.name for identity in self.register.identities), name])
        self._issue([(name, role)], datetime.timedelta(days=days))

    def renew(self, name: str, *, days: int = DEFAULT_DAYS) -> None:
        """A new key and certificate for an identity, or for "broker"; the old ones go on being good until they end."""
        lifetime = datetime.timedelta(days=days)
        if name == BROKER_FOLDER:
            server = self._authority.issue_broker(self.register.hosts, lifetime)
            self.register = msgspec.structs.replace(self.register, broker_ends_at=server.ends_at)
            self._write_server(server)
            self._write_register()
            return
        identity = self.register.find(name)
        issued = self._authority.issue_identity(name, lifetime)
        self._write_identity(name, issued)
        serials = (*identity.serials, issued.serial)
        self._replace(msgspec.structs.replace(identity, ends_at=issued.ends_at, serials=serials))

    def revoke(self, name: str) -> None:
        """None of an identity's certificates is let in any more, nor is it in the access list; its name stays used."""
        identity = self.register.find(name)
        revoked = (*self.register.revoked_serials, *identity.serials)
        self.register = msgspec.structs.replace(self.register, revoked_serials=revoked)
        self._replace(msgspec.structs.replace(identity, revoked=True))
        for path in (self.folder / f"{name}.key", self.folder / f"{name}.crt"):
            path.unlink(missing_ok=True)

    def _issue(self, members: Sequence[tuple[str, IdentityRole]], lifetime: datetime.timedelta) -> None:
        new: list[Identity] = []
        for name, role in members:
            issued = self._authority.issue_identity(name, lifetime)
            self._write_identity(name, issued)
            new.append(Identity(name, role, issued.ends_at, (issued.serial,)))
        self.register = msgspec.structs.replace(self.register, identities=(*self.register.identities, *new))
        self._write_register()

    def _replace(self, changed: Identity) -> None:
        identities = tuple(changed if each.name == changed.name else each for each in self.register.identities)
        self.register = msgspec.structs.replace(self.register, identities=identities)
        self._write_register()

    def _write_identity(self, name: str, issued: Issued) -> None:
        _write_secret(self.folder / f"{name}.key", issued.key)
        _write(self.folder / f"{name}.crt", issued.certificate)

    def _write_server(self, issued: Issued) -> None:
        files = mosquitto_configuration.SERVER_FILES
        broker = self.folder / BROKER_FOLDER
        _write(broker / files["cafile"], self._authority.certificate)
        _write_secret(broker / files["keyfile"], issued.key)
        _write(broker / files["certfile"], issued.certificate)

    def _write_register(self) -> None:
        """What follows from the register is written with it."""
        register, broker = self.register, self.folder / BROKER_FOLDER
        members: list[tuple[str, IdentityRole]] = [(each.name, each.role) for each in register.members]
        installed = Path(register.installed_at)
        files = mosquitto_configuration.SERVER_FILES
        _write(broker / files["crlfile"], self._authority.revocations(register.revoked_serials))
        # Not for everybody's eyes, and mosquitto asks for that.
        _write_secret(broker / mosquitto_configuration.ACCESS_LIST_FILE, access_list(register.fleet, members).encode())
        _write(broker / "mosquitto.conf", mosquitto_configuration.secured(installed, port=register.port).encode())
        _write(self.folder / REGISTER, msgspec.json.format(msgspec.json.encode(register), indent=2) + b"\n")


def read_register(folder: Path) -> Register:
    """Who is in a secured fleet's folder; needs no authority, and no extra. Raises ConfigurationError."""
    path = folder / REGISTER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Register)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path} ({error.strerror}): give a folder that `roadside secure` made"
        ) from None
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} is not what `roadside secure` wrote ({error}): restore it") from None


def _check_names(fleet: str, names: list[str]) -> None:
    checked_name(fleet)
    for name in names:
        checked_name(name)
        if name in _TAKEN:
            raise ConfigurationError(f"{name!r} is a file of the folder itself: give the identity another name")
        if names.count(name) > 1:
            raise ConfigurationError(f"{name!r} is used twice, or was used before: give each identity its own name")


def _write(path: Path, content: bytes) -> None:
    """At once or not at all: who reads it meanwhile finds the old content."""
    _write_with_mode(path, content, 0o644)


def _write_secret(path: Path, content: bytes) -> None:
    _write_with_mode(path, content, 0o600)


def _write_with_mode(path: Path, content: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    beside.replace(path)
