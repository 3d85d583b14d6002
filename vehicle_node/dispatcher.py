"""Places tasks, keeps after them, and gives each exactly one ending.

    begin -> guard(policy) -> a node's inbox -> ACK | Reject -> Result -> end
                          \\-> own model or narrator where the vehicle itself is chosen; narrator when time is short

A task that is refused, whose node dies, or that is not answered goes elsewhere as the next attempt while time is left;
when an attempt is sent again or left is the business of attempts.py. Whatever happens, a timer of the task's own lets
the narrator speak just before the deadline; what comes later is counted and never shown.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from ..bus import topics
from ..bus.errors import MessageRefused, OutboxFull
from ..bus.history import NO_HISTORY, History
from ..bus.latencies import LatencyHistogram
from ..bus.messages import Accepted, Candidate, Load, NodeState, Rejected, Result
from ..bus.transport import Bus, Received
from ..datasets.jpeg import shrink_jpeg
from ..policy.experience import Knobs
from ..policy.guard import Guard
from ..policy.utility import UtilityModel
from ..qos.journal import Journal
from ..qos.report import VISIBLE
from .attempts import Attempt, Elsewhere, Placement, Step
from .configuration import VehicleConfiguration
from .endings import (
    NARRATOR_GRACE_MS,
    Ending,
    answered,
    answered_here,
    missed,
    narrated,
    outcome_of,
    provisional_stands,
)
from .nodes import NodeTable, speaks_for_itself
from .own_model import OwnModel, OwnPlace
from .placement import Placer, chosen
from .task_run import Provisional, TaskRun
from .teller import Teller

log = structlog.get_logger()

_WATCH_S = 0.1
# Another node is worth turning to while there is time for its expected latency and half as much again.
_ELSEWHERE_SLACK = 1.5


class Dispatcher:
    """The open tasks of one vehicle. Everything runs on the event loop; tasks enter through `begin`.

    all_ended: set while no task is open. latencies: of the tasks that have ended. `counters` gets, besides the terminal
    states: attempt_over.<reason>, resent, late_answers (to a task that had ended), and ignored.<reason> for messages
    that nobody had a right to send.
    """

    def __init__(
        self,
        configuration: VehicleConfiguration,
        *,
        bus: Bus,
        journal: Journal,
        guard: Guard,
        teller: Teller,
        counters: Counter[str],
        own_model: OwnModel | None = None,
        history: History = NO_HISTORY,
    ) -> None:
        self._history = history
        self._name = configuration.name
        self._own_model = own_model
        self._silent_after_ms = configuration.silent_after_ms
        self._jpeg_quality = configuration.jpeg_quality
        self._bus = bus
        self._journal = journal
        self._guard = guard
        self._teller = teller
        self._counters = counters
        self._utility = UtilityModel()
        self._nodes = NodeTable()
        self._placer = Placer(
            own_place=own_model or OwnPlace(self._name),
            nodes=self._nodes,
            guard=guard,
            utility=self._utility,
            silent_after_ms=configuration.silent_after_ms,
        )
        self._jitter = random.Random(f"{configuration.seed}/{self._name}")
        self._open: dict[str, TaskRun] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self.latencies = LatencyHistogram()
        self.all_ended = asyncio.Event()
        self.all_ended.set()

    # Placing

    def begin(self, task: TaskRun) -> None:
        """Take over a task that the journal has."""
        self._open[task.task_id] = task
        self.all_ended.clear()
        self._at(task, "narrator", task.speak_s, self._time_is_up)
        self._place(task)

    def _place(self, task: TaskRun) -> None:
        """Begin the next attempt at the place that the policy takes from what is left."""
        now_s = time.monotonic()
        decision = self._placer.decide(task, now_s)
        candidate = chosen(decision)
        if task.decision is None:
            task.decision = decision
        task.knobs = Knobs(decision.exit_threshold, decision.frame_scale)
        if candidate.place != "vehicle" or self._own_model_may_answer(task):
            self._turn_to(task, candidate, now_s)
        elif not task.attempts and not task.over_because:
            self._narrate_by_choice(task, now_s)
        elif (retry_s := self._placer.earliest_retry_s(task, decision, now_s)) is not None:
            self._at(task, "attempt", retry_s, self._place)
        else:
            self._fall_back(task, "refused everywhere" if task.over_because == "rejected" else task.over_because)

    def _turn_to(self, task: TaskRun, candidate: Candidate, now_s: float) -> None:
        """Have the task answered there: by the vehicle's own model, or by a node."""
        if candidate.place == "vehicle":
            self._start(self._answer_here(task))
        elif task.knobs.frame_scale < 1 and task.smaller_frames is None:
            self._start(self._begin_with_smaller_picture(task, candidate))
        else:
            self._begin_attempt(task, candidate, now_s)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done for a task beside the event loop's next turns; it looks itself whether the task ended."""
        started = asyncio.create_task(work)
        self._under_way.add(started)
        started.add_done_callback(self._under_way.discard)

    async def _begin_with_smaller_picture(self, task: TaskRun, candidate: Candidate) -> None:
        """Later attempts send the same picture: what a second scaling would save costs more than it is worth."""
        scale = task.knobs.frame_scale
        shrink = partial(shrink_jpeg, scale=scale, quality=self._jpeg_quality)
        task.smaller_frames = await asyncio.to_thread(lambda: tuple(map(shrink, task.scene.frames)))
        if task.ended:
            return
        if self._nodes.is_dead(candidate.node):
            self._counters["node_left_before_sending"] += 1
            self._place(task)
        else:
            self._begin_attempt(task, candidate, time.monotonic())

    def _begin_attempt(self, task: TaskRun, candidate: Candidate, now_s: float) -> None:
        placement = Placement(
            node=candidate.node,
            place=candidate.place,
            expected_ms=candidate.latency_ms,
            round_trip_ms=self._nodes.network_ms(candidate.node),
        )
        attempt = Attempt(len(task.attempts) + 1, placement, begun_s=now_s, random=self._jitter.random)
        task.attempts.append(attempt)
        log.debug("placed", task_id=task.task_id, attempt=attempt.number, node=candidate.node, place=candidate.place)
        self._history.note(
            "task.placed",
            task=task.task_id,
            attempt=attempt.number,
            node=candidate.node,
            place=candidate.place,
        )
        task.attempt = attempt
        self._step(task)

    def _step(self, task: TaskRun) -> None:
        """Do what is due for the current attempt: send it, leave it, or wait on."""
        attempt, now_s = task.attempt, time.monotonic()
        if attempt is None or task.ended or not self._bus.connected.is_set():
            return  # offline, all nodes are as far away: the next connection wakes every attempt
        elsewhere = None
        if attempt.sent_s is not None and now_s >= attempt.due_s:
            elsewhere = self._placer.elsewhere(task, attempt, now_s)
        was_accepted = attempt.accepted
        step = attempt.step(now_s, None if elsewhere is None else _as_elsewhere(task, elsewhere))
        if step is Step.LEAVE and elsewhere is not None:
            self._end_attempt(task, attempt, "no answer" if was_accepted else "no ack")
            self._turn_to(task, elsewhere, now_s)
            return
        if step is Step.SEND:
            self._send(task, attempt, now_s)
        self._at(task, "attempt", attempt.due_s, self._step)

    def _send(self, task: TaskRun, attempt: Attempt, now_s: float) -> None:
        if now_s >= task.speak_s:
            return  # the narrator is about to speak
        if attempt.last_sent_s != attempt.sent_s:
            self._counters["resent"] += 1
        message = task.message(attempt.number, attempt.placement.place, now_s)
        try:
            # Perishable: after a loss of the connection the attempt is sent afresh, with the time that is then left.
            self._bus.post(topics.TASK, message, perishable=True, node=attempt.node, vehicle=self._name)
        except OutboxFull:
            self._counters["tasks_held_back"] += 1
            return
        self._nodes.sent(attempt.node, task.task_id)
        self._history.note("task.sent", task=task.task_id, attempt=attempt.number, node=attempt.node)

    def _end_attempt(
        self, task: TaskRun, attempt: Attempt, why: str, *, avoid_until_s: float | None = math.inf
    ) -> None:
        """The attempt is over, the task is not."""
        self._counters[f"attempt_over.{why}"] += 1
        log.debug("attempt over", task_id=task.task_id, attempt=attempt.number, node=attempt.node, why=why)
        task.over_because = why
        if avoid_until_s is not None:
            task.avoided[attempt.node] = avoid_until_s
        task.attempt = None
        self._nodes.settled(attempt.node, task.task_id)

    # The vehicle's own model

    def _own_model_may_answer(self, task: TaskRun) -> bool:
        return self._own_model is not None and not task.own_model_failed

    async def _answer_here(self, task: TaskRun) -> None:
        """Have the own model answer; where it cannot, the task goes elsewhere while time is left."""
        assert self._own_model is not None, "only a vehicle with a model turns to itself"
        task.accepted = True
        message = task.message(len(task.attempts) + 1, "vehicle", time.monotonic())
        try:
            answered = await self._own_model.answer(message)
        except Exception as error:  # a model is foreign code: whatever it raises must not cost the driver an answer
            why = error.reason if isinstance(error, MessageRefused) else "failed"
            self._counters[f"own_model.{why}"] += 1
            log.warning("the own model has not answered", task_id=task.task_id, why=str(error) or repr(error))
            task.own_model_failed = True
            task.over_because = f"own model: {why}"
            if not task.ended:
                self._place(task)
            return
        if answered is None or task.ended:
            return
        now_s = time.monotonic()
        if task.remaining_ms(now_s) <= 0:
            self._time_is_up(task)  # the event loop was late, and the answer with it
        else:
            self._end(task, answered_here(answered, self._name, shown_ms=task.age_ms(now_s)))

    async def stop_own_model(self) -> None:
        """Nobody waits for its answers any more."""
        for work in self._under_way:
            work.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._own_model is not None:
            await asyncio.to_thread(self._own_model.close)

    # Hearing

    def hear_state(self, received: Received) -> None:
        state: NodeState = received.body
        if not speaks_for_itself(state, received.names["node"]):
            self._counters["ignored.foreign state"] += 1
            return
        if self._nodes.update_state(state, time.monotonic()):
            log.warning("node is dead", node=state.node)
            for task, attempt in self._attempts_at(state.node):
                # A node that comes back is as good as any.
                self._end_attempt(task, attempt, "node died", avoid_until_s=None)
                self._place(task)

    def hear_ack(self, received: Received) -> None:
        ack: Accepted | Rejected = received.body
        node, now_s = received.names["node"], time.monotonic()
        self._heard_of(node, ack.task_id, ack.load, now_s)
        task = self._open.get(ack.task_id)
        if task is None:
            if not self._is_ours(ack.task_id):
                self._counters["ignored.unknown task"] += 1
            return
        attempt = task.asked(node, ack.attempt)
        if attempt is None:
            self._counters["ignored.not asked"] += 1
        elif isinstance(ack, Accepted):
            self._history.note("task.acknowledged", task=ack.task_id, attempt=ack.attempt, node=node)
            self._accepted(task, attempt, ack, now_s)
        elif attempt is task.attempt:
            self._history.note("task.refused", task=ack.task_id, attempt=ack.attempt, node=node, reason=ack.reason)
            avoid_until_s = self._placer.avoid_after_refusal(task, node, ack, now_s)
            self._end_attempt(task, attempt, "rejected", avoid_until_s=avoid_until_s)
            self._place(task)

    def _accepted(self, task: TaskRun, attempt: Attempt, ack: Accepted, now_s: float) -> None:
        task.accepted = True
        if attempt is not task.attempt or attempt.accepted:
            return
        assert attempt.last_sent_s is not None
        self._nodes.observe_network(attempt.node, (now_s - attempt.last_sent_s) * 1000)
        attempt.acknowledged(now_s, ack.load.wait_ms)
        self._at(task, "attempt", attempt.due_s, self._step)

    def hear_result(self, received: Received) -> None:
        result: Result = received.body
        node = received.names["node"]
        self._history.note(
            "answer.received",
            task=result.task_id,
            attempt=result.attempt,
            node=node,
            final=result.final,
            whole=result.is_whole,
        )
        # As late as can be: what is decided by it is shown at once.
        now_s = time.monotonic()
        self._heard_of(node, result.task_id, result.load, now_s)
        task = self._open.get(result.task_id)
        if task is None:
            # The narrator has spoken, or another attempt has answered: the first terminal state stands.
            self._counters["late_answers" if self._is_ours(result.task_id) else "ignored.unknown task"] += 1
            return
        attempt = task.asked(node, result.attempt)
        if attempt is None or attempt.sent_s is None:
            self._counters["ignored.not asked"] += 1
        elif task.remaining_ms(now_s) <= 0:
            # The event loop was late, and the answer with it: the timer was due first.
            self._counters["late_answers"] += 1
            self._time_is_up(task)
        else:
            # An answer of an earlier attempt is as good as one of the current.
            self._show(task, result, node, sent_s=attempt.sent_s, now_s=now_s)

    def _show(self, task: TaskRun, result: Result, node: str, *, sent_s: float, now_s: float) -> None:
        task.accepted = True
        timing = result.timing
        on_the_node_ms = timing.queue_ms + timing.inference_ms + timing.context_ms
        network_ms = max(0.0, (now_s - sent_s) * 1000 - on_the_node_ms)
        shown_ms = task.age_ms(now_s)
        if result.final:
            transmit_energy_j = self._transmit_energy_j(task)
            ending = answered(
                result, node, shown_ms=shown_ms, network_ms=network_ms, transmit_energy_j=transmit_energy_j
            )
            self._end(task, ending)
        elif not result.is_whole:
            # First words may be shown, but nothing of them can stand when the time is up.
            self._counters["first_words"] += 1
        elif task.provisional is None:
            task.provisional = Provisional(result, node, network_ms, shown_ms)
            self._history.note("provisional.shown", task=task.task_id, node=node)

    def _heard_of(self, node: str, task_id: str, load: Load, now_s: float) -> None:
        self._nodes.settled(node, task_id)
        self._nodes.update_load(node, load, now_s)

    def _is_ours(self, task_id: str) -> bool:
        return task_id.startswith(task_id_prefix(self._bus))

    def _attempts_at(self, node: str) -> list[tuple[TaskRun, Attempt]]:
        tasks = self._open.values()
        return [(task, task.attempt) for task in tasks if task.attempt is not None and task.attempt.node == node]

    # Watching

    async def watch(self) -> None:
        """Notice what no message tells: a connection made anew, and nodes that have fallen silent. Never returns."""
        reconnects = self._bus.counters["reconnects"]
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._bus.counters["reconnects"] != reconnects:
                reconnects = self._bus.counters["reconnects"]
                self._connection_made_anew()
            if self._bus.connected.is_set():
                self._leave_silent_nodes()

    def _connection_made_anew(self) -> None:
        for task in list(self._open.values()):
            if task.attempt is not None:
                task.attempt.connection_made_anew(time.monotonic())
                self._step(task)
        self._teller.tell_what_is_left()

    def _leave_silent_nodes(self) -> None:
        now_s = time.monotonic()
        for task in list(self._open.values()):
            attempt = task.attempt
            if attempt is None or not self._nodes.is_silent(attempt.node, now_s, silent_after_ms=self._silent_after_ms):
                continue
            elsewhere = self._placer.elsewhere(task, attempt, now_s)
            if elsewhere is not None and now_s <= _as_elsewhere(task, elsewhere).until_s:
                self._end_attempt(task, attempt, "node silent")
                self._turn_to(task, elsewhere, now_s)

    # Ending

    def _narrate_by_choice(self, task: TaskRun, now_s: float) -> None:
        """The vehicle's own place was the policy's first choice."""
        if task.remaining_ms(now_s) <= 0:
            self._fall_back(task, "no time left")
            return
        task.accepted = True
        self._end(task, narrated(task, self._name, "result", "", shown_ms=task.age_ms(now_s)))

    def _time_is_up(self, task: TaskRun) -> None:
        never_sent = bool(task.attempts) and all(attempt.sent_s is None for attempt in task.attempts)
        self._fall_back(task, "the connection is down" if never_sent else "no answer in time")

    def _fall_back(self, task: TaskRun, reason: str) -> None:
        """Nothing more will come: the provisional answer stands where there is one, else the narrator speaks.

        Not for a task whose time has long been over: a vehicle that stood still was as good as down, and what it could
        say of that moment would be stale.
        """
        now_s = time.monotonic()
        if task.provisional is not None:
            ending = provisional_stands(task.provisional, transmit_energy_j=self._transmit_energy_j(task))
        elif task.remaining_ms(now_s) < -NARRATOR_GRACE_MS:
            ending = missed(self._name)
        else:
            ending = narrated(task, self._name, "fallback", reason, shown_ms=task.age_ms(now_s))
        self._end(task, ending)

    def _transmit_energy_j(self, task: TaskRun) -> float:
        return self._utility.transmit_energy_j(sum(map(len, task.frames)))

    def _end(self, task: TaskRun, ending: Ending) -> None:
        """The one place where a task ends: the journal first, then the world."""
        assert not task.ended
        task.ended = True
        task.cancel_timers()
        del self._open[task.task_id]
        if task.attempt is not None:
            self._nodes.settled(task.attempt.node, task.task_id)
        outcome = outcome_of(task, ending)
        self._journal.ended(outcome)
        self._history.note(
            "task.ended",
            task=task.task_id,
            state=ending.state,
            reason=ending.reason,
            node=ending.node,
            shown=ending.state in VISIBLE,
            shown_ms=ending.shown_ms,
        )
        self._counters[ending.state] += 1
        self.latencies.observe(outcome.latency_ms, state=outcome.state, place=outcome.place)
        log.debug(
            "ended",
            task_id=task.task_id,
            state=outcome.state,
            place=outcome.place,
            node=outcome.node,
            reason=outcome.reason,
            latency_ms=round(outcome.latency_ms, 1),
        )
        self._teller.tell(outcome)
        self._guard.observe(outcome)
        if not self._open:
            self.all_ended.set()

    def _at(self, task: TaskRun, what: str, at_s: float, then: Callable[[TaskRun], None]) -> None:
        """Call `then` at a moment of the monotonic clock unless the task has ended; replaces the timer of that name."""
        if (timer := task.timers.pop(what, None)) is not None:
            timer.cancel()
        if not task.ended and at_s < math.inf:
            # The loop's clock is monotonic too, but not the same one: only differences carry over.
            delay_s = max(0.0, at_s - time.monotonic())
            task.timers[what] = asyncio.get_running_loop().call_later(delay_s, then, task)


def _as_elsewhere(task: TaskRun, candidate: Candidate) -> Elsewhere:
    return Elsewhere(candidate.latency_ms, task.speak_s - _ELSEWHERE_SLACK * candidate.latency_ms / 1000)


def task_id_prefix(bus: Bus) -> str:
    """What the ids of this life's tasks begin with: a restarted vehicle goes on in the same journal."""
    return f"{bus.name}-{bus.boot_id[:6]}-"
