"""From an accepted task to its answer by a model in this process: computing happens on one inference thread."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from ..bus.errors import MessageRefused
from ..bus.kinds import TaskKind
from ..bus.messages import Timing
from ..bus.places import Place
from .admission import Job
from .circumstances import Circumstances
from .companions import CloudLine, CloudSession
from .decoding import Drafted
from .driving import Worked, drive
from .energy import EnergyMeter, ModelledEnergy
from .images import colour_card_jpeg
from .inference_worker import URGENT, InferenceWorker
from .job_runner import Answered
from .modes.registry import MODES
from .questions import Answerer, Question, own_place
from .showing import Showing

log = structlog.get_logger()


class LocalRunner:
    """See `JobRunner`.

    cloud_line: the way to the clouds, for an answerer that can answer together with one.
    slot_power_w: electric power while it computes, as policies are told. meter: of what it is; None: that power.
    stream_interval_ms: an answer's words are shown at most so often while it is made; None: never.

    counters: realised_elsewhere, and expired_work_ms: computed for answers that were not ready at their deadlines.
    """

    slots = 1

    def __init__(
        self,
        answerer: Answerer,
        worker: InferenceWorker,
        *,
        cloud_line: CloudLine | None,
        slot_power_w: float,
        meter: EnergyMeter | None = None,
        stream_interval_ms: float | None = None,
    ) -> None:
        self._answerer = answerer
        self._worker = worker
        self._cloud_line = cloud_line
        self._own_place: Place = own_place(answerer)
        self._stream_interval_ms = stream_interval_ms
        self.slot_power_w = slot_power_w
        self._meter = meter or ModelledEnergy(slot_power_w)
        self.model = answerer.model
        self.model_hash = answerer.model_hash
        self.quality = answerer.quality
        self.places: tuple[Place, ...] = tuple(answerer.modes)
        self.counters: Counter[str] = Counter()

    def can_answer_at(self, place: Place) -> bool:
        if place not in self._answerer.modes:
            return False
        return place != "edge+cloud" or (self._cloud_line is not None and self._cloud_line.available)

    async def try_out(self, kind: TaskKind, place: Place) -> float | None:
        await self._timed(kind, place)  # the first pass pays for lazy initialisation
        return await self._timed(kind, place)

    async def _timed(self, kind: TaskKind, place: Place) -> float | None:
        started_s = time.monotonic()
        question = Question(prompt=kind.prompt, frames=(colour_card_jpeg(),), max_tokens=kind.max_tokens)
        session = self._open_session(place, started_s + kind.deadline_ms / 1000, question)
        steps = self._answerer.begin(question, place, self._circumstances(session, remaining_ms=None))
        try:
            await drive(steps, self._worker, meter=self._meter, rank=URGENT, cancelled=lambda: False, session=session)
        finally:
            context = session.close() if session is not None else None
        if place == "edge+cloud" and (context is None or context.ended_alone):
            return None
        return (time.monotonic() - started_s) * 1000

    async def answer(self, job: Job, show: Callable[[Answered], None], wait: Callable[[bool], None]) -> Answered | None:
        task = job.task
        question = Question(
            prompt=task.prompt,
            frames=task.frames,
            telemetry=task.telemetry,
            max_tokens=task.max_tokens,
            exit_thresholds=task.exit_thresholds,
        )
        session = self._open_session(task.place, job.deadline_s, question)
        place: Place = "edge+cloud" if session is not None else self._own_place
        if place != task.place:
            self.counters["realised_elsewhere"] += 1

        def past_deadline() -> bool:
            return time.monotonic() >= job.deadline_s

        def show_unfinished(tokens: tuple[int, ...], draft: Drafted | None = None) -> None:
            if not past_deadline():
                show(self._provisional(job, place, mode(), tokens, draft))

        def mode() -> str:
            return showing.mode or self._answerer.modes[place]

        showing = Showing(
            draft=lambda draft: show_unfinished(draft.tokens, draft),
            words=show_unfinished,
            interval_ms=self._stream_interval_ms,
        )
        remaining_ms = (job.deadline_s - time.monotonic()) * 1000
        steps = self._answerer.begin(question, place, self._circumstances(session, remaining_ms=remaining_ms))
        try:
            worked = await drive(
                steps,
                self._worker,
                meter=self._meter,
                rank=job.number,
                cancelled=past_deadline,
                session=session,
                watch=showing.saw,
                wait=wait,
            )
        except MessageRefused:
            raise
        except Exception as error:
            # A model is foreign code, and a task is from anywhere: what the two do to each other costs this task alone.
            log.exception("the model has failed", task_id=task.task_id, vehicle=job.vehicle)
            raise MessageRefused("failed", repr(error)) from error
        finally:
            context = session.close() if session is not None else None
        if past_deadline():
            self.counters["expired_work_ms"] += round(worked.computed_ms)
        if worked.answer is None:
            return None
        cloud_energy_j = session.energy_j if session is not None else 0.0
        return Answered(
            text=worked.answer.text,
            place=place,
            mode=mode(),
            made_by=worked.answer.made_by,
            confidence=worked.answer.confidence,
            timing=_timing(job, worked),
            energy_j=worked.energy_j + cloud_energy_j,
            # The cloud's part of an answer that two made is always modelled.
            energy_method="modelled" if session is not None else self._meter.method,
            context=context,
        )

    def _provisional(
        self, job: Job, place: Place, mode: str, tokens: tuple[int, ...], draft: Drafted | None
    ) -> Answered:
        """A draft: what the edge would say alone. None: the first tokens of an answer that is not complete."""
        computed_ms = (time.monotonic() - job.started_s) * 1000
        return Answered(
            text=self._answerer.words(tokens),
            place=place,
            mode=mode,
            made_by=draft.made_by if draft is not None else (),
            confidence=draft.confidence if draft is not None else 0.0,
            timing=Timing(queue_ms=(job.started_s - job.arrived_s) * 1000, inference_ms=computed_ms),
            energy_j=self.slot_power_w * computed_ms / 1000,
            is_whole=draft is not None,
        )

    def _circumstances(self, session: CloudSession | None, *, remaining_ms: float | None) -> Circumstances:
        link = self._cloud_line.link() if session is not None and self._cloud_line is not None else None
        return Circumstances(link=link, remaining_ms=remaining_ms)

    def _open_session(self, place: Place, deadline_s: float, question: Question) -> CloudSession | None:
        if place != "edge+cloud" or place not in self._answerer.modes or self._cloud_line is None:
            return None
        mode = MODES.get(self._answerer.modes[place])
        return self._cloud_line.open(deadline_s, question, dtype=mode.context_dtype if mode is not None else None)


def _timing(job: Job, worked: Worked) -> Timing:
    """What was neither the node's own computing nor waiting for the cloud was spent behind other answers."""
    whole_ms = (time.monotonic() - job.arrived_s) * 1000
    return Timing(
        queue_ms=max(0.0, whole_ms - worked.computed_ms - worked.waited_ms),
        inference_ms=worked.computed_ms,
        context_ms=worked.waited_ms,
    )
