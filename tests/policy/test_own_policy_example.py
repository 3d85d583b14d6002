"""examples/own_policy.py, which docs/policies.md shows: it runs, and stays as short as promised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_policy.py"


def test_a_policy_of_ones_own_plays_in_the_simulated_fleet():
    done = subprocess.run([sys.executable, "-P", EXAMPLE], capture_output=True, text=True, timeout=120, check=True)
    figures = re.findall(r"^(\S+): utility (-?\d\.\d{3}), (\d+\.\d)% in time$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in figures] == ["patient", "greedy-utility"]
    assert all(-0.7 < float(utility) < 0.9 and 0 < float(in_time) <= 100 for _, utility, in_time in figures)
    assert figures[0][1] != figures[1][1]


def test_it_takes_fewer_than_forty_lines():
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_the_guide_shows_the_same_policy():
    source = EXAMPLE.read_text().splitlines()
    policy = source[source.index('@register("patient")') : source.index('if __name__ == "__main__":')]
    shown = "\n".join(f"    {line}".rstrip() for line in policy).strip()
    assert shown in (EXAMPLE.parents[1] / "docs" / "policies.md").read_text()
