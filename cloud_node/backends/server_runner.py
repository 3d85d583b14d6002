"""Answers tasks by asking a model server: what a cloud node with `backend = "openai"` runs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from ...bus.errors import BackendError
from ...bus.kinds import EXPLAIN, KINDS, TaskKind
from ...bus.messages import Timing
from ...bus.places import Place
from ...bus.plain_text import plain_text
from ...models.admission import Job
from ...models.images import colour_card_jpeg, open_image
from ...models.job_runner import Answered
from .chat_client import ChatClient
from .chat_replies import Completion
from .examples import Examples
from .prompts import INSTRUCTIONS, Message, chat, without_pictures
from .tariff import Tariff

log = structlog.get_logger()

MODE = "chat"
_PLACE: Place = "cloud"
# A server loads its model with the first request.
START_TIMEOUT_S = 120.0
# After a failure the node is not to be chosen for a while; then the next task finds out.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_MISSED_DEADLINES = 3
# Of these, the next task may know nothing.
_OF_ONE_TASK = frozenset(("empty", "not-an-answer", "refused"))
_LONGEST_MADE_BY = 4096


@dataclass(frozen=True)
class ServerRunnerSettings:
    """model: as the node announces it. quality: success rate by task kind, where somebody has measured it.

    slots: requests at once. max_tokens: of an answer, in the server's tokens. examples: how many come with a question.
    """

    model: str
    quality: dict[str, float]
    slots: int = 8
    max_tokens: int = 96
    instructions: str = INSTRUCTIONS
    examples: int = 4
    tariff: Tariff = field(default_factory=Tariff)


class ServerRunner:
    """See `JobRunner`. It cannot say single tokens for edges: a server shares no hidden states.

    counters: those of the client, and prompt_tokens, completion_tokens, cost_millionths (of the prices' currency),
    uncounted_answers (of which the server did not tell the tokens) and expired_work_ms (of requests that were broken
    off at their deadlines).
    """

    model_hash = ""
    places: tuple[Place, ...] = (_PLACE,)

    def __init__(
        self, client: ChatClient, settings: ServerRunnerSettings, examples: Examples | None, counters: Counter[str]
    ) -> None:
        self._client = client
        self._settings = settings
        self._examples = examples
        self._shut_until_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._missed = 0
        self._busy_s = self._energy_j = 0.0
        self.counters = counters
        self.model = settings.model
        self.quality: dict[Place, dict[str, float]] = {_PLACE: settings.quality} if settings.quality else {}
        self.slots = settings.slots

    @property
    def slot_power_w(self) -> float:
        """Mean over all answers so far: modelled joules by the seconds that they took."""
        return self._energy_j / self._busy_s if self._busy_s else 0.0

    def can_answer_at(self, place: Place) -> bool:
        return place == _PLACE and time.monotonic() >= self._shut_until_s

    async def check(self) -> None:
        """Ask the server once with a picture and once without. Raises BackendError where it is of no use.

        Some servers leave out what their model cannot take, without a word: the prompt then has no more tokens with the
        picture than without it.
        """
        messages = self._messages(EXPLAIN, EXPLAIN.prompt, colour_card_jpeg(), {}, examples=0)
        seeing = await self._complete_in_time(messages)
        blind = await self._complete_in_time(without_pictures(messages))
        if seeing.prompt_tokens and blind.prompt_tokens and seeing.prompt_tokens <= blind.prompt_tokens:
            raise BackendError(
                "no-images",
                f"the server leaves pictures out: {self.model} had {seeing.prompt_tokens} prompt tokens with one and"
                f" {blind.prompt_tokens} without; serve a model that takes pictures",
            )

    async def try_out(self, kind: TaskKind, place: Place) -> float | None:
        del place  # there is only one
        started_s = time.monotonic()
        await self._complete_in_time(self._messages(kind, kind.prompt, colour_card_jpeg(), {}))
        return (time.monotonic() - started_s) * 1000

    async def answer(self, job: Job, show: Callable[[Answered], None], wait: Callable[[bool], None]) -> Answered | None:
        del show, wait  # a server's first words are not its answer
        task = job.task
        picture = task.frames[-1]
        await asyncio.to_thread(open_image, picture)  # refused here, a broken picture costs no request
        messages = self._messages(KINDS.get(task.kind, EXPLAIN), plain_text(task.prompt), picture, task.telemetry)
        begun_s = time.monotonic()
        try:
            completion = await self._client.complete(
                messages, max_tokens=self._settings.max_tokens, deadline_s=job.deadline_s
            )
        except TimeoutError:
            self.counters["expired_work_ms"] += round((time.monotonic() - begun_s) * 1000)
            self._missed += 1
            if self._missed >= _MISSED_DEADLINES:
                self._shut("silent", f"{self._missed} deadlines in a row have passed without an answer")
            return None
        except BackendError as error:
            if error.reason not in _OF_ONE_TASK:
                self._shut(error.reason, str(error))
            raise
        self._missed, self._pause_s = 0, _FIRST_PAUSE_S
        took_s = time.monotonic() - begun_s
        energy_j = self._account(completion, took_s)
        log.debug(
            "the server answered",
            task_id=task.task_id,
            vehicle=job.vehicle,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cost_millionths=self._settings.tariff.millionths(completion),
        )
        return Answered(
            text=completion.text,
            place=_PLACE,
            mode=MODE,
            made_by=("full",) * min(completion.completion_tokens or 0, _LONGEST_MADE_BY),
            confidence=0.0,  # it does not say
            timing=Timing(queue_ms=(begun_s - job.arrived_s) * 1000, inference_ms=took_s * 1000),
            energy_j=energy_j,
        )

    def _messages(
        self, kind: TaskKind, prompt: str, picture: bytes, telemetry: dict[str, float], *, examples: int | None = None
    ) -> list[Message]:
        count = self._settings.examples if examples is None else examples
        chosen = self._examples.nearest(kind, telemetry, count) if self._examples is not None else []
        return chat(self._settings.instructions, chosen, kind, prompt, picture, telemetry)

    async def _complete_in_time(self, messages: list[Message]) -> Completion:
        """Of the node's own questions before it serves. Raises BackendError, also where no answer comes."""
        begun_s = time.monotonic()
        try:
            completion = await self._client.complete(
                messages, max_tokens=self._settings.max_tokens, deadline_s=begun_s + START_TIMEOUT_S
            )
        except TimeoutError:
            raise BackendError(
                "unreachable", f"the server has not answered within {START_TIMEOUT_S:.0f} s: look at its own log"
            ) from None
        self._account(completion, time.monotonic() - begun_s)
        return completion

    def _account(self, completion: Completion, took_s: float) -> float:
        """Count what an answer took; returns its joules."""
        if completion.completion_tokens is None:
            self.counters["uncounted_answers"] += 1
        self.counters["prompt_tokens"] += completion.prompt_tokens or 0
        self.counters["completion_tokens"] += completion.completion_tokens or 0
        self.counters["cost_millionths"] += self._settings.tariff.millionths(completion)
        energy_j = self._settings.tariff.energy_j(completion)
        self._busy_s += took_s
        self._energy_j += energy_j
        return energy_j

    def _shut(self, reason: str, why: str) -> None:
        """Offer no place for a while, and ever longer while the failures go on."""
        if time.monotonic() >= self._shut_until_s:
            log.warning("the server does not answer", reason=reason, why=why, pause_s=self._pause_s)
            self._shut_until_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
