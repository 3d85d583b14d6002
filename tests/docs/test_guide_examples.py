"""The examples that docs/extending.md shows run, and say what they should; own_policy.py has a test of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-P", *arguments], cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_mode_of_ones_own_is_between_the_edge_alone_and_the_whole_model(tmp_path: Path):
    said = output_of(ROOT / "examples" / "own_mode.py", cwd=tmp_path)
    rows = re.findall(r"^(\S+): (\d+)% as the whole model's, (\d+) tokens by the cloud$", said, re.MULTILINE)
    figures = {name: (int(same), int(tokens)) for name, same, tokens in rows}
    assert set(figures) == {"hand-over", "standalone", "ce"}
    assert figures["standalone"][1] == 0
    assert figures["standalone"][0] <= figures["hand-over"][0] <= 100
    # Who hands over for good needs the cloud for more than who asks token by token.
    assert figures["hand-over"][1] > figures["ce"][1] > 0


def test_a_dataset_of_ones_own_becomes_a_log(tmp_path: Path):
    said = output_of(ROOT / "examples" / "own_dataset.py", "my-log", cwd=tmp_path)
    assert "1_meadow: 8 s, 43 km/h" in said
    info = output_of("-m", "roadside.cli", "log", "info", "my-log", "--videos", "--json", cwd=tmp_path)
    counted = json.loads(info)
    assert (counted["rows"], counted["videos"], counted["dropped"]) == (2, 2, {})
    assert counted["segments"]["test"] == 3


def test_the_guide_names_every_example():
    guide = (ROOT / "docs" / "extending.md").read_text()
    for example in (ROOT / "examples").glob("own_*.py"):
        assert f"../examples/{example.name}" in guide
