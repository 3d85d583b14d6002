"""Drawing into an SVG element tree: scales, axes, marks. Text becomes text nodes, so nothing in it is ever markup.

Colours are classes that style.css gives a light and a dark shade; a chart says what it shows in <title> and <desc>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

Scale = Callable[[float], float]

WIDTH_PX = 760.0
_CHARACTER_PX = 6.4  # of the charts' 12 px type, on average


@dataclass(frozen=True, slots=True)
class Area:
    """Where marks go, in pixels from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


class Drawing:
    """One chart. title: what it shows; description: what a reader who cannot see it should know."""

    def __init__(self, title: str, description: str, height_px: float, width_px: float = WIDTH_PX) -> None:
        self.root = ElementTree.Element(
            "svg", {"viewBox": f"0 0 {_px(width_px)} {_px(height_px)}", "role": "img", "class": "chart"}
        )
        self.width_px, self.height_px = width_px, height_px
        ElementTree.SubElement(self.root, "title").text = _clean(title)
        ElementTree.SubElement(self.root, "desc").text = _clean(description)

    def markup(self) -> Markup:
        return Markup(ElementTree.tostring(self.root, encoding="unicode"))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        ends = {"x1": _px(x1), "y1": _px(y1), "x2": _px(x2), "y2": _px(y2)}
        ElementTree.SubElement(self.root, "line", {**ends, "class": style})

    def rectangle(self, x: float, y: float, width: float, height: float, style: str, tip: str = "") -> None:
        box = {"x": _px(x), "y": _px(y), "width": _px(max(0.0, width)), "height": _px(max(0.0, height))}
        self._tipped(ElementTree.SubElement(self.root, "rect", {**box, "class": style}), tip)

    def circle(self, x: float, y: float, radius: float, style: str, tip: str = "") -> None:
        at = {"cx": _px(x), "cy": _px(y), "r": _px(radius)}
        self._tipped(ElementTree.SubElement(self.root, "circle", {**at, "class": style}), tip)

    def path(self, points: Sequence[tuple[float, float]], style: str, tip: str = "") -> None:
        if len(points) > 1:
            steps = " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
            self._tipped(ElementTree.SubElement(self.root, "polyline", {"points": steps, "class": style}), tip)

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", style: str = "label") -> None:
        at = {"x": _px(x), "y": _px(y), "text-anchor": anchor, "class": style}
        ElementTree.SubElement(self.root, "text", at).text = _clean(text)

    def x_axis(self, area: Area, scale: Scale, ticks: Sequence[float], name: str) -> None:
        for tick in ticks:
            self.line(scale(tick), area.top, scale(tick), area.bottom, "grid")
            self.text(scale(tick), area.bottom + 15, number(tick), anchor="middle", style="tick")
        self.line(area.left, area.bottom, area.right, area.bottom, "axis")
        self.text((area.left + area.right) / 2, area.bottom + 32, name, anchor="middle")

    def y_axis(self, area: Area, scale: Scale, ticks: Sequence[float], name: str, unit: str = "") -> None:
        for tick in ticks:
            self.line(area.left, scale(tick), area.right, scale(tick), "grid")
            self.text(area.left - 6, scale(tick) + 4, f"{number(tick)}{unit}", anchor="end", style="tick")
        self.text(0, area.top - 10, name)

    def legend(self, y: float, entries: Sequence[tuple[str, str]], left: float = 0.0) -> None:
        """entries: (style, name), a swatch each, in one row as far as it goes."""
        x = left
        for style, name in entries:
            width = 24 + _CHARACTER_PX * len(name)
            if x + width > self.width_px and x > left:
                x, y = left, y + 18
            self.rectangle(x, y - 9, 14, 10, style)
            self.text(x + 19, y, name)
            x += width + 10

    @staticmethod
    def _tipped(element: ElementTree.Element, tip: str) -> None:
        if tip:
            ElementTree.SubElement(element, "title").text = _clean(tip)


def legend_rows(entries: Sequence[tuple[str, str]], width_px: float = WIDTH_PX) -> int:
    """How many rows `Drawing.legend` takes."""
    rows, x = 1, 0.0
    for _, name in entries:
        width = 24 + _CHARACTER_PX * len(name)
        if x + width > width_px and x > 0:
            rows, x = rows + 1, 0.0
        x += width + 10
    return rows


def text_width_px(text: str) -> float:
    return _CHARACTER_PX * len(text)


def linear(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """low and high may be the same; then everything lies at the start."""
    span = (high - low) or 1.0
    return lambda value: start_px + (value - low) / span * (end_px - start_px)


def logarithmic(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """low and high above 0; what lies below low is drawn at it."""
    inner = linear(math.log10(low), math.log10(high), start_px, end_px)
    return lambda value: inner(math.log10(max(low, value)))


def linear_ticks(high: float, count: int = 5) -> list[float]:
    """Round numbers from 0 up to about `high`."""
    if high <= 0:
        return [0.0]
    rough = high / count
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [step * index for index in range(int(high / step + 1e-9) + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from low to high; only the powers where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) <= 12 else [tick for tick in inside if math.log10(tick).is_integer()]


def number(value: float) -> str:
    """Short and exact enough for an axis: 0.25, 40, 1,500."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _clean(text: str) -> str:
    """Without the characters that XML has no place for."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
