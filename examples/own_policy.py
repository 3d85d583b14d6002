"""A policy of one's own in the simulated fleet, beside one that ships: `python examples/own_policy.py`."""

from roadside.policy.base import Choice, PolicyOptions, register
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment, run_episode
from roadside.policy.registry import make_policy
from roadside.policy.selection import best


@register("patient")
class PatientPolicy:
    """The best answer that is expected in time; what it costs does not matter to it."""

    name = "patient"
    ignores_floors = False

    def __init__(self, options: PolicyOptions) -> None:
        self.right = 0.0

    def decide(self, task, candidates, allowed, now_s) -> Choice:
        scores = candidates.quality * (candidates.latency_ms < 0.8 * task.remaining_ms)
        return Choice(best(scores, allowed), scores, propensity=1.0, reason="the best answer in time")

    def observe(self, experience) -> None:
        self.right += experience.right  # one that learns does it here

    def state_dict(self) -> dict:
        return {"right": self.right}


if __name__ == "__main__":
    for name in ("patient", "greedy-utility"):
        fleet = Environment(load_constants(), heartbeat_s=0.5, tasks=1000, seed=1)
        summary = run_episode(fleet, make_policy(name, PolicyOptions()))
        print(f"{name}: utility {summary.utility:.3f}, {summary.in_time_share:.1%} in time")
