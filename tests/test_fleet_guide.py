"""docs/running-a-fleet.md: its file can be used, and the metrics that it names exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from roadside.bus import metric_families
from roadside.fleet_check import check_file

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "running-a-fleet.md").read_text()


def test_its_file_can_be_used(tmp_path):
    (block,) = re.findall(r"(?:^    .*\n|^\n)*^    # fleet\.toml\n(?:^    .*\n|^\n)*", GUIDE, re.MULTILINE)
    text = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    assert set(tomllib.loads(text)) == {"fleet", "defaults", "edge", "cloud", "vehicle", "recorder"}
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    assert check_file(file).problems == ()


def test_the_metrics_that_it_names_exist():
    source = (
        Path(metric_families.__file__).read_text()
        + (Path(metric_families.__file__).parents[1] / "cloud_node" / "collaboration.py").read_text()
    )
    named = set(re.findall(r"`roadside_(\w+)", GUIDE)) - {"_name", "name"}
    assert len(named) > 15
    for name in named:
        stem = name.removesuffix("_total").removesuffix("_info")
        assert re.search(rf'"(roadside_)?{stem}"', source), name
