"""What the page says and draws, short of a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from roadside.bus.errors import ConfigurationError
from roadside.ui.activity import PARTS, Bin
from roadside.ui.charts import CHARTS, chart_options, curve_data
from roadside.ui.serving import PageOptions, _listening_socket, url_of
from roadside.ui.task_table import task_row
from roadside.ui.task_traces import TaskTrace, TraceEvent
from roadside.ui.wording import age, clock, duration, maker_colour, maker_name, quoted

Build = Callable[..., Any]


def test_a_chart_for_every_bin_there_is_and_none_for_empty_ones(an_outcome: Build) -> None:
    filled = Bin(1)
    filled.add(an_outcome())
    filled.add(an_outcome(task_id="t-2", state="fallback", place="vehicle", latency_ms=500.0, made_by=()))
    drawn = {
        (chart.title, curve.name): curve_data(curve, [Bin(0), filled]) for chart in CHARTS for curve in chart.curves
    }
    assert drawn["Time to the answer", "computing"] == [None, 30.0]
    times = [data[1] for (title, _), data in drawn.items() if title == "Time to the answer"]
    assert len(times) == len(PARTS)
    assert sum(ms or 0.0 for ms in times) == pytest.approx((80.0 + 500.0) / 2)
    assert drawn["Quality of service", "answered in time"] == [None, 50.0]
    assert drawn["Quality of service", "narrator instead (fallback)"] == [None, 50.0]
    assert drawn["Where the answers were made", "roadside edge"] == [None, 100.0]
    assert drawn["Words said by early exits", "early exits"] == [None, 60.0]
    assert drawn["Tasks", "tasks per second"] == [0.0, 0.4]


def test_no_colour_stands_for_two_things_in_one_chart() -> None:
    for chart in CHARTS:
        colours = [series["color"] for series in chart_options(chart)["series"]]
        assert len(set(colours)) == len(colours)


def test_a_task_as_a_row(an_outcome: Build) -> None:
    trace = TaskTrace("vehicle-1", "t-1", 7, 10.0, 10.0, [TraceEvent(10.0, "provisional", "edge-1", "so far\n<b>")])
    row = task_row(trace, 10.5)
    assert (row["ending"], row["answer"], row["who"]) == ("under way", "for now: so far <b>", "edge-1")
    assert task_row(trace, 99.0)["ending"] == "its end was not heard"
    trace.outcome = an_outcome(text="\x1b[31mred\u202e", created_at_s=1e300)
    row = task_row(trace, 10.5)
    assert (row["took"], row["deadline"], row["judged"]) == ("80 ms", "2,000 ms", "action right, reason wrong")
    assert row["answer"] == "[31mred"
    assert row["time"] == "–"


def test_words_for_people() -> None:
    assert [age(seconds) for seconds in (0.2, 7.0, 600.0, 36_000.0)] == ["now", "7 s ago", "10 min ago", "10 h ago"]
    assert duration(100.0) == "2 min"
    assert quoted("  ") == "(no words)"
    assert [maker_name(maker) for maker in ("exit2", "full", "else")] == ["early exit 2", "whole model", "else"]
    assert len({maker_colour(maker) for maker in ("exit1", "exit2", "exit3", "full", "else")}) == 5
    assert clock(float(10**300)) == "–"


def test_where_it_can_be_served() -> None:
    with _listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        assert url_of(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(ConfigurationError, match="give another --port"):
            _listening_socket("127.0.0.1", port)
        # Where nobody asked for a port, there is always one.
        with _listening_socket("127.0.0.1", None) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize(
    ("host", "is_local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("me", False)]
)
def test_who_can_reach_it(host: str, is_local: bool) -> None:
    assert PageOptions(broker="mqtt://127.0.0.1", fleet="demo", host=host).is_local is is_local
