"""The model of a link: when bytes leave and arrive, with time passed in."""

from __future__ import annotations

import itertools
import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import ConfigurationError
from roadside.bus.link import PACKET_BYTES, CapacityTrace, DelayTrace, Direction, LinkShape


def capacity(*times_ms: int) -> CapacityTrace:
    return CapacityTrace(array("d", (time_ms / 1000 for time_ms in times_ms)))


sends = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20_000)), min_size=1, max_size=40).map(sorted)
shapes = st.builds(
    LinkShape,
    uplink=st.one_of(
        st.none(),
        st.floats(1e4, 1e9),
        st.lists(st.integers(0, 300), min_size=1, max_size=30)
        .map(sorted)
        .filter(lambda times_ms: times_ms[-1] > 0)
        .map(lambda times_ms: capacity(*times_ms)),
    ),
    round_trip=st.one_of(
        st.floats(0, 1000),
        st.lists(st.floats(0, 1000), min_size=2, max_size=10).map(
            lambda delays: DelayTrace(array("d", (0.1 * i for i in range(len(delays)))), array("d", delays))
        ),
    ),
    jitter_ms=st.floats(0, 100),
)


@given(shapes, sends, st.integers(0, 3))
def test_nothing_overtakes_and_nothing_is_early(shape, sends, seed):
    lane = shape.lane("uplink", seed)
    passages = [(now_s, *lane.send(now_s, size)) for now_s, size in sends]
    assert all(now_s <= leaves_s <= arrives_s for now_s, leaves_s, arrives_s in passages)
    for (_, left_s, arrived_s), (_, leaves_s, arrives_s) in itertools.pairwise(passages):
        assert left_s <= leaves_s
        assert arrived_s <= arrives_s
    # A seed draws the same again.
    again = shape.lane("uplink", seed)
    assert passages == [(now_s, *again.send(now_s, size)) for now_s, size in sends]


@given(st.floats(1e4, 1e9), sends)
def test_a_constant_rate_is_neither_exceeded_nor_wasted(bps, sends):
    lane = LinkShape(uplink=bps).lane("uplink", 0)
    free_at_s = 0.0
    for now_s, size in sends:
        leaves_s, _ = lane.send(now_s, size)
        assert leaves_s == pytest.approx(max(now_s, free_at_s) + size * 8 / bps)
        free_at_s = leaves_s


def test_half_of_the_round_trip_each_way_and_a_rate_for_each():
    shape = LinkShape(uplink=8000.0, downlink=16000.0, round_trip=100.0)
    assert shape.lane("uplink", 0).send(1.0, 500) == pytest.approx((1.5, 1.55))
    assert shape.lane("downlink", 0).send(1.0, 500) == pytest.approx((1.25, 1.3))


def test_a_recorded_packet_carries_1500_bytes_of_whatever_waits():
    lane = LinkShape(uplink=capacity(10, 20, 20, 50)).lane("uplink", 0)
    assert lane.send(0.0, 1000)[0] == 0.010
    assert lane.send(0.0, 500)[0] == 0.010, "the rest of the same packet"
    assert lane.send(0.0, 3000)[0] == 0.020, "both of 20 ms"
    assert lane.send(0.0, 1)[0] == 0.050
    # Those of 10 and 20 ms in the repetition pass unused, as nothing waits then.
    assert lane.send(0.080, 1500)[0] == pytest.approx(0.100)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=20).map(sorted).filter(lambda times: times[-1] > 0))
def test_a_trace_begins_again_at_its_end(times_ms):
    lane = LinkShape(uplink=capacity(*times_ms)).lane("uplink", 0)
    departures_s = [lane.send(0.0, PACKET_BYTES)[0] for _ in range(3 * len(times_ms))]
    period_s = times_ms[-1] / 1000
    expected_s = [loop * period_s + time_ms / 1000 for loop in range(3) for time_ms in times_ms]
    assert departures_s == pytest.approx(expected_s)


def test_a_delay_trace_holds_its_newest_value_and_begins_again():
    trace = DelayTrace(array("d", [0.0, 1.0, 2.0]), array("d", [10.0, 30.0, 99.0]))
    assert [trace.round_trip_ms(at_s) for at_s in (0.0, 0.9, 1.0, 1.9, 2.0, 3.5)] == [10, 10, 30, 30, 10, 30]


def test_jitter_is_drawn_from_the_seed_within_its_bound():
    def delays(seed: int, direction: Direction = "uplink") -> list[float]:
        lane = LinkShape(round_trip=20.0, jitter_ms=5.0).lane(direction, seed)
        return [lane.send(now_s, 100)[1] - now_s for now_s in range(50)]

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)
    assert delays(1) != delays(1, "downlink")
    assert all(0.010 <= delay <= 0.015 + 1e-9 for delay in delays(1))
    assert max(delays(1)) - min(delays(1)) > 0.003


def test_a_cleared_lane_is_free_at_once():
    for uplink in (1e4, capacity(*range(0, 60_000, 100))):
        lane = LinkShape(uplink=uplink, round_trip=50.0).lane("uplink", 0)
        busy_until_s, _ = lane.send(0.0, 20_000)
        lane.clear()
        assert lane.send(0.0, 100)[1] < busy_until_s


def test_fast_links_take_larger_pieces():
    sizes = [LinkShape(uplink=bps).lane("uplink", 0).piece_bytes for bps in (1e5, 1e8, 1e9, None)]
    assert sizes == sorted(sizes)
    assert sizes[0] == PACKET_BYTES
    assert 8 * sizes[1] / 1e8 == pytest.approx(0.002)


@pytest.mark.parametrize(
    "wrong",
    [{"uplink": 0.0}, {"downlink": -1.0}, {"uplink": math.nan}, {"round_trip": -1.0}, {"jitter_ms": math.inf}],
)
def test_impossible_links_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        LinkShape(**wrong)


def test_traces_in_which_nothing_happens_are_refused():
    with pytest.raises(ConfigurationError):
        capacity()
    with pytest.raises(ConfigurationError):
        capacity(0, 0)
    with pytest.raises(ConfigurationError):
        DelayTrace(array("d", [0.0]), array("d", [1.0]))
