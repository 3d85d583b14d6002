"""One TOML file for a fleet: its members, their names, and what is said about a file that is not right."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.bus.fleet_file import is_fleet, member_values, read_fleet

KNOWN = frozenset({"name", "fleet", "broker", "journal", "rate_hz", "queue_limit", "wait_for_broker_s"})

FILE = """
[fleet]
name = "crossing-7"
broker = "mqtt://10.0.0.5"

[defaults]
wait_for_broker_s = 60
rate_hz = 0.5

[[edge]]
name = "kerb"
count = 2

[[edge]]
queue_limit = 8

[[vehicle]]
name = "bus-12"
rate_hz = 2.0

[[vehicle]]
count = 2
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    return file


def test_members_are_named_and_counted():
    fleet = read_fleet(tomllib.loads(FILE))
    assert fleet.problems == ()
    assert [(member.role, member.name) for member in fleet.members] == [
        ("edge", "kerb-1"),
        ("edge", "kerb-2"),
        ("edge", "edge-3"),
        ("vehicle", "bus-12"),
        ("vehicle", "vehicle-2"),
        ("vehicle", "vehicle-3"),
    ]


def test_a_members_own_value_wins_over_the_default(tmp_path):
    file = write(tmp_path, FILE)
    values = member_values(file, "vehicle", "bus-12", KNOWN)
    assert values == {
        "name": "bus-12",
        "fleet": "crossing-7",
        "broker": "mqtt://10.0.0.5",
        "wait_for_broker_s": 60,
        "rate_hz": 2.0,
        "journal": "bus-12.sqlite",
    }
    assert member_values(file, "vehicle", "vehicle-3", KNOWN)["rate_hz"] == 0.5


def test_a_default_reaches_only_who_knows_it(tmp_path):
    values = member_values(write(tmp_path, FILE), "edge", "edge-3", frozenset({"name", "queue_limit"}))
    assert "rate_hz" not in values
    assert values["queue_limit"] == 8


def test_the_only_member_of_a_role_need_not_be_named(tmp_path):
    assert member_values(write(tmp_path, "[[cloud]]\n"), "cloud", None, KNOWN)["name"] == "cloud-1"


@pytest.mark.parametrize(
    ("role", "name", "says"),
    [
        ("edge", None, "has 3 tables .* kerb-1, kerb-2, edge-3"),
        ("edge", "kerb-9", "no edge called 'kerb-9'.* kerb-1"),
        ("cloud", "cloud-1", r"add a table \[\[cloud\]\]"),
    ],
)
def test_which_member_is_meant_must_be_clear(tmp_path, role, name, says):
    with pytest.raises(ConfigurationError, match=says):
        member_values(write(tmp_path, FILE), role, name, KNOWN)


def test_the_file_of_one_process_is_taken_whole(tmp_path):
    assert member_values(write(tmp_path, 'name = "edge-9"\n'), "edge", None, KNOWN) == {"name": "edge-9"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[vehicles]]\n[fleet]", "did you mean 'vehicle'"),
        ("[edge]", r"write \[\[edge\]\]"),
        ("[[fleet]]", r"write \[fleet\]"),
        ("[fleet]\nbrokr = 'x'", "did you mean 'broker'"),
        ("[fleet]\nname = 'a b'", "cannot be a name"),
        ("[fleet]\nname = 3", "must be text"),
        ("[[edge]]\nname = 'a/b'", r"\[\[edge\]\] 1: 'a/b' cannot be a name"),
        ("[[edge]]\nname = 'a'\n[[cloud]]\nname = 'a'", "2 members are called 'a'"),
        ("[[edge]]\ncount = 0", "count must be a number from 1"),
        ("[[edge]]\ncount = true", "count must be a number from 1"),
        ("[[edge]]\nbroker = 'mqtt://x'", "broker is the whole fleet's"),
        ("[[edge]]\nfleet = 'x'", r"stands as name in \[fleet\]"),
        ("[defaults]\nname = 'x'", "cannot be everybody's"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, says):
    problems = read_fleet(tomllib.loads(text)).problems
    assert len(problems) == 1
    with pytest.raises(ConfigurationError, match=says):
        member_values(write(tmp_path, text), "edge", None, KNOWN)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "count", "x"]), inner),
    max_leaves=6,
)


# The strategy is slow to be built, the more so on a busy machine; what it draws is not too much.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["fleet", "defaults", "edge", "cloud", "vehicle", "zzz"]), VALUES))
def test_whatever_stands_in_a_file_is_read_or_named(document):
    fleet = read_fleet(document)
    names = [member.name for member in fleet.members]
    assert fleet.problems or len(set(names)) == len(names)
    assert isinstance(is_fleet(document), bool)
