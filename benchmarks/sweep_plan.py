"""What a sweep runs: a TOML file of the demo's settings, in which every list is an axis.

All lists are combined with each other. Settings that only make sense together stand in `[[case]]` tables, and each
case is combined with the lists. A case may hold lists of its own, and wins over what stands outside.
"""

from __future__ import annotations

import difflib
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from ..bus.errors import ConfigurationError
from ..datasets.sources import without_password
from ..demo import DemoOptions, check_options
from ..policy.registry import PolicyOptions, make_policy

EXAMPLE = """\
# roadside sweep sweep.toml
# The settings are the flags of `roadside demo`; what is left out is as there.
# Every combination of the lists is one run: here 2 links x 3 seeds x 3 cases = 18 runs.
duration_s = 10
rate_hz = 1.5                            # tasks per second and vehicle
link = ["100Mbps,20ms", "10Mbps,60ms"]   # between each vehicle and the broker
seed = [0, 1, 2]                         # means and intervals are taken over these

# Settings that belong together.
[[case]]
policy = ["greedy-utility", "random"]

[[case]]
place = "edge"                           # everything to one place
"""

SEED = "seed"
# Each run of a sweep has a folder of its own, so this one is not the file's to set.
SETTINGS = tuple(field.name for field in fields(DemoOptions) if field.name != "run")
_UNIT_SUFFIXES = ("_s", "_hz", "_ms")
_MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The runs in their order, no two of them alike. varied: settings in which they differ, the seed left out."""

    runs: tuple[DemoOptions, ...]
    varied: tuple[str, ...]


def read_plan(file: Path) -> SweepPlan:
    """Read a sweep's file and check every run of it, before any is started.

    Raises ConfigurationError, one line with what to do, for a file that cannot be read, an unknown setting, a value
    that the demo would refuse, and more runs than anybody can mean.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {file} ({error.strerror}): begin with `roadside sweep --example > sweep.toml`"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    cases = tables.pop("case", [{}])
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ConfigurationError(f"{file}: write a case as a table of its own, under [[case]]")
    common = _named(tables, file)
    merged = [common | _named(case, file) for case in cases]
    if sum(math.prod(len(values) for values in case.values()) for case in merged) > _MOST_RUNS:
        raise ConfigurationError(f"{file} asks for more than {_MOST_RUNS:,} runs: shorten its lists")
    # A dict keeps the order and drops a combination that two cases share.
    runs = tuple(dict.fromkeys(_checked(settings, file) for case in merged for settings in _combinations(case)))
    varied = [name for name in SETTINGS if name != SEED and len({getattr(run, name) for run in runs}) > 1]
    return SweepPlan(runs, tuple(varied))


def settings_of(options: DemoOptions) -> dict[str, Any]:
    """A run's settings by name, all of them, without the passwords that a URL may hold."""
    values = asdict(options)
    return {name: _safe(values[name]) for name in SETTINGS}


def _safe(value: Any) -> Any:
    return without_password(value) if isinstance(value, str) else value


def _named(table: Mapping[str, Any], file: Path) -> dict[str, list[Any]]:
    """The settings of one table, each as a list of values, under the names of DemoOptions' fields."""
    settings: dict[str, list[Any]] = {}
    for key, value in table.items():
        name = _setting_called(key, file)
        if name in settings:
            raise ConfigurationError(f"{file}: {name} is set twice; keep one of the two")
        settings[name] = value if isinstance(value, list) else [value]
        if not settings[name]:
            raise ConfigurationError(f"{file}: the list of {key} is empty; leave it out, or give it a value")
    return settings


def _setting_called(key: str, file: Path) -> str:
    """The field that a key means: its own name, the flag's way to write it, or that name without its unit."""
    key = key.replace("-", "_")
    names = {name: name for name in SETTINGS}
    names |= {
        name.removesuffix(suffix): name for name in SETTINGS for suffix in _UNIT_SUFFIXES if name.endswith(suffix)
    }
    if key in names:
        return names[key]
    if key == "run":
        raise ConfigurationError(f"{file}: every run of a sweep gets a folder of its own; leave 'run' out")
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SETTINGS)}"
    raise ConfigurationError(f"{file}: the demo has no setting {key!r}; {hint}")


def _combinations(case: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*case.values()):
        yield dict(zip(case, values, strict=True))


def _checked(settings: dict[str, Any], file: Path) -> DemoOptions:
    try:
        options = msgspec.convert(settings, DemoOptions, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}; see `roadside demo --help` for what is allowed") from None
    try:
        check_options(options)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    # Place and policy may be one choice: what the run goes by is what its row says.
    return replace(options, policy=make_policy(options.policy, PolicyOptions(place=options.place)).name)


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected the path of a file or folder, got {value!r}")
