"""A sweep: what its file means, what its table holds, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from roadside.benchmarks.sweep_plan import EXAMPLE, read_plan
from roadside.benchmarks.sweep_plot import plot_sweep
from roadside.benchmarks.sweep_summary import groups_of
from roadside.benchmarks.sweep_table import SweepTable
from roadside.bus.broker import Broker
from roadside.bus.errors import ConfigurationError, RunError
from roadside.demo import DemoOptions

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")
# Runs of a second or so each, of a vehicle alone.
SMALL = 'duration_s = 1\nvehicles = 1\nedges = 0\nclouds = 0\nplace = "vehicle"\n'
SUMMARY: dict[str, Any] = {
    "run": "somewhere",
    "broker": "mosquitto",
    "duration_s": 12.5,
    "tasks": {"created": 8, "lost": 0},
    "latency_ms": {"p50": 40.0, "p90": None},
    "in_time_share": 0.75,
}


def plan_of(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    return read_plan(file)


def test_lists_are_combined_and_cases_with_them(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        'duration = 5\nrate-hz = [1, 2]\nseed = [0, 1]\n[[case]]\npolicy = ["random", "greedy-utility"]\n'
        '[[case]]\nplace = "edge"\n',
    )
    seen = [(run.policy, run.place, run.rate_hz, run.seed) for run in plan.runs]
    assert len(seen) == len(set(seen)) == 12
    assert seen[:2] == [("random", None, 1.0, 0), ("greedy-utility", None, 1.0, 0)]
    assert {run.policy for run in plan.runs if run.place == "edge"} == {"static"}
    assert {run.duration_s for run in plan.runs} == {5.0}
    assert plan.varied == ("policy", "place", "rate_hz")


def test_what_is_left_out_is_as_in_the_demo(tmp_path: Path) -> None:
    assert plan_of(tmp_path, "").runs == (DemoOptions(),)


def test_a_run_that_two_cases_share_is_run_once(tmp_path: Path) -> None:
    text = '[[case]]\nplace = "edge"\n[[case]]\npolicy = "static"\nplace = ["edge", "cloud"]\n'
    assert [run.place for run in plan_of(tmp_path, text).runs] == ["edge", "cloud"]


def test_the_example_is_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, EXAMPLE)
    assert len(plan.runs) == 18
    assert "= 18 runs" in EXAMPLE
    assert plan.varied == ("policy", "place", "link")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('polcy = "random"', "did you mean 'policy'"),
        ("ratehz = 1", "did you mean 'rate_hz'"),
        ('run = "here"', "folder of its own"),
        ("seed = []", "empty"),
        ("rate = 1\nrate_hz = 2", "twice"),
        ("vehicles = 0", "vehicles"),
        ('vehicles = ["two"]', "vehicles"),
        ("log = 3", "path"),
        ('log = "/no/such/log"', "no/such"),
        ('policy = ["random", "gredy"]', "greedy-utility"),
        ('place = "moon"', "place"),
        ('link = "fast"', "link"),
        ("case = 3", r"\[\[case\]\]"),
        ("seed = [", "TOML"),
        (f"seed = {list(range(200))}\nrate_hz = {[1 + number / 100 for number in range(200)]}", "10,000"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan_of(tmp_path, text)


def test_the_table_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    first, second = DemoOptions(seed=1, log=Path("a,b")), DemoOptions(seed=2, broker="mqtt://me:secret@host:1883")
    table = SweepTable(tmp_path / "new" / "table.csv")
    table.put(first, status="failed", error='it said "no",\nthen died', run=Path("runs/1"), wall_s=1.0, summary={})
    table.put(second, status="done", error="", run=Path("runs/2"), wall_s=9.876, summary=SUMMARY)
    again = SweepTable(table.path)
    failed, done = again.row_of(first), again.row_of(second)
    assert failed is not None
    assert (failed["status"], failed["error"], failed["tasks_created"]) == (
        "failed",
        'it said "no",\nthen died',
        "",
    )
    assert done is not None
    assert (done["wall_s"], done["tasks_created"], done["latency_ms_p90"]) == ("9.88", "8", "")
    assert (done["duration_s"], done["run_duration_s"], done["broker_kind"]) == ("30.0", "12.5", "mosquitto")
    assert "secret" not in table.path.read_text()
    assert again.row_of(DemoOptions(seed=3)) is None
    again.put(first, status="done", error="", run=Path("runs/3"), wall_s=1.0, summary=SUMMARY)
    with table.path.open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done"]


def test_a_table_from_before_a_setting_was_there(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    SweepTable(path).put(DemoOptions(seed=4), status="done", error="", run=Path("r"), wall_s=1.0, summary=SUMMARY)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    del row["link"], row["mode"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    assert SweepTable(path).row_of(DemoOptions(seed=4)) is not None
    assert SweepTable(path).row_of(DemoOptions(seed=4, link="10Mbps,20ms")) is None


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "status,seed\ndone\n", '"half a quote'])
def test_a_file_that_is_no_table_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(RunError, match="--out"):
        SweepTable(path)
    assert path.read_text() == text


def test_means_over_seeds_and_their_picture(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "rate_hz = [1, 2]\nseed = [0, 1, 2]")
    table = SweepTable(tmp_path / "table.csv")
    for run in plan.runs:
        if run.rate_hz == 1.0:
            figures = SUMMARY | {"in_time_share": 0.7 + run.seed / 10, "latency_ms": {"p50": None}}
            table.put(run, status="done", error="", run=Path("r"), wall_s=1.0, summary=figures)
        elif run.seed == 0:
            table.put(run, status="failed", error="died", run=Path("r"), wall_s=1.0, summary={})
    slow, fast = groups_of(plan, table)
    assert (slow.settings, slow.seeds, slow.failed, slow.lost) == ({"rate_hz": 1.0}, 3, 0, 0)
    share = slow.figures["in_time_share"]
    assert share is not None
    assert share.value == pytest.approx(0.8)
    assert share.half_width == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert slow.figures["latency_ms_p50"] is None
    assert (fast.seeds, fast.failed, fast.figures["in_time_share"]) == (0, 1, None)
    assert Image.open(plot_sweep([slow, fast], tmp_path / "table.png")).width > 1000


def sweep(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*ROADSIDE, "sweep", "sweep.toml", "--json", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path, best_broker: Broker) -> None:
    (tmp_path / "sweep.toml").write_text(f'{SMALL}broker = "{best_broker.url}"\nseed = [1]\n')
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["runs"] == {"skipped": 0, "done": 1, "failed": 0, "left": 0}
    # One more seed, and one that cannot work: nothing listens there.
    (tmp_path / "sweep.toml").write_text(
        f'{SMALL}\n[[case]]\nbroker = "{best_broker.url}"\nseed = [1, 2]\n'
        '[[case]]\nbroker = "mqtt://127.0.0.1:1"\nseed = 1\n'
    )
    again = sweep(tmp_path)
    assert again.returncode == 1, again.stderr
    assert json.loads(again.stdout)["runs"] == {"skipped": 1, "done": 1, "failed": 1, "left": 0}
    table = rows(tmp_path)
    assert [(row["seed"], row["status"]) for row in table] == [("1", "done"), ("2", "done"), ("1", "failed")]
    assert table[2]["error"]
    assert all((tmp_path / row["run"] / "manifest.json").is_file() for row in table[:2])
    assert int(table[0]["tasks_created"]) == int(table[0]["placements_vehicle"])
    assert (tmp_path / "sweep.png").is_file()


def test_ctrl_c_finishes_the_present_run(tmp_path: Path, best_broker: Broker) -> None:
    (tmp_path / "sweep.toml").write_text(f'{SMALL}broker = "{best_broker.url}"\nseed = [1, 2, 3, 4, 5, 6, 7, 8]\n')
    process = subprocess.Popen(
        [*ROADSIDE, "sweep", "sweep.toml", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    give_up_s = time.monotonic() + 60
    while not (tmp_path / "sweep.csv").exists():
        assert process.poll() is None
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    runs = json.loads(printed)["runs"]
    # The run that was under way has its row; what had not begun has none.
    assert runs["done"] == len(rows(tmp_path)) < 8
    assert runs["done"] + runs["left"] == 8
    assert all(row["status"] == "done" for row in rows(tmp_path))


def test_the_verb_prints_its_example() -> None:
    printed = subprocess.run([*ROADSIDE, "sweep", "--example"], capture_output=True, text=True, check=True)
    assert printed.stdout == EXAMPLE
