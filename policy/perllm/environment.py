"""PerLLM's set-up as a closed loop: so many users, each of whom asks anew as soon as the last answer has come.

    environment = PerllmEnvironment(perllm_file().headline, seed=101)
    figures = run_episode(environment, make_policy("greedy-delay", PolicyOptions()))

A request crosses its server's link, first come, first served, and then takes one of the server's slots. The policy
sees every queue as it is, as PerLLM's scheduler does, and knows a request's tokens but not how its service time
deviates. Rows are the edges, in their order, and the cloud.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from ...bus.places import PLACES, Place
from ..candidates import candidates_of
from ..environment.dynamics import OWN_KNOBS
from ..environment.environment import Situation, Step
from ..environment.queues import Server
from ..experience import Experience, Knobs
from ..features import Observed, TaskFacts
from ..utility import UtilityModel
from .constants import PerllmConstants
from .requests import Requests, draw_requests


@dataclass(frozen=True, slots=True)
class Figures:
    """success_share: answered within the deadline. tokens_per_s: of all servers, until the last answer.

    joules_per_request: what flows: idle power all the time, the slots' share of busy power while they work, the
        transmitters' while they send.
    billed_joules_per_request: each request charged with its slot's share of busy power from its asking to its answer,
        waiting included, and with the transmitter from its asking to the end of its upload.
    """

    success_share: float
    latency_mean_s: float
    tokens_per_s: float
    joules_per_request: float
    billed_joules_per_request: float
    cloud_share: float


class _Site:
    """A server behind its link."""

    def __init__(
        self,
        *,
        link_bps: float,
        link_factor: list[float] | None,
        tokens_per_s: float,
        slots: int,
        round_trip_s: float,
        idle_w: float,
        busy_w: float,
    ) -> None:
        self._link_bps = link_bps
        self._link_factor = link_factor
        self.tokens_per_s = tokens_per_s
        self.slots = slots
        self.round_trip_s = round_trip_s
        self.slot_w = (busy_w - idle_w) / slots  # what a slot that works adds
        self.billed_slot_w = busy_w / slots
        self.link = Server()
        self.server = Server(slots)
        self._done_s: list[float] = []

    def rate_bps(self, now_s: float) -> float:
        if self._link_factor is None:
            return self._link_bps
        return self._link_bps * self._link_factor[int(now_s) % len(self._link_factor)]

    def upload_s(self, begins_s: float, bits: float) -> float:
        """How long the link needs when it begins then; its rate changes with every full second."""
        if self._link_factor is None:
            return bits / self._link_bps
        at_s = begins_s
        while True:
            rate_bps, second_ends_s = self.rate_bps(at_s), math.floor(at_s) + 1.0
            if bits <= (within := rate_bps * (second_ends_s - at_s)):
                return at_s + bits / rate_bps - begins_s
            bits -= within
            at_s = second_ends_s

    def took(self, done_s: float) -> None:
        heappush(self._done_s, done_s)

    def in_flight(self, now_s: float) -> int:
        while self._done_s and self._done_s[0] <= now_s:
            heappop(self._done_s)
        return len(self._done_s)


class PerllmEnvironment:
    """Of the interface of policy/environment/environment.py: reset, step, summary.

    cloud_batch_s: the cloud starts requests at multiples of it only, as FineInfer's deferred batches do; 0: at once.
    """

    def __init__(self, constants: PerllmConstants, *, seed: int = 0, cloud_batch_s: float = 0.0) -> None:
        self.constants = constants
        self._cloud_batch_s = cloud_batch_s
        edges = constants.edges
        self._nodes = (*(f"edge-{edge}" for edge in range(1, edges + 1)), "cloud")
        self._places: tuple[Place, ...] = (*("edge" for _ in range(edges)), "cloud")
        self._row_keys = tuple(zip(self._nodes, self._places, strict=True))
        self._place = np.array([PLACES.index(place) for place in self._places], np.intp)
        # Its joules are those that one request adds: idle power flows whatever a policy does about this request.
        self.utility = UtilityModel(transmit_power_w=constants.transmit_w)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> Situation:
        """Begin a run anew: with the same requests where no seed is given."""
        if seed is not None:
            self.requests: Requests = draw_requests(self.constants, seed)
            self._facts = self._describe()
        requests = self.requests
        self._bits = (8 * requests.payload_bytes).tolist()
        self._tokens = requests.tokens.tolist()
        self._service_factor = requests.service_factor.tolist()
        self._sites = self._build()
        self._asking_s = requests.first_s.tolist()
        heapify(self._asking_s)
        self._number = 0
        self._under_way: list[tuple[float, int, Experience]] = []
        self._in_time = 0
        self._to_cloud = 0
        self._latency_s = self._busy_j = self._transmit_j = self._billed_j = self._last_s = 0.0
        self.situation = self._situation()
        return self.situation

    def step(self, index: int, knobs: Knobs = OWN_KNOBS, *, propensity: float = 1.0) -> Step:
        """Send the waiting request to that server. The knobs do nothing here."""
        situation, number, site = self.situation, self._number, self._sites[index]
        now_s = situation.now_s
        upload_s = site.upload_s(max(now_s, site.link.free_s), self._bits[number])
        sent_s = site.link.serve(now_s, upload_s)
        starts_s = sent_s
        if self._cloud_batch_s and self._places[index] == "cloud":
            starts_s = math.ceil(sent_s / self._cloud_batch_s) * self._cloud_batch_s
        service_s = self._tokens[number] / site.tokens_per_s * self._service_factor[number]
        done_s = site.server.serve(starts_s, service_s) + site.round_trip_s
        site.took(done_s)
        energy_j = site.slot_w * service_s + self.constants.transmit_w * upload_s
        self._count(situation, index, done_s, upload_s=upload_s, service_s=service_s, sent_s=sent_s)
        experience = self._experience(situation, index, knobs, propensity, done_s, energy_j, service_s)
        heappush(self._under_way, (done_s, number, experience))
        heappush(self._asking_s, done_s)
        self._number += 1
        if self._number == self.constants.requests:
            return Step(experience.utility, None, self._ended_by(math.inf))
        self.situation = self._situation()
        return Step(experience.utility, self.situation, self._ended_by(self.situation.now_s))

    def summary(self) -> Figures:
        """Of the requests decided so far."""
        requests = self._number
        return Figures(
            success_share=self._in_time / requests,
            latency_mean_s=self._latency_s / requests,
            tokens_per_s=sum(self._tokens[:requests]) / self._last_s,
            joules_per_request=(self.constants.idle_w * self._last_s + self._busy_j + self._transmit_j) / requests,
            billed_joules_per_request=self._billed_j / requests,
            cloud_share=self._to_cloud / requests,
        )

    def _build(self) -> list[_Site]:
        c = self.constants
        factors = self.requests.link_factor.tolist() if c.link_fluctuation else [None] * (c.edges + 1)
        edges = [
            _Site(
                link_bps=c.edge_link_bps,
                link_factor=factor,
                tokens_per_s=c.edge_tokens_per_s,
                slots=c.edge_slots,
                round_trip_s=c.edge_round_trip_ms / 1000,
                idle_w=c.edge_idle_w,
                busy_w=c.edge_busy_w,
            )
            for factor in factors[:-1]
        ]
        cloud = _Site(
            link_bps=c.cloud_link_bps,
            link_factor=factors[-1],
            tokens_per_s=c.cloud_tokens_per_s,
            slots=c.cloud_slots,
            round_trip_s=c.cloud_round_trip_ms / 1000,
            idle_w=c.cloud_idle_w,
            busy_w=c.cloud_busy_w,
        )
        sites = [*edges, cloud]
        self._round_trip_ms = np.array([site.round_trip_s for site in sites]) * 1000
        self._slot_w = np.array([site.slot_w for site in sites])
        self._slots = np.array([float(site.slots) for site in sites])
        self._ms_per_token = 1000 / np.array([site.tokens_per_s for site in sites])
        self._none = np.zeros(len(sites))
        self._quality = np.ones(len(sites))  # the paper compares no answers
        self._allowed = np.ones(len(sites), np.bool_)
        self._masked = ("",) * len(sites)
        return sites

    def _describe(self) -> list[TaskFacts]:
        deadline_ms = (self.requests.deadline_s * 1000).tolist()
        columns = zip(deadline_ms, self.requests.payload_bytes.tolist(), self.requests.tokens.tolist(), strict=True)
        return [TaskFacts("service", due, due, 0.0, round(size), tokens) for due, size, tokens in columns]

    def _situation(self) -> Situation:
        now_s, task, sites = heappop(self._asking_s), self._facts[self._number], self._sites
        now_ms, bits_in_ms = now_s * 1000, self._bits[self._number] * 1000
        observed = Observed(
            place=self._place,
            upload_ms=np.array([bits_in_ms / site.rate_bps(now_s) for site in sites]),
            round_trip_ms=self._round_trip_ms,
            link_wait_ms=np.maximum(np.array([site.link.free_s for site in sites]) * 1000 - now_ms, 0.0),
            compute_wait_ms=np.maximum(np.array([site.server.free_s for site in sites]) * 1000 - now_ms, 0.0),
            age_ms=self._none,
            unreported=self._none,
            service_ms=task.tokens * self._ms_per_token,
            power_w=self._slot_w,
            quality=self._quality,
            in_flight=np.array([float(site.in_flight(now_s)) for site in sites]),
            slots=self._slots,
        )
        candidates = candidates_of(
            task, observed, self.utility, nodes=self._nodes, places=self._places, masked=self._masked
        )
        return Situation(task, candidates, self._allowed, now_s)

    def _count(
        self, situation: Situation, index: int, done_s: float, *, upload_s: float, service_s: float, sent_s: float
    ) -> None:
        site, transmit_w, now_s = self._sites[index], self.constants.transmit_w, situation.now_s
        latency_s = done_s - now_s
        self._in_time += latency_s * 1000 <= situation.task.deadline_ms
        self._to_cloud += self._places[index] == "cloud"
        self._latency_s += latency_s
        self._busy_j += site.slot_w * service_s
        self._transmit_j += transmit_w * upload_s
        self._billed_j += site.billed_slot_w * latency_s + transmit_w * (sent_s - now_s)
        self._last_s = max(self._last_s, done_s)

    def _experience(
        self,
        situation: Situation,
        index: int,
        knobs: Knobs,
        propensity: float,
        done_s: float,
        energy_j: float,
        service_s: float,
    ) -> Experience:
        latency_ms = (done_s - situation.now_s) * 1000
        in_time = latency_ms <= situation.task.deadline_ms
        utility = self.utility.utility(
            latency_ms=latency_ms, deadline_ms=situation.task.deadline_ms, energy_j=energy_j, quality=float(in_time)
        )
        return Experience(
            task=situation.task,
            features=situation.candidates.features,
            allowed=situation.allowed,
            chosen=index,
            node=self._nodes[index],
            place=self._places[index],
            knobs=knobs,
            propensity=propensity,
            latency_ms=latency_ms,
            energy_j=energy_j,
            in_time=in_time,
            right=float(in_time),
            utility=float(utility),
            decided_s=situation.now_s,
            ended_s=done_s,
            service_ms=service_s * 1000,
            rows=self._row_keys,
        )

    def _ended_by(self, now_s: float) -> tuple[Experience, ...]:
        ended: list[Experience] = []
        while self._under_way and self._under_way[0][0] <= now_s:
            ended.append(heappop(self._under_way)[2])
        return tuple(ended)
