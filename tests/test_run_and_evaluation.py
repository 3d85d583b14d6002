"""A run's own verdict on its answers and `roadside evaluate` are one scorer on the same moments of the same log."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from roadside.bus.kinds import EXPLAIN
from roadside.bus.messages import Outcome
from roadside.datasets.drivelog import Clip, DriveLog, bundled_log_path
from roadside.datasets.evaluation_scenes import EvaluationScene, log_scenes
from roadside.datasets.findings import Findings
from roadside.datasets.references import Reference
from roadside.models.answering import cloud_answerer
from roadside.models.evaluation import FULL, evaluate_model
from roadside.models.questions import Question, answer_at_once
from roadside.qos.ledger import Ledger
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory

# Every answer is the whole model's, as a row of `evaluate` is; the log goes by fast, so that its clips all occur.
DRIVE = ("--vehicles", "1", "--edges", "0", "--clouds", "1", "--place", "cloud", "--speed", "25", "--seed", "3")


@pytest.fixture(scope="module")
def run(best_broker, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-P", "-m", "roadside.cli", "demo", "--json", "--broker", best_broker.url, *DRIVE]
    command += ["--duration", "12", "--rate", "2", "--run", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return RunDirectory.open(folder / "run")


@pytest.fixture(scope="module")
def explained(run: RunDirectory) -> list[Outcome]:
    """What the cloud answered to the kind of question that `evaluate` asks."""
    with Ledger.open(run) as ledger:
        outcomes = [recorded.outcome for recorded in ledger.outcomes()]
    asked = [each for each in outcomes if each.kind == EXPLAIN.name and each.place == "cloud" and each.truth]
    assert len(asked) > 3
    return asked


@pytest.fixture(scope="module")
def scenes(explained: list[Outcome]) -> list[EvaluationScene]:
    """The moments of the run as `evaluate` reads them from the log."""
    log = DriveLog.open(bundled_log_path())
    clips = {clip.name: clip for clip in log.clips}
    findings = Findings()
    references = [_reference(outcome, clips[outcome.clip]) for outcome in explained]
    by_id = {scene.reference.id: scene for scene in log_scenes(log, references, findings)}
    assert findings.counts == {}
    return [by_id[outcome.task_id] for outcome in explained]


def _reference(outcome: Outcome, clip: Clip) -> Reference:
    segment = clip.truth(outcome.moment_s)
    assert segment is not None
    return Reference(
        outcome.task_id,
        segment,
        clip.telemetry(outcome.moment_s),
        clip=outcome.clip,
        moment_s=outcome.moment_s,
    )


def test_the_same_moment_gets_the_same_answer(explained, scenes):
    model = cloud_answerer()
    for outcome, scene in zip(explained, scenes, strict=True):
        question = Question(EXPLAIN.prompt, (scene.jpeg,), dict(scene.reference.telemetry), EXPLAIN.max_tokens)
        assert answer_at_once(model, question).text == outcome.text, outcome.task_id


def test_a_run_and_an_evaluation_of_its_moments_give_the_same_shares(run, explained, scenes):
    evaluated = evaluate_model(None, scenes, Findings())
    (row,) = (row for row in evaluated.rows if row["name"] == FULL)
    assert row["n"] == len(explained)
    for part in ("action", "justification"):
        verdicts = [getattr(outcome.truth, f"{part}_correct") for outcome in explained]
        assert row[f"{part}_accuracy"] == pytest.approx(sum(verdicts) / len(verdicts), abs=1e-4)
    # And the report of the run is made of those very verdicts.
    with Ledger.open(run) as ledger:
        truths = [recorded.outcome.truth for recorded in ledger.outcomes()]
    judged = [truth.justification_correct for truth in truths if truth and truth.justification_correct is not None]
    qos = json.loads(json.dumps(summarise(run)["qos"]))
    assert qos["justification_accuracy"] == pytest.approx(sum(judged) / len(judged), abs=1e-3)
