"""What a user gets from a package index: the wheel holds everything, and works where nothing else of ours is."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["bus", "models", "datasets", "policy", "vehicle_node", "edge_node", "cloud_node", "qos", "benchmarks"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-P", "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (path,) = out.glob("roadside-*.whl")
    return path


def test_the_wheel_holds_every_package_and_its_data(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(Path("roadside") / path.relative_to(ROOT))
        for folder in (
            "bus",
            "models",
            "datasets",
            "policy",
            "vehicle_node",
            "edge_node",
            "cloud_node",
            "qos",
            "benchmarks",
        )
        for path in (ROOT / folder).rglob("*.py")
    }
    assert modules <= names
    assert {"roadside/cli.py", "roadside/py.typed", "roadside/models/bundled/model.safetensors"} <= names
    assert "roadside/policy/environment/constants.toml" in names
    assert any(name.startswith("roadside/datasets/rendered/videos/") for name in names)
    assert not any(name.startswith(("roadside/tests", "tests", "datasets")) for name in names)


def test_the_base_install_runs_in_an_empty_environment(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    made = subprocess.run(install, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    roadside = tmp_path / "venv" / "bin" / "roadside"

    shown = subprocess.run([roadside, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "demo" in shown.stdout

    counted = subprocess.run([roadside, "log", "info", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert counted.returncode == 0, counted.stderr

    # The base install has no torch: what needs it says what to install instead of showing a traceback.
    asked = subprocess.run([roadside, "ask", "picture.jpg"], capture_output=True, text=True, cwd=tmp_path)
    assert asked.returncode != 0
    assert "pip install" in asked.stderr
    assert "Traceback" not in asked.stderr
