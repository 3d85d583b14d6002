"""The clairvoyant: what it tries has not happened, and what it knows is true."""

from __future__ import annotations

from roadside.policy.environment.clairvoyant import ClairvoyantPolicy
from roadside.policy.environment.constants import load_constants
from roadside.policy.environment.environment import Environment, run_episode
from roadside.policy.registry import PolicyOptions, make_policy


def environment(**options) -> Environment:
    return Environment(load_constants(), **{"tasks": 120, "seed": 11, **options})


def free_at(environment: Environment) -> list[float]:
    return [server.free_s for server in [*environment.state.links, *environment.state.servers]]


def test_a_peek_changes_nothing_and_tells_what_the_step_will_come_to():
    world = environment()
    for number in range(world.tasks):
        row = number % len(world.situation.candidates)
        if not world.situation.allowed[row]:
            row = 0
        before = free_at(world)
        expected = world.peek(world.state, number, row).utility
        assert free_at(world) == before
        assert world.step(row).reward == expected


def test_without_a_horizon_it_takes_what_is_truly_best_for_this_task():
    world = environment()
    policy = ClairvoyantPolicy(world, horizon=0)
    for number in range(40):
        here = world.situation
        choice = policy.decide(here.task, here.candidates, here.allowed, here.now_s)
        free = [row for row in range(len(here.candidates)) if here.allowed[row]]
        assert choice.index == max(free, key=lambda row: world.peek(world.state, number, row).utility)
        world.step(choice.index)


def test_looking_ahead_is_worth_more_than_greed_and_greed_that_knows_more_than_greed_that_does_not():
    def utility(policy, world: Environment) -> float:
        return run_episode(world, policy).utility

    worlds = [environment(tasks=400, heartbeat_s=2.0) for _ in range(3)]
    greedy = utility(make_policy("greedy-utility", PolicyOptions()), worlds[0])
    knowing = utility(ClairvoyantPolicy(worlds[1], horizon=0), worlds[1])
    looking = utility(ClairvoyantPolicy(worlds[2], horizon=15), worlds[2])
    assert greedy < knowing < looking
