"""What the page is built of: boxes, texts and bars, which send to the browser only what has changed.

NiceGUI compares a text, a class or a style with what it was; props it does not, so those are compared where they are
set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui


def box(classes: str = "") -> ui.element:
    return ui.element("div").classes(classes)


def text(content: str, classes: str = "") -> ui.label:
    """A text, never HTML: whatever it says is shown as it stands."""
    return ui.label(content).classes(classes)


class Bar:
    """A horizontal bar; its parts follow one another, and what they leave is empty."""

    def __init__(self, parts: int = 1) -> None:
        with box("track"):
            self._parts = [box("fill") for _ in range(parts)]

    def fill(self, shares: Sequence[tuple[float, str]]) -> None:
        """Share of the whole (more than 1 is drawn as 1) and colour of each part."""
        for index, part in enumerate(self._parts):
            share, colour = shares[index] if index < len(shares) else (0.0, "transparent")
            part.style(f"width: {100 * min(max(share, 0.0), 1.0):.1f}%; background: {colour}")


def legend(entries: Iterable[tuple[str, str]]) -> None:
    """Names with the colours that stand for them."""
    with box("legend"):
        for name, colour in entries:
            with box():
                box("swatch").style(f"background: {colour}")
                text(name)


def set_rows(table: ui.table, rows: list[dict[str, Any]]) -> None:
    """Give a table other rows, if they are others."""
    if table.rows != rows:
        table.rows = rows


def column(name: str, label: str, *, align: str = "left", wraps: bool = False) -> dict[str, Any]:
    """A table's column; one that wraps has text, the others figures and names, cut off where they are long."""
    cells = "words" if wraps else "one-line"
    return {"name": name, "label": label, "field": name, "align": align, "classes": cells}
