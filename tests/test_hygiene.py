"""The repository root is a package that holds a folder `datasets`; it must never pass for Hugging Face's."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_datasets_is_not_ours():
    spec = importlib.util.find_spec("datasets")
    assert spec is None or (spec.origin is not None and "site-packages" in spec.origin)


def test_pytest_as_a_module_from_the_root_is_stopped_with_the_reason():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_hygiene.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "shadows Hugging Face's" in done.stdout + done.stderr
