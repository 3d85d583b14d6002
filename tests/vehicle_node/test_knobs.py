"""What a policy's knobs do to the tasks that nodes get."""

import io
import itertools

import pytest
from PIL import Image
from roadside.policy.base import Choice
from roadside.policy.experience import Knobs
from roadside.policy.greedy_utility import GreedyUtilityPolicy
from roadside.policy.registry import PolicyOptions
from roadside.vehicle_node import node as vehicle_node


class InTurns(GreedyUtilityPolicy):
    """Greedy, with each task's knobs the next of those that the test gives."""

    name = "in-turns"

    def __init__(self, *knobs: Knobs) -> None:
        super().__init__(PolicyOptions())
        self._knobs = itertools.cycle(knobs)

    def decide(self, task, candidates, allowed, now_s) -> Choice:
        choice = super().decide(task, candidates, allowed, now_s)
        return Choice(choice.index, choice.scores, choice.propensity, choice.reason, next(self._knobs))


def serve(node, vehicle, task):
    node.serve(vehicle, task)


def size_px(jpeg: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(jpeg)).size


async def test_knobs_reach_the_node_and_a_smaller_picture_costs_less(scripted, drive, check_contract, monkeypatch):
    policy = InTurns(Knobs(), Knobs(exit_threshold=0.7), Knobs(frame_scale=0.5))
    monkeypatch.setattr(vehicle_node, "make_policy", lambda name, options: policy)
    async with scripted("edge-1", serve) as node:
        outcomes = await drive(theta=0.9)
    assert set(check_contract(outcomes)) == {"result"}
    assert len(outcomes) > 3
    tasks = {task.task_id: task for task in node.tasks}
    sizes, widths = {1.0: set(), 0.5: set()}, {1.0: set(), 0.5: set()}
    for outcome in outcomes:
        task, decision = tasks[outcome.task_id], outcome.decision
        threshold = 0.9 if decision.exit_threshold is None else decision.exit_threshold
        assert task.exit_thresholds == (threshold, threshold), "a decision's threshold wins over the vehicle's own"
        assert outcome.energy_j == pytest.approx(1.0 + 2.0 * len(task.frames[0]) * 8 / 20e6)
        sizes[decision.frame_scale].add(len(task.frames[0]))
        widths[decision.frame_scale].add(size_px(task.frames[0]))
    ((width, height),) = widths[1.0]
    assert widths[0.5] == {(round(width / 2), round(height / 2))}
    assert max(sizes[0.5]) < min(sizes[1.0])
    assert {outcome.decision.exit_threshold for outcome in outcomes} == {None, 0.7}
