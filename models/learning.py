"""The optimisation loop: accelerate's, step by step, so that a stopped training goes on as if it had never stopped.

Whatever is random at a step (which scenes, how they are asked about, how their pixels are changed) is drawn from
generators seeded by the phase and the step. So a checkpoint is no more than weights, the optimiser's state and a step.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_model
from torch import Tensor, nn, optim

STATE_FOLDER = "checkpoint"
PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Learner:
    """Some parameters and the learning rate that they reach after the warm-up."""

    parameters: list[nn.Parameter]
    peak_rate: float


@dataclass(frozen=True)
class Phase:
    """One part of a training. steps: how many batches; name: also the curve's."""

    name: str
    steps: int
    batch_size: int
    warm_up_steps: int
    weight_decay: float


@dataclass
class Checkpoints:
    """Where a training stands, on disk: the newest state only.

    losses: of every step so far, by phase. A phase with all of its losses is over.
    """

    folder: Path
    every_steps: int
    losses: dict[str, list[float]] = field(default_factory=dict)

    def open(self) -> None:
        """Read how far the training has come; nothing where it has not begun."""
        for name in (STATE_FOLDER, f"{STATE_FOLDER}-old"):
            progress = self.folder / name / PROGRESS_FILE
            if progress.exists():
                self.losses = json.loads(progress.read_text())
                return

    def save(self, accelerator: Accelerator) -> None:
        """Write the state beside the last one and then replace it, so that at every moment one of them is whole."""
        new, current, old = (self.folder / f"{STATE_FOLDER}{part}" for part in ("-new", "", "-old"))
        shutil.rmtree(new, ignore_errors=True)
        accelerator.save_state(str(new))
        (new / PROGRESS_FILE).write_text(json.dumps(self.losses))
        shutil.rmtree(old, ignore_errors=True)
        if current.exists():
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def load(self, accelerator: Accelerator) -> None:
        """Put the newest state into what the accelerator has prepared: the same module, and the phase's optimiser."""
        accelerator.load_state(str(self._newest()))

    def load_weights(self, module: nn.Module) -> None:
        """Put the newest weights alone into a module; nothing where there are none yet."""
        if any(self.losses.values()):
            load_model(module, str(self._newest() / "model.safetensors"))

    def _newest(self) -> Path:
        current = self.folder / STATE_FOLDER
        return current if current.exists() else self.folder / f"{STATE_FOLDER}-old"


def learn(
    accelerator: Accelerator,
    module: nn.Module,
    loss_of: Callable[[Any, int], Tensor],
    learners: list[Learner],
    phase: Phase,
    *,
    checkpoints: Checkpoints,
    advance: Callable[[float, str], None],
) -> None:
    """Take the steps of a phase that are not taken yet.

    loss_of: from the prepared module and the step. advance: told after each step that one more is done, with a note; at
    once how many were done before.
    """
    losses = checkpoints.losses.setdefault(phase.name, [])
    if len(losses) >= phase.steps:
        advance(phase.steps, "done before")
        return
    parameters = [parameter for learner in learners for parameter in learner.parameters]
    plain_optimiser = optim.AdamW(_groups(learners, phase.weight_decay), betas=(0.9, 0.98), fused=True)
    prepared, optimiser = accelerator.prepare(module, plain_optimiser)
    if losses:
        checkpoints.load(accelerator)
        advance(len(losses), "resumed")
    while len(losses) < phase.steps:
        step = len(losses)
        warm_up = min(1.0, (step + 1) / phase.warm_up_steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak_rate"] * warm_up * schedule(step / phase.steps)
        loss = loss_of(prepared, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(round(loss.item(), 5))
        advance(1, f"loss {mean(losses[-50:]):.3f}")
        if len(losses) % checkpoints.every_steps == 0 or len(losses) == phase.steps:
            checkpoints.save(accelerator)
    # The next phase prepares the same weights with another optimiser.
    accelerator.free_memory()


def schedule(done_share: float) -> float:
    """The learning rate as a share of its peak: flat for 30% of the steps, then a cosine down to 1%."""
    flat, last = 0.3, 0.01
    if done_share < flat:
        return 1.0
    angle = math.pi * min(1.0, (done_share - flat) / (1 - flat))
    return last + (1 - last) * (1 + math.cos(angle)) / 2


def batch_at(count: int, size: int, seed: str, step: int) -> list[int]:
    """The batch of a step: every index comes once before any comes again; a smaller last batch is left out."""
    per_round = max(1, count // size)
    order = list(range(count))
    random.Random(f"{seed} {step // per_round}").shuffle(order)
    start = step % per_round * size
    return order[start : start + size]


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
