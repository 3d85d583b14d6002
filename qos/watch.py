"""What happens in a fleet, a line each, for people: `roadside watch` (fleet_events.py) and the demo's progress."""

from __future__ import annotations

from datetime import datetime

from ..bus.messages import Candidate, Decision, NodeState, Outcome, PolicyWeights, Result
from ..bus.plain_text import plain_text

_VERDICTS = {True: "right", False: "wrong"}
_INDENT = " " * 10
_TOP = 6  # candidates that an explanation shows


def outcome_line(vehicle: str, outcome: Outcome, *, explain: bool = False) -> str:
    """How a task ended; with `explain`, what the policy saw and why it chose as it did, on lines of its own."""
    parts = [
        _clock(outcome.created_at_s + outcome.latency_ms / 1000),
        vehicle,
        outcome.kind.ljust(8),
        ending(outcome),
        f"{outcome.latency_ms:.0f} ms of {outcome.deadline_ms:.0f}",
        f'"{plain_text(outcome.text)}"' if outcome.text else "",
        verdict(outcome),
    ]
    line = "  ".join(part for part in parts if part)
    return f"{line}\n{explanation(outcome.decision)}" if explain and outcome.decision else line


def ending(outcome: Outcome) -> str:
    """Who answered, or what happened instead."""
    if outcome.state == "result":
        return outcome.node.ljust(9)
    return f"{outcome.state} ({outcome.reason})" if outcome.reason else outcome.state


def verdict(outcome: Outcome) -> str:
    """Whether the answer says what the log says: "right", "wrong", or which part is which; empty where unknown."""
    truth = outcome.truth
    if truth is None:
        return ""
    parts = [("action", truth.action_correct), ("reason", truth.justification_correct)]
    judged = [(name, correct) for name, correct in parts if correct is not None]
    if len({correct for _, correct in judged}) == 1:
        return _VERDICTS[judged[0][1]]
    return ", ".join(f"{name} {_VERDICTS[correct]}" for name, correct in judged)


def result_line(vehicle: str, node: str, result: Result, sent_at_s: float) -> str:
    """An answer as a node sent it."""
    for_now = "answers for now" if result.is_whole else "begins to answer"
    which = "answers" if result.final else for_now
    took = f"queue {result.timing.queue_ms:.0f} ms, inference {result.timing.inference_ms:.0f} ms"
    return f'{_clock(sent_at_s)}  {vehicle}  {result.task_id}  {node} {which}  {took}  "{plain_text(result.text)}"'


def node_state_line(state: NodeState, sent_at_s: float) -> str:
    """How a node or vehicle feels."""
    if not state.alive:
        return f"{_clock(sent_at_s)}  {state.node}  has left"
    parts = [_clock(sent_at_s), state.node, f"{state.role} with {state.model}" if state.model else state.role]
    if state.load is not None:
        load = state.load
        parts.append(f"{load.running} running on {load.slots}, {load.queued} waiting ({load.wait_ms:.0f} ms)")
    parts.append(f"{state.memory_bytes / 1e6:.0f} MB")
    parts.append(f"event loop late by {state.event_loop_lag_ms:.0f} ms")
    return "  ".join(parts)


def weights_line(learner: str, weights: PolicyWeights, sent_at_s: float) -> str:
    """A learner publishes weights."""
    what = f"{learner} publishes {weights.policy} v{weights.version}"
    note = plain_text(weights.note)
    return f"{_clock(sent_at_s)}  {what}, learnt from {weights.trained_tasks} tasks  {note}".rstrip()


def broker_line(connected: bool, at_s: float) -> str:
    """The connection to the broker has come back, or gone."""
    if connected:
        return f"{_clock(at_s)}  the broker is back; what happened meanwhile was not seen"
    return f"{_clock(at_s)}  the broker has gone; waiting for it"


def explanation(decision: Decision) -> str:
    """Why a task went where it went: the policy's reason, the best candidates by score, and the knobs.

    The chosen one is marked, and shown wherever it ranks; what was not allowed comes last.
    """
    weights = f" ({decision.weights})" if decision.weights else ""
    reason = f": {decision.reason}" if decision.reason else ""
    lines = [f"{decision.policy}{weights} chose with probability {decision.propensity:.2f}{reason}"]
    ranked = sorted(enumerate(decision.candidates), key=lambda each: (bool(each[1].masked), -each[1].score))
    shown = [each for rank, each in enumerate(ranked) if rank < _TOP or each[0] == decision.chosen]
    for index, candidate in shown:
        lines.append(f"{'->' if index == decision.chosen else '  '} {_candidate(candidate)}")
    if len(shown) < len(ranked):
        lines.append(f"   and {len(ranked) - len(shown)} more")
    if knobs := _knobs(decision):
        lines.append(f"   knobs: {knobs}")
    return "\n".join(f"{_INDENT}{line}" for line in lines)


def _knobs(decision: Decision) -> str:
    """What was decided besides the place; empty where all of it was left to the node."""
    threshold, scale = decision.exit_threshold, decision.frame_scale
    parts = [f"exits speak from a confidence of {threshold:.2f}"] if threshold is not None else []
    parts += [f"picture sent at {scale:.0%} of its sides"] if scale < 1 else []
    return ", ".join(parts)


def _candidate(candidate: Candidate) -> str:
    expected = (
        f"{candidate.latency_ms:6.0f} ms  {candidate.energy_j:6.2f} J  {candidate.quality:4.0%} right"
        f"  score {candidate.score:+.3f}"
    )
    masked = f"  not allowed: {candidate.masked}" if candidate.masked else ""
    return f"{candidate.node:<12} {candidate.place:<10} {expected}{masked}"


def _clock(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s):%H:%M:%S}"
