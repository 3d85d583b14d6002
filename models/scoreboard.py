"""`roadside evaluate`: which data, which voices, and always the baselines beside them.

Importing this needs no torch, and neither does scoring captions that are already there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..bus.errors import ConfigurationError, LogError
from ..datasets.baselines import Baseline, Nearest, constant, human_pairs, narrator, telemetry_rule
from ..datasets.caption_files import Generated, read_generated
from ..datasets.caption_table import PARTS, columns_of, score_row
from ..datasets.captions import Caption
from ..datasets.drivelog import DriveLog
from ..datasets.evaluation_scenes import (
    EvaluationScene,
    log_scenes,
    obscured_scenes,
    rendered_scenes,
    rendered_training_references,
)
from ..datasets.findings import Findings
from ..datasets.meteor import Meteor
from ..datasets.motion_metrics import Motion, forecast, motion_scores
from ..datasets.references import Reference, is_rag_driver, log_references, rag_driver_references
from ..datasets.video import MISSING

Advance = Callable[[int], None]
# Opens a bar of so many steps under a name.
Stage = Callable[[str, int | None], AbstractContextManager[Advance]]

RENDERED = "rendered test split"


@dataclass(frozen=True)
class EvaluationOptions:
    """model: folder or hub id, None for the bundled one. data: a log's folder or RAG-Driver's files, None for the
    rendered test split; captions: files of generated captions for it, instead of a model.

    limit: the first so many scenes or annotations. scenes: of the rendered split, where there is no limit.
    training_moments: that the nearest-neighbour baseline may remember. thetas: exit thresholds to try besides.
    meteor: whether to score by it too.
    """

    model: str | None = None
    data: Path | None = None
    captions: tuple[Path, ...] = ()
    split: str = "test"
    limit: int | None = None
    scenes: int = 1200
    training_moments: int = 2000
    thetas: tuple[float, ...] = ()
    meteor: bool = False
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    def quick(self) -> EvaluationOptions:
        """An eighth of it."""
        return replace(self, limit=self.limit or self.scenes // 8, training_moments=self.training_moments // 8)


@dataclass(frozen=True)
class Scoreboard:
    """report: `roadside evaluate --json`; findings: what of the data could not be used."""

    report: dict[str, Any]
    findings: Findings


class Outside(Protocol):
    """A model that is not in this process. name: of the model and where it is."""

    @property
    def name(self) -> str: ...

    def answers(
        self, scenes: Iterable[EvaluationScene], findings: Findings, advance: Advance
    ) -> list[tuple[EvaluationScene, str]]:
        """What it says to the explain question about each scene; those that it refuses are counted and left out."""
        ...


def _no_bar(name: str, total: int | None) -> AbstractContextManager[Advance]:
    del name, total
    return nullcontext(lambda done: None)


def evaluate(options: EvaluationOptions, stage: Stage = _no_bar, outside: Outside | None = None) -> Scoreboard:
    """Score a model, or captions, with the baselines. outside: instead of a model in this process.

    Raises ConfigurationError for what cannot be scored.
    """
    if outside is not None and (options.thetas or options.captions):
        raise ConfigurationError("a server has no exit thresholds, and captions need no server: leave one of them out")
    with Meteor() if options.meteor else nullcontext() as meteor:
        evaluation = _Evaluation(options, stage, meteor, outside)
        return Scoreboard(evaluation.report(), evaluation.findings)


class _Evaluation:
    """One evaluation, from its options to its report."""

    def __init__(
        self, options: EvaluationOptions, stage: Stage, meteor: Meteor | None, outside: Outside | None
    ) -> None:
        self.findings = Findings()
        self._options = options
        self._stage = stage
        self._meteor = meteor
        self._outside = outside

    def report(self) -> dict[str, Any]:
        options = self._options
        if options.captions:
            return self._of_captions()
        if options.data is None:
            return self._of_rendered_scenes()
        if is_rag_driver(options.data):
            if options.model is not None or options.thetas or self._outside is not None:
                raise LogError(f"{options.data} holds captions and no pictures: a model needs a log with videos")
            return self._of_baselines(rag_driver_references(options.data)[: options.limit])
        return self._of_log(DriveLog.open(options.data))

    def _of_rendered_scenes(self) -> dict[str, Any]:
        options = self._options
        count = options.limit or options.scenes
        # A server is shown single frames, as cloud nodes show them.
        hidden = max(1, count // 4) if self._outside is None else 0
        model, references, rows = self._run_model(
            rendered_scenes(count, processes=options.processes),
            count + hidden,
            obscured_scenes(hidden, processes=options.processes),
        )
        with self._stage("training moments for the nearest-neighbour baseline", None):
            training = rendered_training_references(options.training_moments, processes=options.processes)
        return _report(model, f"{RENDERED}, {count} scenes", rows + self._baseline_rows(references, training))

    def _of_log(self, log: DriveLog) -> dict[str, Any]:
        options = self._options
        with self._stage("reading annotations", None):
            references = log_references(log, options.split, self.findings, options.limit)
            training = self._training_references(log)
        if options.model is None and self._outside is None and not options.thetas and not log.video_paths:
            self.findings.add(MISSING, str(log.folder / "videos"), len(references))
            return self._of_baselines(references, training, log)
        scenes = log_scenes(log, references, self.findings)
        model, references, rows = self._run_model(scenes, len(references))
        rows += self._baseline_rows(references, training) + self._human_rows(log)
        return _report(model, self._data_name(), rows)

    def _of_captions(self) -> dict[str, Any]:
        options = self._options
        if options.data is None:
            raise ConfigurationError("captions are scored against references: give their folder with --data")
        if options.model is not None or options.limit is not None or options.thetas:
            raise ConfigurationError("captions are scored all, and without a model: leave --model, --limit, curve out")
        log = None if is_rag_driver(options.data) else DriveLog.open(options.data)
        with self._stage("reading annotations", None):
            if log is None:
                references, training = rag_driver_references(options.data), []
            else:
                references = log_references(log, options.split, self.findings)
                training = self._training_references(log)
        generated = read_generated(options.captions, references, self.findings)
        report = self._of_baselines(references, training, log)
        return report | {"rows": [self._generated_row(generated, references), *report["rows"]]}

    def _of_baselines(
        self, references: Sequence[Reference], training: Sequence[Reference] = (), log: DriveLog | None = None
    ) -> dict[str, Any]:
        rows = self._baseline_rows(references, training) + self._human_rows(log)
        return _report(None, self._data_name(), rows)

    def _run_model(
        self, scenes: Iterable[EvaluationScene], count: int, obscured: Iterable[EvaluationScene] = ()
    ) -> tuple[str, list[Reference], list[dict[str, Any]]]:
        """(name of the model, the references that it was asked about, its rows)."""
        if self._outside is not None:
            return self._ask_outside(self._outside, scenes, count)
        from .evaluation import evaluate_model

        options = self._options
        with self._stage("asking the model", count) as advance:
            done = evaluate_model(
                options.model,
                scenes,
                self.findings,
                obscured=obscured,
                thetas=options.thetas,
                meteor=self._meteor,
                advance=advance,
            )
        return done.model, done.references, done.rows

    def _ask_outside(
        self, outside: Outside, scenes: Iterable[EvaluationScene], count: int
    ) -> tuple[str, list[Reference], list[dict[str, Any]]]:
        with self._stage("asking the server", count) as advance:
            answers = outside.answers(scenes, self.findings, advance)
        if not answers:
            raise ConfigurationError(f"{outside.name} answered about no scene: {dict(self.findings.counts)}")
        references = [scene.reference for scene, _ in answers]
        said = [Caption.of_answer(text) for _, text in answers]
        row = score_row("server", said, [reference.caption for reference in references], meteor=self._meteor)
        return outside.name, references, [row]

    def _generated_row(self, generated: Generated, references: Sequence[Reference]) -> dict[str, Any]:
        true = [reference.caption for reference in references]
        motion = motion_scores(generated.motions, [reference.next_motion for reference in references])
        row = score_row("captions", generated.captions, true, meteor=self._meteor, **motion)
        # A part that the files do not hold was not tried, and is not wrong.
        untried = {key for part in PARTS if part not in generated.parts for key in columns_of(part)}
        return {key: None if key in untried else value for key, value in row.items()}

    def _training_references(self, log: DriveLog) -> list[Reference]:
        """Of which the log has none, or of which the references are a part: none."""
        if self._options.split not in ("val", "test") or not any(row.split == "train" for row in log.annotations.rows):
            return []
        return log_references(log, "train", Findings(), self._options.training_moments)

    def _baseline_rows(self, references: Sequence[Reference], training: Sequence[Reference]) -> list[dict[str, Any]]:
        baselines: dict[str, Baseline] = {"constant": constant, "narrator": narrator}
        if any(reference.telemetry for reference in references):
            baselines["telemetry-rule"] = telemetry_rule
        if (nearest := Nearest(training)).moments:
            baselines["nearest"] = nearest
        true = [reference.caption for reference in references]
        next_motions = [reference.next_motion for reference in references]
        rows = []
        for name, answer in baselines.items():
            # A constant knows no telemetry: it goes straight on.
            motions = [Motion(None, 0.0) if name == "constant" else forecast(each.known) for each in references]
            said = [answer(reference) for reference in references]
            rows.append(score_row(name, said, true, meteor=self._meteor, **motion_scores(motions, next_motions)))
        return rows

    def _human_rows(self, log: DriveLog | None) -> list[dict[str, Any]]:
        """Over the whole log: in BDD-X only training videos have two annotations."""
        pairs = human_pairs(log.annotations.rows) if log is not None else []
        if not pairs:
            return []
        return [score_row("human", [one for one, _ in pairs], [other for _, other in pairs], meteor=self._meteor)]

    def _data_name(self) -> str:
        data = self._options.data
        assert data is not None
        return str(data) if is_rag_driver(data) else f"{data}, {self._options.split} split"


def _report(model: str | None, data: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": model, "data": data, "n": rows[0]["n"], "rows": rows}
