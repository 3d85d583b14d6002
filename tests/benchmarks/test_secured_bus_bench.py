"""`roadside bench tls --quick`: both ways are there, and the figures belong together."""

from __future__ import annotations

import pytest
from roadside.benchmarks.secured_bus import measure_secured_bus
from roadside.bus.broker import find_mosquitto


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: there is nothing to compare")
def test_both_ways_carry_the_same_messages():
    result = measure_secured_bus(quick=True)
    assert result["bench"] == "tls"
    rows = {(row["name"], row["payload_bytes"]): row for row in result["rows"]}
    assert rows.keys() == {(name, size) for name in ("plain", "mutual-tls") for size in (8_192, 150_000)}
    assert all(row["round_trip_ms_p50"] > 0 and row["messages_per_s"] > 0 for row in rows.values())
    plain, secured = result["connections"]
    assert (plain["name"], secured["name"]) == ("plain", "mutual-tls")
    assert result["ratios"]["connect"] == pytest.approx(secured["connect_ms_p50"] / plain["connect_ms_p50"])
    big, small = rows["mutual-tls", 150_000]["round_trip_ms_p50"], rows["plain", 150_000]["round_trip_ms_p50"]
    assert result["ratios"]["150000_round_trip_ms_p50"] == pytest.approx(big / small)
