"""A run directory is made whole, never over something else, and what is none says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from roadside.bus.errors import RunError
from roadside.qos.run import RunDirectory


def test_manifest_tells_how_to_repeat_the_run(run: RunDirectory) -> None:
    manifest = json.loads(run.manifest_path.read_text())
    assert manifest["configuration"] == {"policy": "static"}
    assert manifest["seed"] == 7
    assert manifest["argv"] == ["roadside", "demo"]
    assert manifest["versions"].keys() >= {"python", "roadside", "msgspec"}
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["memory_bytes"] > 0
    assert manifest["ended_at"] is None


def test_commit_is_a_hash_or_nothing(run: RunDirectory) -> None:
    commit = run.read_manifest().commit
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)


def test_what_is_known_later_is_added(run: RunDirectory) -> None:
    before = run.read_manifest()
    run.note_broker("amqtt")
    run.note_models({"small": "abc"})
    run.note_models({"large": "def"})
    run.finish()
    after = RunDirectory.open(run.path).read_manifest()
    assert after.broker == "amqtt"
    assert after.models == {"small": "abc", "large": "def"}
    assert after.ended_at is not None
    assert after.ended_at >= after.started_at
    assert (after.seed, after.argv, after.started_at) == (before.seed, before.argv, before.started_at)


def test_writing_leaves_no_draft_behind(run: RunDirectory) -> None:
    run.finish()
    run.write_report({"tasks": {}})
    assert sorted(path.name for path in run.path.iterdir()) == ["journals", "logs", "manifest.json", "report.json"]


def test_default_folder_is_new_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [RunDirectory.create(None, configuration={}, seed=0, argv=[]) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.parent == tmp_path / "runs" for run in runs)
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run.path.name) for run in runs)


def test_an_existing_run_is_not_overwritten(run: RunDirectory) -> None:
    before = run.manifest_path.read_bytes()
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.create(run.path, configuration={}, seed=1, argv=[])
    assert run.manifest_path.read_bytes() == before


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path, configuration={}, seed=0, argv=[]).read_manifest().run_id == tmp_path.name


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="taken"):
        RunDirectory.create(tmp_path / "taken", configuration={}, seed=0, argv=[])


def test_a_foreign_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifest_version": 1}', b"\xff\xfe"])
def test_a_damaged_manifest_is_refused(run: RunDirectory, content: bytes) -> None:
    run.manifest_path.write_bytes(content)
    with pytest.raises(RunError, match=r"manifest\.json"):
        RunDirectory.open(run.path)


def test_a_manifest_of_another_version_is_refused(run: RunDirectory) -> None:
    manifest = json.loads(run.manifest_path.read_text())
    run.manifest_path.write_text(json.dumps(manifest | {"manifest_version": 99}))
    with pytest.raises(RunError, match="version 99"):
        RunDirectory.open(run.path)


def test_journals_are_found_by_vehicle(run: RunDirectory) -> None:
    assert run.journal_paths() == []
    for vehicle in ("vehicle-2", "vehicle-1"):
        run.journal_path(vehicle).touch()
    assert [path.stem for path in run.journal_paths()] == ["vehicle-1", "vehicle-2"]
