"""Links as a user writes them, with traces in the two public formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from roadside.bus.errors import ConfigurationError
from roadside.bus.link import CapacityTrace, DelayTrace
from roadside.datasets.link_traces import parse_link, read_trace

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "network"
NOT_THERE = f"no recorded traces in {RECORDED}: only traces that the tests write are read"

CICV5G = """\
pub_time(ms) sub_time(ms) delay(ms) utmX(m) utmY(m) heading(rad) velocity(m/s)
1721035200709 1721035200734 25 328951.95 3463470.57 2.87 10.06
1721035200764 1721035200791 27 328951.47 3463470.70 2.87 10.04
1721035200818 1721035200838 20 328950.88 3463470.84 2.87 10.02
"""


@pytest.fixture
def mahimahi(tmp_path) -> Path:
    path = tmp_path / "car.up"
    path.write_text("5\n5\n12\n40\n")
    return path


@pytest.fixture
def cicv5g(tmp_path) -> Path:
    path = tmp_path / "5g.txt"
    path.write_text(CICV5G)
    return path


@pytest.mark.parametrize(
    ("text", "bps", "round_trip_ms", "jitter_ms"),
    [
        ("100Mbps,20ms", 100e6, 20, 0),
        ("0.8mbps, 1.5s", 0.8e6, 1500, 0),
        ("1Gbps", 1e9, 0, 0),
        ("40ms", None, 40, 0),
        ("64kbps,20ms,5ms", 64e3, 20, 5),
        ("20ms,9600bps", 9600, 20, 0),
    ],
)
def test_a_link_in_words(text, bps, round_trip_ms, jitter_ms):
    shape = parse_link(text)
    assert (shape.uplink, shape.downlink) == (bps, bps)
    assert (shape.round_trip, shape.jitter_ms) == (round_trip_ms, jitter_ms)


def test_mahimahi_sets_the_uplinks_rate(mahimahi):
    shape = parse_link(f"{mahimahi},40ms")
    assert isinstance(shape.uplink, CapacityTrace)
    assert list(shape.uplink.times_s) == [0.005, 0.005, 0.012, 0.040]
    assert shape.downlink is None
    assert shape.round_trip == 40
    assert parse_link(f"10Mbps,{mahimahi}").downlink == 10e6


def test_cicv5g_sets_the_delay(cicv5g, mahimahi):
    for shape in (parse_link(str(cicv5g)), parse_link(f"{mahimahi},{cicv5g}")):
        assert isinstance(shape.round_trip, DelayTrace)
        assert list(shape.round_trip.round_trips_ms) == [25, 27, 20]
        assert list(shape.round_trip.times_s) == pytest.approx([0, 0.055, 0.109])
    assert parse_link(f"10Mbps,{cicv5g}").uplink == 10e6


@pytest.mark.parametrize(
    "text",
    ["", "fast", "10,20", "10Mbps,20ms,", "-1Mbps", "10Mbps,-20ms", "1Mbps,2Mbps", "1ms,2ms,3ms", "no/such/file.up"],
)
def test_what_is_no_link_is_told_how_to_write_one(text):
    with pytest.raises(ConfigurationError, match="100Mbps,20ms"):
        parse_link(text)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="above 0"):
        parse_link("0Mbps,20ms")


def test_a_trace_of_the_delay_leaves_no_room_for_a_time(cicv5g):
    with pytest.raises(ConfigurationError, match="leave one"):
        parse_link(f"{cicv5g},20ms")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "nothing would ever leave"),
        ("0\n0\n", "nothing would ever leave"),
        ("1\n2\nthree\n", "line 3"),
        ("1\n-2\n", "line 2"),
        ("1\n\n3\n", "line 2"),
        ("7\n5\n", "line 2"),
        ("speed delay\n1 2\n", "column names"),
        (CICV5G + "1721035200900 1721035200930\n", "line 5"),
        (CICV5G + "1721035200900 1721035200930 -3 0\n", "line 5"),
        (CICV5G + "1721035200900 1721035200930 nan 0\n", "line 5"),
        (CICV5G + "1721035200000 1721035200930 30 0\n", "line 5"),
        ("\n".join(CICV5G.splitlines()[:2]), "fewer than two"),
        ("1\n2\u00a03\n", "not text"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "trace"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said) as refusal:
        read_trace(path)
    assert str(path) in str(refusal.value)


@pytest.mark.skipif(not RECORDED.is_dir(), reason=NOT_THERE)
def test_recorded_lte_uplinks():
    slow = read_trace(RECORDED / "mahimahi" / "ATT-LTE-driving.up")
    assert isinstance(slow, CapacityTrace)
    assert len(slow.times_s) * 1500 * 8 / slow.duration_s == pytest.approx(0.83e6, rel=0.02)
    fast = read_trace(RECORDED / "mahimahi" / "TMobile-LTE-short.up")
    assert isinstance(fast, CapacityTrace)
    assert fast.duration_s == 140.0


@pytest.mark.skipif(not RECORDED.is_dir(), reason=NOT_THERE)
@pytest.mark.parametrize("name", ["urban_n78_v40_run06.txt", "arterial_n78_v50_run01.txt"])
def test_recorded_5g_round_trips(name):
    trace = read_trace(RECORDED / "cicv5g" / name)
    assert isinstance(trace, DelayTrace)
    assert sorted(trace.round_trips_ms)[len(trace.round_trips_ms) // 2] == pytest.approx(16, abs=1)
    assert trace.duration_s > 60
