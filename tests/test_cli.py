"""The command line as a person meets it: help at once, and one line that says what to do when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from roadside.bus.broker import free_port
from roadside.verbs.options import print_bench

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")
VERBS = (
    "demo",
    "broker",
    "vehicle",
    "edge",
    "cloud",
    "record",
    "fleet",
    "check",
    "watch",
    "report",
    "log",
    "ask",
    "fine-tune",
    "train",
    "bench",
    "top",
    "topics",
)


def roadside(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ROADSIDE, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120)


def refused(*arguments: str, cwd: Path | None = None) -> str:
    """Run a verb that cannot work; returns the one line that it says. It must leave no process behind."""
    before = family()
    done = roadside(*arguments, cwd=cwd)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("roadside: ")]
    assert len(lines) == 1, done.stderr
    _, left = psutil.wait_procs(family() - before, timeout=10)
    assert not left
    return lines[0]


def family() -> set[psutil.Process]:
    """What runs below this process, the brokers of other tests included."""
    return set(psutil.Process().children(recursive=True))


def test_help_names_every_verb_without_loading_torch():
    shown = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", *ROADSIDE[2:], "--help"], capture_output=True, text=True
    )
    assert all(verb in shown.stdout for verb in VERBS)
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "roadside.bus.errors" in imported
    assert not imported & {"torch", "transformers", "numpy", "av", "aiomqtt"}


@pytest.mark.parametrize(
    "verb",
    ["demo", "broker", "vehicle", "edge", "cloud", "record", "fleet", "check", "watch", "report", "ask", "fine-tune"],
)
def test_every_verb_has_an_example(verb):
    assert "Example:" in roadside(verb, "--help").stdout


@pytest.mark.parametrize("module", ["bus.transport", "qos.report", "policy.registry", "vehicle_node.node", "demo"])
def test_vehicles_and_tools_never_load_torch(module):
    code = f"import roadside.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0


def test_an_unreachable_broker(tmp_path):
    line = refused("vehicle", "--broker", f"mqtt://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert "broker" in line


def test_a_broker_url_that_is_none(tmp_path):
    assert "mqtt://" in refused("vehicle", "--broker", "localhost", cwd=tmp_path)


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in refused("broker", "--port", str(port))


def test_an_unknown_model(tmp_path):
    line = refused("ask", "--model", str(tmp_path / "no-such-model"), str(Path(__file__)))
    assert "no-such-model" in line


def test_an_image_that_is_none(tmp_path):
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"GIF89a not a picture")
    assert "JPEG" in refused("ask", str(picture))
    assert "cannot read" in refused("ask", str(tmp_path / "missing.jpg"))


def test_a_wrong_toml_key(tmp_path):
    file = tmp_path / "edge.toml"
    file.write_text('name = "edge-1"\nmodle = "x"\n')
    line = refused("edge", "--config", str(file))
    assert "modle" in line
    assert "model" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [("name = ", "TOML"), ("queue_limit = 0\n", "queue_limit"), ('heartbeat_s = "soon"\n', "heartbeat_s")],
)
def test_a_toml_file_that_cannot_be_used(tmp_path, text, said):
    file = tmp_path / "edge.toml"
    file.write_text(text)
    assert said in refused("edge", "--config", str(file))


def test_a_toml_file_that_is_not_there(tmp_path):
    assert "none.toml" in refused("edge", "--config", str(tmp_path / "none.toml"))


def test_an_unreadable_log(tmp_path):
    (tmp_path / "log").mkdir()
    assert "log" in refused("demo", "--log", str(tmp_path / "log"), cwd=tmp_path)
    assert not (tmp_path / "runs").exists(), "nothing is begun that cannot work"
    assert "log" in refused("log", "info", str(tmp_path / "none"))


def test_the_log_verbs_make_count_and_show_a_log(tmp_path):
    log = tmp_path / "log"
    assert roadside("log", "make", str(log), "--seed", "3", "--count", "1").returncode == 0
    counted = json.loads(roadside("log", "info", str(log), "--json").stdout)
    assert (counted["rows"], counted["videos"], counted["blank_rows"]) == (1, 1, 0)
    assert counted["segments"]["complete"] > 2
    sheet = tmp_path / "sheet.png"
    assert roadside("log", "show", str(log), "--png", str(sheet)).returncode == 0
    assert Image.open(sheet).width > 1000
    assert "not empty" in refused("log", "make", str(log))


def test_an_unknown_policy_or_place(tmp_path):
    assert "greedy-utility" in refused("demo", "--policy", "gredy", cwd=tmp_path)
    assert "cloud" in refused("demo", "--place", "moon", cwd=tmp_path)
    assert "cloud" in refused("vehicle", "--place", "moon", cwd=tmp_path)


def test_a_folder_that_is_no_run(tmp_path):
    assert "run" in refused("report", str(tmp_path))


def test_a_model_whose_node_cannot_start_ends_the_demo(tmp_path):
    line = refused("demo", "--model", str(tmp_path / "no-such-model"), "--vehicles", "1", cwd=tmp_path)
    assert "no-such-model" in line


def test_ctrl_c_ends_a_broker_and_leaves_nothing_behind():
    process = subprocess.Popen([*ROADSIDE, "broker", "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "listens at" not in process.stderr.readline():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_killed_parent_takes_its_processes_along(tmp_path):
    process = subprocess.Popen(
        [*ROADSIDE, "demo", "--duration", "60"], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    me = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while len(me.children(recursive=True)) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = me.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, [child.cmdline() for child in alive]


def test_a_bench_table_keeps_its_figures_beside_a_long_first_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"name": f"goal {number} of {'a rather long name, ' * 4}", "value": 0.123 * number} for number in (1, 2)]
    print_bench({"bench": "x", "machine": {"cpu": "any", "cores": 2}, "rows": rows}, as_json=False)
    shown = capsys.readouterr().out
    assert "0.123" in shown
    assert "0.246" in shown
    assert max(map(len, shown.splitlines())) <= 80
