"""Runs as Parquet and MCAP, read back with the formats' own readers."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mcap.reader import make_reader
from PIL import Image
from roadside.bus.errors import RunError
from roadside.bus.messages import Outcome
from roadside.qos.evidence import read_evidence
from roadside.qos.exports.columns import COLUMNS
from roadside.qos.exports.mcap import write_mcap
from roadside.qos.exports.parquet import write_parquet
from roadside.qos.journal import Journal
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory

_NAMES = {"vehicle": "vehicle-1"}


@pytest.fixture(scope="module")
def tables(driven, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "new"
    write_parquet(driven.run, folder)
    return folder


def rows(folder: Path, name: str) -> list[dict]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_tasks_add_up_to_the_summary(driven, tables):
    summary = summarise(driven.run)
    tasks = rows(tables, "tasks")
    assert len(tasks) == summary["tasks"]["created"] > 0
    assert sum(task["state"] == "result" for task in tasks) == summary["tasks"]["result"]
    assert sum(bool(task["in_time"]) for task in tasks) == round(summary["in_time_share"] * len(tasks))
    assert sum(task["bytes_up"] or 0 for task in tasks if task["state"] == "result") == summary["context"]["bytes_up"]
    for task in tasks:
        parts = task["network_ms"] + task["queue_ms"] + task["inference_ms"] + task["context_ms"]
        assert parts <= task["latency_ms"] + 1
        assert (task["miss_cause"] is None) == task["in_time"]
        assert 0 <= (task["received_at"] - task["created_at"]).total_seconds() < 60


def test_each_decision_has_one_chosen_candidate(driven, tables):
    decided: dict[str, list[dict]] = {}
    for row in rows(tables, "decisions"):
        decided.setdefault(row["task_id"], []).append(row)
    outcomes = {outcome.task_id: outcome for outcome in read_evidence(driven.run).outcomes}
    assert decided.keys() == outcomes.keys()
    for task_id, candidates in decided.items():
        decision = outcomes[task_id].decision
        assert decision is not None
        assert [c["candidate"] for c in candidates if c["chosen"]] == [decision.chosen]
        assert [(c["node"], c["expected_latency_ms"]) for c in candidates] == [
            (c.node, c.latency_ms) for c in decision.candidates
        ]
        assert candidates[0]["features"] == list(decision.candidates[0].features)


def test_tokens_states_and_frames(driven, tables):
    outcomes = read_evidence(driven.run).outcomes
    assert len(rows(tables, "tokens")) == sum(len(outcome.made_by) for outcome in outcomes)
    assert {row["node"] for row in rows(tables, "node_states")} == {"vehicle-1", "edge-1", "cloud-1"}
    frames = rows(tables, "frames")
    assert frames
    for frame in frames:
        assert (driven.run.path / "frames" / frame["file"]).stat().st_size == frame["bytes"]


def test_every_column_says_what_it_is_and_is_in_the_guide(tables):
    guide = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text()
    for name, columns in COLUMNS.items():
        schema = pq.read_schema(tables / f"{name}.parquet")
        assert schema.names == [column.name for column in columns]
        for column in columns:
            assert schema.field(column.name).metadata[b"about"].decode() == column.about
            assert f"`{column.name}`" in guide, f"docs/report.md does not tell of {column.name}"


def test_a_lost_task_has_a_row(run: RunDirectory, tmp_path: Path):
    with Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal, LedgerWriter(run):
        journal.created("vehicle-1-1", "explain", 2000.0)
    run.finish()
    write_parquet(run, tmp_path / "tables")
    (task,) = rows(tmp_path / "tables", "tasks")
    assert (task["state"], task["miss_cause"], task["in_ledger"], task["latency_ms"]) == ("lost", "lost", False, None)


@pytest.fixture(scope="module")
def recording(driven, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, int, int, dict]]:
    """(topic, schema's name, log time, publish time, content) of every message."""
    path = tmp_path_factory.mktemp("mcap") / "run.mcap"
    counts = write_mcap(driven.run, path)
    with path.open("rb") as file:
        messages = [
            (channel.topic, schema.name, message.log_time, message.publish_time, json.loads(message.data))
            for schema, channel, message in make_reader(file).iter_messages()
            if schema is not None
        ]
    assert len(messages) == sum(counts.values())
    return messages


def test_what_was_recorded_is_in_the_file(driven, recording):
    evidence = read_evidence(driven.run)
    of = {name: [m for m in recording if m[1] == name] for name in {m[1] for m in recording}}
    assert len(of["roadside.Outcome"]) == len(evidence.outcomes)
    assert len(of["roadside.NodeState"]) == len(evidence.states)
    assert len(of["foxglove.CompressedImage"]) == len(evidence.frames)
    assert len(of["foxglove.Log"]) == len(evidence.outcomes) + len(evidence.answers)
    assert len(of["roadside.Ack"]) == len(evidence.acks)
    assert [m[2] for m in recording] == sorted(m[2] for m in recording)


def test_pictures_can_be_opened(recording):
    *_, content = next(m for m in recording if m[1] == "foxglove.CompressedImage")
    assert content["format"] == "jpeg"
    image = Image.open(io.BytesIO(base64.b64decode(content["data"])))
    assert image.size[0] > 100


def test_times_are_those_of_the_run(driven, recording):
    evidence = read_evidence(driven.run)
    outcomes = {outcome.task_id: outcome for outcome in evidence.outcomes}
    for _, schema, log_time, publish_time, content in recording:
        stamp = content["timestamp"]
        assert stamp["sec"] * 10**9 + stamp["nsec"] == publish_time
        if schema == "roadside.Outcome":
            outcome = outcomes[content["task_id"]]
            assert publish_time / 1e9 == pytest.approx(outcome.created_at_s + outcome.latency_ms / 1e3, abs=1e-3)
            assert -1 < (log_time - publish_time) / 1e9 < 60


def test_telemetry_is_that_of_the_log_and_tells_no_location(driven, recording):
    signals = [m[4] for m in recording if m[1] == "roadside.Telemetry"]
    assert len(signals) == len(read_evidence(driven.run).outcomes)
    assert all(signal["Vehicle"]["Speed"] >= 0 for signal in signals)
    assert not any("CurrentLocation" in signal["Vehicle"] for signal in signals)


def test_schemas_name_every_field(recording, driven, tmp_path: Path):
    write_mcap(driven.run, tmp_path / "run.mcap")
    with (tmp_path / "run.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    known = {schema.name: json.loads(schema.data)["properties"].keys() for schema in summary.schemas.values()}
    for _, name, _, _, content in recording:
        assert content.keys() <= known[name], name


def test_a_run_without_frames_or_tasks_can_be_exported(run: RunDirectory, tmp_path: Path):
    with LedgerWriter(run):
        pass
    assert write_mcap(run, tmp_path / "run.mcap") == {}
    with (tmp_path / "run.mcap").open("rb") as file:
        assert list(make_reader(file).iter_messages()) == []
    assert set(write_parquet(run, tmp_path / "tables").values()) == {0}


@pytest.mark.parametrize("write", [write_mcap, write_parquet])
def test_what_cannot_be_written_is_told(write: Callable, run: RunDirectory, tmp_path: Path):
    with LedgerWriter(run):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write(run, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_verb_says_what_it_wrote(run: RunDirectory, tmp_path: Path, an_outcome: Callable[..., Outcome]):
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(text="\x1b[31mred\x00"), _NAMES, 1_700_000_001.0)
    command = [sys.executable, "-P", "-m", "roadside.cli", "log", "export", str(run.path), "out.mcap", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["messages"] == {"/vehicles/vehicle-1/answers": 1, "/vehicles/vehicle-1/outcomes": 1}
