"""What a node learns of how long its answers take."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.kinds import KINDS
from roadside.models.service_times import ServiceTimes, Spread


def learnt(*service_ms: float) -> ServiceTimes:
    times = ServiceTimes()
    for each_ms in service_ms:
        times.observe("edge", "explain", each_ms)
    return times


def test_a_single_answer_leaves_room_for_doubt_and_many_equal_ones_do_not():
    once, often = (learnt(*[100.0] * times).expected("edge", "explain") for times in (1, 60))
    assert once.mean_ms == often.mean_ms == 100.0
    assert once.quantile_ms(1.28) > 120
    assert often.quantile_ms(1.28) == pytest.approx(100.0, abs=0.1)


def test_mean_and_deviation_are_those_of_what_was_seen():
    seen = [80.0, 120.0] * 200
    expected = learnt(*seen).expected("edge", "explain")
    assert expected.mean_ms == pytest.approx(statistics.mean(seen), rel=0.1)
    assert expected.variance_ms2**0.5 == pytest.approx(statistics.pstdev(seen), rel=0.2)


def test_what_was_never_seen_is_taken_for_the_slowest_known():
    times = learnt(100.0)
    times.observe("edge", "describe", 300.0)
    assert times.expected("edge", "hazard").mean_ms == 300.0
    assert times.expected("cloud", "explain").mean_ms == 300.0
    assert ServiceTimes().expected("edge", "explain") == Spread()


def test_one_stopped_process_does_not_spoil_the_estimate_and_a_slow_one_is_soon_believed():
    times = learnt(*[50.0] * 20)
    times.observe("edge", "explain", 60_000.0)
    assert times.expected("edge", "explain").mean_ms < 100
    for _ in range(20):
        times.observe("edge", "explain", 2_000.0)
    assert times.expected("edge", "explain").mean_ms == pytest.approx(2_000.0, rel=0.1)


def test_a_bad_first_minute_is_forgotten_after_few_answers():
    times = learnt(6_000.0)
    for _ in range(6):
        times.observe("edge", "explain", 50.0)
    assert times.expected("edge", "explain").quantile_ms(1.28) < 500


def test_an_answer_that_was_broken_off_counts_only_where_it_took_longer_than_expected():
    times = learnt(*[100.0] * 20)
    times.observe_at_least("edge", "explain", 60.0)
    assert times.expected("edge", "explain").mean_ms == pytest.approx(100.0)
    times.observe_at_least("edge", "explain", 200.0)
    assert times.expected("edge", "explain").mean_ms == pytest.approx(120.0)
    times.observe_at_least("cloud", "explain", 999.0)
    assert "cloud" not in times.by_place, "a place that was never answered at is not announced"


def test_senders_cannot_fill_the_reports_with_kinds_of_their_own():
    times = learnt(100.0)
    for number in range(100):
        times.observe("edge", f"kind-{number}", 10.0)
    assert set(times.means_ms()["edge"]) == {"explain"} <= set(KINDS)


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=50))
def test_estimates_stay_within_what_was_seen(seen):
    expected = learnt(*seen).expected("edge", "explain")
    assert min(seen) - 1e-6 <= expected.mean_ms <= max(seen) + 1e-6
    assert expected.variance_ms2 >= 0
