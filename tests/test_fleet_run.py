"""`roadside fleet FILE`: a fleet of real processes that is watched, loses a node, is scraped, and is stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")


def start(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    (tmp_path / "fleet.toml").write_text(text)
    command = [*ROADSIDE, "fleet", "fleet.toml", "--run", "run"]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def log_lines(tmp_path: Path, name: str) -> list[dict]:
    path = tmp_path / "run" / "logs" / f"{name}.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    give_up_at_s = time.monotonic() + 90
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up_at_s
        time.sleep(0.2)


def scrape(tmp_path: Path, name: str) -> dict[str, float]:
    """Sums over labels, by the sample's name; empty while nothing is served."""
    urls = [line["url"] for line in log_lines(tmp_path, name) if line["event"] == "serves metrics"]
    if not urls:
        return {}
    with urllib.request.urlopen(urls[0], timeout=10) as answer:
        text = answer.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def test_vehicles_that_finish_end_the_fleet(tmp_path):
    process = start(
        tmp_path,
        "[defaults]\nlog_level = 'warning'\n[[vehicle]]\ncount = 2\nplace = 'vehicle'\nduration_s = 2\nrate_hz = 4\n",
    )
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "2 vehicles" in errors
    (report,) = re.findall(r"roadside report (\S+)", said)
    done = subprocess.run([*ROADSIDE, "report", report, "--json"], capture_output=True, text=True, check=True)
    tasks = json.loads(done.stdout)["tasks"]
    assert tasks["created"] == tasks["result"] > 0
    assert tasks["lost"] == 0


def test_a_fleet_outlives_a_node_and_drains_when_it_is_told_to_stop(tmp_path):
    process = start(
        tmp_path,
        "[[edge]]\nmetrics = 0\nlog_level = 'debug'\nqueue_limit = 3\n"
        "[[vehicle]]\nmetrics = 0\nlog_level = 'debug'\nduration_s = 600\nrate_hz = 4\n",
    )
    until(lambda: scrape(tmp_path, "edge-1").get("roadside_tasks_answered_total", 0) >= 2, process)
    edge, vehicle = scrape(tmp_path, "edge-1"), scrape(tmp_path, "vehicle-1")
    assert edge["roadside_service_seconds"] > 0
    assert edge["roadside_memory_bytes"] > 1e8
    assert vehicle["roadside_task_latency_seconds_count"] == vehicle["roadside_tasks_ended_total"] > 0
    assert vehicle["roadside_tasks_created_total"] >= vehicle["roadside_tasks_ended_total"]

    children = psutil.Process(process.pid).children(recursive=True)
    (victim,) = [child for child in children if "edge" in child.cmdline()]
    victim.kill()
    ended = vehicle["roadside_tasks_ended_total"]
    until(lambda: scrape(tmp_path, "vehicle-1")["roadside_tasks_ended_total"] > ended + 3, process)

    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "edge-1 ended with exit status -9" in errors
    assert "the others go on" in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive

    lives = {}
    for name in ("edge-1", "vehicle-1"):
        for line in log_lines(tmp_path, name):
            if "task_id" in line:
                lives.setdefault(line["task_id"], []).append((name, line["event"]))
    answered = [life for life in lives.values() if ("edge-1", "answered") in life]
    assert answered
    for life in answered:
        assert [event for name, event in life if name == "edge-1"][:3] == ["accepted", "started", "answered"]
    vehicles = [[event for name, event in life if name == "vehicle-1"] for life in lives.values()]
    assert all(life[0] == "created" and life.count("ended") == 1 for life in vehicles), "SIGTERM drains"


def test_a_file_that_cannot_be_used_starts_nothing(tmp_path):
    process = start(tmp_path, "[[vehicle]]\nrate_hz = 0\n")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "rate_hz" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()
