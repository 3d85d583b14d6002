"""Edge and cloud together, in every mode: real decoding traces on a virtual clock, beside the paper's tables.

`roadside bench collab` lets the bundled model answer about held-out scenes once, at every point to which some mode
leads (collab_traces.py), and lays these answers on a clock on which computing takes what it took the paper's machines,
or this one (collab_profiles.py), and a link what it would take (bus/link.py). The modes are those that nodes run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from ..bus.errors import ConfigurationError
from ..bus.kinds import EXPLAIN
from ..datasets.evaluation_scenes import rendered_scenes
from ..qos.run import this_machine
from .collab_auto import POOLS, Planned, planned_line_up
from .collab_calibration import calibrated_thresholds
from .collab_cells import HEADLINE, Cell, CellResults, Taken, cell_names
from .collab_contenders import (
    Contender,
    Thresholds,
    exit_confidences,
    half_asking,
    line_up,
)
from .collab_goals import auto_goals, compute_goal, goal, time_goals
from .collab_model import TracingModel
from .collab_paper import ANSWERS, replay_workload, table_1, table_2
from .collab_plots import plot_collab
from .collab_profiles import FAST_CLOUD, PAPER, Profile
from .collab_real import compare, real_goals, run_real
from .collab_rows import Judge, accuracy_difference, mean, rows
from .collab_statistical import ALPACA, XSUM
from .collab_throughput import measure_throughput
from .collab_timeline import draw_timelines
from .collab_timing import measured_profile, random_profile
from .collab_traces import TracedScene, TraceLibrary

_SCENES = 1_000
_QUICK_SCENES = 150
_CALIBRATION_SCENES = 600
_QUICK_CALIBRATION_SCENES = 200
_QUICK_ANSWERS = 20
_PROCESSES = 2
# As many pictures are encoded to time that.
_TIMED_PROMPTS = 24
_BATCHED_SCENES = 64
_REAL_SCENES = 40

ProfileName = Literal["paper", "fast-cloud", "measured"]

Advance = Callable[[int], None]
# Opens a progress bar of that name for so many steps.
Bar = Callable[[str, int | None], AbstractContextManager[Advance]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollabOptions:
    """link: of the rows, as `--link` takes it; None: 100Mbps,20ms. real: also run processes.

    plot, timeline: folders for pictures. device, layers, hidden_size: of random weights that are timed instead of a
    profile. scenes: how many held-out scenes; calibration_scenes: as many behind them, for theta. paper_answers: of
    each of the paper's workloads. model: a folder;
    None: the bundled one. traces: the file that keeps traces between benches; None: in the user's cache folder.
    """

    profile: ProfileName = "paper"
    link: str | None = None
    real: bool = False
    plot: Path | None = None
    timeline: Path | None = None
    device: str | None = None
    layers: int = 32
    hidden_size: int = 4096
    scenes: int = _SCENES
    calibration_scenes: int = _CALIBRATION_SCENES
    paper_answers: int = ANSWERS
    model: str | None = None
    traces: Path | None = None

    def quick(self) -> CollabOptions:
        return replace(
            self, scenes=_QUICK_SCENES, calibration_scenes=_QUICK_CALIBRATION_SCENES, paper_answers=_QUICK_ANSWERS
        )


def profile_named(name: str) -> ProfileName:
    """Raises ConfigurationError for one that there is not."""
    names: dict[str, ProfileName] = {each: each for each in get_args(ProfileName)}
    if name not in names:
        raise ConfigurationError(f"there is no profile {name!r}; there are {', '.join(names)}")
    return names[name]


def _no_bar(name: str, total: int | None) -> AbstractContextManager[Advance]:
    del name, total
    return nullcontext(lambda done: None)


@dataclass(frozen=True)
class _Played:
    """What the clock said. cells: by link, the one of the rows among them."""

    scenes: Sequence[TracedScene]
    contenders: Sequence[Contender | Planned]
    headline: str
    cells: dict[str, CellResults]


def measure_collab(options: CollabOptions, bar: Bar = _no_bar) -> tuple[dict[str, Any], list[Path]]:
    """(The bench's JSON object, the pictures that were drawn). Raises ModelError, SplitError, ConfigurationError,
    FleetError."""
    cells = _cells(options)
    model = TracingModel(options.model)
    library = TraceLibrary(model, options.traces)
    rendered = _scenes(library, options.scenes + options.calibration_scenes, bar)
    scenes, others = rendered[: options.scenes], rendered[options.scenes :]
    profile = _profile(options, model, scenes)
    played = _play(scenes, others, cells, profile, bar)
    library.save()
    judge = Judge(scenes)
    table = {cell.name: rows(cell, played.cells[cell.name], played.contenders, judge) for cell in cells}
    headline = played.cells[played.headline]
    with bar("the paper's workloads", None):
        workloads = {each.name: replay_workload(each, PAPER, options.paper_answers) for each in (ALPACA, XSUM)}
    goals = _goals(played, profile, workloads[ALPACA.name], judge)
    with bar("several edges at once", None):
        throughput = measure_throughput(model, scenes[:_BATCHED_SCENES])
    goals.append(throughput.as_goal())
    real: dict[str, Any] = {}
    if options.real:
        with bar("answering for real", _REAL_SCENES) as advance:
            run = run_real(scenes[:_REAL_SCENES], advance)
        own = profile if options.profile == "measured" else measured_profile(model, scenes[:_TIMED_PROMPTS])
        real = {"real": compare(run, scenes[:_REAL_SCENES], own)}
        goals += real_goals(run, real["real"])
    accuracy = {row["mode"]: row["task_accuracy"] for row in table[played.headline]}
    result = {
        "bench": "collab",
        "machine": msgspec.to_builtins(this_machine()),
        "settings": _settings(options, profile, model, played.contenders),
        "rows": table.pop(played.headline),
        "ratios": {each["name"]: each["value"] for each in goals},
        # The limits are for the paper's timings.
        "goals": goals if profile is PAPER else [],
        "table_1": table_1(workloads, headline),
        "table_2": table_2(accuracy),
        "throughput": [throughput.as_row()],
        **real,
        "cells": [row for rows_of_cell in table.values() for row in rows_of_cell],
    }
    return result, _draw(options, result, played, profile)


def _profile(options: CollabOptions, model: TracingModel, scenes: Sequence[TracedScene]) -> Profile:
    if options.device is not None:
        return random_profile(device=options.device, layers=options.layers, hidden_size=options.hidden_size)
    if options.profile == "measured":
        return measured_profile(model, scenes[:_TIMED_PROMPTS])
    return PAPER if options.profile == "paper" else FAST_CLOUD


def _draw(options: CollabOptions, result: dict[str, Any], played: _Played, profile: Profile) -> list[Path]:
    pictures: list[Path] = []
    if options.plot is not None:
        pictures += plot_collab(result, exit_confidences(played.scenes, max_tokens=EXPLAIN.max_tokens), options.plot)
    if options.timeline is not None:
        alone = [each for each in played.contenders if isinstance(each, Contender)]
        pictures += draw_timelines(played.scenes, alone, profile, options.timeline)
    return pictures


def _cells(options: CollabOptions) -> list[Cell]:
    """The rows' link, then all others."""
    headline = options.link or HEADLINE
    return [Cell(name) for name in dict.fromkeys((headline, *cell_names()))]


def _scenes(library: TraceLibrary, count: int, bar: Bar) -> list[TracedScene]:
    scenes: list[TracedScene] = []
    with bar("rendering held-out scenes", count) as advance:
        for scene in library.scenes(rendered_scenes(count, processes=_PROCESSES)):
            scenes.append(scene)
            advance(1)
    return scenes


def _play(
    scenes: Sequence[TracedScene], others: Sequence[TracedScene], cells: Sequence[Cell], profile: Profile, bar: Bar
) -> _Played:
    """others: scenes that are not scored, to calibrate on."""
    model = scenes[0].model
    with bar("asking the model", len(scenes) + len(others)) as advance:
        thresholds = Thresholds(
            own=model.thresholds,
            calibrated=calibrated_thresholds(_one_by_one(others, advance)),
            half=half_asking(_one_by_one(scenes, advance), max_tokens=EXPLAIN.max_tokens),
        )
    contenders, planned = line_up(thresholds), planned_line_up(thresholds)
    results: dict[str, CellResults] = {}
    with bar("playing answers", len(scenes) * len(cells)) as advance:
        for cell in cells:
            results[cell.name] = cell.run(scenes, contenders, planned, profile, advance)
    return _Played(scenes, [*contenders, *planned], cells[0].name, results)


def _one_by_one(scenes: Iterable[TracedScene], advance: Advance) -> Iterator[TracedScene]:
    for scene in scenes:
        yield scene
        scene.rest()
        advance(1)


def _goals(
    played: _Played, profile: Profile, paper_workload: dict[str, list[Taken]], judge: Judge
) -> list[dict[str, Any]]:
    results = played.cells[played.headline]
    difference = accuracy_difference(results["ce"], results["cloud"], judge)
    lower_bound = 100 * (difference.value - (difference.half_width or 0.0))
    bytes_share = mean(paper_workload["ce"], "bytes_up") / mean(paper_workload["naive"], "bytes_up")
    return [
        *time_goals(played.cells),
        *auto_goals(played.cells, POOLS),
        compute_goal(results),
        goal("answers of ce with exactly positions x d x 2 bytes up", _exactness(played, profile), "at least", 1.0),
        goal("bytes up of ce / naive (prompt 30, 100 tokens)", bytes_share, "at most", 0.01),
        goal("task accuracy of ce - cloud, lower 95% bound, points", lower_bound, "at least", -1.0),
    ]


def _exactness(played: _Played, profile: Profile) -> float:
    """Share of the answers of `ce` of which every position that was run went up once, in float16: a last token is
    never fed back."""
    taken = played.cells[played.headline]["ce"]
    exact = (
        each.bytes_up == (scene.positions + len(each.tokens) - 1) * profile.hidden_size * 2
        for scene, each in zip(played.scenes, taken, strict=True)
    )
    return sum(exact) / len(taken)


def _settings(
    options: CollabOptions, profile: Profile, model: TracingModel, contenders: Sequence[Contender | Planned]
) -> dict[str, Any]:
    return {
        "profile": asdict(profile),
        "scenes": options.scenes,
        "calibration_scenes": options.calibration_scenes,
        "paper_answers": options.paper_answers,
        "data": "rendered test split, explain",
        "model": model.name,
        "model_hash": model.digest,
        "thresholds": {each.name: each.thresholds for each in contenders if each.theta is not None},
        "time": "virtual, of one edge and one cloud that serve nobody else; drafts for the vehicle are not computed",
        "bytes_up": "without framing, which takes its time on the link",
        "token_identity": "context in float32, but for through-int8",
        "task_accuracy": "action and reason both right, by the classes that are scored in runs",
        "load_average_1m": os.getloadavg()[0],
    }
