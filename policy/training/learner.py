"""Learning from a fleet that drives: outcomes in, better weights out, and nothing promoted that was not compared.

    learner = PolicyLearner(folder, start=load_weights(...))
    learner.observe(task_id, vehicle, experience)      as outcomes come in
    learner.train(updates=50, now_s=...)               in slices, whenever there is time
    verdict = learner.review()                         now and then: promote, roll back, or leave it
    learner.current                                    the weights to serve

It knows no bus and no clock: whoever runs it brings both. In its folder lie `current.npz`, `previous.npz` and
`learner.pt`, each replaced as a whole; a learner that was killed goes on from them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...bus.errors import ConfigurationError
from ..experience import Experience
from ..scorer import SetScorer
from ..weights import Weights, load_weights, save_weights
from .bandit import Bandit
from .checkpoints import load_state, save_state
from .comparison import Comparison, compare
from .ddpg import Ddpg, DdpgOptions
from .experience_stream import Decided, ExperienceStream
from .recipes import PLACEMENT
from .replay import Replay
from .set_networks import SetActor, SetCritic, SetNetwork, restore

_SPANNED = (0.005, 0.995)
CURRENT_FILE, PREVIOUS_FILE, STATE_FILE = "current.npz", "previous.npz", "learner.pt"


@dataclass(frozen=True)
class LearnerOptions:
    """algorithm: what learns; a bandit's weights give no knobs.

    patience_s: see ExperienceStream. block, held_out: of so many decisions in a row the last ones are never learnt
    from, and kept for comparing.

    kept_held_out: the newest that count. least_held_out: fewer than these, and nothing is promoted.
    margin: the candidate must be better by this much utility, 95% sure.
    watched: outcomes after a promotion on which it is judged, against as many before it.
    """

    algorithm: Literal["ddpg", "bandit"] = "ddpg"
    patience_s: float = 15.0
    block: int = 250
    held_out: int = 50
    kept_held_out: int = 2_000
    least_held_out: int = 400
    margin: float = 0.0
    watched: int = 400
    # It begins with an actor that is good already: that one moves slowly.
    ddpg: DdpgOptions = field(default_factory=lambda: replace(PLACEMENT, batch_size=64, actor_learning_rate=1e-4))


@dataclass(frozen=True, slots=True)
class Verdict:
    """comparison: None where there was too little to compare, or a promotion is still being watched."""

    action: Literal["none", "promoted", "rolled back"]
    reason: str
    comparison: Comparison | None = None


class PolicyLearner:
    """start: what is served until something better is found; left aside where the folder has weights already."""

    def __init__(self, folder: Path, *, start: Weights, options: LearnerOptions | None = None, seed: int = 0) -> None:
        self._folder, self._options = folder, options or LearnerOptions()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / CURRENT_FILE).exists():
            save_weights(folder / CURRENT_FILE, start)
        self.current = load_weights(folder / CURRENT_FILE)
        torch.manual_seed(seed)
        self._rng, self._generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self._knobs = self.current.arrays["head2.weight"].shape[0] - 1
        self._begin_anew()
        ddpg = self._options.ddpg
        self._replay = Replay(ddpg.replay_capacity, steps=ddpg.steps, discount=ddpg.discount)
        self._reward_replay = Replay(ddpg.replay_capacity, steps=1, discount=0.0)
        self._stream = ExperienceStream(self._options.patience_s)
        self._held_out: deque[Decided] = deque(maxlen=self._options.kept_held_out)
        self._decided = 0
        # Realised utility: before the newest promotion, and since.
        self._before: list[float] = []
        self._since: deque[float] = deque(maxlen=self._options.watched)
        self._watching = False
        self._load()

    def observe(self, task_id: str, vehicle: str, experience: Experience, *, by_current: bool = True) -> bool:
        """Take in what became of a task; False where it was known, or too late. A task that failed is one as well.

        by_current: whether `current` has decided it. What others have decided is learnt from, and says nothing of how
        good `current` is.
        """
        new = self._stream.add(task_id, vehicle, experience)
        if new and by_current:
            self._since.append(experience.utility)
        return new

    def train(self, updates: int, now_s: float) -> float | None:
        """Take in the decisions that are complete by now, and learn from `updates` batches; the mean of all losses.

        None while there is nothing to learn from; no number where learning has failed, and then begins anew.
        now_s: on the clock of the experiences.
        """
        for decided in self._stream.release(now_s):
            self._take(decided)
        if not len(self._replay) or not len(self._reward_replay):
            return None
        size = self._options.ddpg.batch_size
        losses = []
        replay = self._replay if self._options.algorithm == "ddpg" else self._reward_replay
        for _ in range(updates):
            losses.append(self._agent.update(replay.sample(self._rng, size), self._generator)[0])
            losses.append(self._reward_model.update(self._reward_replay.sample(self._rng, size), self._generator)[0])
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            # Weights that are no numbers never become numbers again.
            self._begin_anew()
        self._save()
        return loss

    def proposal(self) -> Weights:
        """What has been learnt so far, promoted or not."""
        agent = self._agent
        actor = agent.model if isinstance(agent, Bandit) else agent.target_actor
        return actor.weights(self.current.environment, self.current.notes | {"learnt": True})

    def review(self) -> Verdict:
        """Judge the newest promotion where that is open, and otherwise promote the proposal if it is surely better."""
        if self._watching:
            return self._judge_promotion()
        if len(self._held_out) < self._options.least_held_out:
            return Verdict("none", f"{len(self._held_out)} held-out decisions are too few to compare on")
        self._widen()
        if len(self._since) < self._options.watched:
            return Verdict("none", f"{len(self._since)} outcomes of what is served are too few to judge a successor by")
        proposal = self.proposal()
        comparison = compare(list(self._held_out), SetScorer(proposal), SetScorer(self.current), self._rewards)
        # So written that what is no number is never better.
        if not comparison.lower > self._options.margin:
            return Verdict("none", "not surely better than what is served", comparison)
        save_weights(self._folder / PREVIOUS_FILE, self.current)
        self._serve(proposal)
        self._before, self._watching = list(self._since), True
        self._since.clear()
        self._save()
        return Verdict("promoted", "surely better on held-out decisions", comparison)

    def roll_back(self) -> None:
        """Serve what was served before the newest promotion; ConfigurationError where there was none."""
        previous = self._folder / PREVIOUS_FILE
        if not previous.exists():
            raise ConfigurationError(f"{self._folder} holds no earlier weights to go back to")
        self._serve(load_weights(previous))
        previous.unlink()
        self._begin_anew()
        self._watching = False
        self._since.clear()
        self._save()

    def _begin_anew(self) -> None:
        """Forget what was learnt: from here on from what is served. The experiences stay."""
        self._agent, self._reward_model = self._learners()

    def _widen(self) -> None:
        """Learn within what the fleet's features span, and let the next weights be trusted there.

        All but the outermost of them, which may be some vehicle's error.
        """
        rows = np.concatenate([decided.observation[0] for decided in self._held_out])
        lowest, highest = np.quantile(rows, _SPANNED, axis=0).astype(np.float32)
        for network in (*self._agent.networks(), *self._reward_model.networks()):
            for part in network.modules():
                if isinstance(part, SetNetwork):
                    part.widen(lowest, highest)

    def _judge_promotion(self) -> Verdict:
        if len(self._since) < self._options.watched:
            return Verdict("none", "the newest promotion is being watched")
        self._watching = False
        now, before = np.array(self._since), np.array(self._before)
        fall = float(before.mean() - now.mean())
        doubt = 1.959964 * float(np.sqrt(before.var(ddof=1) / len(before) + now.var(ddof=1) / len(now)))
        if fall <= doubt:
            return Verdict("none", "the newest promotion has proved itself")
        self.roll_back()
        return Verdict("rolled back", f"utility fell by {fall:.3f} after the promotion")

    def _serve(self, weights: Weights) -> None:
        save_weights(self._folder / CURRENT_FILE, weights)
        self.current = weights

    def _take(self, decided: Decided) -> None:
        options, place = self._options, self._decided % self._options.block
        self._decided += 1
        if place >= options.block - options.held_out:
            if place == options.block - options.held_out:
                self._replay.close(decided.observation)
            self._held_out.append(decided)
            return
        action = decided.action(self._knobs)
        utility = decided.experience.utility
        nothing = np.zeros_like(action)
        self._replay.add(decided.observation, action, nothing, utility, terminated=False)
        chosen = decided.action(0)
        self._reward_replay.add(decided.observation, chosen, np.zeros_like(chosen), utility, terminated=True)

    def _rewards(self, decided: Decided) -> NDArray[np.float32]:
        return self._reward_model.raw(decided.observation)

    def _learners(self) -> tuple[Ddpg[SetActor] | Bandit, Bandit]:
        """An agent that acts as the current weights do, and a reward model that knows nothing yet.

        A bandit is no judge of its own proposals: the reward model is another one.
        """
        options = self._options.ddpg
        bandit_options = replace(options, discount=0.0, steps=1)
        actor = SetActor(self._knobs, prior_weight=self.current.prior_weight)
        restore(actor.net, self.current)
        critic, model = SetCritic(self._knobs), SetActor(prior_weight=1.0)
        for network in (critic.net, model.net):
            for name in ("mean", "scale", "lowest", "highest"):
                getattr(network, name).copy_(torch.from_numpy(self.current.arrays[name]))
        bandit = self._options.algorithm == "bandit"
        if bandit and self._knobs:
            raise ConfigurationError("a bandit learns no knobs: begin with the weights of a bandit")
        agent = Bandit(actor, bandit_options) if bandit else Ddpg(actor, critic, options)
        return agent, Bandit(model, bandit_options)

    def _save(self) -> None:
        state = {
            "agent": self._agent.state_dict(),
            "reward_model": self._reward_model.state_dict(),
            "watching": self._watching,
            "before": self._before,
        }
        save_state(self._folder / STATE_FILE, state)

    def _load(self) -> None:
        state = load_state(self._folder / STATE_FILE)
        if state is not None:
            self._agent.load_state_dict(state["agent"])
            self._reward_model.load_state_dict(state["reward_model"])
            # A promotion that was being watched is watched anew: what came of it before is not kept.
            self._watching, self._before = state["watching"], state["before"]
