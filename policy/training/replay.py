"""A bounded memory of what was seen and done, read back as n-step transitions.

An observation is a tuple of arrays. Episodes are kept in order, so each observation is stored once, and the n-step
return of Sutton and Barto (2nd ed., section 7.1) is summed when a batch is drawn:

    G = r_t + gamma r_{t+1} + ... + gamma^(k-1) r_{t+k-1},   bootstrapped with gamma^k V(s_{t+k}),

where k is n, or fewer where the episode ends before. An episode that terminated is not bootstrapped; one that was cut
off is. What was done after t was done by an older actor, and is not corrected for: with n as small as here, that
costs less than it brings (Hessel et al., "Rainbow", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observation = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Arrays of B transitions.

    observation, next_observation: each of their arrays [B, ...]; action, perturbation: float32 [B, A].
    returns: float32 [B], discounted; bootstrap: float32 [B], what the next observation's value counts, 0 for none.
    """

    observation: Observation
    action: NDArray[np.float32]
    perturbation: NDArray[np.float32]
    returns: NDArray[np.float32]
    bootstrap: NDArray[np.float32]
    next_observation: Observation


class Replay:
    """Transitions of episodes that are fed in one after the other.

    Observations of different shapes (a set of 7 candidates, one of 34) are kept apart, and a batch is of one shape:
    no padding. capacity: entries kept for each shape; the oldest are overwritten.
    """

    def __init__(self, capacity: int, *, steps: int, discount: float) -> None:
        if not 1 <= steps <= capacity - 2:
            raise ValueError(f"{steps}-step returns from a memory of {capacity} entries")
        self._capacity, self._steps, self._discount = capacity, steps, discount
        self._rings: dict[tuple[tuple[int, ...], ...], _Ring] = {}

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return sum(ring.drawable for ring in self._rings.values())

    def add(
        self,
        observation: Observation,
        action: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        reward: float,
        *,
        terminated: bool,
    ) -> None:
        """One step of the open episode. terminated: nothing follows, the next observation has no value."""
        ring = self._ring_of(observation, len(action))
        ring.write(observation, action, perturbation, reward, terminated=terminated, closing=False)

    def close(self, observation: Observation) -> None:
        """End an episode that was cut off: the observation after its last step, where nothing was done."""
        ring = self._rings.get(_shapes(observation))
        if ring is not None and not ring.closed:
            nothing = np.zeros(ring.actions.shape[1], np.float32)
            ring.write(observation, nothing, nothing, 0.0, terminated=False, closing=True)

    def sample(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw evenly, with replacement, among the transitions of one shape; ValueError while there are none.

        The shape is drawn first, in proportion to what is kept of it.
        """
        rings = [ring for ring in self._rings.values() if ring.drawable]
        if not rings:
            raise ValueError("nothing to draw from yet")
        drawable = np.array([ring.drawable for ring in rings])
        chosen = rings[rng.choice(len(rings), p=drawable / drawable.sum())]
        return chosen.transitions(chosen.draw(rng, size), self._discount)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything kept, as arrays by name."""
        return {
            f"{index}.{name}": array
            for index, ring in enumerate(self._rings.values())
            for name, array in ring.state().items()
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Put back what `state_dict` gave, in a memory of the same capacity."""
        self._rings.clear()
        for index in range(len({name.split(".")[0] for name in state})):
            parts = {name.split(".", 1)[1]: array for name, array in state.items() if name.startswith(f"{index}.")}
            count = sum(name.startswith("observation") for name in parts)
            example = tuple(parts[f"observation{number}"][0] for number in range(count))
            self._ring_of(example, parts["actions"].shape[1]).restore(parts)

    def _ring_of(self, observation: Observation, action_size: int) -> _Ring:
        shapes = _shapes(observation)
        if shapes not in self._rings:
            self._rings[shapes] = _Ring(self._capacity, self._steps, observation, action_size)
        return self._rings[shapes]


def _shapes(observation: Observation) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in observation)


@dataclass(slots=True)
class _Ring:
    """The entries of one shape, oldest overwritten first. `written` counts them from the beginning."""

    capacity: int
    steps: int
    example: Observation
    action_size: int
    written: int = 0
    observations: Observation = field(init=False)
    actions: NDArray[np.float32] = field(init=False)
    perturbations: NDArray[np.float32] = field(init=False)
    rewards: NDArray[np.float32] = field(init=False)
    terminated: NDArray[np.bool_] = field(init=False)
    closing: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.observations = tuple(np.zeros((self.capacity, *array.shape), array.dtype) for array in self.example)
        self.actions = np.zeros((self.capacity, self.action_size), np.float32)
        self.perturbations = np.zeros_like(self.actions)
        self.rewards = np.zeros(self.capacity, np.float32)
        self.terminated = np.zeros(self.capacity, bool)
        self.closing = np.zeros(self.capacity, bool)

    def write(
        self,
        observation: Observation,
        action: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        reward: float,
        *,
        terminated: bool,
        closing: bool,
    ) -> None:
        slot = self.written % self.capacity
        for kept, array in zip(self.observations, observation, strict=True):
            kept[slot] = array
        self.actions[slot], self.perturbations[slot], self.rewards[slot] = action, perturbation, reward
        self.terminated[slot], self.closing[slot] = terminated, closing
        self.written += 1

    @property
    def closed(self) -> bool:
        """Whether the newest entry ended an episode."""
        return bool(self.closing[(self.written - 1) % self.capacity])

    @property
    def drawable(self) -> int:
        """Entries, closing ones included, that have n successors: all but the newest n."""
        return max(0, min(self.written, self.capacity) - self.steps)

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Slots of ordinary entries that have n successors."""
        oldest = max(0, self.written - self.capacity)
        slots = (oldest + rng.integers(0, self.drawable, size)) % self.capacity
        # No two closing entries are neighbours, and the oldest is none while it is the only one: this ends.
        while (closing := self.closing[slots]).any():
            slots[closing] = (oldest + rng.integers(0, self.drawable, int(closing.sum()))) % self.capacity
        return slots

    def transitions(self, slots: NDArray[np.int64], discount: float) -> Batch:
        returns = np.zeros(len(slots), np.float32)
        taken = np.zeros(len(slots), np.int64)
        goes_on = np.ones(len(slots), bool)
        over = np.zeros(len(slots), bool)
        for step in range(self.steps):
            at = (slots + step) % self.capacity
            goes_on &= ~self.closing[at]
            returns += goes_on * discount**step * self.rewards[at]
            taken += goes_on
            over |= goes_on & self.terminated[at]
            goes_on &= ~self.terminated[at]
        following = (slots + taken) % self.capacity
        return Batch(
            observation=tuple(array[slots] for array in self.observations),
            action=self.actions[slots],
            perturbation=self.perturbations[slots],
            returns=returns,
            bootstrap=np.where(over, 0.0, discount**taken).astype(np.float32),
            next_observation=tuple(array[following] for array in self.observations),
        )

    def state(self) -> dict[str, NDArray[Any]]:
        used = min(self.written, self.capacity)
        arrays = {name: getattr(self, name)[:used] for name in _RING_ARRAYS}
        arrays |= {f"observation{number}": array[:used] for number, array in enumerate(self.observations)}
        return arrays | {"written": np.array([self.written])}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        used = len(state["rewards"])
        for name in _RING_ARRAYS:
            getattr(self, name)[:used] = state[name]
        for number, array in enumerate(self.observations):
            array[:used] = state[f"observation{number}"]
        self.written = int(state["written"][0])


_RING_ARRAYS = ("actions", "perturbations", "rewards", "terminated", "closing")
