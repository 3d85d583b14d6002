"""Configuration of a process: a typed struct, filled from one TOML file and from flags, flags winning.

The file is of this process alone, its keys at the top, or of a whole fleet (fleet_file.py), of which the process
takes the table that has its name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from .defaults import DEFAULT_BROKER, DEFAULT_FLEET
from .errors import ConfigurationError

LogLevel = Literal["debug", "info", "warning", "error"]


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every process's configuration; its fields are the keys of the TOML file."""


class MemberConfiguration(Configuration, frozen=True, kw_only=True):
    """What every member of a fleet has.

    name: of this process on the bus. broker: mqtt[s]://[user:password@]host[:port].
    tls: a folder with this process's certificate (`roadside secure`), for a broker of mqtts.
    fleet: whose member it is; fleets on one broker do not meet.
    wait_for_broker_s: how long a broker that cannot be reached yet is tried; inf: for ever.
    metrics: where Prometheus finds this process: PORT (on this machine only; 0: a free one) or HOST:PORT.
    log_level: the least that it logs; "debug" tells the life of every task.
    """

    name: str
    broker: str = DEFAULT_BROKER
    tls: str | None = None
    fleet: str = DEFAULT_FLEET
    wait_for_broker_s: Annotated[float, Meta(ge=0)] = 0.0
    metrics: int | str | None = None
    log_level: LogLevel = "info"


C = TypeVar("C", bound=Configuration)


def load_configuration(
    kind: type[C], values: Mapping[str, Any], flags: Mapping[str, Any], *, where: str = "flags"
) -> C:
    """Lay the flags that are not None over `values`, and validate the whole.

    where: what the values were read from, for the message. Raises ConfigurationError, one line with what to do, for
    an unknown key and for values of another type or out of range.
    """
    given = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value is not None}
    merged = {**values, **given}
    if problems := problems_in(kind, merged):
        raise ConfigurationError(f"{where}: {'; '.join(problems.values())}; see --help for what is allowed")
    return msgspec.convert(merged, kind)


def problems_in(kind: type[Configuration], values: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with which key's value; empty where `kind` can be made of them.

    What is wrong with several together, each being right by itself, has the key "".
    """
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    problems: dict[str, str] = {}
    for key, value in values.items():
        if key not in types:
            problems[key] = f"unknown key {key!r}; {suggestion(key, types)}"
            continue
        try:
            msgspec.convert(value, types[key])
        except msgspec.ValidationError as error:
            text = str(error)
            problems[key] = f"{key} = {value!r}: {text[:1].lower()}{text[1:]}"
    if not problems:
        try:
            msgspec.convert(values, kind)
        except (msgspec.ValidationError, ConfigurationError) as error:
            problems[""] = str(error)
    return problems


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote `wrong`."""
    known = list(known)
    close = difflib.get_close_matches(wrong, known, n=2)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {', '.join(known)}"


def read_toml(file: Path) -> dict[str, Any]:
    """Raises ConfigurationError for a file that cannot be read or is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}; give an existing TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
