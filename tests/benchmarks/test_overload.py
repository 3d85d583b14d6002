"""The overload bench: what is counted as good, as refused at once, as expired and as unwanted."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from roadside.benchmarks.loaded_fleet import Stage
from roadside.benchmarks.overload import Observer, _Measured, _ratios
from roadside.bus import topics
from roadside.bus.messages import Accepted, Envelope, Load, Message, NodeState, Outcome, Rejected, Result, Task, Timing
from roadside.bus.topics import Topic
from roadside.bus.transport import Bus, Received

from .. import plain_messages
from .bench_process import bench_json

LOAD = Load(queued=0, running=0, slots=1, wait_ms=0.0, service_ms={})


def outcome(task_id: str, node: str, state: Any = "result") -> Outcome:
    return msgspec.structs.replace(
        plain_messages.OUTCOME,
        task_id=task_id,
        state=state,
        text="",
        created_at_s=0.0,
        place="edge" if state == "result" else "vehicle",
        node=node,
        mode="",
        latency_ms=100.0,
        first_answer_ms=100.0,
        network_ms=0.0,
        energy_j=0.0,
        clip="",
        moment_s=0.0,
    )


class Heard:
    """Says things to an observer, as a bus would."""

    def __init__(self) -> None:
        self.observer = Observer(Bus(url="mqtt://127.0.0.1:1", fleet="f", name="observer"))

    def say(self, topic: Topic, body: Message, node: str = "edge-1") -> None:
        envelope = Envelope(1, node, "boot", 1, 0.0, body)
        self.observer._keep(Received(topic, {"vehicle": "v", "node": node}, envelope))

    def ask(self, task_id: str) -> None:
        task = Task(task_id, 1, "explain", "why ?", (b"1234",), {}, 2000.0, 2000.0, 0.5, "edge")
        self.say(topics.TASK, task)

    def answer(self, task_id: str, node: str, inference_ms: float) -> None:
        timing = Timing(queue_ms=40.0, inference_ms=inference_ms)
        result = Result(task_id, 1, True, "", "edge", "", "", (), 0.9, timing, 1.0, "modelled", LOAD)
        self.say(topics.RESULT, result, node)


def test_what_an_observer_makes_of_a_stage():
    heard = Heard()
    heard.say(topics.NODE_STATE, NodeState("edge-1", "edge", True, counters={"expired_work_ms": 500}))
    heard.observer.begin()
    for task_id in ("a", "b", "c", "d"):
        heard.ask(task_id)
    heard.say(topics.ACK, Rejected("c", 1, "full", 10.0, LOAD))
    heard.say(topics.ACK, Accepted("d", 1, LOAD))
    heard.say(topics.ACK, Rejected("d", 1, "deadline", 10.0, LOAD))
    heard.answer("a", "edge-1", 100.0)
    heard.answer("a", "edge-2", 60.0)
    heard.answer("b", "edge-1", 40.0)
    heard.answer("of another stage", "edge-1", 1e9)
    heard.say(topics.NODE_STATE, NodeState("edge-1", "edge", True, counters={"expired_work_ms": 700}))
    row = heard.observer.row(
        Stage(0.0, 10.0, {"v": [outcome("a", "edge-1"), outcome("b", "v", "fallback"), outcome("c", "v", "fallback")]})
    )
    assert (row["rejects"], row["taken_back"]) == (1, 1)
    assert 0 <= row["reject_ms_p50"] < 1000
    assert row["queue_ms_p50"] == 40.0
    assert row["expired_work_share"] == pytest.approx(200 / 400)
    assert row["unwanted_work_share"] == pytest.approx((60 + 40) / 400)


def test_ratios_are_of_one_run_and_of_its_own_peak():
    rows = [
        {
            "load": load,
            "offered_tasks_per_s": 20.0 * load,
            "goodput_tasks_per_s": goodput,
            "reject_ms_p50": reject_ms,
            "queue_ms_p50": 50.0,
        }
        for load, goodput, reject_ms in ((1.0, 18.0, None), (2.0, 20.0, 5.0), (3.0, 15.0, 5.0))
    ]
    measured = _Measured(20.0, rows, [{"others_in_time_share": 0.8}, {"others_in_time_share": 0.6}])
    assert _ratios(measured) == {
        "goodput_at_twice_the_peak_of_peak": 1.0,
        "goodput_at_1_of_peak": 0.9,
        "goodput_at_2_of_peak": 1.0,
        "reject_p50_of_queue_p50_at_2": 0.1,
        "goodput_at_3_of_peak": 0.75,
        "reject_p50_of_queue_p50_at_3": 0.1,
        "others_in_time_flooded_of_even": pytest.approx(0.75),
    }
    assert _ratios(_Measured(20.0, rows[:1]))["goodput_at_twice_the_peak_of_peak"] is None, "it was not asked so much"
    assert _ratios(_Measured()) == {"goodput_at_twice_the_peak_of_peak": None}


@pytest.mark.slow
def test_a_quick_overload_of_a_real_fleet() -> None:
    found = bench_json("overload", "--quick")
    print(json.dumps(found["ratios"]))
    once, thrice = found["rows"]
    assert thrice["offered_tasks_per_s"] > 1.3 * once["offered_tasks_per_s"]
    assert thrice["rejects"] > once["rejects"]
    assert thrice["nodes_cpu_ms_per_answer"] > 0
    assert thrice["reject_ms_p50"] < thrice["queue_ms_p90"], "a Reject overtakes what waits"
    assert len(found["fairness"]) == 2
