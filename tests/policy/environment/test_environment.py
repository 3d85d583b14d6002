"""The simulated fleet: pairing, what is known when, and the figures that its constants are known by."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.bus.link import CapacityTrace
from roadside.datasets.link_traces import parse_link
from roadside.policy.base import Choice
from roadside.policy.environment.constants import COMMITTED, load_constants
from roadside.policy.environment.environment import Environment, run_episode
from roadside.policy.experience import Knobs
from roadside.policy.features import FEATURES
from roadside.policy.registry import PolicyOptions, make_policy
from roadside.policy.selection import best

CONSTANTS = load_constants()
COLLABORATIVE = load_constants(scenario="collaborative")
# Of the values in the committed file. Whoever changes them on purpose publishes every figure anew.
COMMITTED_SHA256 = "3f1309ed0b8eb378"


class Quickest:
    """Takes the lowest expected latency; enough of a policy for these tests."""

    name = "quickest"
    ignores_floors = False

    def __init__(self) -> None:
        self.heard = []

    def decide(self, task, candidates, allowed, now_s) -> Choice:
        return Choice(best(-candidates.latency_ms, allowed), -candidates.latency_ms, 1.0, "")

    def observe(self, experience) -> None:
        self.heard.append(experience)

    def state_dict(self):
        return {}


def always_cloud(environment: Environment) -> None:
    environment.reset()
    while environment.step(len(environment.layout) - 1).situation is not None:
        pass


def test_the_constants_are_the_committed_ones():
    assert CONSTANTS.sha256 == COMMITTED_SHA256
    assert COLLABORATIVE.sha256 != COMMITTED_SHA256


def test_constants_that_make_no_sense_are_refused_with_the_key(tmp_path):
    text = COMMITTED.read_text()
    for before, after, why in [
        ("swing = 0.8", "swing = 8", "arrivals.swing"),
        ("share = 0.5", "share = 0.6", "add up to 1"),
        ("slots = 6", "slotz = 6", "slotz"),
        ("right = [0.6883, ", "right = [", "as many of each"),
    ]:
        assert before in text
        file = tmp_path / "constants.toml"
        file.write_text(text.replace(before, after))
        with pytest.raises(ConfigurationError, match=why):
            load_constants(file, scenario="collaborative")
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_constants(tmp_path / "none.toml")


# Mean utility over the seeds 101 to 103, as an earlier program of the same constants found them. Its dispatchers did
# not count their own tasks on the way.
@pytest.mark.parametrize(
    ("heartbeat_s", "policy", "utility"),
    [(0.5, "quickest", 0.4208), (0.5, "greedy-utility", 0.4090), (0.0, "quickest", 0.6132)],
)
def test_the_published_figures_are_found_again(heartbeat_s, policy, utility):
    found = []
    for seed in range(101, 104):
        environment = Environment(CONSTANTS, heartbeat_s=heartbeat_s, seed=seed, in_flight="none")
        chosen = Quickest() if policy == "quickest" else make_policy(policy, PolicyOptions())
        found.append(run_episode(environment, chosen).utility)
    assert np.mean(found) == pytest.approx(utility, abs=1e-4)


def test_policies_meet_the_same_world():
    one, other = Environment(CONSTANTS, seed=7, tasks=200), Environment(CONSTANTS, seed=7, tasks=200)
    situations = []
    for environment, choose in ((one, lambda allowed: 0), (other, lambda allowed: len(allowed) - 1)):
        situation, met = environment.reset(), []
        while situation is not None:
            table = situation.candidates
            met.append((situation.now_s, situation.task, situation.allowed.tolist(), table.service_ms.tolist()))
            situation = environment.step(choose(situation.allowed)).situation
        situations.append(met)
    assert situations[0] == situations[1]


def test_an_episode_repeats_itself_and_another_seed_is_another():
    environment = Environment(CONSTANTS, seed=7, tasks=300)
    first, again = run_episode(environment, Quickest()), run_episode(environment, Quickest())
    assert first == again
    environment.reset(8)
    assert run_episode(environment, Quickest()) != first


def test_an_outcome_is_heard_once_and_not_before_its_task_has_ended():
    environment, heard = Environment(CONSTANTS, seed=3, tasks=200), []
    situation = environment.situation
    while situation is not None:
        step = environment.step(best(situation.candidates.utility, situation.allowed))
        situation = step.situation
        heard += step.experiences
        if situation is not None:
            assert all(each.ended_s <= situation.now_s for each in step.experiences)
    assert len({each.decided_s for each in heard}) == len(heard) == 200
    assert [each.ended_s for each in heard] == sorted(each.ended_s for each in heard)
    assert np.mean([each.utility for each in heard]) == pytest.approx(environment.summary().utility)


def test_a_masked_row_is_not_to_be_had():
    environment = Environment(CONSTANTS, edges=8, seed=1)
    out_of_reach = int(np.flatnonzero(~environment.situation.allowed)[0])
    assert environment.situation.candidates.masked[out_of_reach] == "unreachable"
    with pytest.raises(ValueError, match="unreachable"):
        environment.step(out_of_reach)


def test_reports_age_until_the_next_heartbeat():
    environment = Environment(CONSTANTS, heartbeat_s=0.5, seed=5, tasks=300)
    ages_s, situation = [], environment.situation
    while situation is not None:
        ages_s.append(situation.candidates.features[1, FEATURES.index("state_age_s")])
        assert situation.candidates.features[0, FEATURES.index("state_age_s")] == 0, "a vehicle knows itself"
        situation = environment.step(len(situation.allowed) - 1).situation
    assert min(ages_s) >= 0
    assert 0.3 < max(ages_s) < 0.5
    fresh = Environment(CONSTANTS, heartbeat_s=0, seed=5, tasks=50)
    assert fresh.step(6).situation.candidates.features[:, FEATURES.index("state_age_s")].max() == 0  # pyright: ignore


@pytest.mark.parametrize(("in_flight", "counted"), [("none", 0), ("fleet", 9)])
def test_whose_tasks_on_the_way_are_counted(in_flight, counted):
    environment = Environment(CONSTANTS, heartbeat_s=1e9, seed=5, tasks=10, in_flight=in_flight)
    cloud, situation = len(environment.layout) - 1, environment.situation
    for _ in range(9):
        situation = environment.step(cloud).situation
    assert situation is not None
    unreported = situation.candidates.features[:, FEATURES.index("unreported")]
    assert unreported.tolist() == [*[0] * cloud, counted]
    assert situation.candidates.in_flight[cloud] == counted


def test_a_vehicle_counts_its_own_tasks_and_no_others():
    environment = Environment(CONSTANTS, heartbeat_s=1e9, seed=5, tasks=60)
    cloud, asked = len(environment.layout) - 1, np.zeros(CONSTANTS.arrivals.vehicles)
    for number in range(60):
        vehicle = environment.traces.vehicle[number]
        unreported = environment.situation.candidates.features[cloud, FEATURES.index("unreported")]
        assert unreported == asked[vehicle]
        environment.step(cloud)
        asked[vehicle] += 1


def test_looking_ahead_changes_nothing_and_tells_the_truth():
    environment = Environment(CONSTANTS, seed=2, tasks=50)
    for _ in range(20):
        environment.step(1 if environment.situation.allowed[1] else 6)
    ahead = environment.look(environment.state.copy(), environment.number, 6)
    assert environment.look(environment.state.copy(), environment.number, 6) == ahead
    assert environment.step(6).reward == ahead.utility


def test_a_task_alone_costs_what_the_formulas_say():
    environment = Environment(CONSTANTS, seed=11, tasks=1)
    task, table = environment.situation.task, environment.situation.candidates
    cloud = len(table) - 1
    upload_s = task.upload_bytes * 8 / 120e6
    assert table.latency_ms[cloud] == pytest.approx((upload_s + task.tokens / 40 + 0.07) * 1000, rel=1e-5)
    assert table.energy_j[cloud] == pytest.approx(60 * task.tokens / 40 + 2 * upload_s, rel=1e-5)
    realised = environment.look(environment.state.copy(), 0, 0)
    # The vehicle's own speed is known, so that only the task's own slowness is between this and the truth.
    slowness = realised.latency_s * 15 / task.tokens
    assert 0.4 < slowness < 2.5
    assert realised.energy_j == pytest.approx(35 * realised.latency_s)


def test_the_knobs_do_nothing_in_the_headline_scenario():
    environment = Environment(CONSTANTS, seed=2, tasks=10)
    plain = environment.look(environment.state.copy(), 0, 6)
    assert environment.look(environment.state.copy(), 0, 6, Knobs(0.1, 0.3)) == plain


def test_in_the_collaborative_scenario_the_knobs_trade_time_for_quality():
    environment = Environment(COLLABORATIVE, seed=2, tasks=10)
    assert environment.layout.places == ("vehicle", *("edge", "edge+cloud") * 5, "cloud")
    together = next(
        row
        for row, place in enumerate(environment.layout.places)
        if place == "edge+cloud" and environment.traces.reachable[0, row]
    )
    alone = together - 1

    def look(row: int, **knobs: float):
        return environment.look(environment.state.copy(), 0, row, Knobs(**knobs))

    assert look(alone).quality < look(together).quality < look(len(environment.layout) - 1).quality
    assert look(alone).latency_s < look(together).latency_s
    assert look(together, exit_threshold=0.8) == look(together), "that is the nodes' own"
    hasty, careful = look(together, exit_threshold=0.0), look(together, exit_threshold=1.01)
    assert hasty.quality == look(alone).quality
    assert hasty.latency_s == look(alone).latency_s
    assert careful.quality == pytest.approx(look(len(environment.layout) - 1).quality)
    assert careful.latency_s > look(together).latency_s
    small = look(together, frame_scale=0.5)
    assert small.latency_s < look(together).latency_s
    assert small.quality == pytest.approx(look(together).quality * (1 - 0.35 * 0.25))
    assert look(0, frame_scale=0.5) == look(0), "the vehicle sends itself nothing"
    assert look(together, frame_scale=0.01) == look(together, frame_scale=0.25)


def test_a_recorded_uplink_is_each_vehicles_own(tmp_path):
    trace = tmp_path / "uplink.up"
    # One packet each millisecond for a second, then nothing for as long: 12 Mbps and a hole.
    trace.write_text("".join(f"{at_ms}\n" for at_ms in [*range(1, 1001), 2000]))
    recorded = parse_link(f"{trace},0ms").uplink
    assert isinstance(recorded, CapacityTrace)
    environment = Environment(CONSTANTS, seed=4, tasks=100, uplink=recorded)
    always_cloud(environment)
    energy_j, latency_s = environment.summary().energy_j, environment.summary().latency_p50_ms / 1000
    assert latency_s > 0.3, "a picture of 300 kB takes 0.2 s at 12 Mbps, and longer where it meets the hole"
    assert energy_j > 0
    table = environment.reset().candidates
    assert table.network_ms[0] == 0
    assert len(set((table.network_ms[1:6] - 10).round(6))) == 1, "one radio, whoever is asked"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    edges=st.integers(1, 12),
    heartbeat_s=st.sampled_from([0.0, 0.1, 2.0]),
    rate=st.sampled_from([1.0, 20.0, 200.0]),
    collaborative=st.booleans(),
)
def test_whatever_happens_features_are_finite_and_the_vehicle_is_left(seed, edges, heartbeat_s, rate, collaborative):
    environment = Environment(
        COLLABORATIVE if collaborative else CONSTANTS,
        edges=edges,
        heartbeat_s=heartbeat_s,
        rate=rate,
        tasks=40,
        seed=seed,
    )
    draw, situation = np.random.default_rng(seed), environment.situation
    while situation is not None:
        assert np.isfinite(situation.candidates.features).all()
        assert np.abs(situation.candidates.features).max() <= 10
        assert situation.allowed[0]
        step = environment.step(int(draw.choice(np.flatnonzero(situation.allowed))))
        assert math.isfinite(step.reward)
        situation = step.situation
