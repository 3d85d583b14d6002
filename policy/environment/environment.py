"""The placement environment: one decision per task, its outcome once the task has ended.

    environment = Environment(load_constants(), seed=101)
    summary = run_episode(environment, make_policy("greedy-utility", PolicyOptions()))

All vehicles' decisions pass through one environment, in the order of their arrival. The policy sees what a vehicle
would see (observation.py); the queues are exact (queues.py); all that is random was drawn before (traces.py), so that
policies meet the same arrivals, distances, fadings and hidden speeds. Quality floors are off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...bus.link import CapacityTrace
from ...bus.places import PLACES, Place
from ..base import Policy
from ..candidates import UNREACHABLE, Candidates, candidates_of
from ..experience import Experience, Knobs
from ..features import TaskFacts
from .constants import EnvironmentConstants
from .dynamics import OWN_KNOBS, Dynamics, FleetState, Realised
from .layout import Layout, lay_out
from .observation import InFlight, Observer
from .traces import Traces, draw_traces
from .uplinks import RadioUplinks, RecordedUplinks


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """A task that waits for a decision. allowed: [n]; now_s: since the episode began."""

    task: TaskFacts
    candidates: Candidates
    allowed: NDArray[np.bool_]
    now_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a decision leads to.

    reward: its realised utility, known to the simulator at once and to a policy only with the experience.
    situation: the next one; None where the episode is over.
    experiences: of the tasks that have ended by then, in the order in which they ended; after the last task, of all.
    """

    reward: float
    situation: Situation | None
    experiences: tuple[Experience, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over an episode's tasks. quality: share of right answers in time; place_shares: where the tasks went."""

    utility: float
    in_time_share: float
    quality: float
    latency_p50_ms: float
    latency_p95_ms: float
    energy_j: float
    place_shares: Mapping[Place, float]


class Environment:
    """edges: roadside nodes. heartbeat_s: how often nodes report; 0: at every decision.

    rate: mean tasks per second of the whole fleet; tasks: decisions in an episode.
    in_flight: whose tasks since the last report a decision takes into account (observation.py).
    uplink: a recorded link that every vehicle has, elsewhere in the recording, in place of the radio's.

    constants, layout, traces, number (of the task that waits, from 0) and `state` are for whoever may know the truth:
    together with `look` they let a clairvoyant bound be computed.
    """

    def __init__(
        self,
        constants: EnvironmentConstants,
        *,
        edges: int = 5,
        heartbeat_s: float = 0.5,
        rate: float = 20.0,
        tasks: int = 3000,
        seed: int = 0,
        in_flight: InFlight = "vehicle",
        uplink: CapacityTrace | None = None,
    ) -> None:
        self.constants = constants
        self.layout: Layout = lay_out(constants, edges)
        self.tasks = tasks
        self.heartbeat_s = heartbeat_s
        self._rate = rate
        self._in_flight: InFlight = in_flight
        self._uplink = uplink
        self._utility = constants.utility_model
        self._row_keys = tuple(zip(self.layout.nodes, self.layout.places, strict=True))
        self._kind_names = [kind.name for kind in constants.kinds]
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Situation:
        """Begin an episode anew: the same one where no seed is given."""
        if seed is not None:
            self._draw(seed)
        self.number = 0
        self.state: FleetState = self._dynamics.fresh_state()
        self._observer = Observer(
            self.layout,
            self.traces,
            self._dynamics,
            self._uplinks,
            vehicles=self.constants.arrivals.vehicles,
            heartbeat_s=self.heartbeat_s,
            in_flight=self._in_flight,
        )
        self._under_way: list[tuple[float, int, Experience]] = []
        self._realised: list[Realised] = []
        self._rows: list[int] = []
        self.situation = self._situation()
        return self.situation

    def step(self, index: int, knobs: Knobs = OWN_KNOBS, *, propensity: float = 1.0) -> Step:
        """Send the waiting task to that row. Raises ValueError for a row that is not allowed."""
        situation, number = self.situation, self.number
        if not situation.allowed[index]:
            raise ValueError(f"row {index} is {situation.candidates.masked[index]}: choose an allowed one")
        realised = self._dynamics.run(self.state, number, index, knobs)
        self._observer.sent(number, index, situation.now_s + realised.latency_s)
        self._realised.append(realised)
        self._rows.append(index)
        experience = self._experience(situation, index, knobs, propensity, realised)
        heappush(self._under_way, (experience.ended_s, number, experience))
        self.number += 1
        if self.number == self.tasks:
            return Step(realised.utility, None, self._ended_by(np.inf))
        self.situation = self._situation()
        return Step(realised.utility, self.situation, self._ended_by(self.situation.now_s))

    def look(self, state: FleetState, number: int, index: int, knobs: Knobs = OWN_KNOBS) -> Realised:
        """What sending any task of the episode there would come to, with `state` as the queues; they take it.

        It tells what no policy can know. Give `environment.state.copy()`, and go on with tasks in their order.
        """
        return self._dynamics.run(state, number, index, knobs)

    def peek(self, state: FleetState, number: int, index: int) -> Realised:
        """As `look`, but the queues of `state` stay as they are."""
        trial = FleetState([link.copy() for link in state.links], state.servers.copy())
        server = self._dynamics.server_of(number, index)
        trial.servers[server] = trial.servers[server].copy()
        return self._dynamics.run(trial, number, index)

    def summary(self) -> Summary:
        """Of the tasks decided so far."""
        latency_s = np.array([each.latency_s for each in self._realised])
        in_time = np.array([each.in_time for each in self._realised])
        quality = np.array([each.quality for each in self._realised])
        places = Counter(self.layout.places[row] for row in self._rows)
        p50_s, p95_s = np.percentile(latency_s, (50, 95))
        return Summary(
            utility=float(np.mean([each.utility for each in self._realised])),
            in_time_share=float(in_time.mean()),
            quality=float((quality * in_time).mean()),
            latency_p50_ms=float(p50_s * 1000),
            latency_p95_ms=float(p95_s * 1000),
            energy_j=float(np.mean([each.energy_j for each in self._realised])),
            place_shares={place: places[place] / len(self._rows) for place in PLACES},
        )

    def _draw(self, seed: int) -> None:
        constants, layout = self.constants, self.layout
        traces = draw_traces(constants, layout, rate=self._rate, tasks=self.tasks, seed=seed)
        self.traces: Traces = traces
        if self._uplink is None:
            self._uplinks = RadioUplinks(layout, traces)
        else:
            self._uplinks = RecordedUplinks(constants, layout, traces, self._uplink, seed)
        self._dynamics = Dynamics(constants, layout, traces, self._uplinks)
        deadline_ms = (traces.deadline_s * 1000).tolist()
        self._facts = [
            TaskFacts(self._kind_names[kind], deadline, deadline, 0.0, round(size), tokens)
            for kind, deadline, size, tokens in zip(
                traces.kind.tolist(), deadline_ms, traces.upload_bytes.tolist(), traces.tokens.tolist(), strict=True
            )
        ]
        self._arrival_s = traces.arrival_s.tolist()
        self._masked = [tuple("" if free else UNREACHABLE for free in row) for row in traces.reachable.tolist()]

    def _situation(self) -> Situation:
        number, layout = self.number, self.layout
        task = self._facts[number]
        candidates = candidates_of(
            task,
            self._observer.observe(self.state, number),
            self._utility,
            nodes=layout.nodes,
            places=layout.places,
            masked=self._masked[number],
        )
        return Situation(task, candidates, self.traces.reachable[number], self._arrival_s[number])

    def _experience(
        self, situation: Situation, index: int, knobs: Knobs, propensity: float, realised: Realised
    ) -> Experience:
        deadline_s = situation.task.deadline_ms / 1000
        # Nobody waits for ever: from there on the utility has stopped falling, and the task is given up.
        latency_s = min(realised.latency_s, self._utility.latency_cap * deadline_s)
        return Experience(
            task=situation.task,
            features=situation.candidates.features,
            allowed=situation.allowed,
            chosen=index,
            node=self.layout.nodes[index],
            place=self.layout.places[index],
            knobs=knobs,
            propensity=propensity,
            latency_ms=latency_s * 1000,
            energy_j=realised.energy_j,
            in_time=realised.in_time,
            right=realised.quality if realised.in_time else 0.0,
            utility=realised.utility,
            decided_s=situation.now_s,
            ended_s=situation.now_s + latency_s,
            service_ms=realised.service_s * 1000 if latency_s == realised.latency_s else 0.0,
            rows=self._row_keys,
        )

    def _ended_by(self, now_s: float) -> tuple[Experience, ...]:
        ended: list[Experience] = []
        while self._under_way and self._under_way[0][0] <= now_s:
            ended.append(heappop(self._under_way)[2])
        return tuple(ended)


FiguresT = TypeVar("FiguresT", covariant=True)


class Simulator(Protocol[FiguresT]):
    """What an episode needs; this environment and PerLLM's are such."""

    def reset(self) -> Situation: ...

    def step(self, index: int, knobs: Knobs = OWN_KNOBS, *, propensity: float = 1.0) -> Step: ...

    def summary(self) -> FiguresT: ...


def run_episode(environment: Simulator[FiguresT], policy: Policy) -> FiguresT:
    """One policy through a whole episode from its beginning, learning from each task once it has ended."""
    situation: Situation | None = environment.reset()
    while situation is not None:
        choice = policy.decide(situation.task, situation.candidates, situation.allowed, situation.now_s)
        step = environment.step(choice.index, choice.knobs, propensity=choice.propensity)
        for experience in step.experiences:
            policy.observe(experience)
        situation = step.situation
    return environment.summary()
