"""`roadside evaluate` from options to report, and from the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from roadside.bus.errors import ConfigurationError, LogError
from roadside.cli import app
from roadside.datasets.bddx import Segment, write_annotations
from roadside.datasets.drivelog import DriveLog, bundled_log_path
from roadside.datasets.making import make_log
from roadside.models.scoreboard import EvaluationOptions, evaluate
from typer.testing import CliRunner

NO_TORCH = """
import json, sys
from pathlib import Path
from roadside.models.scoreboard import EvaluationOptions, evaluate
evaluate(EvaluationOptions(data=Path(sys.argv[1]), captions=(Path(sys.argv[2]),)))
print(json.dumps(sorted({"torch", "transformers"} & sys.modules.keys())))
"""
SEGMENTS = (
    Segment(0, 4, "The car slows down", "because the light is red."),
    Segment(4, 9, "The car is stopped", "because the light is red."),
    Segment(9, 12, "The car accelerates", "because the light is green."),
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A log with annotations and nothing else."""
    folder = tmp_path / "texts"
    folder.mkdir()
    write_annotations(folder, [("a.mp4", SEGMENTS), ("a.mp4", SEGMENTS[:2])], split="test")
    return folder


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    path = tmp_path / "generated.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "action", "justification"])
        for clip, count in (("1_a", 3), ("2_a", 2)):
            for number, segment in enumerate(SEGMENTS[:count], start=1):
                writer.writerow([f"{clip}/{number}", segment.action, segment.justification])
    return path


def rows_of(report: dict) -> dict[str, dict]:
    return {row["name"]: row for row in report["rows"]}


def test_captions_beside_the_baselines(texts, generated):
    scoreboard = evaluate(EvaluationOptions(data=texts, captions=(generated,)))
    report = scoreboard.report
    assert set(report) == {"model", "data", "n", "rows"}
    assert (report["model"], report["n"]) == (None, 5)
    rows = rows_of(report)
    # Without telemetry there is no rule on it; the second row annotates the same video again.
    assert list(rows) == ["captions", "constant", "narrator", "human"]
    assert rows["captions"]["action_accuracy"] == rows["captions"]["justification_accuracy"] == 1.0
    assert rows["captions"]["bleu4_action"] == pytest.approx(100.0)
    assert rows["constant"]["action_accuracy"] == 0.4
    assert rows["human"]["n"] == 2
    assert scoreboard.findings.counts["info file missing"] == 2


def test_captions_of_one_part_leave_the_other_open(texts, generated, tmp_path):
    lines = generated.read_text().splitlines()
    actions = tmp_path / "actions.csv"
    actions.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    row = rows_of(evaluate(EvaluationOptions(data=texts, captions=(actions,))).report)["captions"]
    assert row["action_accuracy"] == 1.0
    assert row["justification_accuracy"] is row["bleu4_justification"] is None


def test_text_needs_no_torch(texts, generated):
    done = subprocess.run(
        [sys.executable, "-P", "-c", NO_TORCH, str(texts), str(generated)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_a_log_without_videos_has_baselines_and_says_what_is_missing(texts):
    scoreboard = evaluate(EvaluationOptions(data=texts))
    assert list(rows_of(scoreboard.report)) == ["constant", "narrator", "human"]
    assert scoreboard.findings.counts["video missing"] == 5
    with pytest.raises(LogError, match="no video of theirs"):
        evaluate(EvaluationOptions(data=texts, model=str(texts)))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"data": None}, ConfigurationError, "give their folder with --data"),
        ({"limit": 2}, ConfigurationError, "scored all"),
        ({"model": "x"}, ConfigurationError, "without a model"),
        ({"split": "train"}, LogError, "in its train split: give --split all"),
        ({"split": "tset"}, LogError, "no split 'tset'"),
    ],
)
def test_options_that_do_not_go_together(texts, generated, change, error, says):
    with pytest.raises(error, match=says):
        evaluate(EvaluationOptions(**{"data": texts, "captions": (generated,), **change}))


def test_a_model_on_a_log(tiny_folder, tmp_path):
    """Rendered in BDD-X's format, as a user's own folder would be; one of its videos has gone."""
    make_log(tmp_path / "log", seed=3, count=2)
    sorted((tmp_path / "log" / "videos").iterdir())[-1].unlink()
    annotations = DriveLog.open(tmp_path / "log").annotations
    shown, lost = (len(row.segments) for row in annotations.rows)
    scoreboard = evaluate(EvaluationOptions(model=str(tiny_folder), data=tmp_path / "log"))
    rows = rows_of(scoreboard.report)
    assert list(rows) == [
        "full", "blank-image", "edge-exit", "edge+cloud", "constant", "narrator", "telemetry-rule",
    ]  # fmt: skip
    assert scoreboard.findings.counts == {"video missing": lost}
    assert {row["n"] for row in rows.values()} == {shown}
    # The narrator reads the same telemetry as the rule, and the log's actions show in it.
    assert rows["narrator"]["action_accuracy"] == rows["telemetry-rule"]["action_accuracy"] > 0.5
    assert rows["narrator"]["speed_rmse"] < 3.0
    assert rows["narrator"]["course_rmse"] == rows["constant"]["course_rmse"]


def test_the_rendered_split(tiny_folder):
    options = EvaluationOptions(model=str(tiny_folder), limit=4, training_moments=40, processes=1)
    report = evaluate(options).report
    assert report["n"] == 4
    assert "nearest" in rows_of(report)
    assert rows_of(report)["narrator"]["action_judged"] == 1.0


def test_the_verb_prints_one_object(texts, generated):
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(texts), "--captions", str(generated), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert set(report) == {"model", "data", "n", "rows"}
    assert "info file missing (a, a)" in result.stderr


def test_the_verb_prints_tables(texts):
    result = CliRunner().invoke(app, ["evaluate", "--data", str(texts), "--classes"], catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("constant", "narrator", "human", "100.0% of the actions", "red-light"):
        assert words in result.stdout


def test_the_bundled_log_can_be_scored_on(tiny_folder):
    assert evaluate(EvaluationOptions(model=str(tiny_folder), data=bundled_log_path(), limit=2)).report["n"] == 2
