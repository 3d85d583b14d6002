"""`make lint` fails for a known vulnerability, and for nothing else that the service may do or not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parent.parent / ".ci" / "audit.py"
GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (json.dumps({"dependencies": [GOOD, UNKNOWN]}), 0, "audited 1 of 2 packages"),
        (json.dumps({"dependencies": [GOOD, BAD]}), 1, "bad 2.0: CVE-2026-1, mended in 2.1"),
        (json.dumps({"dependencies": [UNKNOWN]}), 0, "audit skipped: the service knows none of the 1 packages"),
        ("", 0, "audit skipped: no route to host"),
    ],
)
def test_what_the_audit_makes_of_an_answer(tmp_path: Path, answer: str, status: int, says: str):
    """In place of pip-audit, which asks the network, a module that has the answer."""
    (tmp_path / "pip_audit.py").write_text(
        f"import sys\nprint({answer!r})\nprint('no route to host', file=sys.stderr)\nsys.exit(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, AUDIT], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, says in done.stdout) == (status, True), done.stdout + done.stderr
