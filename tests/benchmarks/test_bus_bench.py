"""`roadside bench bus --quick`, as a user runs it: every row is there and the figures belong together."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

BENCH = (sys.executable, "-P", "-m", "roadside.cli", "bench", "bus", "--quick")


def test_ours_and_bare_on_the_same_broker():
    done = subprocess.run([*BENCH, "--json"], capture_output=True, text=True, timeout=120, check=True)
    result = json.loads(done.stdout)
    assert done.stderr == ""
    assert result["bench"] == "bus"
    assert result["machine"]["cores"] >= 1
    rows = {(row["name"], row["payload_bytes"], row["qos"]): row for row in result["rows"]}
    cases = ((150_000, 0), (8_192, 1), (8_192, 0))
    assert rows.keys() == {(name, *case) for name in ("roadside", "bare") for case in cases}
    for row in rows.values():
        assert row["broker"] in ("mosquitto", "amqtt")
        # The far end's clock is this end's: a message arrives after it was sent, and before its reply does.
        assert 0 < row["one_way_ms_p50"] < row["round_trip_ms_p50"]
        assert row["messages_per_s"] > 0
    ours, bare = rows["roadside", 150_000, 0], rows["bare", 150_000, 0]
    assert result["ratios"]["frame_one_way"] == pytest.approx(ours["one_way_ms_p50"] / bare["one_way_ms_p50"])
    assert result["ratios"]["frame_throughput"] == pytest.approx(ours["messages_per_s"] / bare["messages_per_s"])
    assert len(result["ratios"]) == 3 * len(cases)


def test_a_person_sees_a_table_and_the_ratios():
    before = set(psutil.Process().children(recursive=True))
    shown = subprocess.run(BENCH, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "roadside bench bus" in shown
    assert "frame_throughput" in shown
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=10)
    assert not left
