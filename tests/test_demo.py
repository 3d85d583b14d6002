"""The whole thing: every kind of process on a real broker, driven by the command line, judged by its own report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from roadside.bus.broker import Broker
from roadside.bus.messages import Outcome
from roadside.qos.ledger import Ledger
from roadside.qos.run import RunDirectory

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "subscribe.py"
SUMMARY_KEYS = {
    "run": None,
    "broker": None,
    "duration_s": None,
    "tasks": {"created", "accepted", "result", "fallback", "expired", "rejected", "lost", "duplicate_visible"}
    | {"stale_shown"},
    "latency_ms": {"p50", "p90", "p99", "first_answer_p50"},
    "in_time_share": None,
    "energy_j": {"mean", "method"},
    "qos": {"action_accuracy", "justification_accuracy", "n"},
    "placements": {"vehicle", "edge", "edge+cloud", "cloud"},
    "context": {"bytes_up", "payload_bytes_up", "positions", "hidden_size", "cloud_requests", "tokens"}
    | {"cloud_token_share"},
}


def demo(broker: Broker | None, tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], list[Outcome]]:
    """Run the demo, with a broker of its own where none is given; returns its JSON and the outcomes in its ledger."""
    command = [*ROADSIDE, "demo", "--json", "--run", str(tmp_path / "run"), *arguments]
    if broker is not None:
        command += ["--broker", broker.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    with Ledger.open(RunDirectory.open(tmp_path / "run")) as ledger:
        return summary, [recorded.outcome for recorded in ledger.outcomes()]


def test_the_demo_keeps_its_contract_while_others_listen(broker, tmp_path):
    listeners = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for command in (
            [sys.executable, EXAMPLE, broker.url],
            [*ROADSIDE, "watch", "--broker", broker.url, "--explain"],
        )
    ]
    try:
        summary, outcomes = demo(broker, tmp_path, "--duration", "10", "--rate", "2", "--seed", "7")
    finally:
        for listener in listeners:
            listener.terminate()
        heard, watched = (listener.communicate(timeout=20)[0] for listener in listeners)
    for key, inner in SUMMARY_KEYS.items():
        assert key in summary
        assert inner is None or inner <= summary[key].keys()
    tasks = summary["tasks"]
    assert summary["broker"] == "external"
    assert tasks["created"] == len(outcomes) >= 20
    assert tasks["lost"] == tasks["duplicate_visible"] == tasks["stale_shown"] == tasks["expired"] == 0
    assert tasks["created"] == tasks["result"] + tasks["fallback"] + tasks["rejected"]
    assert summary["placements"]["edge"] + summary["placements"]["cloud"] > 0
    assert summary["placements"].keys() == SUMMARY_KEYS["placements"]
    # Right answers are the model's doing: somebody who reads nothing but telemetry gets no reason right.
    assert summary["qos"]["justification_accuracy"] > 0.5
    # A program with nothing but paho-mqtt and msgpack has heard the same answers.
    answers = [outcome.text for outcome in outcomes if outcome.state == "result" and outcome.place != "vehicle"]
    assert answers
    assert all(answer in heard for answer in answers[:5])
    # `watch` tells every ending with the reason for its place, and which nodes come and go.
    assert watched.count("greedy-utility chose") == len(outcomes)
    assert "cloud-1  has left" in watched


@pytest.mark.parametrize("place", ["vehicle", "edge", "cloud"])
def test_everything_can_be_sent_to_one_place(best_broker, tmp_path, place):
    summary, _ = demo(best_broker, tmp_path, "--duration", "4", "--rate", "3", "--place", place, "--edges", "1")
    tasks, placements = summary["tasks"], summary["placements"]
    assert tasks["created"] >= 10
    assert tasks["lost"] == 0
    assert placements[place] == tasks["result"] >= 0.9 * tasks["created"]
    assert sum(placements.values()) == placements[place]


def test_a_seed_repeats_the_tasks(best_broker, tmp_path):
    def asked(folder: str) -> set[tuple[str, str, float]]:
        (tmp_path / folder).mkdir()
        options = (
            "--duration",
            "3",
            "--rate",
            "2",
            "--seed",
            "5",
            "--place",
            "vehicle",
            "--edges",
            "0",
            "--clouds",
            "0",
        )
        _, outcomes = demo(best_broker, tmp_path / folder, *options)
        return {(outcome.kind, outcome.clip, outcome.moment_s) for outcome in outcomes}

    assert asked("first") == asked("second")


def test_a_report_of_a_finished_run_repeats_what_the_demo_printed(tmp_path):
    summary, _ = demo(None, tmp_path, "--duration", "2", "--edges", "0", "--clouds", "0")
    assert summary["broker"] in ("mosquitto", "amqtt")
    report = [*ROADSIDE, "report", str(tmp_path / "run"), "--json"]
    again = subprocess.run(report, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout) == summary
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == summary
    table = subprocess.run(report[:-1], capture_output=True, text=True, check=True).stdout
    assert str(summary["tasks"]["created"]) in table
    assert "vehicle" in table


def test_a_vehicles_own_model_answers_without_any_node(best_broker, tmp_path):
    summary, outcomes = demo(
        best_broker, tmp_path, "--vehicle-model", "bundled", "--vehicles", "1", "--edges", "0", "--clouds", "0",
        "--duration", "3", "--rate", "3",
    )  # fmt: skip
    assert summary["placements"]["vehicle"] == summary["tasks"]["created"] > 0
    assert {outcome.mode for outcome in outcomes} == {"standalone"}
    assert summary["energy_j"]["mean"] > 0
