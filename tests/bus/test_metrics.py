"""What Prometheus reads: names and units by convention, over a real HTTP server, read with the official parser."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.error
import urllib.request
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from roadside.bus.configuration import MemberConfiguration
from roadside.bus.errors import ConfigurationError
from roadside.bus.latencies import LatencyHistogram
from roadside.bus.messages import Load, NodeState
from roadside.bus.metric_families import counter_families, node_families
from roadside.bus.metrics import metrics_served, node_metrics_served, parse_listen_address

LOAD = Load(queued=3, running=1, slots=4, wait_ms=250.0, service_ms={"edge": {"hazard": 40.0, "explain": 60.0}})


def edge_state(**counters: int) -> NodeState:
    return NodeState(
        node="edge-1",
        role="edge",
        alive=True,
        model="tiny",
        model_hash="abc",
        load=LOAD,
        uptime_s=12.5,
        event_loop_lag_ms=4.0,
        memory_bytes=1000,
        counters=counters,
    )


def read(text: str) -> dict[str, float]:
    """Every sample by its name with labels, e.g. `a_total{b="c"}`."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name + labelled(sample.labels): sample.value for sample in samples}


def labelled(labels: dict[str, str]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""


def exposed(*families) -> dict[str, float]:
    class Fixed:
        def collect(self):
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed())
    return read(generate_latest(registry).decode())


async def scraped(url: str) -> dict[str, float]:
    def get() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    return read(await asyncio.to_thread(get))


def test_a_nodes_state_in_base_units():
    samples = exposed(*node_families(edge_state(), fleet="demo", gauges={"context_bytes": 4096}))
    assert samples['roadside_node_info{fleet="demo",model="tiny",model_hash="abc",node="edge-1",role="edge"}'] == 1
    assert samples["roadside_uptime_seconds"] == 12.5
    assert samples["roadside_event_loop_lag_seconds"] == 0.004
    assert samples["roadside_memory_bytes"] == 1000
    assert samples["roadside_wait_seconds"] == 0.25
    assert (samples["roadside_tasks_queued"], samples["roadside_tasks_running"], samples["roadside_slots"]) == (3, 1, 4)
    assert samples['roadside_service_seconds{kind="hazard",place="edge"}'] == 0.04
    assert samples["roadside_context_bytes"] == 4096


def test_counters_of_a_node_keep_their_details_as_labels():
    counters = {"answered": 5, "rejected.full": 2, "rejected.deadline": 1, "refused.schema": 3, "overflow.task": 1}
    samples = exposed(*counter_families(Counter(counters)))
    assert samples["roadside_tasks_answered_total"] == 5
    assert samples['roadside_tasks_rejected_total{reason="full"}'] == 2
    assert samples['roadside_tasks_rejected_total{reason="deadline"}'] == 1
    assert samples['roadside_messages_refused_total{reason="schema"}'] == 3
    assert samples['roadside_messages_overflowed_total{topic="task"}'] == 1


def test_of_a_vehicle_the_terminal_states_are_one_family():
    state = NodeState(
        node="car", role="vehicle", alive=True, counters={"result": 7, "fallback": 1, "rejected": 2, "created": 10}
    )
    samples = exposed(*node_families(state, fleet="demo"))
    assert samples['roadside_tasks_ended_total{state="result"}'] == 7
    assert samples['roadside_tasks_ended_total{state="rejected"}'] == 2
    assert samples["roadside_tasks_created_total"] == 10
    assert not any(name.startswith("roadside_tasks_queued") for name in samples), "a vehicle has no queue"


def test_a_counter_that_the_table_does_not_know_is_exposed_all_the_same():
    samples = exposed(*counter_families({"observe failed": 1, "gremlins.in-the-box": 2}))
    assert samples["roadside_observe_failed_total"] == 1
    assert samples['roadside_gremlins_total{reason="in-the-box"}'] == 2


def test_latencies_become_a_cumulative_histogram():
    latencies = LatencyHistogram()
    for latency_ms in (5.0, 10.0, 640.0, 9000.0):
        latencies.observe(latency_ms, state="result", place="edge")
    latencies.observe(700.0, state="fallback", place="vehicle")
    state = NodeState(node="car", role="vehicle", alive=True)
    samples = exposed(*node_families(state, fleet="demo", latencies=latencies))
    name, labels = "roadside_task_latency_seconds", 'place="edge",state="result"'
    assert samples[f'{name}_bucket{{le="0.01",{labels}}}'] == 2, "a bound belongs to its own bucket"
    assert samples[f'{name}_bucket{{le="0.5",{labels}}}'] == 2
    assert samples[f'{name}_bucket{{le="0.7",{labels}}}'] == 3
    assert samples[f'{name}_bucket{{le="+Inf",{labels}}}'] == samples[f"{name}_count{{{labels}}}"] == 4
    assert samples[f"{name}_sum{{{labels}}}"] == pytest.approx(9.655)
    assert samples[f'{name}_count{{place="vehicle",state="fallback"}}'] == 1


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(9100, "127.0.0.1", 9100), ("0", "127.0.0.1", 0), ("0.0.0.0:9100", "0.0.0.0", 9100), ("[::1]:80", "::1", 80)],
)
def test_where_to_listen(text, host, port):
    assert parse_listen_address(text) == (host, port)


@pytest.mark.parametrize("text", ["", "here", "host:", ":80", "70000", -1, "host:port"])
def test_a_place_where_nobody_can_listen(text):
    with pytest.raises(ConfigurationError, match="write a port"):
        parse_listen_address(text)


async def test_every_scrape_reads_the_state_of_its_moment(capsys):
    counters: Counter[str] = Counter()
    configuration = MemberConfiguration(name="edge-1", fleet="f", metrics=0)
    async with node_metrics_served(configuration, lambda: edge_state(**counters)):
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/metrics", capsys.readouterr().out)
        assert "roadside_tasks_answered_total" not in await scraped(url)
        counters["answered"] += 2
        assert (await scraped(url))["roadside_tasks_answered_total"] == 2
    with pytest.raises(urllib.error.URLError):
        await scraped(url)


async def test_a_port_in_use_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf":{port}.*0 for a free one"):
            async with metrics_served(port, list):
                pass


async def test_without_an_address_nothing_listens():
    async with metrics_served(None, lambda: pytest.fail("nobody asked")):
        pass


def test_work_for_nobody_is_told_in_seconds():
    samples = exposed(*counter_families({"expired_work_ms": 1500, "displaced": 2}))
    assert samples["roadside_expired_work_seconds_total"] == 1.5
    assert samples["roadside_tasks_displaced_total"] == 2
