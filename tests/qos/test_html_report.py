"""The page of a run: whole in itself, true to the ledger, safe with whatever was sent, there for broken runs too."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from roadside.bus.errors import RunError
from roadside.bus.messages import Accepted, Load, NodeState, Outcome, Rejected, Result, Timing
from roadside.qos.evidence import read_evidence
from roadside.qos.html_report.page import write_report
from roadside.qos.journal import Journal
from roadside.qos.ledger_writer import LedgerWriter
from roadside.qos.misses import misses_of
from roadside.qos.report import summarise
from roadside.qos.run import RunDirectory

MakeOutcome = Callable[..., Outcome]
MakeResult = Callable[..., Result]
MakeState = Callable[..., NodeState]

_BORN_S = 1_700_000_000.0
_LOAD = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})
_VOID = {"meta", "img", "line", "rect", "circle", "polyline", "br"}


class _Page(HTMLParser):
    """Tags, attributes and text; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: RunDirectory, folder: Path) -> _Page:
    return _Page(write_report(run, folder / "report.html").read_text())


@pytest.fixture(scope="module")
def driven_page(driven, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(driven.run, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_needs_nothing_from_elsewhere(driven_page: Path):
    text = driven_page.read_text()
    page = _Page(text)
    assert len(text) < 3_000_000
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import|<link|<iframe|<object", text)
    addresses = [value for _, attributes in page.tags for name in ("href", "src") if (value := attributes.get(name))]
    assert addresses
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)
    anchors = {address[1:] for address in addresses if address.startswith("#")}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}


def test_the_page_says_what_the_summary_says(driven, driven_page: Path):
    text, summary = _Page(driven_page.read_text()).text, summarise(driven.run)
    assert f"{summary['tasks']['created']} tasks: " in text
    assert f"{summary['latency_ms']['p50']:.0f} ms half of the answers within" in text
    missed = len(misses_of(read_evidence(driven.run)))
    told = (
        f"{missed} of {summary['tasks']['created']} tasks. Each has one cause" if missed else "Every task was answered"
    )
    assert told in text
    assert "the vehicle's narrator" in text
    assert "Not compared with the narrator" not in text
    assert "This run" not in text
    assert "None" not in re.sub(r"Nothing|None was", "", text)


def test_every_chart_and_picture_has_words(driven_page: Path):
    text = driven_page.read_text()
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) > 8
    for chart in charts:
        assert 'role="img"' in chart
        assert re.search(r"<svg[^>]*><title>[^<]+</title><desc>[^<]+</desc>", chart)
    pictures = re.findall(r"<img [^>]*>", text)
    assert pictures
    assert all(re.search(r'alt="[^"]{10,}"', picture) for picture in pictures)


_HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7*7 }} \x00\x1b[31m"


def test_what_was_sent_is_never_markup(
    run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome, a_result: MakeResult, a_state: MakeState
):
    hostile = an_outcome(
        text=_HOSTILE, reason=_HOSTILE, node=_HOSTILE, mode=_HOSTILE, clip=_HOSTILE, kind=_HOSTILE, made_by=(_HOSTILE,)
    )
    with LedgerWriter(run) as writer:
        writer.add(hostile, {"vehicle": _HOSTILE}, _BORN_S + 1)
        writer.add(a_result(text=_HOSTILE), {"vehicle": _HOSTILE, "node": _HOSTILE}, _BORN_S + 1)
        writer.add(a_state(node=_HOSTILE, model=_HOSTILE), {"node": _HOSTILE}, _BORN_S + 1)
        writer.add(a_state(node=_HOSTILE, model=_HOSTILE), {"node": _HOSTILE}, _BORN_S + 2)
        rejected = Rejected(hostile.task_id, 1, _HOSTILE, 0.0, _LOAD)
        writer.add(rejected, {"vehicle": _HOSTILE, "node": _HOSTILE}, _BORN_S + 1)
    page = page_of(run, tmp_path)
    assert not {"script"} & {tag for tag, _ in page.tags}
    assert not [attributes for tag, attributes in page.tags if tag == "img"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "alert(1)" in page.text
    assert "{{ 7*7 }}" in page.text


def test_whoever_repeats_himself_does_not_make_the_page_endless(
    run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome, a_result: MakeResult, a_state: MakeState
):
    with LedgerWriter(run) as writer:
        outcome = an_outcome(made_by=tuple(f"maker-{number}-{'x' * 80}" for number in range(4000)), text="t" * 2000)
        writer.add(outcome, {"vehicle": "vehicle-1"}, _BORN_S + 100)
        for number in range(1000):
            names = {"vehicle": "vehicle-1", "node": f"node-{number}"}
            writer.add(a_result(task_id=outcome.task_id, text="t" * 2000), names, _BORN_S + number / 1000)
            for alive in (True, False):
                state = a_state(node=f"node-{number}", alive=alive, model="m" * 96)
                writer.add(state, names, _BORN_S - 10 + number / 1000)
    page_of(run, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_each_miss_has_its_cause(run: RunDirectory, an_outcome: MakeOutcome, a_result: MakeResult, a_state: MakeState):
    late = {"state": "fallback", "reason": "no answer in time", "place": "vehicle", "node": "vehicle-1"}
    expected: dict[str, str] = {}
    with LedgerWriter(run) as writer, Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal:

        def ends(cause: str, **changes: object) -> str:
            task_id = f"vehicle-1-{len(expected):05d}"
            expected[task_id] = cause
            outcome = an_outcome(**{"task_id": task_id, "decision": None, **changes})
            writer.add(outcome, {"vehicle": "vehicle-1"}, _BORN_S + 3)
            return task_id

        def hears(message: object, node: str, at_s: float) -> None:
            writer.add(message, {"vehicle": "vehicle-1", "node": node}, _BORN_S + at_s)  # pyright: ignore

        ends("vehicle down", state="expired", reason="the vehicle was down at the deadline")
        ends("connection", **late | {"reason": "the connection is down"})
        ends("inference", latency_ms=2500.0, timing=Timing(inference_ms=2300.0))
        ends("network", latency_ms=2500.0, network_ms=2300.0, timing=Timing(inference_ms=100.0))
        task_id = ends("refusals", **late)
        hears(Rejected(task_id, 1, "full", 0.0, _LOAD), "edge-1", 0.1)
        task_id = ends("node dead", **late)
        hears(Accepted(task_id, 1, _LOAD), "edge-2", 0.1)
        task_id = ends("no answer", **late)
        hears(Accepted(task_id, 1, _LOAD), "edge-1", 0.1)
        task_id = ends("queue", **late)
        hears(Accepted(task_id, 1, Load(9, 1, 1, 1500.0, {})), "edge-1", 0.1)
        task_id = ends("queue", **late)
        hears(Accepted(task_id, 1, _LOAD), "edge-1", 0.1)
        hears(a_result(task_id=task_id, timing=Timing(queue_ms=1900.0, inference_ms=80.0)), "edge-1", 2.2)
        ends("no acknowledgement", **late)
        for at_s, alive in ((0.0, True), (1.0, False)):
            state = a_state(node="edge-2", alive=alive)
            writer.add(state, {"node": "edge-2"}, _BORN_S + at_s)
        journal.created("vehicle-1-lost", "hazard", 700.0)
        expected["vehicle-1-lost"] = "lost"
        journal.created("vehicle-1-unheard", "hazard", 700.0)
        journal.ended(an_outcome(task_id="vehicle-1-unheard", state="fallback"))
        expected["vehicle-1-unheard"] = "not recorded"
        writer.add(an_outcome(task_id="in-time"), {"vehicle": "vehicle-1"}, _BORN_S + 3)
    run.finish()
    assert {miss.task_id: miss.cause for miss in misses_of(read_evidence(run))} == expected


def fill(run: RunDirectory, an_outcome: MakeOutcome, count: int = 400) -> None:
    with LedgerWriter(run) as writer:
        for number in range(count):
            outcome = an_outcome(task_id=f"task-{number}", latency_ms=50.0 + number, created_at_s=_BORN_S + number)
            writer.add(outcome, {"vehicle": "vehicle-1"}, _BORN_S + number)
    run.finish()


def test_an_empty_run_says_so(run: RunDirectory, tmp_path: Path):
    with LedgerWriter(run):
        pass
    text = page_of(run, tmp_path).text
    assert "No task was created so far: there is nothing to measure" in text
    assert "the run is not finished" in text


def test_a_run_that_is_being_written(run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome):
    with LedgerWriter(run) as writer:
        writer.add(an_outcome(), {"vehicle": "vehicle-1"}, _BORN_S)
        writer.flush()
        text = page_of(run, tmp_path).text
    assert "so far: the run is not finished" in text
    assert "1 task: 1 answered in time" in text
    assert "Journals of vehicle-1 are not in the run" in text


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_of_a_ledger_that_was_cut_short_the_rest_is_reported(
    run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome, keep: float
):
    fill(run, an_outcome)
    size = run.ledger_path.stat().st_size
    with run.ledger_path.open("r+b") as file:
        file.truncate(int(size * keep))
    text = page_of(run, tmp_path).text
    assert "the ledger ledger.sqlite is damaged" in text
    created = summarise(run)["tasks"]["created"]
    assert 400 * keep * 0.5 < created < 400 or keep == 0.95
    assert f"{created} tasks: " in text


def test_of_a_ledger_with_broken_pages_both_sides_are_reported(
    run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome
):
    fill(run, an_outcome)
    size = run.ledger_path.stat().st_size
    with run.ledger_path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 8192)
    summary = summarise(run)
    assert 200 < summary["tasks"]["created"] < 400
    recorded = [one.outcome.task_id for one in read_evidence(run).record.outcomes]
    assert {"task-0", "task-399"} <= set(recorded)
    assert len(recorded) == len(set(recorded))
    assert summary["damage"][0] in page_of(run, tmp_path).text.replace("&#39;", "'")


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300])
def test_a_ledger_that_is_none_leaves_the_journals(
    run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome, content: bytes
):
    with Journal(run.journal_path("vehicle-1"), "vehicle-1") as journal:
        journal.created("a", "explain", 2000.0)
        journal.ended(an_outcome(task_id="a"))
    run.finish()
    if content:
        run.ledger_path.write_bytes(content)
    text = page_of(run, tmp_path).text
    assert "1 task: " in text
    assert "1 task ended on the vehicle, but not heard of" in text
    assert ("is damaged" if content else "there is no ledger") in text


def test_a_broken_index_of_frames_costs_the_pictures_alone(run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome):
    fill(run, an_outcome, 3)
    run.frames_path.mkdir()
    (run.frames_path / "index.sqlite").write_bytes(b"x" * 5000)
    text = page_of(run, tmp_path).text
    assert "3 tasks: " in text
    assert "index.sqlite" in text


def test_frames_outside_of_the_run_are_not_shown(driven, tmp_path: Path):
    stolen = tmp_path / "run"
    shutil.copytree(driven.run.path, stolen)
    secret = tmp_path / "secret.jpg"
    shutil.copy(next((stolen / "frames").rglob("*.jpg")), secret)
    with sqlite3.connect(stolen / "frames" / "index.sqlite") as index:
        index.execute("UPDATE frames SET file = '../../secret.jpg'")
    index.close()
    assert read_evidence(RunDirectory.open(stolen)).frames == []
    assert not re.search(r"<img ", write_report(RunDirectory.open(stolen), tmp_path / "page.html").read_text())


def test_reading_leaves_the_run_as_it_was(driven, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(driven.run.path, copy)

    def content() -> dict[str, str]:
        files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
        return {str(path.relative_to(copy)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = content()
    page_of(RunDirectory.open(copy), tmp_path)
    summarise(RunDirectory.open(copy))
    assert content() == before


def roadside(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "roadside.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_what_cannot_be_is_one_line(run: RunDirectory, tmp_path: Path, an_outcome: MakeOutcome):
    fill(run, an_outcome, 3)
    (tmp_path / "file").write_text("")
    cases = {
        ("report", "nowhere"): "not a run directory",
        ("report", str(run.path), "--html", "nowhere/report.html"): "cannot write",
        ("report", str(run.path), "--compare", "nowhere"): "not a run directory",
    }
    for words, said in cases.items():
        done = roadside(*words, folder=tmp_path)
        assert done.returncode == 2, words
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    with sqlite3.connect(run.ledger_path) as ledger:
        ledger.execute("PRAGMA user_version = 1")
    ledger.close()
    with pytest.raises(RunError, match="schema 1, this roadside reads"):
        write_report(run, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
