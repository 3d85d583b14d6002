"""The last minutes as curves: answer times by part, quality of service, energy, places, early exits, tasks.

Means and not percentiles of the times, since only means of the parts add up to the mean of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from ..bus.places import PLACES
from .activity import BIN_S, BINS, Bin
from .elements import box, legend, text
from .wording import BLUE, GREEN, GREY, PART_COLOURS, PART_NAMES, PLACE_COLOURS, PLACE_NAMES, PURPLE, VERMILION

# Readable on white and on black.
_INK = "#8b929b"
_GRID = "rgba(139, 146, 155, 0.22)"


@dataclass(frozen=True, slots=True)
class Curve:
    """value: of one bin; None where it has none."""

    name: str
    colour: str
    value: Callable[[Bin], float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """stacked: the curves add up, and are drawn as bars; otherwise as lines. maximum: of the axis; None: as needed."""

    title: str
    about: str
    curves: Sequence[Curve]
    stacked: bool = False
    maximum: float | None = None


def _mean_part(index: int) -> Callable[[Bin], float | None]:
    return lambda each: each.parts_ms[index] / each.answered if each.answered else None


def _place_share(index: int) -> Callable[[Bin], float | None]:
    return lambda each: 100 * each.placements[index] / each.in_time if each.in_time else None


def _percent(part: Callable[[Bin], int], whole: Callable[[Bin], int]) -> Callable[[Bin], float | None]:
    return lambda each: 100 * part(each) / whole(each) if whole(each) else None


CHARTS = (
    Chart(
        "Time to the answer",
        "mean milliseconds, by what they were spent on",
        [
            Curve(name, colour, _mean_part(index))
            for index, (name, colour) in enumerate(zip(PART_NAMES, PART_COLOURS, strict=True))
        ],
        stacked=True,
    ),
    Chart(
        "Quality of service",
        "per cent of the tasks that ended; right: of the answers that the driving log can judge",
        [
            Curve("answered in time", BLUE, _percent(lambda each: each.in_time, lambda each: each.ended)),
            Curve("right", GREEN, _percent(lambda each: each.right, lambda each: each.judged)),
            Curve(
                "narrator instead (fallback)",
                VERMILION,
                _percent(lambda each: each.fallback, lambda each: each.ended),
            ),
        ],
        maximum=100,
    ),
    Chart(
        "Energy of an answer",
        "mean joules, modelled unless a node measures them",
        [
            Curve(
                "joules per answer",
                PURPLE,
                lambda each: each.energy_j / each.answered if each.answered else None,
            )
        ],
    ),
    Chart(
        "Where the answers were made",
        "per cent of the answers in time",
        [Curve(PLACE_NAMES[place], PLACE_COLOURS[place], _place_share(index)) for index, place in enumerate(PLACES)],
        stacked=True,
        maximum=100,
    ),
    Chart(
        "Words said by early exits",
        "per cent of the words (tokens) of models; the others took the whole model",
        [Curve("early exits", GREEN, _percent(lambda each: each.exit_tokens, lambda each: each.tokens))],
        maximum=100,
    ),
    Chart(
        "Tasks",
        "that ended, per second",
        [Curve("tasks per second", GREY, lambda each: each.ended / BIN_S)],
        stacked=True,
    ),
)


class Charts:
    def __init__(self) -> None:
        with box("section"):
            text("The last three minutes", "heading")
            text(f"Each point stands for {BIN_S:.0f} seconds; the right edge is now.", "about")
            self._empty = text("Waiting for the first answer.", "empty")
            with box("charts") as self._box:
                self._charts = [_Drawn(chart) for chart in CHARTS]

    def draw(self, bins: Sequence[Bin]) -> None:
        """bins: the `BINS` last ones, of which the newest goes on."""
        any_ended = any(each.ended for each in bins)
        self._empty.set_visibility(not any_ended)
        self._box.set_visibility(any_ended)
        if any_ended:
            for chart in self._charts:
                chart.draw(bins)


class _Drawn:
    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        with box("chartbox"):
            text(chart.title, "heading")
            text(chart.about, "faint small")
            if len(chart.curves) > 1:
                legend((curve.name, curve.colour) for curve in chart.curves)
            self._drawing = ui.echart(chart_options(chart)).classes("chart")

    def draw(self, bins: Sequence[Bin]) -> None:
        series = self._drawing.options["series"]
        curves = [curve_data(curve, bins) for curve in self._chart.curves]
        if [each["data"] for each in series] != curves:
            for each, data in zip(series, curves, strict=True):
                each["data"] = data
            self._drawing.update()


def curve_data(curve: Curve, bins: Sequence[Bin]) -> list[float | None]:
    """The curve's value in each bin, as short as it can be sent."""
    values = [curve.value(each) for each in bins]
    return [None if value is None else float(f"{value:.4g}") for value in values]


def chart_options(chart: Chart) -> dict[str, Any]:
    """Options of Apache ECharts, without data."""
    return {
        "animation": False,
        "grid": {"left": 46, "right": 12, "top": 12, "bottom": 24},
        "tooltip": {"trigger": "axis", "confine": True, "textStyle": {"fontSize": 12}},
        "xAxis": {
            "type": "category",
            "data": [_when(BIN_S * (BINS - 1 - index)) for index in range(BINS)],
            "axisLabel": {"color": _INK, "fontSize": 11, "interval": int(60 / BIN_S) - 1},
            "axisLine": {"lineStyle": {"color": _GRID}},
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            **({} if chart.maximum is None else {"max": chart.maximum, "interval": chart.maximum / 4}),
            "axisLabel": {"color": _INK, "fontSize": 11},
            "splitLine": {"lineStyle": {"color": _GRID}},
            "splitNumber": 4,
        },
        "series": [_series(chart, curve) for curve in chart.curves],
    }


def _when(seconds_ago: float) -> str:
    if not seconds_ago:
        return "now"
    return f"-{seconds_ago:.0f} s" if seconds_ago % 60 else f"-{seconds_ago / 60:.0f} min"


def _series(chart: Chart, curve: Curve) -> dict[str, Any]:
    common = {"name": curve.name, "data": [], "color": curve.colour}
    if chart.stacked:
        return {**common, "type": "bar", "stack": "all", "barCategoryGap": "10%"}
    return {**common, "type": "line", "connectNulls": True, "symbolSize": 4, "lineStyle": {"width": 2}}
