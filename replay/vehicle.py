"""A vehicle's decisions, made again: its dispatcher and policy, in virtual time, hear what they heard when they did.

Not the vehicle's camera, which would have to look again, and not a model of its own. What is compared is where each
attempt of a task went, and how the task ended.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

from ..bus.errors import MessageRefused, RunError
from ..bus.inbox import read
from ..bus.kinds import KINDS
from ..bus.message_log import Created, Heard, LoggedLife, Said
from ..bus.messages import Decision, Outcome, Task
from ..bus.subscription import Received
from ..bus.topics import ACK, NODE_STATE, POLICY, RESULT
from ..datasets.bddx import Segment
from ..policy.even_exploration import EvenExploration
from ..policy.guard import Guard
from ..policy.live_weights import LiveWeights, TakesWeights
from ..policy.registry import make_policy
from ..qos.journal import Journal
from ..vehicle_node.configuration import VehicleConfiguration
from ..vehicle_node.dispatcher import Dispatcher
from ..vehicle_node.scenes import Scene
from ..vehicle_node.task_run import TaskRun
from ..vehicle_node.teller import Teller
from .comparison import Difference, ProcessReplay
from .offline_bus import OfflineBus
from .virtual_time import run_in_virtual_time

# Of the longest deadline there may be: by then every task has ended.
_LONGEST_WAIT_S = 600.0


class _Course:
    """What became of the tasks. sent: where each attempt of a task went first; outcomes: by task."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, int], str] = {}
        self.outcomes: dict[str, Outcome] = {}

    def add(self, node: str, body: object) -> None:
        if isinstance(body, Task):
            self.sent.setdefault((body.task_id, body.attempt), f"{node} ({body.place})")
        elif isinstance(body, Outcome):
            self.outcomes[body.task_id] = body

    def placements(self, task_id: str) -> list[str]:
        """In the order of the attempts."""
        return [where for (task, _), where in sorted(self.sent.items()) if task == task_id]


def replay_vehicle(life: LoggedLife) -> ProcessReplay:
    """Raises RunError where it cannot be replayed, WeightsError where its policy's weights are not there."""
    configuration = _configuration(life)
    replayed = run_in_virtual_time(_drive(life, configuration), now_s=life.begun.at_s)
    recorded = _Course()
    for record in life.records:
        if isinstance(record, Said):
            said = _received(record)
            recorded.add(said.names.get("node", ""), said.body)
    result = ProcessReplay(life.begun.name, "vehicle")
    for created in life.records:
        if isinstance(created, Created):
            _compare(created.task_id, recorded, replayed, result)
    return result


def _configuration(life: LoggedLife) -> VehicleConfiguration:
    try:
        configuration = msgspec.convert(json.loads(life.begun.configuration), VehicleConfiguration)
    except (msgspec.ValidationError, ValueError) as error:
        raise RunError(
            f"{life.begun.name} was recorded with other settings than this roadside has ({error}): record anew"
        ) from None
    if configuration.vehicle_model is not None:
        raise RunError(
            f"{life.begun.name} has a model of its own, whose answers are not replayed: leave it out (--node)"
        )
    return configuration


async def _drive(life: LoggedLife, configuration: VehicleConfiguration) -> _Course:
    bus = OfflineBus(fleet=configuration.fleet, name=configuration.name, boot_id=life.begun.boot_id)
    policy = make_policy(configuration.policy, configuration.policy_options)
    # Without a budget: how long this machine takes says nothing of the vehicle's.
    guard = Guard(
        policy,
        decision_budget_ms=math.inf,
        exploration=EvenExploration(configuration.explore_share, configuration.seed),
    )
    weights = LiveWeights(policy, learner=configuration.policy_from) if isinstance(policy, TakesWeights) else None
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite", configuration.name) as journal,
    ):
        counters: Counter[str] = Counter()
        teller = Teller(bus=bus, journal=journal, counters=counters)
        dispatcher = Dispatcher(configuration, bus=bus, journal=journal, guard=guard, teller=teller, counters=counters)
        watching = asyncio.create_task(dispatcher.watch())
        loop = asyncio.get_running_loop()
        for record in life.records:
            await asyncio.sleep(max(0.0, record.at_s - loop.time()))
            match record:
                case Created():
                    journal.created(record.task_id, record.kind, KINDS[record.kind].deadline_ms)
                    dispatcher.begin(_task(record, configuration))
                case Heard():
                    _hear(record, dispatcher, weights)
                case Said():
                    pass  # what is compared, not what is fed in
        async with asyncio.timeout(_LONGEST_WAIT_S):
            await dispatcher.all_ended.wait()
        await teller.finish(timeout_s=_LONGEST_WAIT_S)
        watching.cancel()
    course = _Course()
    for _, names, body in bus.said:
        course.add(names.get("node", ""), body)
    return course


def _task(record: Created, configuration: VehicleConfiguration) -> TaskRun:
    kind = KINDS[record.kind]
    truth = None
    if record.action is not None and record.justification is not None:
        truth = Segment(record.moment_s, record.moment_s, record.action, record.justification)
    *earlier, newest = (bytes(size) for size in record.frame_bytes)
    scene = Scene(record.clip, record.moment_s, newest, record.telemetry, truth, tuple(earlier))
    speak_s = record.created_s + (kind.deadline_ms - configuration.fallback_margin_ms) / 1000
    return TaskRun(
        record.task_id,
        kind,
        scene,
        record.created_s,
        record.created_at_s,
        speak_s,
        exit_threshold=configuration.theta,
    )


def _hear(record: Heard, dispatcher: Dispatcher, weights: LiveWeights | None) -> None:
    try:
        received = read(record.address, record.payload)
    except MessageRefused:
        return  # as it was then
    if received.topic is NODE_STATE:
        dispatcher.hear_state(received)
    elif received.topic is ACK:
        dispatcher.hear_ack(received)
    elif received.topic is RESULT:
        dispatcher.hear_result(received)
    elif received.topic is POLICY and weights is not None:
        weights.hear(received.names["learner"], received.body)


def _received(record: Said) -> Received:
    try:
        return read(record.address, record.payload)
    except MessageRefused as refusal:
        raise RunError(
            f"the recording holds a message that this roadside does not read ({refusal}): record anew"
        ) from None


def _compare(task_id: str, recorded: _Course, replayed: _Course, result: ProcessReplay) -> None:
    expected, got = recorded.outcomes.get(task_id), replayed.outcomes.get(task_id)
    if expected is None:
        result.left_out["had not ended when the recording did"] += 1
        return
    if expected.decision is not None and expected.decision.frame_scale < 1:
        # The vehicle's log holds no pictures, and time that a thread takes is not virtual.
        result.left_out["had its picture scaled before it was sent"] += 1
        return
    assert got is not None, "every task ends"
    result.compared += 1
    went, goes = recorded.placements(task_id), replayed.placements(task_id)
    if went != goes:
        note = _margin(expected.decision, got.decision)
        result.differences.append(Difference(task_id, "placement", _listed(went), _listed(goes), note))
    elif (ended := _ending(expected)) != (ends := _ending(got)):
        result.differences.append(Difference(task_id, "ending", ended, ends))


def _listed(placements: list[str]) -> str:
    return ", then ".join(placements) or "the vehicle itself"


def _ending(outcome: Outcome) -> str:
    return f"{outcome.state} by {outcome.node} ({outcome.place})"


def _margin(expected: Decision | None, got: Decision | None) -> str:
    """By how little the first choice was made: what a difference in the last digits can turn round."""
    if expected is None or got is None:
        return ""
    then, now = expected.candidates[expected.chosen], got.candidates[got.chosen]
    if (then.node, then.place) == (now.node, now.place):
        return "the first choice is the same"
    scores = {(each.node, each.place): each.score for each in got.candidates}
    missed = scores.get((then.node, then.place))
    if missed is None:
        return f"{then.node} ({then.place}) is no candidate any more"
    return f"score {now.score:.4f} against {missed:.4f}: {got.reason}"
