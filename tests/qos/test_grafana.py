"""The dashboard asks for nothing that a fleet does not serve: names and labels against what its processes served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from roadside.bus.metric_families import counter_families

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana-dashboard.json"
# Counted only once something goes wrong, by the names that the nodes count them under.
RARE = {"timed_out": 1, "late_answers": 1, "reconnects": 1, "refused.schema": 1, "rejected.full": 1, "tokens": 1}
# What Prometheus itself puts on every sample.
OF_PROMETHEUS = {"instance", "job", "le"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="module")
def served(driven) -> dict[str, set[str]]:
    """Labels by metric name."""
    assert driven.pages.keys() == {"vehicle-1", "edge-1", "cloud-1", "recorder"}

    class Rare:
        def collect(self):
            return counter_families(RARE)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Rare())
    found: dict[str, set[str]] = {}
    for page in (*driven.pages.values(), generate_latest(registry).decode()):
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries(dashboard: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return panels + variables


def test_every_metric_is_served(dashboard, served):
    asked = {name for query in queries(dashboard) for name in re.findall(r"\broadside_\w+", query)}
    assert len(asked) > 15
    assert asked <= served.keys()


def test_every_label_is_one_that_its_metric_has(dashboard, served):
    for query in queries(dashboard):
        for name, selector in re.findall(r"\b(roadside_\w+)\{([^}]*)\}", query):
            labels = set(re.findall(r"(\w+)\s*=~?\"", selector))
            assert labels, query
            assert labels <= served[name], query
        names = re.findall(r"\broadside_\w+", query)
        has = OF_PROMETHEUS | set().union(*(served[name] for name in names))
        for group in re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", query):
            assert {label.strip() for label in group.split(",") if label.strip()} <= has, query


def test_legends_name_labels_that_the_query_leaves(dashboard, served):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            has = set().union(*(served[name] for name in re.findall(r"\broadside_\w+", query)))
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= has
            for kept in re.findall(r"^(?:sum|avg|count) by \(([^)]*)\)", query):
                assert shown <= {label.strip() for label in kept.split(",")}


def test_every_panel_uses_the_one_data_source_that_is_asked_for(dashboard):
    (variable,) = (v for v in dashboard["templating"]["list"] if v["type"] == "datasource")
    assert variable["query"] == "prometheus"
    sources = [found for found in _values(dashboard, "datasource") if isinstance(found, dict)]
    assert len(sources) > 20
    assert all(source == {"type": "prometheus", "uid": f"${{{variable['name']}}}"} for source in sources)
    known = {v["name"] for v in dashboard["templating"]["list"]} | {"__rate_interval", "__all"}
    text = DASHBOARD.read_text()
    assert set(re.findall(r"\$\{?([a-z_]\w*)", text)) <= known
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_panels_do_not_overlap(dashboard):
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def _values(tree: Any, key: str) -> list[Any]:
    if isinstance(tree, list):
        return [found for each in tree for found in _values(each, key)]
    if not isinstance(tree, dict):
        return []
    return [value for name, value in tree.items() if name == key] + [
        found for value in tree.values() for found in _values(value, key)
    ]
