"""What n-step transitions a replay gives back, against the definition summed up step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.policy.training.replay import Replay

NOTHING = np.zeros(1, np.float32)

# Episodes as lists of rewards, and whether each terminated (True) or was cut off.
EPISODES = st.lists(
    st.tuples(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8), st.booleans()), min_size=1, max_size=5
)


def observe(number: int) -> tuple[np.ndarray]:
    return (np.array([number], np.float32),)


def feed(replay: Replay, episodes) -> dict[int, tuple[list[float], bool]]:
    """Number the observations through; returns what follows each of them: the rewards to come, and how it ends."""
    number, following = 0, {}
    for rewards, terminated in episodes:
        for step, reward in enumerate(rewards):
            last = step == len(rewards) - 1
            following[number] = (rewards[step:], terminated)
            replay.add(observe(number), np.array([number], np.float32), NOTHING, reward, terminated=terminated and last)
            number += 1
        replay.close(observe(number))
        number += 1
    return following


@settings(deadline=None)
@given(episodes=EPISODES, steps=st.integers(1, 5), discount=st.floats(0, 1), capacity=st.integers(8, 40))
def test_returns_are_discounted_sums_that_end_with_the_episode(episodes, steps, discount, capacity):
    replay = Replay(capacity, steps=steps, discount=discount)
    following = feed(replay, episodes)
    if not len(replay):
        return
    batch = replay.sample(np.random.default_rng(0), 64)
    for index, number in enumerate(batch.observation[0][:, 0].astype(int)):
        rewards, terminated = following[number]
        taken = rewards[:steps]
        assert batch.action[index, 0] == number
        assert batch.returns[index] == pytest.approx(sum(discount**k * r for k, r in enumerate(taken)), abs=1e-4)
        if terminated and len(rewards) <= steps:
            assert batch.bootstrap[index] == 0
        else:
            assert batch.bootstrap[index] == pytest.approx(discount ** len(taken), abs=1e-6)
            assert batch.next_observation[0][index, 0] == number + len(taken)


def test_the_oldest_are_forgotten_and_the_newest_wait_for_their_successors():
    replay = Replay(10, steps=2, discount=0.9)
    for number in range(25):
        replay.add(observe(number), NOTHING, NOTHING, 0.0, terminated=False)
    seen = replay.sample(np.random.default_rng(0), 500).observation[0][:, 0]
    assert set(seen) == set(range(15, 23))


def test_shapes_are_kept_apart_and_drawn_in_proportion():
    replay = Replay(1000, steps=1, discount=0.9)
    for size, count in ((3, 300), (5, 100)):
        for _ in range(count):
            replay.add(
                (np.full(size, size, np.float32),),
                np.zeros(size, np.float32),
                np.zeros(size, np.float32),
                0.0,
                terminated=False,
            )
    rng = np.random.default_rng(0)
    sizes = [replay.sample(rng, 4).action.shape[1] for _ in range(400)]
    assert sizes.count(3) == pytest.approx(300, abs=40)


def test_what_was_kept_can_be_put_back():
    replay = Replay(12, steps=3, discount=0.9)
    feed(replay, [([1.0, 2.0, 3.0], False), ([4.0] * 9, True)])
    twin = Replay(12, steps=3, discount=0.9)
    twin.load_state_dict(replay.state_dict())
    one, other = (each.sample(np.random.default_rng(1), 32) for each in (replay, twin))
    assert np.array_equal(one.returns, other.returns)
    assert np.array_equal(one.next_observation[0], other.next_observation[0])


def test_nothing_to_draw_from_is_said():
    with pytest.raises(ValueError, match="nothing to draw"):
        Replay(10, steps=1, discount=0.9).sample(np.random.default_rng(0), 1)
