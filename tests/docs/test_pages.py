"""The pages build without a warning, and those that are made of the program are what it says now."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_pages_build_and_no_link_or_page_is_lost(tmp_path: Path):
    arguments = ("-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees", DOCS, tmp_path / "html")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sphinx", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "html" / "index.html").read_text()
    for page in DOCS.glob("*.md"):
        assert f'href="{page.stem}.html' in index or page.stem == "index", f"docs/index.md does not lead to {page.name}"
    assert re.search(r"<td>.*vehicle/\{vehicle", (tmp_path / "html" / "topics.html").read_text())


def test_the_reference_is_what_the_program_says_now():
    done = subprocess.run([sys.executable, "-P", DOCS / "make_reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_every_key_of_the_configuration_is_explained():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    assert len(rows) > 60
    kinds = {"hazard", "explain", "describe"}
    unexplained = [key for key, about in rows if not about.strip() and key not in kinds]
    assert not unexplained, f"say in the docstring of its class what {', '.join(unexplained)} means"
