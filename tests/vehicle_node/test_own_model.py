"""A vehicle with a small model of its own, on a real broker: the bundled one, and one that does as a test tells it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from roadside.bus import topics
from roadside.bus.messages import Task
from roadside.bus.places import Place
from roadside.bus.transport import Bus
from roadside.models.answering import vehicle_answerer
from roadside.models.circumstances import UNKNOWN, Circumstances
from roadside.models.decoding import Spoke, Steps
from roadside.models.questions import Answer, Question


@dataclass
class ToldAnswerer:
    """Answers after `takes_s`; once `hangs` is set, never; once `fails` is set, with an error. Warm-up comes before."""

    rate: float = 0.7
    takes_s: float = 0.01
    model: str = "told"
    model_hash: str = "0"
    modes: dict[Place, str] = field(default_factory=lambda: {"vehicle": "standalone"})
    hangs: threading.Event = field(default_factory=threading.Event)
    fails: threading.Event = field(default_factory=threading.Event)
    asked: list[Question] = field(default_factory=list)

    @property
    def quality(self) -> dict[Place, dict[str, float]]:
        return {"vehicle": dict.fromkeys(("hazard", "explain", "describe"), self.rate)}

    def begin(self, question: Question, place: Place, circumstances: Circumstances = UNKNOWN) -> Steps[Answer]:
        assert place == "vehicle"
        if not question.telemetry:  # the colour card of the warm-up
            return Answer("warm", (1,), ("exit1",), 0.9, 1.0, 1.0)
        self.asked.append(question)
        if self.fails.is_set():
            raise RuntimeError("out of memory")
        ends_s = time.monotonic() + self.takes_s
        while self.hangs.is_set() or time.monotonic() < ends_s:
            time.sleep(0.002)
            yield Spoke()
        return Answer("my own words", (1, 2), ("exit1", "exit2"), 0.9, 1.0, 1.0)

    def words(self, tokens: tuple[int, ...]) -> str:
        return " ".join(map(str, tokens))


def serve(node: Any, vehicle: str, task: Task) -> None:
    node.serve(vehicle, task)


async def test_the_bundled_model_answers_at_the_vehicles_own_place(drive, check_contract):
    answerer = vehicle_answerer(None)
    outcomes = await drive(make_answerer=lambda: answerer, vehicle_model_power_w=20.0)
    assert set(check_contract(outcomes)) == {"result"}
    for outcome in outcomes:
        assert (outcome.place, outcome.node, outcome.mode) == ("vehicle", "vehicle-1", "standalone")
        assert set(outcome.made_by) <= {"exit1", "exit2"}
        assert outcome.energy_j == pytest.approx(20.0 * outcome.timing.inference_ms / 1000)
        assert outcome.network_ms == 0.0
        assert outcome.decision is not None
        (own,) = outcome.decision.candidates
        assert own.quality == answerer.quality["vehicle"][outcome.kind]
        assert own.latency_ms > 0, "measured before the drive began"
        assert not own.masked


async def test_its_state_tells_of_its_model(drive, best_broker, fleet):
    async with Bus(url=best_broker.url, fleet=fleet, name="listener") as bus:
        states = bus.subscribe(topics.VEHICLE_STATE, vehicle="vehicle-1")
        await states.active.wait()
        await drive(make_answerer=ToldAnswerer)
        state = (await anext(states)).body
    assert (state.model, state.model_hash, state.places) == ("told", "0", ("vehicle",))
    assert state.load is not None
    assert set(state.load.service_ms["vehicle"]) == {"hazard", "explain", "describe"}


async def test_a_better_node_is_preferred_and_the_own_model_not_asked(scripted, drive, check_contract):
    answerer = ToldAnswerer(rate=0.1)
    async with scripted("edge-1", serve):
        outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.place for outcome in outcomes} == {"edge"}
    assert not answerer.asked


async def test_what_a_node_refuses_is_answered_by_the_own_model(scripted, drive, check_contract):
    answerer = ToldAnswerer()
    async with scripted("edge-1", lambda node, vehicle, task: node.reject(vehicle, task, reason="stopping")) as node:
        outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"result"}
    assert node.tasks
    for outcome in outcomes:
        assert (outcome.requested, outcome.place, outcome.text) == ("edge", "vehicle", "my own words")


async def test_what_a_silent_node_leaves_is_answered_by_the_own_model(scripted, drive, check_contract):
    answerer = ToldAnswerer()
    async with scripted("edge-1", lambda node, vehicle, task: None):
        outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"result"}
    assert {outcome.text for outcome in outcomes} == {"my own words"}
    assert {outcome.requested for outcome in outcomes} == {"edge"}


async def test_the_narrator_speaks_where_the_own_model_hangs(drive, check_contract):
    answerer = ToldAnswerer()
    answerer.hangs.set()
    outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"fallback"}
    assert {outcome.mode for outcome in outcomes} == {"narrator"}
    assert any(outcome.reason == "no answer in time" for outcome in outcomes)


async def test_a_model_that_fails_costs_no_answer(scripted, drive, check_contract):
    answerer = ToldAnswerer()
    answerer.fails.set()
    outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"fallback"}
    assert {outcome.reason for outcome in outcomes} == {"own model: failed"}
    assert answerer.asked


async def test_what_the_own_model_fails_goes_to_a_node(scripted, drive, check_contract):
    """The vehicle is chosen first, as it is the better one."""
    answerer = ToldAnswerer(rate=1.0)
    answerer.fails.set()
    async with scripted("edge-1", serve, service_ms=200.0):
        outcomes = await drive(make_answerer=lambda: answerer)
    assert set(check_contract(outcomes)) == {"result"}
    assert {(outcome.requested, outcome.place) for outcome in outcomes} == {("vehicle", "edge")}


async def test_more_than_it_can_think_about_is_refused_at_once(drive, check_contract, told_counters):
    answerer = ToldAnswerer(takes_s=0.15)
    async with told_counters() as counters:
        outcomes = await drive(make_answerer=lambda: answerer, rate_hz=40.0)
    states = check_contract(outcomes)
    assert states["result"]
    assert states["fallback"]
    assert counters["own_model.full"] + counters.get("own_model.deadline", 0) > 0
    own_words = [outcome for outcome in outcomes if outcome.text == "my own words"]
    assert len(own_words) == states["result"]


def test_a_vehicle_without_a_model_starts_without_torch():
    script = (
        "import sys; from roadside.verbs.options import own_model_loader; import roadside.vehicle_node.node;"
        " assert own_model_loader(None) is None; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
