"""The page: figures and charts of one run, put into a template that escapes everything it is given."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..circumstances import circumstances
from ..evidence import Evidence, read_evidence
from ..intervals import share_95
from ..log_of_run import LogOfRun
from ..misses import misses_of
from ..quality import qualities
from ..report import summary_of
from ..run import RunDirectory
from ..tables import sentences, warnings
from ..whole_file import written_whole
from . import sections
from .worst import worst_tasks

_PACKAGE = __name__.rpartition(".")[0]


def write_report(run: RunDirectory, path: Path) -> Path:
    """Write a run's report as one HTML file, and return where it is.

    Reads the run, whose folder stays as it is; it may still go on, or be damaged. Raises RunError where the run cannot
    be read or the file not be written, ModuleNotFoundError without jinja2 (the extra `export`).
    """
    evidence = read_evidence(run)
    return write_page(path, "report.html.j2", page_values(evidence))


def page_values(evidence: Evidence) -> dict[str, Any]:
    """What the template of a report is given."""
    record = evidence.record
    summary = summary_of(record)
    summary["damage"] = list(evidence.damage)
    misses = misses_of(evidence)
    found, missing = qualities(evidence.outcomes, LogOfRun(record.manifest))
    created = summary["tasks"]["created"]
    return {
        "manifest": record.manifest,
        "goes_on": record.goes_on,
        "summary": summary,
        "sentences": sentences(summary),
        "warnings": warnings(summary),
        "in_time": share_95(round(summary["in_time_share"] * created), created),
        "latency": sections.latency_section(evidence),
        "misses": sections.miss_rows(misses),
        "missed": len(misses),
        "quality": sections.quality_section(found, missing),
        "energy": sections.energy_section(evidence.outcomes),
        "placement_rows": [sections.Row(place, (f"{n:,}",)) for place, n in summary["placements"].items()],
        "placements": sections.placement_chart(evidence),
        "decoding": sections.decoding_section(evidence.outcomes, summary["context"]),
        "nodes": sections.nodes_section(evidence),
        "worst": worst_tasks(evidence, misses),
        "circumstances": circumstances(record.manifest, summary),
        "not_recorded": not_recorded(evidence, missing),
    }


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Fill a template of this package and write the file as a whole; raises as `write_report` does."""
    # Imported here: it comes with the extra `export`.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        # Answers, names and a log's words are whatever somebody sent.
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files(_PACKAGE).joinpath("style.css").read_text()
    text = environment.get_template(template).render(**values, style=style)
    with written_whole(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def not_recorded(evidence: Evidence, without_baseline: str) -> list[str]:
    """What a reader might look for in vain, and why it is not there."""
    manifest, kept = evidence.record.manifest, evidence.record.manifest.frames
    lines = list(evidence.damage)
    if evidence.record.goes_on:
        lines.append("The run has not been finished: it still goes on, or was killed. All figures are those so far.")
    if kept is None or kept.keep == "none":
        lines.append("Pictures: none were kept (roadside demo and roadside record keep them with --keep-frames).")
    elif kept.expired or kept.gave_way:
        lines.append(f"Pictures: {kept.expired} of {kept.stored} were deleted for their age, {kept.gave_way} for room.")
    heard = {recorded.vehicle for recorded in evidence.record.outcomes}
    missing = sorted(heard - {entry.vehicle for entry in evidence.record.tasks})
    if missing:
        lines.append(
            f"Journals of {', '.join(missing)} are not in the run: tasks that they created and nobody heard of are"
            " not counted."
        )
    if without_baseline:
        lines.append(f"The narrator's score: {without_baseline}.")
    if not manifest.models:
        lines.append("Models: no node has said which weights it has.")
    lines += [
        "Telemetry of the single moments: it is in the driving log, not in the run.",
        "The way up and the way down apart: only the round trip is measured, as clocks need not agree.",
        "Electric power, unless energy is called measured; use of processors and of the network by others.",
        "Whether a driver heeded an answer.",
    ]
    return lines
