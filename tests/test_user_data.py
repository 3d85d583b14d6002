"""Whole runs on what users bring: a video about which nothing else is known, and a log with every kind of damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from roadside.bus.messages import Outcome
from roadside.datasets.drivelog import bundled_log_path
from roadside.datasets.narrator import KNOWS_NOTHING
from roadside.qos.ledger import Ledger
from roadside.qos.run import RunDirectory

ROADSIDE = (sys.executable, "-P", "-m", "roadside.cli")
# No model, so that the run is short: the narrator answers everything.
NARRATED = ("--edges", "0", "--clouds", "0", "--place", "vehicle", "--duration", "4", "--rate", "5")
A_VIDEO = next(iter(sorted((bundled_log_path() / "videos").iterdir())))


def demo(broker_url: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], list[Outcome]]:
    run = folder / "run"
    command = [*ROADSIDE, "demo", "--json", "--broker", broker_url, "--run", str(run), *NARRATED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    with Ledger.open(RunDirectory.open(run)) as ledger:
        return json.loads(done.stdout), [recorded.outcome for recorded in ledger.outcomes()]


def test_of_a_video_alone_the_narrator_knows_nothing(best_broker, tmp_path):
    summary, outcomes = demo(best_broker.url, tmp_path, "--video", str(A_VIDEO))
    assert summary["tasks"]["created"] == summary["tasks"]["result"] == len(outcomes) > 10
    assert summary["tasks"]["lost"] == 0
    assert {outcome.text for outcome in outcomes} == {KNOWS_NOTHING}
    assert {outcome.clip for outcome in outcomes} == {A_VIDEO.stem}
    assert all(outcome.truth is None for outcome in outcomes)
    assert summary["qos"] == {"action_accuracy": None, "justification_accuracy": None, "n": 0}
    # Two vehicles begin at different moments of the one video.
    assert max(outcome.moment_s for outcome in outcomes) - min(outcome.moment_s for outcome in outcomes) > 10


def test_what_is_broken_in_a_log_costs_no_task(best_broker, tmp_path):
    log = Path(shutil.copytree(bundled_log_path(), tmp_path / "log"))
    videos, infos = (sorted((log / folder).iterdir()) for folder in ("videos", "info"))
    videos[0].unlink()
    videos[1].write_bytes(b"no video")
    whole = videos[2].read_bytes()
    videos[2].write_bytes(whole[: len(whole) // 2])
    infos[3].write_text("{")
    infos[4].unlink()
    with (log / "annotations.csv").open("ab") as table:
        table.write(b'\xff\xfe,,,\r\nvideos/none.mp4,9,3,The car stops.,Because.\r\n"never closed,1,2\r\n')
    (log / "train.txt").write_text("77_nothing\n")
    summary, outcomes = demo(best_broker.url, tmp_path, "--log", str(log), "--speed", "40")
    tasks = summary["tasks"]
    assert (tasks["lost"], tasks["created"]) == (0, len(outcomes))
    assert tasks["created"] == tasks["result"] > 10
    assert {int(outcome.clip.split("_")[0]) for outcome in outcomes} == set(range(4, 11))
    assert all(outcome.text == KNOWS_NOTHING for outcome in outcomes if outcome.clip[0] in "45")
    assert any(outcome.text != KNOWS_NOTHING for outcome in outcomes)
    said = (tmp_path / "run" / "logs" / "vehicle-1.log").read_text()
    for reason, name in (("missing", videos[0]), ("unreadable", videos[1]), ("unreadable", videos[2])):
        assert f"video {reason}" in said
        assert said.count(name.name) <= 2, "each is named once, by its clip and its path"


def test_the_inventory_is_readable_and_json(tmp_path):
    readable = subprocess.run([*ROADSIDE, "log", "info"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "10 rows (0 blank), 10 videos" in readable.stdout
    assert "dropped from the annotations: nothing" in readable.stdout
    told = subprocess.run(
        [*ROADSIDE, "log", "info", "--videos", "--json"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert json.loads(told.stdout)["video_faults"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--video", "no.mp4"), "is not there: give the path of a video file"),
        (("--video", "."), "is a folder, not a video"),
        (("--video", str(A_VIDEO), "--log", "."), "leave out --log or --video"),
        (("--log", "."), "must hold exactly one CSV"),
    ],
)
def test_what_cannot_be_driven_by_is_refused_in_one_line(tmp_path, arguments, said):
    done = subprocess.run([*ROADSIDE, "demo", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
