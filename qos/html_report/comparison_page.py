"""Two runs side by side as one HTML page."""

from __future__ import annotations

from pathlib import Path

from ..comparison import Comparison, Difference, ends, signed, written
from ..evidence import Evidence
from ..report import VISIBLE
from .charts import latency_cdf
from .page import write_page
from .sections import Row


def write_comparison(comparison: Comparison, runs: tuple[Evidence, Evidence], path: Path) -> Path:
    """Write the page, and return where it is. Raises as `page.write_report` does."""
    names = [evidence.record.manifest.run_id for evidence in runs]
    latencies = {
        f"{which}: {name}": [o.latency_ms for o in evidence.outcomes if o.state in VISIBLE]
        for which, name, evidence in zip(("first", "second"), names, runs, strict=True)
    }
    deadlines = {outcome.kind: outcome.deadline_ms for evidence in runs for outcome in evidence.outcomes}
    values = {
        "names": names,
        "headline": comparison.headline,
        "unfinished": [name for name, run in zip(names, runs, strict=True) if run.record.goes_on],
        "damage": [f"{name}: {line}" for name, run in zip(names, runs, strict=True) for line in run.damage],
        "rows": [_row(each) for each in comparison.differences],
        "sentences": [(each.sentence, each.verdict) for each in comparison.differences],
        "methods": sorted({each.method for each in comparison.differences if each.difference is not None}),
        "cdf": latency_cdf(latencies, deadlines),
        "same": [name for name, one, two in comparison.circumstances if one == two],
        "different": [Row(name, (one, two)) for name, one, two in comparison.circumstances if one != two],
    }
    return write_page(path, "comparison.html.j2", values)


def _row(each: Difference) -> Row:
    if each.difference is None or each.first is None or each.second is None:
        return Row(each.name, ("–", "–", "–", "–", "too few values"))
    interval = each.difference
    return Row(
        each.name,
        (
            written(each.first, each.unit),
            written(each.second, each.unit),
            signed(interval.value, each.unit),
            ends(interval, each.unit),
            each.method,
        ),
    )
