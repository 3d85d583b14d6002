"""Learning from outcomes: their order, doubly robust comparison, promotion and roll-back."""

import math

import numpy as np
import pytest
import torch
from roadside.bus.errors import ConfigurationError
from roadside.bus.places import Place
from roadside.policy.experience import Experience, Knobs
from roadside.policy.features import FEATURES, TaskFacts
from roadside.policy.node_memory import INPUTS
from roadside.policy.scorer import SetScorer
from roadside.policy.training.comparison import Comparison, compare
from roadside.policy.training.experience_stream import Decided, ExperienceStream
from roadside.policy.training.learner import LearnerOptions, PolicyLearner, Verdict
from roadside.policy.training.set_networks import SetActor, export
from roadside.policy.weights import Weights

TASK = TaskFacts("explain", deadline_ms=2000, remaining_ms=2000, qos_floor=0.0, upload_bytes=100_000, tokens=20)
PLACES: tuple[Place, ...] = ("vehicle", "edge", "cloud")
UTILITY = FEATURES.index("utility")
SERVICE = FEATURES.index("service_per_deadline")


def experience(number: int, *, chosen: int, utility: float, propensity: float = 1 / 3, service_ms: float = 0.0):
    """The nodes promise that the edge is best, every time: 100 ms of computing, and a utility of 0.6."""
    rng = np.random.default_rng(number)
    features = rng.uniform(0, 1, (3, len(FEATURES))).astype(np.float32)
    features[:, :4] = np.eye(4)[[0, 1, 3]]
    features[:, UTILITY] = (0.2, 0.6, 0.4)
    features[:, SERVICE] = 0.05
    return Experience(
        task=TASK,
        features=features,
        allowed=np.ones(3, bool),
        chosen=chosen,
        node=PLACES[chosen],
        place=PLACES[chosen],
        knobs=Knobs(),
        propensity=propensity,
        latency_ms=500.0,
        energy_j=1.0,
        in_time=True,
        right=1.0,
        utility=utility,
        decided_s=float(number),
        ended_s=number + 0.5,
        service_ms=service_ms,
        rows=tuple((place, place) for place in PLACES),
    )


def greedy() -> Weights:
    return export(SetActor().net, 10.0, "test", {})


def test_decisions_come_out_in_their_order_once_and_not_before_the_patience_is_over():
    stream = ExperienceStream(patience_s=10)
    for number in (2, 0, 3, 1):
        assert stream.add(f"task-{number}", "vehicle-1", experience(number, chosen=0, utility=0.0))
    assert not stream.add("task-2", "vehicle-1", experience(2, chosen=0, utility=0.0)), "known already"
    assert [decided.experience.decided_s for decided in stream.release(11.5)] == [0, 1]
    assert not stream.add("task-late", "vehicle-1", experience(0, chosen=0, utility=0.0)), "its place is gone"
    assert [decided.experience.decided_s for decided in stream.release(100)] == [2, 3]


def test_a_vehicle_remembers_only_what_had_ended_by_then_and_only_its_own():
    stream = ExperienceStream(patience_s=0)
    for number, vehicle in ((0, "vehicle-1"), (1, "vehicle-1"), (2, "vehicle-2")):
        stream.add(str(number), vehicle, experience(number, chosen=1, utility=0.0, service_ms=200.0))
    slowness = [decided.observation[0][1, INPUTS.index("slowness")] for decided in stream.release(10)]
    assert slowness[0] == 0
    assert slowness[1] == pytest.approx(np.log(2) / (0.95 * 3 + 1), rel=1e-5)
    assert slowness[2] == 0


def decided(number: int, chosen: int, utility: float, propensity: float) -> Decided:
    made = experience(number, chosen=chosen, utility=utility, propensity=propensity)
    inputs = np.hstack((made.features, np.zeros((3, len(INPUTS) - len(FEATURES)), np.float32)))
    return Decided((inputs, made.allowed), made)


class Always:
    """Stands where a scorer does, and takes the same row every time."""

    def __init__(self, row: int) -> None:
        self._scores = np.eye(3)[row]

    def __call__(self, inputs, allowed):
        return self._scores, np.zeros((3, 0))


@pytest.mark.parametrize("model", [(0.0, 0.0, 0.0), (0.1, 0.9, -0.5)], ids=["no model", "a wrong model"])
def test_a_comparison_is_right_on_evenly_drawn_decisions_however_wrong_the_model_is(model):
    rng = np.random.default_rng(0)
    means = (0.1, 0.3, 0.5)
    log = []
    for number in range(3000):
        chosen = int(rng.integers(3))
        log.append(decided(number, chosen, means[chosen] + rng.normal(0, 0.1), 1 / 3))
    found = compare(log, Always(2), Always(1), lambda _: np.array(model))  # pyright: ignore[reportArgumentType]
    assert found.lower < 0.2 < found.upper
    assert found.difference == pytest.approx(0.2, abs=0.06)
    same = compare(log, Always(1), Always(1), lambda _: np.array(model))  # pyright: ignore[reportArgumentType]
    assert (same.difference, same.agreement) == (0.0, 1.0)


def feed(learner: PolicyLearner, first: int, count: int, *, rewards: tuple[float, float, float]) -> int:
    rng = np.random.default_rng(first)
    for number in range(first, first + count):
        chosen = int(rng.integers(3))
        learner.observe(f"task-{number}", "vehicle-1", experience(number, chosen=chosen, utility=rewards[chosen]))
    return first + count


def choice(weights: Weights) -> int:
    inputs, allowed = decided(10**6, 0, 0.0, 1.0).observation
    return int(SetScorer(weights)(inputs, allowed)[0].argmax())


def test_what_proves_better_is_promoted_and_what_then_fails_is_taken_back(tmp_path):
    options = LearnerOptions(patience_s=0.0, least_held_out=100, watched=150)
    learner = PolicyLearner(tmp_path, start=greedy(), options=options)
    assert choice(learner.current) == 1
    assert learner.review().action == "none", "nothing to compare on yet"
    # The edge, which promises most, keeps nothing of it; the cloud does.
    end = feed(learner, 0, 1000, rewards=(0.0, -0.2, 0.5))
    loss = learner.train(400, now_s=end)
    assert loss is not None
    verdict = learner.review()
    assert verdict.action == "promoted"
    assert verdict.comparison is not None
    assert verdict.comparison.lower > 0.3
    assert choice(learner.current) == 2

    again = PolicyLearner(tmp_path, start=greedy(), options=options)
    assert choice(again.current) == 2, "what was promoted is served after a restart"

    assert learner.review().reason == "the newest promotion is being watched"
    feed(learner, end, 150, rewards=(-0.5, -0.5, -0.5))
    assert learner.review().action == "rolled back"
    assert choice(learner.current) == 1
    with pytest.raises(ConfigurationError, match="no earlier weights"):
        learner.roll_back()


def test_what_is_not_better_is_not_promoted(tmp_path):
    learner = PolicyLearner(tmp_path, start=greedy(), options=LearnerOptions(patience_s=0.0, least_held_out=100))
    end = feed(learner, 0, 800, rewards=(0.2, 0.6, 0.4))
    learner.train(30, now_s=end)
    verdict = learner.review()
    assert verdict.action == "none"
    assert verdict.comparison is not None


def test_what_is_no_number_is_not_promoted(tmp_path, monkeypatch):
    nothing = Comparison(math.nan, math.nan, math.nan, 0.0, 100)
    monkeypatch.setattr("roadside.policy.training.learner.compare", lambda *_: nothing)
    learner = PolicyLearner(tmp_path, start=greedy(), options=LearnerOptions(patience_s=0.0, least_held_out=100))
    learner.train(1, now_s=feed(learner, 0, 800, rewards=(0.2, 0.6, 0.4)))
    assert learner.review() == Verdict("none", "not surely better than what is served", nothing)


@pytest.mark.parametrize("algorithm", ["ddpg", "bandit"])
def test_what_has_become_no_number_is_forgotten_and_learning_goes_on(tmp_path, algorithm):
    options = LearnerOptions(algorithm=algorithm, patience_s=0.0, least_held_out=100, watched=150)
    learner = PolicyLearner(tmp_path, start=greedy(), options=options)
    end = feed(learner, 0, 1000, rewards=(0.0, -0.2, 0.5))
    learner.train(20, now_s=end)
    with torch.no_grad():
        for network in (*learner._agent.networks(), *learner._reward_model.networks()):
            for weights in network.parameters():
                weights.fill_(math.nan)
    loss = learner.train(1, now_s=end)
    assert loss is not None
    assert math.isnan(loss)
    loss = learner.train(400, now_s=end)
    assert loss is not None
    assert math.isfinite(loss)
    assert learner.review().action == "promoted"
    assert choice(learner.current) == 2


def test_what_is_promoted_may_be_trusted_wherever_the_fleet_has_been(tmp_path):
    start, rate = greedy(), FEATURES.index("tokens_per_second_per_60")
    start.arrays["lowest"][:], start.arrays["highest"][:] = 0.0, 0.3
    options = LearnerOptions(patience_s=0.0, least_held_out=100, watched=150)
    learner = PolicyLearner(tmp_path, start=start, options=options)
    end = feed(learner, 0, 1000, rewards=(0.0, -0.2, 0.5))
    learner.review()
    assert learner.proposal().arrays["highest"][rate] == np.float32(0.3), "nothing was taken in yet"
    learner.train(10, now_s=end)
    learner.review()
    learner.train(400, now_s=end)
    learner.review()
    highest = learner.proposal().arrays["highest"]
    assert 0.95 < highest[rate] < 1.0, "nearly all of what features there were, between 0 and 1"
    assert highest[INPUTS.index("slowness")] == np.float32(0.3), "and never less than before"
    assert np.array_equal(learner.current.arrays["highest"], highest), "and it was promoted with them"


@pytest.mark.parametrize("algorithm", ["ddpg", "bandit"])
def test_both_algorithms_find_the_better_place(tmp_path, algorithm):
    options = LearnerOptions(algorithm=algorithm, patience_s=0.0, least_held_out=100, watched=150)
    learner = PolicyLearner(tmp_path, start=greedy(), options=options)
    end = feed(learner, 0, 1000, rewards=(0.0, -0.2, 0.5))
    learner.train(400, now_s=end)
    assert learner.review().action == "promoted"
    assert choice(learner.current) == 2


def test_only_what_the_served_weights_have_decided_counts_for_or_against_them(tmp_path):
    options = LearnerOptions(patience_s=0.0, least_held_out=100, watched=150)
    learner = PolicyLearner(tmp_path, start=greedy(), options=options)
    for number in range(1000):
        foreign = experience(number, chosen=number % 3, utility=0.1)
        learner.observe(f"task-{number}", "vehicle-1", foreign, by_current=False)
    learner.train(1, now_s=1000)
    assert "too few to judge a successor" in learner.review().reason


def test_a_damaged_state_is_told_with_what_to_do(tmp_path):
    learner = PolicyLearner(tmp_path, start=greedy(), options=LearnerOptions(patience_s=0.0))
    end = feed(learner, 0, 100, rewards=(0.0, 0.0, 0.0))
    learner.train(1, now_s=end)
    path = tmp_path / "learner.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match="remove"):
        PolicyLearner(tmp_path, start=greedy())
