"""A bench as a user runs it: in a process of its own, read from what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")


def bench_json(*words: str) -> dict[str, Any]:
    """What `roadside bench WORDS --json` prints."""
    done = subprocess.run([*ROADSIDE, "bench", *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
