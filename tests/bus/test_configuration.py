"""Configuration from a TOML file and flags."""

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta
from roadside.bus.configuration import Configuration, load_configuration, read_toml
from roadside.bus.errors import ConfigurationError


class Example(Configuration, frozen=True, kw_only=True):
    name: str = "edge-1"
    rate_hz: Annotated[float, Meta(gt=0)] = 1.0
    log: str | None = None


def load(tmp_path: Path, text: str | None = None, **flags) -> Example:
    file = None
    if text is not None:
        file = tmp_path / "example.toml"
        file.write_text(text)
    return load_configuration(Example, {} if file is None else read_toml(file), flags, where=str(file or "flags"))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    made = load(tmp_path, 'name = "from-file"\nrate_hz = 2\n', name="from-flag", log=None)
    assert made == Example(name="from-flag", rate_hz=2.0, log=None)


def test_without_file_and_flags_the_defaults_stand(tmp_path):
    assert load(tmp_path) == Example()


def test_a_path_given_as_a_flag_becomes_text(tmp_path):
    assert load(tmp_path, log=tmp_path).log == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 'x'", "did you mean 'name'"),
        ("zzz = 1", "known are name, rate_hz, log"),
        ("rate_hz = 0", "rate_hz"),
        ("rate_hz = 'fast'", "rate_hz"),
        ("name = [", "not valid TOML"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says) as refused:
        load(tmp_path, text)
    assert "\n" not in str(refused.value)
    assert "example.toml" in str(refused.value)


def test_a_missing_file_and_a_bad_flag_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match="flags"):
        load(tmp_path, rate_hz=-1.0)
