"""The optimisation loop, on a schedule of CPU time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Learner:
    """Some parameters and the learning rate that they reach after the warm-up."""

    parameters: list[nn.Parameter]
    peak_rate: float


def learn(
    loss_of: Callable[[list[int]], Tensor],
    learners: list[Learner],
    *,
    cpu_seconds: float,
    scene_count: int,
    batch_size: int,
    warm_up_steps: int,
    weight_decay: float,
    shuffle: random.Random,
    advance: Callable[[float, str], None],
) -> list[float]:
    """Lower a loss until the CPU time of this process is spent; returns the loss of every step.

    loss_of: from the indices of a batch of scenes. advance: told after each step how many CPU seconds more are
    spent, with a note. Wall-clock time plays no part, so a busy machine makes it longer and not worse.
    """
    optimiser = torch.optim.AdamW(_groups(learners, weight_decay), betas=(0.9, 0.98), fused=True)
    parameters = [parameter for learner in learners for parameter in learner.parameters]
    batches = random_batches(scene_count, batch_size, shuffle)
    losses: list[float] = []
    started_s = time.process_time()
    spent_s = 0.0
    while spent_s < cpu_seconds:
        warm_up = min(1.0, (len(losses) + 1) / warm_up_steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak_rate"] * warm_up * schedule(spent_s / cpu_seconds)
        loss = loss_of(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        now_s = time.process_time() - started_s
        advance(now_s - spent_s, f"loss {mean(losses[-50:]):.3f}")
        spent_s = now_s
    return losses


def schedule(spent_share: float) -> float:
    """The learning rate as a share of its peak: flat for 30% of the time, then a cosine down to 5%."""
    flat = 0.3
    if spent_share < flat:
        return 1.0
    angle = math.pi * min(1.0, (spent_share - flat) / (1 - flat))
    return 0.05 + 0.95 * (1 + math.cos(angle)) / 2


def random_batches(count: int, size: int, shuffle: random.Random) -> Iterator[list[int]]:
    """Random batches without end, every index once before any comes again; a smaller last batch is left out."""
    order = list(range(count))
    while True:
        shuffle.shuffle(order)
        for start in range(0, max(1, count - size + 1), size):
            yield order[start : start + size]


def mean(values: list[float]) -> float:
    """The mean, or 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _groups(learners: list[Learner], weight_decay: float) -> list[dict[str, object]]:
    """The optimiser's parameter groups. Only matrices decay: a norm's gain or a bias has no reason to be small."""
    groups: list[dict[str, object]] = []
    for learner in learners:
        matrices = [parameter for parameter in learner.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in learner.parameters if parameter.ndim < 2]
        groups.append({"params": matrices, "peak_rate": learner.peak_rate, "weight_decay": weight_decay})
        groups.append({"params": vectors, "peak_rate": learner.peak_rate, "weight_decay": 0.0})
    return groups
