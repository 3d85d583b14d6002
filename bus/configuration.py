"""Configuration of a process: a typed struct, filled from one TOML file and from flags, flags winning."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .defaults import DEFAULT_BROKER, DEFAULT_FLEET
from .errors import ConfigurationError


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every process's configuration; its fields are the keys of the TOML file."""


class MemberConfiguration(Configuration, frozen=True, kw_only=True):
    """What every member of a fleet has.

    name: of this process on the bus. broker: mqtt://[user:password@]host[:port].
    """

    name: str
    broker: str = DEFAULT_BROKER
    fleet: str = DEFAULT_FLEET


C = TypeVar("C", bound=Configuration)


def load_configuration(kind: type[C], file: Path | None, flags: Mapping[str, Any]) -> C:
    """Read `file` (if any), lay the flags that are not None over it, and validate the whole.

    Raises ConfigurationError, one line with what to do, for a file that cannot be read, that is not TOML, that has an
    unknown key or a value of another type or out of range.
    """
    values: dict[str, Any] = {}
    where = "flags"
    if file is not None:
        where = str(file)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}; give an existing TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    for key in values:
        if key not in kind.__struct_fields__:
            raise ConfigurationError(f"{where}: unknown key {key!r}; {_known_keys(kind, key)}")
    values |= {
        key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value is not None
    }
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}; see --help for what is allowed") from None


def _known_keys(kind: type[Configuration], wrong: str) -> str:
    close = difflib.get_close_matches(wrong, kind.__struct_fields__, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known keys are {', '.join(kind.__struct_fields__)}"
