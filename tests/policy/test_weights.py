"""Weights on disk, and the same scores from them in NumPy as from torch."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.bus.errors import ModelError
from roadside.policy.node_memory import INPUTS
from roadside.policy.scorer import SetScorer
from roadside.policy.training.set_networks import SetActor, SetCritic, export
from roadside.policy.weights import load_weights, save_weights


def random_actor(knobs: int = 2, seed: int = 0) -> SetActor:
    """Nowhere zero, with a scaler that scales and clips."""
    torch.manual_seed(seed)
    actor = SetActor(knobs)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    actor.net.set_scaler(np.random.default_rng(seed).normal(0.3, 1.0, (50, len(INPUTS))).astype(np.float32))
    return actor


def random_set(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    allowed = rng.random(rows) < 0.7
    allowed[rng.integers(rows)] = True
    return rng.normal(0, 2, (rows, len(INPUTS))).astype(np.float32), allowed


def of_torch(actor: SetActor, inputs: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        raw = actor((torch.from_numpy(inputs)[None], torch.from_numpy(allowed)[None]))[0]
    rows = raw.unflatten(0, (len(inputs), -1))
    return rows[:, 0].numpy(), torch.sigmoid(rows[:, 1:]).numpy()


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 130), seed=st.integers(0, 10_000))
def test_numpy_scores_as_torch_does(rows, seed):
    actor = random_actor()
    inputs, allowed = random_set(rows, seed)
    scores, knobs = SetScorer(export(actor.net, actor.prior_weight, "test", {}))(inputs, allowed)
    expected_scores, expected_knobs = of_torch(actor, inputs, allowed)
    assert np.allclose(scores, expected_scores, rtol=1e-5, atol=1e-5 * np.abs(expected_scores).max())
    assert np.allclose(knobs, expected_knobs, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 40), seed=st.integers(0, 10_000))
def test_another_order_of_the_candidates_gives_the_same_scores_in_that_order(rows, seed):
    scorer = SetScorer(export(random_actor().net, 10.0, "test", {}))
    inputs, allowed = random_set(rows, seed)
    order = np.random.default_rng(seed).permutation(rows)
    scores, knobs = scorer(inputs, allowed)
    reordered_scores, reordered_knobs = scorer(inputs[order], allowed[order])
    assert np.allclose(reordered_scores, scores[order], rtol=1e-4, atol=1e-4)
    assert np.allclose(reordered_knobs, knobs[order], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 40), seed=st.integers(0, 10_000))
def test_what_may_not_be_chosen_is_not_and_changes_nothing_for_the_rest(rows, seed):
    actor = random_actor()
    inputs, allowed = random_set(rows, seed)
    observation = torch.from_numpy(inputs)[None], torch.from_numpy(allowed)[None]
    with torch.no_grad():
        action = actor.execute(actor(observation), observation)[0].unflatten(0, (rows, -1))
    assert allowed[int(action[:, 0].argmax())]
    assert action[:, 0].sum() == 1

    scorer = SetScorer(export(actor.net, 10.0, "test", {}))
    scores, _ = scorer(inputs, allowed)
    inputs[~allowed] = 7.0
    assert np.allclose(scorer(inputs, allowed)[0][allowed], scores[allowed], rtol=1e-5, atol=1e-5)


def test_the_critic_values_a_mixture_as_the_mean_of_its_parts_in_any_order():
    critic = SetCritic(knobs=2)
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs, allowed = random_set(6, 3)
    observation = torch.from_numpy(inputs)[None], torch.from_numpy(allowed)[None]
    knobs = torch.rand(6, 2)

    def value(shares: torch.Tensor) -> float:
        return critic(observation, torch.cat([shares[:, None], knobs], 1).flatten()[None]).item()

    one_hot = torch.eye(6)
    mixture = torch.tensor([0.5, 0.25, 0.25, 0.0, 0.0, 0.0])
    assert value(mixture) == pytest.approx(sum(float(mixture[i]) * value(one_hot[i]) for i in range(3)), abs=1e-5)


def test_weights_come_back_as_they_were(tmp_path):
    weights = export(random_actor().net, 10.0, "0123", {"seed": 3})
    save_weights(tmp_path / "w.npz", weights)
    back = load_weights(tmp_path / "w.npz")
    assert back.arrays.keys() == weights.arrays.keys()
    assert all(np.array_equal(back.arrays[name], array) for name, array in weights.arrays.items())
    assert (back.prior_weight, back.environment, back.notes) == (10.0, "0123", {"seed": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


def rewrite(path, change) -> None:
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    change(content)
    np.savez(path, **content)


def other_schema(content) -> None:
    content["meta"] = np.array(json.dumps(json.loads(str(content["meta"])) | {"feature_schema": "other"}))


def not_a_number(content) -> None:
    content["body1.bias"][3] = np.nan


def cut_layer(content) -> None:
    content["head1.weight"] = content["head1.weight"][:, :-1]


def no_layer(content) -> None:
    del content["head1.weight"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_schema, "other features"),
        (not_a_number, "no finite numbers"),
        (cut_layer, "do not fit together"),
        (no_layer, "do not fit together"),
    ],
)
def test_weights_that_cannot_be_right_are_refused_with_what_to_do(tmp_path, change, told):
    path = tmp_path / "w.npz"
    save_weights(path, export(random_actor().net, 10.0, "0123", {}))
    rewrite(path, change)
    with pytest.raises(ModelError, match=told) as refused:
        load_weights(path)
    assert "roadside train policy" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="roadside train policy"):
        load_weights(path)
    with pytest.raises(ModelError, match="no weights at"):
        load_weights(tmp_path / "none.npz")
