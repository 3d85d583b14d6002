"""A comparison of two runs for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .comparison import Comparison, ends, signed, written

_STYLES = {"better": "green", "worse": "red", "differs": "bold"}


def comparison_table(comparison: Comparison) -> RenderableType:
    """Figures side by side, a sentence for each, and what differs in the circumstances."""
    names = [summary["run"] for summary in comparison.summaries]
    # Six columns in 80 characters.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for heading in ("figure", "first", "second", "difference", "95% interval", ""):
        table.add_column(heading, justify="left" if heading in ("figure", "") else "right")
    for each in comparison.differences:
        if each.difference is None or each.first is None or each.second is None:
            table.add_row(each.name, "–", "–", "–", "–", "too few values")
            continue
        table.add_row(
            each.name,
            written(each.first, each.unit),
            written(each.second, each.unit),
            _short(signed(each.difference.value, each.unit)),
            _short(ends(each.difference, each.unit)),
            Text(each.verdict or "none shown", style=_STYLES.get(each.verdict, "dim")),
        )
    methods = sorted({each.method for each in comparison.differences if each.difference is not None})
    other = Table(box=None, pad_edge=False, header_style="dim", title="What differed", title_justify="left")
    for heading in ("", "first", "second"):
        other.add_column(heading, overflow="fold")
    for name, one, two in comparison.circumstances:
        if one != two:
            other.add_row(name, Text(one), Text(two))
    parts: list[RenderableType] = [
        Text.assemble(("first   ", "dim"), names[0], "\n", ("second  ", "dim"), names[1]),
        Text(comparison.headline),
        table,
        Text(f"Intervals: {'; '.join(methods)}.", style="dim"),
        other,
    ]
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _short(difference: str) -> str:
    return difference.replace("points", "pts")
