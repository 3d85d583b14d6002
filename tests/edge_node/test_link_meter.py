"""What an edge makes of timed questions; no clock, no network."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.edge_node.link_meter import LinkMeter, Timed

ROUND_TRIP_MS = 40.0
MS_PER_BYTE = 8e-4  # 10 Mbps


def small(way_ms: float = ROUND_TRIP_MS) -> Timed:
    return Timed(took_ms=way_ms + 30.0, queue_ms=2.0, compute_ms=28.0, sent_bytes=100, sending_ms=0.0)


def large(sent_bytes: int, sending_ms: float = 0.0, **more: bool) -> Timed:
    """A question behind so much context, over the link above, whose sending began so long before."""
    still_sending_ms = max(0.0, sent_bytes * MS_PER_BYTE - sending_ms)
    return Timed(ROUND_TRIP_MS + still_sending_ms + 30.0, 2.0, 28.0, sent_bytes, sending_ms, **more)


def over(
    round_trip_ms: float, uplink_bps: float, sent_bytes: int, sending_ms: float = 0.0, queue_ms: float = 3.0
) -> Timed:
    """What a question measures behind context on an ideal link. sending_ms: between the context and the question."""
    waits_ms = max(0.0, sent_bytes * 8e3 / uplink_bps - sending_ms)
    return Timed(waits_ms + round_trip_ms + queue_ms + 28.0, queue_ms, 28.0, sent_bytes, sending_ms)


def test_nothing_is_known_before_anything_was_asked():
    meter = LinkMeter()
    assert (meter.uplink_bps, meter.compute_ms, meter.sending_ms(10**6)) == (None, None, 0.0)


@given(
    round_trip_ms=st.floats(1.0, 200.0),
    uplink_bps=st.sampled_from([1e6, 10e6, 100e6]),
    sizes=st.lists(st.sampled_from([400, 8192, 60_000, 300_000]), max_size=20),
)
def test_an_ideal_link_is_measured_as_it_is(round_trip_ms: float, uplink_bps: float, sizes: list[int]):
    meter = LinkMeter()
    meter.take(over(round_trip_ms, uplink_bps, 0))
    meter.take(over(round_trip_ms, uplink_bps, 300_000))
    for size in sizes:
        meter.take(over(round_trip_ms, uplink_bps, size))
    assert meter.round_trip_ms == pytest.approx(round_trip_ms, rel=0.01)
    assert meter.uplink_bps == pytest.approx(uplink_bps, rel=0.05)
    assert meter.sending_ms(100_000) == pytest.approx(8e8 / uplink_bps, rel=0.05)
    assert (meter.wait_ms > 0, meter.compute_ms) == (True, pytest.approx(28.0))


@given(st.lists(st.builds(large, st.integers(20_000, 400_000), st.floats(0, 10)), min_size=15, max_size=30))
def test_rate_and_round_trip_are_told_apart(questions: list[Timed]) -> None:
    meter = LinkMeter()
    meter.take(small())
    for question in questions:
        meter.take(question)
        meter.take(small())
    assert meter.round_trip_ms == pytest.approx(ROUND_TRIP_MS, rel=0.02)
    assert meter.uplink_bps == pytest.approx(10e6, rel=0.1)


def test_context_that_was_up_before_the_question_says_how_fast_the_link_is_at_least():
    meter = LinkMeter()
    meter.take(over(20.0, 10e6, 0))
    meter.take(over(20.0, 10e6, 300_000))
    for _ in range(60):
        meter.take(over(20.0, 1e9, 300_000, sending_ms=30.0))
    assert meter.uplink_bps == pytest.approx(80e6, rel=0.01)
    for _ in range(10):
        meter.take(over(20.0, 1e9, 300_000, sending_ms=300.0))
    assert meter.uplink_bps == pytest.approx(80e6, rel=0.01), "no worse for an edge that was slow to ask"


def test_one_pause_of_the_link_does_not_spoil_what_is_known():
    meter = LinkMeter()
    for _ in range(5):
        meter.take(over(20.0, 100e6, 0))
        meter.take(over(20.0, 100e6, 100_000))
    meter.take(over(5_000.0, 100e6, 0))
    assert meter.round_trip_ms < 30.0


def test_the_batch_that_runs_a_prompt_says_nothing_of_later_ones():
    meter = LinkMeter()
    meter.take(replace(over(20.0, 100e6, 0), compute_ms=500.0, ran_more=True))
    assert meter.compute_ms is None


def test_a_link_that_becomes_slow_is_noticed_and_forgotten_again():
    meter = LinkMeter()
    meter.take(over(20.0, 100e6, 0))
    for _ in range(3):
        meter.take(over(20.0, 100e6, 100_000))
    for _ in range(30):
        meter.take(over(20.0, 5e6, 100_000))
    assert meter.uplink_bps == pytest.approx(5e6, rel=0.1)
    for _ in range(60):
        meter.take(over(20.0, 100e6, 100_000))
    assert meter.uplink_bps == pytest.approx(100e6, rel=0.1)
