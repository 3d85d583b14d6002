"""`roadside bench default`: every policy is ranked in the fitted fleet, and the rule picks the plainest of the best."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from roadside.benchmarks.policy_cells import contenders
from roadside.benchmarks.policy_default import DefaultPlan, measure_default, pick
from roadside.policy.environment.constants import COMMITTED, load_constants
from roadside.policy.environment.environment import Summary
from roadside.policy.names import DEFAULT_POLICY, POLICIES
from roadside.policy.registry import policy_names
from roadside.policy.served import ABLATIONS, KNOBS, ONE_FLEET


def summaries(*utilities: float) -> list[Summary]:
    return [Summary(each, 1.0, 1.0, 10.0, 20.0, 1.0, {}) for each in utilities]


def test_the_plainest_of_those_that_are_not_surely_worse_wins():
    by_policy = {
        "static": summaries(0.9, 0.9, 0.9, 0.9),
        "greedy-utility": summaries(0.5, 0.6, 0.5, 0.6),
        "linucb": summaries(0.7, 0.7, 0.7, 0.7),
        "ddpg": summaries(0.71, 0.70, 0.72, 0.69),
    }
    assert pick(by_policy) == ("ddpg", "linucb"), "greed is surely worse, and who is told where to go does not count"
    assert pick({name: by_policy[name] for name in ("static", "greedy-utility")}) == ("greedy-utility",) * 2


def calibrated() -> dict[str, object]:
    constants = load_constants(scenario=None)
    settings = {
        "run": "runs/made-up",
        "environment": str(COMMITTED),
        "environment_sha256": constants.sha256,
        "edges": 2,
        "rate_hz": 3.0,
        "heartbeat_s": 0.5,
    }
    return {"machine": {"cpu": "any", "cores": 2}, "settings": settings}


def test_every_policy_is_ranked_at_every_load():
    plan = replace(DefaultPlan(), loads=(1.0, 4.0), seeds=2, tasks=30)
    result = json.loads(json.dumps(measure_default(calibrated, plan)))
    assert {row["policy"] for row in result["rows"]} == set(contenders()) - {"clairvoyant"}
    utilities = [row["utility"] for row in result["rows"]]
    assert utilities == sorted(utilities, reverse=True)
    for row in result["rows"]:
        assert row["utility"] == pytest.approx((row["load_1"] + row["load_4"]) / 2)
        assert row["behind"] == pytest.approx(
            next(each["utility"] for each in result["rows"] if each["policy"] == result["best"]) - row["utility"]
        )
    assert result["settings"]["rates_hz"] == [3.0, 12.0]
    assert result["default"] == DEFAULT_POLICY


def test_the_names_that_are_told_to_people_are_those_that_ship():
    assert set(POLICIES) == set(policy_names()) - {KNOBS, ONE_FLEET, *ABLATIONS, "patient"}
    assert DEFAULT_POLICY in POLICIES
