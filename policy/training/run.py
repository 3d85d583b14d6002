"""Training of a policy: `roadside train policy`. From nothing to one file of weights and a picture of the way there.

A training that was stopped has left `<out>.partial`; started again with the same options it goes on from there, and
ends as it would have ended.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ...bus.errors import ConfigurationError
from ..environment.constants import COMMITTED, EnvironmentConstants, load_constants
from ..environment.environment import Environment, run_episode
from ..served import ServedPolicy
from ..weights import Weights, load_weights, save_weights
from .bandit import Bandit
from .checkpoints import load_state, save_state
from .ddpg import Agent, Ddpg, Episode, Noise, Training
from .exploration import DiffusionNoise, GaussianNoise, OrnsteinUhlenbeckNoise
from .fleets import draw_fleet
from .placement import PlacementDomain, Variety
from .recipes import Recipe, recipe_of
from .set_networks import SetActor, SetCritic, SetDenoiser
from .training_curve import draw_training_curve

SETTINGS_FILE, STATE_FILE, BEST_FILE = "settings.json", "state.pt", "best.npz"

# Never those that a bench reports on: 101 to 110.
VALIDATION_SEEDS = (590, 591)
VALIDATION_CELLS = ((5, 0.5), (5, 0.0), (5, 2.0), (3, 0.5), (32, 0.5))
VALIDATION_FLEETS = 12
_VALIDATION_TASKS = 1_500  # more than a whole swing of the arrivals
_VALIDATION_TASKS_OF_OTHERS = 600

_SCALING = 2**32  # no episode has this number
_SCALING_PIECE = 100  # decisions

_Module = TypeVar("_Module", SetActor, SetCritic, SetDenoiser)


@dataclass
class Progression:
    """How a training has gone: rewards, losses and values of its episodes, and (steps, utility) of each validation."""

    rewards: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, episode: Episode) -> None:
        self.rewards.append(episode.mean_reward)
        self.losses.append(episode.critic_loss)
        self.values.append(episode.value)


def train_policy(
    out: Path,
    *,
    policy: str = "ddpg",
    seed: int = 0,
    quick: bool = False,
    environment: Path = COMMITTED,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a policy by its recipe, write the best weights to `out` (.npz) and the curve beside it; returns the notes.

    progress: where to draw; a bar on stderr by default.
    Raises ConfigurationError where `out` exists, or its training was begun with other options.
    """
    return train(out, policy, recipe_of(policy, quick=quick), seed=seed, environment=environment, progress=progress)


def train(
    out: Path,
    policy: str,
    recipe: Recipe,
    *,
    seed: int = 0,
    environment: Path = COMMITTED,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """As `train_policy`, with any recipe."""
    if out.suffix != ".npz":
        raise ConfigurationError(f"weights are written to a file NAME.npz, not to {out}")
    if out.exists():
        raise ConfigurationError(f"{out} exists already; name a new file, or remove it first")
    # A second thread makes batches this small dearer in CPU time.
    torch.set_num_threads(1)
    partial = _begin(out, {"policy": policy, "seed": seed, "recipe": asdict(recipe), "environment": str(environment)})
    if progress is None:
        share = TextColumn("{task.percentage:>3.0f}% {task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn())
        progress = Progress(*columns, console=Console(stderr=True))
    with progress:
        run = PolicyTraining(policy, recipe, seed, load_constants(environment, scenario=None), partial)
        bar = progress.add_task(f"training {policy}", total=recipe.total_steps, note="")
        while not run.finished:
            note = run.advance()
            progress.update(bar, completed=run.training.steps, note=note)
    notes = run.write(out)
    shutil.rmtree(partial)
    return notes


class PolicyTraining:
    """One training, from wherever its folder says that it stands."""

    def __init__(self, policy: str, recipe: Recipe, seed: int, constants: EnvironmentConstants, partial: Path) -> None:
        self._policy, self._recipe, self._seed, self._partial = policy, recipe, seed, partial
        self._constants = constants
        self.progression = Progression()
        torch.manual_seed(seed)
        domain = PlacementDomain(constants, recipe.variety, knobs=recipe.knobs, discount=recipe.ddpg.discount)
        agent, self._served, noise = _build(recipe, _guided_rows(domain, recipe.scaling_steps, seed))
        self.training = Training(agent, domain, noise, total_steps=recipe.total_steps, seed=seed)
        self._resume()

    @property
    def finished(self) -> bool:
        return self.training.finished

    def advance(self) -> str:
        """Play an episode, and validate and save where it is time; returns a note for people."""
        started_s = time.process_time()
        before = self.training.steps
        self.progression.add(self.training.play_episode())
        every = self._recipe.validate_every_steps
        if self.finished or self.training.steps // every > before // every:
            self._validate()
            self.progression.cpu_s += time.process_time() - started_s
            self._save()
        else:
            self.progression.cpu_s += time.process_time() - started_s
        recent = float(np.mean(self.progression.rewards[-20:]))
        best = max((utility for _, utility in self.progression.validations), default=float("nan"))
        return f"reward {recent:.3f}, best validation {best:.3f}"

    def write(self, out: Path) -> dict[str, Any]:
        """The best weights and the curve."""
        best = load_weights(self._partial / BEST_FILE)
        save_weights(out, best)
        draw_training_curve(self.progression.rewards, self.progression.validations, out.with_suffix(".png"))
        return best.notes

    def weights(self) -> Weights:
        """What is learnt so far, as it would be served."""
        progression = self.progression
        notes = {
            "policy": self._policy,
            "seed": self._seed,
            "steps": self.training.steps,
            "validation": progression.validations[-1][1] if progression.validations else None,
            "cpu_minutes": round(progression.cpu_s / 60, 2),
            "recipe": asdict(self._recipe),
        }
        return self._served.weights(self._constants.sha256, notes)

    def _validate(self) -> None:
        network = self._served.weights(self._constants.sha256, {})
        utility = validate(network, self._constants, self._recipe.variety)
        best = max((earlier for _, earlier in self.progression.validations), default=-np.inf)
        self.progression.validations.append((self.training.steps, utility))
        if utility > best:
            save_weights(self._partial / BEST_FILE, self.weights())

    def _save(self) -> None:
        state = {"training": self.training.state_dict(), "progression": asdict(self.progression)}
        save_state(self._partial / STATE_FILE, state)

    def _resume(self) -> None:
        state = load_state(self._partial / STATE_FILE)
        if state is not None:
            self.training.load_state_dict(state["training"])
            self.progression = Progression(**state["progression"])


def validate(weights: Weights, constants: EnvironmentConstants, variety: Variety) -> float:
    """Mean utility over the validation's episodes, those in other fleets counting as much as in training."""
    own, others = validations(weights, constants, variety)
    return (1 - variety.others) * own + variety.others * others


def validations(weights: Weights, constants: EnvironmentConstants, variety: Variety) -> tuple[float, float]:
    """Mean utility in the fleet of the constants, without and with edges that ask the cloud; and in other fleets."""
    headline = msgspec.structs.replace(constants, collaborative=None)
    cells = [(headline, edges, heartbeat_s) for edges, heartbeat_s in VALIDATION_CELLS]
    if constants.collaborative is not None and variety.together:
        cells.append((constants, *VALIDATION_CELLS[0]))
    own = [
        Environment(each, edges=edges, heartbeat_s=heartbeat_s, tasks=_VALIDATION_TASKS, seed=seed)
        for each, edges, heartbeat_s in cells
        for seed in VALIDATION_SEEDS
    ]
    others: list[Environment] = []
    rng = np.random.default_rng(VALIDATION_SEEDS)
    for number in range(VALIDATION_FLEETS if variety.others else 0):
        fleet, tasks = draw_fleet(constants, variety.bounds, rng), _VALIDATION_TASKS_OF_OTHERS
        others.append(Environment(fleet.constants, edges=fleet.edges, rate=fleet.rate_hz, tasks=tasks, seed=number))

    def mean(environments: list[Environment]) -> float:
        utilities = [run_episode(each, ServedPolicy("validation", weights)).utility for each in environments]
        return float(np.mean(utilities)) if utilities else 0.0

    return mean(own), mean(others)


def _begin(out: Path, settings: dict[str, Any]) -> Path:
    partial = out.with_name(f"{out.name}.partial")
    written = json.dumps(settings, indent=1)
    path = partial / SETTINGS_FILE
    if path.exists() and path.read_text() != written:
        raise ConfigurationError(
            f"{partial} holds a training with other options; start with those again, or remove the folder"
        )
    partial.mkdir(parents=True, exist_ok=True)
    path.write_text(written)
    return partial


def _build(recipe: Recipe, rows: NDArray[np.float32]) -> tuple[Agent, SetActor, Noise]:
    """The agent, the network of it that is served, and the noise; all scaled to these inputs.

    Of DDPG the target actor is served, which is the steadier one.
    """
    noise: Noise
    match recipe.noise:
        case "diffusion":
            noise = DiffusionNoise(_scaled(SetDenoiser(recipe.knobs), rows), recipe.noise_deviation)
        case "gaussian":
            noise = GaussianNoise(recipe.noise_deviation)
        case "ornstein-uhlenbeck":
            noise = OrnsteinUhlenbeckNoise(recipe.noise_deviation)
    if recipe.algorithm == "bandit":
        model = _scaled(SetActor(prior_weight=recipe.prior_weight), rows)
        return Bandit(model, recipe.ddpg), model, noise
    actor = _scaled(SetActor(recipe.knobs, prior_weight=recipe.prior_weight), rows)
    agent = Ddpg(actor, _scaled(SetCritic(recipe.knobs), rows), recipe.ddpg)
    return agent, agent.target_actor, noise


def _scaled(module: _Module, rows: NDArray[np.float32]) -> _Module:
    module.net.set_scaler(rows)
    return module


def _guided_rows(domain: PlacementDomain, steps: int, seed: int) -> NDArray[np.float32]:
    """Inputs met by the guide in short pieces of many episodes, [m, len(INPUTS)]."""
    rng = np.random.default_rng((seed, _SCALING))
    rows: list[NDArray[np.float32]] = []
    while len(rows) < steps:
        observation = domain.reset(rng)
        for _ in range(_SCALING_PIECE):
            rows.append(observation[0])
            _, observation, _, over = domain.step(domain.guide(rng))
            if over:
                break
    return np.concatenate(rows)
