"""The report's charts, each from plain figures to an SVG image with a text alternative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..intervals import Interval
from ..report import percentile
from .svg import (
    WIDTH_PX,
    Area,
    Drawing,
    legend_rows,
    linear,
    linear_ticks,
    logarithmic,
    logarithmic_ticks,
    text_width_px,
)

# A style of its own for everything that more than one chart shows; the rest take s0 to s7 in turn.
STYLES = {
    "vehicle": "s0", "edge": "s1", "edge+cloud": "s2", "cloud": "s3", "fallback": "s4", "not answered": "s5",
    "network": "s1", "queue": "s4", "inference": "s3", "context": "s2", "elsewhere": "s0", "waiting": "s0",
    "exit 1": "s1", "exit 2": "s2", "whole model": "s3",
}  # fmt: skip
_STYLE_COUNT = 8
_SINCE = "s since the fleet was first heard"
_MOST_POINTS = 240


def style_of(name: str, position: int) -> str:
    return STYLES.get(name, f"s{position % _STYLE_COUNT}")


def latency_cdf(latencies_ms: Mapping[str, Sequence[float]], deadlines_ms: Mapping[str, float]) -> Markup | None:
    """Share of the answers that were there within a time, a line for each place; the deadlines as vertical lines."""
    present = {name: sorted(values) for name, values in latencies_ms.items() if values}
    if not present:
        return None
    said = [f"{name}: half within {percentile(values, 0.5):.0f} ms" for name, values in present.items()]
    entries = [
        (style_of(name, index), f"{name} ({len(values)})") for index, (name, values) in enumerate(present.items())
    ]
    top = 22 + 18 * legend_rows(entries) + 14 * len(deadlines_ms)
    area = Area(46, top, WIDTH_PX - 12, top + 230)
    drawing = Drawing("How soon the answers were there", "; ".join(said), area.bottom + 42)
    drawing.legend(14, entries)
    low = max(1.0, min(values[0] for values in present.values()) * 0.9)
    high = max(*(values[-1] for values in present.values()), *deadlines_ms.values(), low * 10) * 1.1
    x, y = logarithmic(low, high, area.left, area.right), linear(0, 100, area.bottom, area.top)
    drawing.x_axis(area, x, logarithmic_ticks(low, high), "ms from question to answer (logarithmic)")
    drawing.y_axis(area, y, (0, 25, 50, 75, 100), "", "%")
    for index, (kind, deadline_ms) in enumerate(sorted(deadlines_ms.items(), key=lambda item: item[1])):
        label_y = area.top - 6 - 14 * index
        drawing.line(x(deadline_ms), label_y - 8, x(deadline_ms), area.bottom, "deadline")
        drawing.text(x(deadline_ms) - 4, label_y, f"deadline of {kind}", anchor="end", style="tick")
    for index, (name, values) in enumerate(present.items()):
        drawing.path(
            [(x(ms), y(share)) for ms, share in _steps(values)], f"line {style_of(name, index)} d{index % 4}", name
        )
    return drawing.markup()


def _steps(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """The corners of an empirical distribution, in percent; of many values a few hundred."""
    count = len(ordered)
    stride = max(1, count // _MOST_POINTS)
    chosen = sorted({*range(0, count, stride), count - 1})
    corners, before = [], 0.0
    for index in chosen:
        share = 100 * (index + 1) / count
        corners += [(ordered[index], before), (ordered[index], share)]
        before = share
    return corners


def stacked_bars(title: str, rows: Mapping[str, Mapping[str, float]], unit: str) -> Markup | None:
    """A bar a row, made of named parts."""
    if not rows:
        return None
    parts = list(dict.fromkeys(part for row in rows.values() for part, value in row.items() if value > 0))
    entries = [(style_of(part, index), part) for index, part in enumerate(parts)]
    left = 14 + max(map(text_width_px, rows))
    top = 16 + 18 * legend_rows(entries)
    area = Area(left, top, WIDTH_PX - 70, top + 28 * len(rows))
    said = [
        f"{name}: " + ", ".join(f"{part} {value:.0f} {unit}" for part, value in row.items() if value > 0)
        for name, row in rows.items()
    ]
    drawing = Drawing(title, "; ".join(said), area.bottom + 42)
    drawing.legend(14, entries)
    longest = max(sum(row.values()) for row in rows.values())
    x = linear(0, longest, area.left, area.right)
    drawing.x_axis(area, x, linear_ticks(longest), unit)
    for index, (name, row) in enumerate(rows.items()):
        y, so_far = area.top + 28 * index + 4, 0.0
        drawing.text(area.left - 6, y + 14, name, anchor="end")
        for part, value in row.items():
            if value > 0:
                style = style_of(part, parts.index(part))
                width = x(so_far + value) - x(so_far)
                drawing.rectangle(x(so_far), y, width, 20, style, f"{name}, {part}: {value:.1f} {unit}")
                so_far += value
        drawing.text(x(so_far) + 5, y + 14, f"{so_far:,.0f} {unit}", style="tick")
    return drawing.markup()


def shares_with_intervals(title: str, rows: Sequence[tuple[str, Interval, str]]) -> Markup | None:
    """A dot with its 95% interval a row, on a scale from 0 to 100%. rows: (name, share, style)."""
    if not rows:
        return None
    left = 14 + max(text_width_px(name) for name, _, _ in rows)
    area = Area(left, 8, WIDTH_PX - 130, 8 + 24 * len(rows))
    said = [f"{name}: {_interval(share)}" for name, share, _ in rows]
    drawing = Drawing(title, "; ".join(said), area.bottom + 42)
    x = linear(0, 1, area.left, area.right)
    for percent in range(0, 101, 20):
        at = x(percent / 100)
        drawing.line(at, area.top, at, area.bottom, "grid")
        drawing.text(at, area.bottom + 15, f"{percent}%", anchor="middle", style="tick")
    drawing.text((area.left + area.right) / 2, area.bottom + 32, "of the answers, with 95% intervals", anchor="middle")
    for index, (name, share, style) in enumerate(rows):
        y = area.top + 24 * index + 12
        drawing.text(area.left - 8, y + 4, name, anchor="end")
        drawing.line(x(share.low), y, x(share.high), y, f"line {style}")
        for end in (share.low, share.high):
            drawing.line(x(end), y - 4, x(end), y + 4, f"line {style}")
        drawing.circle(x(share.value), y, 5, style, f"{name}: {_interval(share)}")
        drawing.text(area.right + 10, y + 4, _interval(share), style="tick")
    return drawing.markup()


def _interval(share: Interval) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment of a chart over time."""

    at_s: float
    text: str


def stacked_columns(
    title: str, counts: Mapping[str, Sequence[int]], bin_s: float, marks: Sequence[Mark], y_name: str
) -> Markup | None:
    """Counts over time: a column for each stretch of `bin_s` seconds, made of named parts."""
    present = {name: values for name, values in counts.items() if any(values)}
    if not present:
        return None
    entries = [
        (style_of(name, index), f"{name} ({sum(values)})") for index, (name, values) in enumerate(present.items())
    ]
    bins = len(next(iter(present.values())))
    top = 36 + 18 * legend_rows(entries)
    area = Area(46, top, WIDTH_PX - 12, top + 180)
    said = [f"{name}: {sum(values)} in all" for name, values in present.items()]
    drawing = Drawing(
        title, "; ".join([*said, *(f"at {mark.at_s:.0f} s {mark.text}" for mark in marks)]), area.bottom + 42
    )
    drawing.legend(14, entries)
    tallest = max(sum(values[index] for values in present.values()) for index in range(bins))
    x, y = linear(0, bins * bin_s, area.left, area.right), linear(0, tallest, area.bottom, area.top)
    drawing.y_axis(area, y, [tick for tick in linear_ticks(tallest, 4) if tick == int(tick)], y_name)
    for index in range(bins):
        so_far = 0
        for position, (name, values) in enumerate(present.items()):
            if count := values[index]:
                width = x(bin_s) - x(0)
                tip = f"{index * bin_s:.0f} to {(index + 1) * bin_s:.0f} s: {count} {name}"
                at_y = y(so_far + count)
                drawing.rectangle(
                    x(index * bin_s) + 0.5, at_y, width - 1, y(so_far) - at_y, style_of(name, position), tip
                )
                so_far += count
    drawing.x_axis(area, x, linear_ticks(bins * bin_s, 8), _SINCE)
    for mark in marks:
        drawing.line(x(mark.at_s), area.top, x(mark.at_s), area.bottom, "event")
        drawing.circle(x(mark.at_s), area.top, 4, "event", f"{mark.at_s:.0f} s: {mark.text}")
    return drawing.markup()


def lines_over_time(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], y_name: str, marks: Sequence[Mark] = ()
) -> Markup | None:
    """A line for each name through (seconds, value)."""
    present = {name: points for name, points in series.items() if len(points) > 1}
    if not present:
        return None
    said = [f"{name}: at most {max(value for _, value in points):.0f}" for name, points in present.items()]
    entries = [(f"s{index % _STYLE_COUNT}", name) for index, name in enumerate(present)]
    top = 36 + 18 * legend_rows(entries)
    area = Area(56, top, WIDTH_PX - 12, top + 130)
    drawing = Drawing(title, "; ".join(said), area.bottom + 42)
    drawing.legend(14, entries)
    end_s = max(points[-1][0] for points in present.values())
    highest = max(value for points in present.values() for _, value in points) or 1.0
    x, y = linear(0, end_s, area.left, area.right), linear(0, highest, area.bottom, area.top)
    drawing.x_axis(area, x, linear_ticks(end_s, 8), _SINCE)
    drawing.y_axis(area, y, linear_ticks(highest, 4), y_name)
    for mark in marks:
        drawing.line(x(mark.at_s), area.top, x(mark.at_s), area.bottom, "event")
    for index, (name, points) in enumerate(present.items()):
        style = f"line s{index % _STYLE_COUNT} d{index % 4}"
        drawing.path([(x(at_s), y(value)) for at_s, value in _thinned(points)], style, name)
    return drawing.markup()


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of many points the highest of each stretch, so that no peak is lost."""
    size = -(-len(points) // _MOST_POINTS)
    return [max(points[start : start + size], key=lambda point: point[1]) for start in range(0, len(points), size)]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a task's life, ms since its creation."""

    name: str
    from_ms: float
    until_ms: float


def task_timeline(title: str, spans: Sequence[Span], events: Sequence[tuple[float, str]], deadline_ms: float) -> Markup:
    """One task's life: its stretches as one bar, its events as numbered dots, and its deadline."""
    end_ms = max([deadline_ms, *(span.until_ms for span in spans), *(at_ms for at_ms, _ in events)]) * 1.02
    entries = [(style_of(span.name, index), span.name) for index, span in enumerate(spans)]
    area = Area(8, 30, WIDTH_PX - 8, 72)
    said = [f"{number} {text} at {at_ms:.0f} ms" for number, (at_ms, text) in enumerate(events, start=1)]
    drawing = Drawing(title, "; ".join([*said, f"deadline at {deadline_ms:.0f} ms"]), area.bottom + 42)
    drawing.legend(12, entries)
    x = linear(0, end_ms, area.left, area.right)
    drawing.x_axis(area, x, linear_ticks(end_ms, 8), "ms since the question")
    for index, span in enumerate(spans):
        width = x(span.until_ms) - x(span.from_ms)
        tip = f"{span.name}: {span.until_ms - span.from_ms:.0f} ms"
        drawing.rectangle(x(span.from_ms), area.top + 22, width, 18, style_of(span.name, index), tip)
    drawing.line(x(deadline_ms), area.top - 6, x(deadline_ms), area.bottom, "deadline")
    for number, (at_ms, text) in enumerate(events, start=1):
        drawing.circle(x(at_ms), area.top + 10, 8, "event", text)
        drawing.text(x(at_ms), area.top + 14, str(number), anchor="middle", style="numeral")
    return drawing.markup()
