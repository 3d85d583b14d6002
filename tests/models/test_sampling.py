"""Sampling with noise that depends on nothing but seed and position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roadside.models.choosing import choose
from roadside.models.sampling import Sampling, gumbel_noise

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, 0.5], dtype=np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax(temperature: float) -> None:
    """Pearson's chi-square over positions and seeds; a sound sampler fails it once in ten thousand times."""
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    draws = [Sampling(temperature, seed).pick(LOGITS, position) for seed in range(20) for position in range(500)]
    counted = np.bincount(draws, minlength=len(LOGITS))
    chi_square = float(((counted - len(draws) * expected) ** 2 / (len(draws) * expected)).sum())
    assert chi_square < 23.51  # of 4 degrees of freedom, 99.99%


def test_neighbouring_positions_and_seeds_are_independent() -> None:
    """The second of two draws is distributed alike whatever the first was."""
    sampling = [Sampling(1.0, seed) for seed in range(4000)]
    for second in (lambda s: s.pick(LOGITS, 8), lambda s: Sampling(1.0, s.seed + 1).pick(LOGITS, 7)):
        pairs = np.zeros((5, 5))
        for each in sampling:
            pairs[each.pick(LOGITS, 7), second(each)] += 1
        expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / len(sampling)
        seen = expected >= 5
        chi_square = float(((pairs - expected)[seen] ** 2 / expected[seen]).sum())
        assert chi_square < 45.0  # of 16 degrees of freedom at most, 99.99%


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20))
def test_noise_is_finite_and_the_same_each_time(seed: int, position: int) -> None:
    noise = gumbel_noise(seed, position, 64)
    assert np.isfinite(noise).all()
    assert (noise == gumbel_noise(seed, position, 64)).all()
    assert (noise[:10] == gumbel_noise(seed, position, 10)).all(), "a smaller vocabulary sees the same numbers"


def test_noise_is_the_same_on_every_machine() -> None:
    """Bits of Philox, a counter-based generator, with these keys; written down once."""
    expected = [0.1869400394197676, 0.12142512639135847, -0.9707436945273303]
    assert gumbel_noise(3, 17, 3).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_low_temperature_is_greedy_and_confidence_is_the_model_s_own() -> None:
    logits = torch.from_numpy(LOGITS)[None]
    token, confidence = choose(logits, Sampling(1e-6, 1), 3)
    assert (token, confidence) == choose(logits, None, 3)
    drawn = {choose(logits, Sampling(2.0, seed), 3) for seed in range(50)}
    softmax = torch.softmax(logits[0], dim=-1).tolist()
    assert len(drawn) > 2
    assert all(confidence == pytest.approx(softmax[token]) for token, confidence in drawn)
