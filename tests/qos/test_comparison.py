"""Two runs side by side: pairs that belong together, intervals that hold what they should, sentences that agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from roadside.bus.messages import Outcome, Truth
from roadside.qos.comparison import Comparison, Difference, as_json, compare, paired
from roadside.qos.comparison_table import comparison_table
from roadside.qos.evidence import Evidence, read_evidence
from roadside.qos.html_report.comparison_page import write_comparison
from roadside.qos.intervals import Interval, share_95
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.run import RunDirectory

MakeOutcome = Callable[..., Outcome]
MakeEvidence = Callable[[str, list[Outcome]], Evidence]


@pytest.fixture
def evidence(tmp_path: Path) -> MakeEvidence:
    def make(name: str, outcomes: list[Outcome]) -> Evidence:
        run = RunDirectory.create(tmp_path / name, configuration={"policy": name}, seed=0, argv=[])
        with LedgerWriter(run) as writer:
            for outcome in outcomes:
                writer.add(outcome, {"vehicle": "vehicle-1"}, outcome.created_at_s + 1)
        run.finish()
        return read_evidence(run)

    return make


def drive(
    an_outcome: MakeOutcome, latencies_ms: list[float], *, from_s: float = 0.0, right: float = 1.0
) -> list[Outcome]:
    return [
        an_outcome(
            task_id=f"task-{number}",
            created_at_s=1_700_000_000.0 + number,
            moment_s=from_s + number,
            latency_ms=float(latency_ms),
            first_answer_ms=float(latency_ms),
            truth=Truth("a", "j", number < right * len(latencies_ms), True),
        )
        for number, latency_ms in enumerate(latencies_ms)
    ]


def test_pairs_are_of_the_same_scene_and_kind(an_outcome: MakeOutcome):
    first = drive(an_outcome, [10, 20, 30])
    second = [an_outcome(task_id="x", kind="hazard", moment_s=0.0), *drive(an_outcome, [11, 21], from_s=1.0)]
    found = paired(first, second)
    assert [(one.latency_ms, two.latency_ms) for one, two in found] == [(20, 11), (30, 21)]
    twice = [an_outcome(task_id=str(n), moment_s=5.0, created_at_s=float(n), latency_ms=float(n)) for n in (1, 2)]
    assert [(one.latency_ms, two.latency_ms) for one, two in paired(twice, twice[::-1])] == [(1, 1), (2, 2)]
    nowhere = an_outcome(clip="", moment_s=0.0)
    assert paired([nowhere], [nowhere]) == []


def of(comparison: Comparison, name: str) -> tuple[Difference, Interval]:
    (found,) = (each for each in comparison.differences if each.name == name)
    assert found.difference is not None
    return found, found.difference


def test_what_all_pairs_share_is_found_under_any_spread(evidence: MakeEvidence, an_outcome: MakeOutcome):
    random = np.random.default_rng(1)
    scenes = random.uniform(50, 1500, 60)
    first = evidence("one", drive(an_outcome, list(scenes)))
    second = evidence("two", drive(an_outcome, list(scenes + random.normal(20, 5, 60))))
    comparison = compare(first, second)
    assert comparison.pairs == 60
    latency, interval = of(comparison, "latency, mean")
    assert latency.method == "paired t"
    assert latency.verdict == "worse"
    assert 17 < interval.low < 20 < interval.high < 23
    assert "higher in the second by 19" in latency.sentence
    # As wholes, the same runs show nothing: the scenes' own spread hides it.
    elsewhere = evidence("three", drive(an_outcome, [o.latency_ms for o in second.outcomes], from_s=1000.0))
    unpaired, _ = of(compare(first, elsewhere), "latency, mean")
    assert (unpaired.method, unpaired.verdict) == ("Welch's t", "")
    assert "no difference shown" in unpaired.sentence


def test_a_run_does_not_differ_from_itself(evidence: MakeEvidence, an_outcome: MakeOutcome):
    run = evidence("one", drive(an_outcome, [10, 700, 30, 45, 2500], right=0.6))
    for each in compare(run, run).differences:
        assert each.difference is None or each.difference.value == 0 == each.difference.low
        assert each.verdict == ""


def test_shares_of_unpaired_runs_have_newcombes_interval(evidence: MakeEvidence, an_outcome: MakeOutcome):
    # Newcombe (1998), table II, method 10: 56/70 and 48/80 differ by 0.2 (0.0524 to 0.3339).
    first = evidence("one", drive(an_outcome, [10.0] * 80, right=48 / 80))
    second = evidence("two", drive(an_outcome, [10.0] * 70, from_s=1000.0, right=56 / 70))
    found, interval = of(compare(first, second), "right action")
    assert found.method == "Newcombe's score interval"
    assert (interval.low, interval.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )
    assert found.verdict == "better"


def test_wilsons_interval():
    # Wilson's interval of 15 in 148, in Newcombe's other paper of 1998: 0.0624 to 0.1605.
    found = share_95(15, 148)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.0624, abs=5e-5), pytest.approx(0.1605, abs=5e-5))
    assert share_95(0, 0) is None
    assert share_95(0, 20).low == 0.0 < share_95(0, 20).high  # pyright: ignore[reportOptionalMemberAccess]


def test_intervals_of_percentiles_hold_the_truth_as_often_as_they_say(evidence: MakeEvidence, an_outcome: MakeOutcome):
    random = np.random.default_rng(3)
    holds = 0
    for number in range(20):
        one, two = random.exponential(100, 50), random.exponential(100, 50)
        runs = [
            Evidence(evidence(f"{which}-{number}", drive(an_outcome, list(values), from_s=1000.0 * index)).record)
            for index, (which, values) in enumerate((("one", one), ("two", two)))
        ]
        holds += of(compare(*runs), "latency, p50")[1].holds_zero
    assert holds >= 16


def test_the_same_runs_give_the_same_intervals(evidence: MakeEvidence, an_outcome: MakeOutcome):
    random = np.random.default_rng(4)
    runs = [evidence(name, drive(an_outcome, list(random.exponential(100, 30)))) for name in ("one", "two")]
    assert as_json(compare(*runs)) == as_json(compare(*runs))


def test_too_few_values_are_not_compared(evidence: MakeEvidence, an_outcome: MakeOutcome):
    comparison = compare(evidence("one", []), evidence("two", drive(an_outcome, [10.0])))
    assert all(each.difference is None for each in comparison.differences)
    json.dumps(as_json(comparison))


def test_the_page_and_the_table_say_what_the_object_says(
    evidence: MakeEvidence, an_outcome: MakeOutcome, tmp_path: Path
):
    from rich.console import Console

    runs = (
        evidence("one", drive(an_outcome, [10.0, 30.0, 50.0])),
        evidence("two", drive(an_outcome, [110.0, 131.0, 150.0])),
    )
    comparison = compare(*runs)
    text = write_comparison(comparison, runs, tmp_path / "page.html").read_text()
    console = Console(width=160, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(comparison_table(comparison))
    shown = console.export_text()
    assert "3 tasks stand for the same scene" in text
    assert "3 tasks stand for the same scene" in shown
    for each in comparison.differences:
        assert each.sentence.replace("'", "&#39;") in text
        assert each.name in shown
    assert "setting policy" in text
    assert "setting policy" in shown
    assert "<script" not in text


def test_the_verb_prints_one_object(evidence: MakeEvidence, an_outcome: MakeOutcome, tmp_path: Path):
    for name in ("one", "two"):
        evidence(name, drive(an_outcome, [10.0, 30.0]))
    command = [sys.executable, "-P", "-m", "roadside.cli", "report", "one", "--compare", "two", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"runs", "pairs", "alone", "differences", "circumstances"}
    assert found["pairs"] == 2
