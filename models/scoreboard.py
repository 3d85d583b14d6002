"""`roadside evaluate`: which data, which voices, and always the baselines beside them.

Importing this needs no torch, and neither does scoring captions that are already there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bus.errors import ConfigurationError, LogError
from ..datasets.baselines import Baseline, Nearest, constant, human_pairs, narrator, telemetry_rule
from ..datasets.caption_files import Generated, read_generated
from ..datasets.caption_table import PARTS, columns_of, score_row
from ..datasets.drivelog import DriveLog
from ..datasets.evaluation_scenes import EvaluationScene, log_scenes, rendered_scenes, rendered_training_references
from ..datasets.findings import Findings
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
    """

    model: str | None = None
    data: Path | None = None
    captions: tuple[Path, ...] = ()
    split: str = "test"
    limit: int | None = None
    scenes: int = 1200
    training_moments: int = 2000
    thetas: tuple[float, ...] = ()
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    def quick(self) -> EvaluationOptions:
        """An eighth of it."""
        return replace(self, limit=self.limit or self.scenes // 8, training_moments=self.training_moments // 8)


@dataclass(frozen=True)
class Scoreboard:
    """report: `roadside evaluate --json`; findings: what of the data could not be used."""

    report: dict[str, Any]
    findings: Findings


def evaluate(
    options: EvaluationOptions, stage: Stage = lambda name, total: nullcontext(lambda done: None)
) -> Scoreboard:
    """Score a model, or captions, with the baselines. Raises ConfigurationError for what cannot be scored."""
    findings = Findings()
    if options.captions:
        report = _evaluate_captions(options, findings, stage)
    elif options.data is None:
        report = _evaluate_rendered(options, findings, stage)
    elif is_rag_driver(options.data):
        if options.model is not None or options.thetas:
            raise LogError(f"{options.data} holds captions and no pictures: a model needs a log with videos")
        report = _baselines_alone(options, rag_driver_references(options.data)[: options.limit])
    else:
        report = _evaluate_log(options, DriveLog.open(options.data), findings, stage)
    return Scoreboard(report, findings)


def _evaluate_rendered(options: EvaluationOptions, findings: Findings, stage: Stage) -> dict[str, Any]:
    count = options.limit or options.scenes
    scenes = rendered_scenes(count, processes=options.processes)
    model, references, rows = _run_model(options, scenes, count, findings, stage)
    with stage("training moments for the nearest-neighbour baseline", None):
        training = rendered_training_references(options.training_moments, processes=options.processes)
    rows += _baseline_rows(references, training)
    return _report(model, f"{RENDERED}, {count} scenes", rows)


def _evaluate_log(options: EvaluationOptions, log: DriveLog, findings: Findings, stage: Stage) -> dict[str, Any]:
    with stage("reading annotations", None):
        references = log_references(log, options.split, findings, options.limit)
        training = _training_references(log, options)
    if options.model is None and not options.thetas and not log.video_paths:
        findings.add(MISSING, str(log.folder / "videos"), len(references))
        return _baselines_alone(options, references, training, log)
    model, references, rows = _run_model(
        options, log_scenes(log, references, findings), len(references), findings, stage
    )
    rows += _baseline_rows(references, training) + _human_rows(log)
    return _report(model, _name_of(options), rows)


def _evaluate_captions(options: EvaluationOptions, findings: Findings, stage: Stage) -> dict[str, Any]:
    if options.data is None:
        raise ConfigurationError("captions are scored against references: give their folder with --data")
    if options.model is not None or options.limit is not None or options.thetas:
        raise ConfigurationError("captions are scored all, and without a model: leave --model, --limit and thetas out")
    log = None if is_rag_driver(options.data) else DriveLog.open(options.data)
    with stage("reading annotations", None):
        if log is None:
            references, training = rag_driver_references(options.data), []
        else:
            references = log_references(log, options.split, findings)
            training = _training_references(log, options)
    generated = read_generated(options.captions, references, findings)
    report = _baselines_alone(options, references, training, log)
    return report | {"rows": [_generated_row(generated, references), *report["rows"]]}


def _generated_row(generated: Generated, references: Sequence[Reference]) -> dict[str, Any]:
    true = [reference.caption for reference in references]
    motion = motion_scores(generated.motions, [reference.next_motion for reference in references])
    row = score_row("captions", generated.captions, true, **motion)
    return row | {key: None for part in PARTS if part not in generated.parts for key in columns_of(part)}


def _run_model(
    options: EvaluationOptions, scenes: Iterable[EvaluationScene], count: int, findings: Findings, stage: Stage
) -> tuple[str, list[Reference], list[dict[str, Any]]]:
    """(name of the model, the references that it was asked about, its rows)."""
    from .evaluation import evaluate_model

    with stage("asking the model", count) as advance:
        done = evaluate_model(options.model, scenes, findings, thetas=options.thetas, advance=advance)
    return done.model, done.references, done.rows


def _baselines_alone(
    options: EvaluationOptions,
    references: Sequence[Reference],
    training: Sequence[Reference] = (),
    log: DriveLog | None = None,
) -> dict[str, Any]:
    return _report(None, _name_of(options), _baseline_rows(references, training) + _human_rows(log))


def _training_references(log: DriveLog, options: EvaluationOptions) -> list[Reference]:
    """Of which the log has none, or of which the references are a part: none."""
    if options.split not in ("val", "test") or not any(row.split == "train" for row in log.annotations.rows):
        return []
    return log_references(log, "train", Findings(), options.training_moments)


def _baseline_rows(references: Sequence[Reference], training: Sequence[Reference]) -> list[dict[str, Any]]:
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
        motions = [Motion(None, 0.0) if answer is constant else forecast(reference.known) for reference in references]
        scores = motion_scores(motions, next_motions)
        rows.append(score_row(name, [answer(reference) for reference in references], true, **scores))
    return rows


def _human_rows(log: DriveLog | None) -> list[dict[str, Any]]:
    """Over the whole log: in BDD-X only training videos have two annotations."""
    pairs = human_pairs(log.annotations.rows) if log is not None else []
    return [score_row("human", *map(list, zip(*pairs, strict=True)))] if pairs else []


def _name_of(options: EvaluationOptions) -> str:
    assert options.data is not None
    return str(options.data) if is_rag_driver(options.data) else f"{options.data}, {options.split} split"


def _report(model: str | None, data: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": model, "data": data, "n": rows[0]["n"], "rows": rows}
